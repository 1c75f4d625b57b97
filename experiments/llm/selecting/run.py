"""Choose rows of a pool to train on, and write them where a trainer begins.

The folder appears whole or not at all. Beside the files of `experiments.llm.selecting.files` it
holds ``README.md``, the card, and ``selection.json``: what was asked, and what came of it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from experiments import distribution
from experiments.analysis.recommend import Recommendation
from experiments.engine.cost import named_device
from experiments.errors import ExpectedError
from experiments.llm.difficulty.selection import Selection, selected
from experiments.llm.problems.config import Source
from experiments.llm.selecting.card import card
from experiments.llm.selecting.choice import Price, choose, in_units_of, price
from experiments.llm.selecting.commands import Training
from experiments.llm.selecting.config import SelectConfig
from experiments.llm.selecting.files import write_rows
from experiments.llm.selecting.pool import Pool, read_pool
from experiments.llm.selecting.recommended import recommended
from experiments.llm.selecting.scanned import Scanned
from experiments.llm.training.config import TrainingConfig
from experiments.storage.results import ResultsError
from experiments.storage.writing import write_folder_atomically

RECORD = "selection.json"
STATED: tuple[Selection, ...] = ("exact",)
"""What a stated level selects by default."""


@dataclass(frozen=True)
class Selected:
    """The chosen rows, written.

    Attributes:
      record: what was asked and chosen, as in ``selection.json``.
      commands: command line of each trainer by its name.
      is_new: false if the folder held this selection already.
    """

    record: Mapping[str, Any]
    commands: Mapping[str, str]
    is_new: bool


def select(
    config: SelectConfig, source: Source, out: Path, *, scan_directory: Path | None = None
) -> Selected:
    """Choose rows by a scan's recommendation or a stated level, and write them.

    Args:
      config: what to choose.
      source: the pool; an empty one is the scan's training data.
      out: folder to write; new, empty, or holding the same selection.
      scan_directory: a finished scan; None where the level is stated.

    Raises:
      FileNotFoundError, ImportError, ValueError: if an argument, the pool or the scan cannot be
        used, or the budget buys no row or more than there are.
      ResultsError: if `out` holds something else, or there is no finished scan.
    """
    _check(config, out, scan_directory)
    scan = None if scan_directory is None else Scanned.read(scan_directory)
    if scan is not None and config.loss not in (None, *scan.config.losses):
        raise ValueError(
            f"loss must be one of the scan's, {scan.config.losses}, got {config.loss!r}"
        )
    # Pool, price of each problem, level, rows.
    pool = read_pool(config, source, scan)
    each = price(config, pool, scan)
    found = None
    if config.level is None and scan is not None:
        found = recommended(config, scan, in_units_of(scan, config, pool, each))
    selection, level = _level(config, scan, found)
    chosen = choose(config, pool, each, selection, level)
    # Write, or find it written.
    training = _training(config, pool, scan, found, chosen)
    record = _record(config, pool, each, scan, found, (selection, level), chosen)
    if is_new := not _holds(out, record):
        if out.is_dir():
            out.rmdir()

        def write(folder: Path) -> None:
            write_rows(folder, pool, chosen)
            (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            text = card(record, training.commands("."))
            (folder / "README.md").write_text(text, encoding="utf-8")

        write_folder_atomically(out, write)
    return Selected(record, training.commands(str(out)), is_new)


def push(out: Path, name: str) -> str:
    """Upload a written selection to a data set on the Hugging Face hub, private if it is new.

    Args:
      out: folder of the selection.
      name: ``OWNER/NAME``.

    Returns:
      Its address.

    Raises:
      ExpectedError: if the hub does not take it; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        hub.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        hub.upload_folder(repo_id=name, repo_type="dataset", folder_path=out)
    # The errors depend on the versions of the hub's client and of its network library.
    except Exception as error:
        raise ExpectedError(
            f"push_to_hub: the Hugging Face hub did not take {name!r} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:500]}); the files are whole in {out}: log in with `hf "
            f"auth login` and repeat the command"
        ) from error
    return f"https://huggingface.co/datasets/{name}"


def check_hub_name(name: str) -> None:
    """Raise ValueError unless a name is ``OWNER/NAME``."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise ValueError(f"push_to_hub must be OWNER/NAME, got {name!r}")


def _check(config: SelectConfig, out: Path, scan_directory: Path | None) -> None:
    """Refuse arguments that do not go together, and a folder of something else."""
    if scan_directory is None and config.level is None:
        raise ValueError("level must be stated without a scan (--level), got None")
    names = ("measure", "harder", "missing", "edges")
    if scan_directory is not None and (own := [each for each in names if getattr(config, each)]):
        raise ValueError(
            f"{' and '.join(names)} are the scan's, leave them out; got "
            f"{', '.join(f'{each}={getattr(config, each)}' for each in own)}"
        )
    if config.budget_unit == "gpu-hours":
        named_device(config.device)
    if out.exists() and not out.is_dir():
        raise ResultsError(f"out must be a directory, {out} is a file")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise ResultsError(
            f"{out} is not empty and is no selection (it has no {RECORD}); choose another directory"
        )


def _level(
    config: SelectConfig, scan: Scanned | None, found: Recommendation | None
) -> tuple[Selection, int]:
    """Selection and level: those that were recommended, or stated."""
    known = STATED if scan is None else scan.config.selections
    first, *others = known
    if found is not None:
        return known[known.index(found.study.train_mixture)], found.difficulty
    assert config.level is not None  # `_check` refuses a choice without either
    if config.selection is None and others:
        raise ValueError(f"selection must be one of the scan's, {known}, got None")
    return config.selection or first, config.level


def _training(
    config: SelectConfig,
    pool: Pool,
    scan: Scanned | None,
    found: Recommendation | None,
    chosen: Int[np.ndarray, " chosen"],
) -> Training:
    """What is known of the training to come."""
    prompts = (pool.problems.prompts[row] for row in pool.rows[chosen])
    return Training(
        model=config.model or (None if scan is None else scan.base),
        config=None if scan is None else _of_study(scan, found, config),
        max_length=pool.max_length,
        order=config.order,
        has_turns=any(turn["role"] == "assistant" for prompt in prompts for turn in prompt),
        columns=pool.source.columns,
    )


def _of_study(
    scan: Scanned, found: Recommendation | None, config: SelectConfig
) -> TrainingConfig | None:
    """The scan's training with loss and rate of one study; None if they are not known."""
    losses = scan.config.losses
    loss = (found.study.loss if found is not None else None) or config.loss
    place = 0 if len(losses) == 1 else None if loss is None else losses.index(loss)
    if place is None:
        return None
    rate = scan.config.learning_rates[place]
    training = dataclasses.replace(scan.config.training, loss=losses[place], learning_rate=rate)
    if config.epochs is None:
        return training
    return dataclasses.replace(training, compute=config.epochs, compute_unit="epochs")


def _record(
    config: SelectConfig,
    pool: Pool,
    each: Price,
    scan: Scanned | None,
    found: Recommendation | None,
    taken: tuple[Selection, int],
    chosen: Int[np.ndarray, " chosen"],
) -> dict[str, Any]:
    """What was asked, and what came of it, as JSON."""
    levels, counts = np.unique(pool.levels[chosen], return_counts=True)
    held = selected(*taken, pool.stated)
    words = {} if pool.buckets is None else dict(enumerate(pool.buckets.describe(), start=1))
    record = {
        "asked": {
            **dataclasses.asdict(config),
            "measures": None if config.measures is None else str(config.measures),
            "source": dataclasses.asdict(pool.source),
            "scan": None if scan is None else str(scan.directory),
            "digest": pool.problems.digest(),
        },
        "version": distribution.version(),
        "pool": {
            "name": pool.problems.name,
            "digest": pool.problems.digest(),
            "problems": len(pool.problems),
            "left_out": len(pool.problems) - len(pool.rows),
        },
        "selection": taken[0],
        "level": taken[1],
        "measure": pool.measure,
        "edges": None if pool.buckets is None else pool.buckets.edges,
        "words": words,
        "recommendation": None if found is None else _told(found),
        "rows": len(chosen),
        "levels": dict(zip(levels.tolist(), counts.tolist(), strict=True)),
        "tokens": None if pool.lengths is None else int(pool.lengths[chosen].sum()),
        "model": pool.model,
        "amount": float(each.each[chosen].sum()),
        "assumption": each.assumption,
        "is_all": len(chosen) == int(np.isin(pool.levels, held).sum()),
    }
    return json.loads(json.dumps(record))


def _told(found: Recommendation) -> dict[str, Any]:
    """A recommendation as JSON."""
    names = ("data_size", "difficulty", "low", "high", "abstains", "verdict")
    study = dataclasses.asdict(found.study)
    return {"study": study, **{name: getattr(found, name) for name in names}}


def _holds(out: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a folder holds a selection, which must be this one."""
    if not (out / RECORD).is_file():
        return False
    try:
        there = json.loads((out / RECORD).read_text(encoding="utf-8"))["asked"]
    except (ValueError, LookupError, TypeError) as error:
        raise ResultsError(
            f"{out / RECORD} is not the record of a selection ({error!r})"
        ) from error
    asked = record["asked"]
    differing = [name for name in asked if there.get(name) != asked[name]]
    if differing:
        told = "; ".join(
            f"{name} (there {there.get(name)}, here {asked[name]})" for name in differing
        )
        raise ResultsError(
            f"{out} holds another selection; it differs in {told}. Choose another directory"
        )
    return True
