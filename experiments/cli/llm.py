"""The commands ``sweetspot llm …``: the study on real checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import tyro
from pyarrow import parquet
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import figures
from experiments.certify.checkpoints import certify_checkpoint
from experiments.certify.config import CheckpointConfig
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import kept_of
from experiments.llm.answering.evaluate import evaluate
from experiments.llm.answering.kept import Kept
from experiments.llm.answering.model import Model
from experiments.llm.difficulty import agreement, buckets
from experiments.llm.difficulty import measures as difficulty
from experiments.llm.difficulty.buckets import Buckets, Measure
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.problems.data import Problems
from experiments.llm.recipes import RECIPES
from experiments.llm.scan.grid import ScanConfig
from experiments.llm.scan.study import run_scan
from experiments.llm.text.config import OnLong
from experiments.llm.text.encoding import Encoded, encode_within
from experiments.llm.text.loader import nested
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.llm.training.config import Processes, TrainingConfig
from experiments.llm.training.distributed import is_first
from experiments.llm.training.finetune import finetune
from experiments.llm.training.log import Tracker
from experiments.storage import checkpoint
from experiments.storage.config import Devices
from experiments.storage.results import read_manifest, read_tables, write_atomically, write_json
from synth.config import Dtype

console = Console()
Positional = tyro.conf.Positional
GRADER, DECODING, TRAINING = GraderConfig(), DecodingConfig(), TrainingConfig()
OF_MEMBERS = {"loss": "losses", "learning_rate": "learning_rates", "seed": "seeds"}
"""Fields of a training that each member of a scan has of its own, and where they are stated."""
ONE_DEVICE, ONE_PROCESS, CERTIFICATES = Devices(), Processes(), CheckpointConfig()


def prepare(
    model: str,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Path,
    max_length: int = 2048,
    on_long: OnLong = "error",
) -> None:
    """Check a data set against a checkpoint's tokenizer, say what is in it, and write it anew.

    Writes OUT/problems.parquet, which the other commands read, and OUT/report.json.

    Args:
      model: folder or hub id of the checkpoint.
      data: the problems.
      out: directory of the result.
      max_length: tokens of an example at most.
      on_long: what becomes of longer ones: an error, or drop, or truncate (when trained on).
    """
    problems = data.read()
    encoded = _encoded(problems, model, max_length, on_long)
    kept = problems.take(encoded.rows)
    columns = {
        "cot_tokens": encoded.solution_lengths.tolist(),
        "prompt_tokens": encoded.prompt_lengths.tolist(),
    }
    write_problems(kept, out / "problems.parquet", columns)
    report = {
        "model": model,
        "data": dataclasses.asdict(data),
        **dataclasses.asdict(encoded.report),
        "difficulties": {str(level): count for level, count in _levels(kept).items()},
        "tokens": int(encoded.lengths.sum()),
        "solution_tokens": _spread(encoded.solution_lengths),
        "prompt_tokens": _spread(encoded.prompt_lengths),
    }
    write_json(out / "report.json", report)
    shown = Table("tokens", "least", "median", "mean", "most", box=box.SIMPLE)
    for name in ("prompt_tokens", "solution_tokens"):
        shown.add_row(name.split("_")[0], *(f"{value:g}" for value in report[name].values()))
    console.print(shown)
    if counts := report["difficulties"]:
        told = ", ".join(f"{level}: {count}" for level, count in counts.items())
        console.print(f"Problems of difficulty {told}", highlight=False)
    console.print(f"Problems: {out / 'problems.parquet'}")


def _levels(problems: Problems) -> dict[int, int]:
    """How many problems state each difficulty."""
    return dict(sorted(Counter(op for op in problems.ops if op is not None).items()))


def _spread(values: np.ndarray) -> dict[str, float]:
    return {
        "least": float(values.min()),
        "median": float(np.median(values)),
        "mean": round(float(values.mean()), 1),
        "most": float(values.max()),
    }


def write_problems(problems: Problems, path: Path, columns: dict[str, list[Any]]) -> None:
    """Write problems, with more columns, as Parquet that `problems.data.read` reads."""
    chats = [
        [*prompt, {"role": "assistant", "content": solution}]
        for prompt, solution in zip(problems.prompts, problems.solutions, strict=True)
    ]
    table = {"messages": chats, "answer": list(problems.answers)}
    if any(op is not None for op in problems.ops):
        table["difficulty"] = list(problems.ops)
    written = pa.table(table | columns)
    write_atomically(path, lambda temporary: parquet.write_table(written, temporary))


def measure_difficulty(
    model: str,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Path,
    measures: tuple[Measure, ...] = ("cot_tokens", "pass_rate", "perplexity"),
    bucket_by: Measure | None = None,
    number: int = 3,
    edges: tuple[float, ...] = (),
    drop_easiest: float = 0.0,
    drop_hardest: float = 0.0,
    grader: GraderConfig = GRADER,
    decoding: DecodingConfig = difficulty.SAMPLED,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
    dtype: Dtype = "bfloat16",
) -> None:
    """Measure how difficult problems are for a checkpoint, and cut them into buckets.

    Writes OUT/measures.parquet, OUT/correlations.parquet and their figure; with `bucket_by` also
    OUT/problems.parquet, whose difficulty is the bucket, 1 the easiest. Responses are kept in
    OUT/decoded-*.jsonl as they end, for a run that carries on or cuts other buckets.

    Args:
      model: folder or hub id of the base.
      data: the problems.
      out: directory of the result.
      measures: what is measured; the last two ask the model.
      bucket_by: the measure that is cut into buckets.
      number: of buckets of equal size; unused with `edges`.
      edges: inner edges of the buckets.
      drop_easiest, drop_hardest: shares of the problems, by `bucket_by`, to leave out.
      grader: how the responses behind a pass rate are graded.
      decoding: how they are made.
      devices: of the mesh.
      dtype: type of the parameters in memory.
    """
    if bucket_by is not None and bucket_by not in (*measures, "op"):
        raise ValueError(f"bucket_by must be one of measures {measures}, got {bucket_by!r}")
    if bucket_by is None and (edges or drop_easiest or drop_hardest):
        raise ValueError("bucket_by must be given with edges, drop_easiest or drop_hardest")
    problems = data.read()
    dropped = (drop_easiest, drop_hardest)
    if bucket_by is not None:
        # Nothing is asked yet: as if no two problems were equally hard.
        values = pd.Series(problems.ops if bucket_by == "op" else range(1, len(problems) + 1))
        _cut(bucket_by, values, number, edges, dropped)
    needs_model = set(measures) & set(difficulty.OF_MODEL)
    asked = (
        Model.load(model, mesh=devices.mesh(), dtype=dtype)
        if needs_model
        else load_tokenizer(model)
    )
    with contextlib.ExitStack() as stack:
        kept = None
        if isinstance(asked, Model) and "pass_rate" in measures:
            kept = stack.enter_context(_kept(out, asked, decoding))
        table = difficulty.measure(
            asked,
            problems,
            measures=measures,
            grader=grader,
            decoding=decoding,
            kept=kept,
            console=console,
        )
    _write(table, out / "measures.parquet")
    if bucket_by is not None:
        _write_buckets(problems, table, bucket_by, number, edges, dropped, out)
    compared = agreement.present(table)
    if len(compared) > 1:
        correlations = agreement.rank_correlations(table)
        _write(correlations, out / "correlations.parquet")
        _print(correlations)
        if "pass_rate" in compared:
            for path in figures.draw({"measures": table}, out / "figures"):
                console.print(str(path))
    console.print(f"Table: {out / 'measures.parquet'}")


def _cut(
    measure: Measure,
    values: Any,
    number: int,
    edges: Sequence[float],
    dropped: tuple[float, float],
) -> tuple[np.ndarray, Buckets | None]:
    """Which problems are in a window, and the buckets of these; None where levels are stated."""
    easiest, hardest = dropped
    kept = buckets.window(measure, values, drop_easiest=easiest, drop_hardest=hardest)
    if measure == "op":
        return kept, None
    return kept, Buckets.cut(measure, values[kept], number, edges)


def _write_buckets(
    problems: Problems,
    table: pd.DataFrame,
    measure: Measure,
    number: int,
    edges: Sequence[float],
    dropped: tuple[float, float],
    out: Path,
) -> None:
    """Write the problems of a window with their bucket as difficulty."""
    kept, cut = _cut(measure, table[measure], number, edges, dropped)
    table = table.loc[kept]
    found = buckets.levels(table, cut)
    words = cut.describe() if cut else []
    rows = np.flatnonzero(kept)
    chosen = dataclasses.replace(problems.take(rows), ops=found.tolist())
    write_problems(
        chosen,
        out / "problems.parquet",
        {measure: table[measure].tolist()} if measure != "op" else {},
    )
    shown = Table("difficulty", measure, "problems", box=box.SIMPLE)
    for level, count in zip(*np.unique(found, return_counts=True), strict=True):
        shown.add_row(str(level), words[level - 1] if words else str(level), str(count))
    console.print(shown)
    console.print(f"Problems: {out / 'problems.parquet'}")


def finetune_checkpoint(
    model: str,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Path,
    difficulty: int | None = None,
    data_size: int | None = None,
    max_length: int = 2048,
    on_long: OnLong = "error",
    config: Annotated[
        TrainingConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
    ] = TRAINING,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
    processes: Annotated[Processes, tyro.conf.arg(name="")] = ONE_PROCESS,
    tracker: Tracker = "none",
) -> None:
    """Fine-tune a checkpoint, or carry on with an interrupted fine-tuning.

    Writes OUT/model, a Hugging Face folder, and OUT/log.jsonl.

    Args:
      model: folder or hub id of the base.
      data: the problems.
      out: directory of the run.
      difficulty: train on this stated difficulty alone; default all.
      data_size: examples to train on, the first in a shuffled order; default all.
      max_length: tokens of an example at most.
      on_long: what becomes of longer ones.
      config: how to train.
      devices: of the mesh.
      processes: where several train together.
      tracker: where the numbers go beside OUT/log.jsonl.
    """
    processes.join()
    problems = data.read()
    rows = np.arange(len(problems))
    if difficulty is not None:
        rows = np.array([row for row, op in enumerate(problems.ops) if op == difficulty], int)
        if not len(rows):
            stated = sorted({op for op in problems.ops if op is not None})
            raise ValueError(f"difficulty must be one of those stated, {stated}, got {difficulty}")
    encoded = _encoded(problems.take(rows), model, max_length, on_long)
    if data_size is not None:
        kept, stream = np.arange(len(encoded)), f"exact {difficulty}"
        encoded = encoded.take(nested(kept, data_size, seed=config.seed, stream=stream))
    about = {
        "source": dataclasses.asdict(data),
        "difficulty": difficulty,
        "rows": rows[encoded.rows].tolist(),
    }
    path = finetune(model, encoded, config, out, mesh=devices.mesh(), tracker=tracker, about=about)
    if is_first():
        console.print(f"Checkpoint: {path}")


def evaluate_checkpoint(
    model: str,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Path,
    grader: GraderConfig = GRADER,
    decoding: DecodingConfig = DECODING,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
    dtype: Dtype = "bfloat16",
) -> None:
    """Ask a checkpoint problems, and say how often it is right, by stated difficulty.

    Writes OUT/slices.parquet, OUT/responses.parquet and, to say how they came about,
    OUT/evaluation.json. Responses are kept in OUT/decoded-*.jsonl as they end: a run that was
    interrupted carries on from there, and another grader needs no new ones.

    Args:
      model: folder or hub id.
      data: the problems.
      out: directory of the result.
      grader: how responses are graded.
      decoding: how they are made.
      devices: of the mesh.
      dtype: type of the parameters in memory.
    """
    problems = data.read()
    unstated = sum(op is None for op in problems.ops)
    if 0 < unstated < len(problems):
        console.print(
            f"{unstated} of {len(problems)} problems state no difficulty: one slice of all."
        )
    asked = Model.load(model, mesh=devices.mesh(), dtype=dtype)
    with _kept(out, asked, decoding) as kept, console.status(f"Asking {len(problems)} problems …"):
        found = evaluate(
            asked,
            problems,
            decoding=decoding,
            grader=grader,
            kept=kept,
            slices=None if unstated else [op or 0 for op in problems.ops],
        )
    _write(found.table, out / "slices.parquet")
    _write(found.responses, out / "responses.parquet")
    about = {
        "model": model,
        "data": dataclasses.asdict(data),
        "grader": dataclasses.asdict(grader),
        "decoding": dataclasses.asdict(decoding),
        "dtype": dtype,
    }
    write_json(out / "evaluation.json", about)
    _print(found.table)
    console.print("pass_at_1 with 90% intervals of its value on the problems' distribution.")
    console.print(f"Tables: {out / 'slices.parquet'}, {out / 'responses.parquet'}")


def certify_problems(
    model: str,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Path,
    trained_by: Path | None = None,
    max_length: int = 2048,
    config: Annotated[CheckpointConfig, tyro.conf.arg(name="")] = CERTIFICATES,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
) -> None:
    """Certify a checkpoint, and posteriors over blocks of its weights, on problems it never saw.

    Writes OUT/certificates.parquet and OUT/complexity.parquet, and draws their figures. Each stated
    difficulty is a cell of its own.

    Args:
      model: folder or hub id.
      data: the problems.
      out: directory of the run.
      trained_by: directory of the ``sweetspot llm finetune`` that made the checkpoint from these
        problems; what it trained on is left out. Default: the folder that the checkpoint is in,
        where that is one.
      max_length: tokens of an example at most; longer ones are left out.
      config: what to certify.
      devices: of the mesh.
    """
    problems = data.read()
    rows_trained_on = _rows_trained_on(data, Path(model).parent, trained_by)
    rows = np.setdiff1d(np.arange(len(problems)), rows_trained_on)
    if not len(rows):
        by = trained_by or Path(model).parent
        raise ValueError(f"source must hold problems beside those that {by} trained on")
    encoded = _encoded(problems.take(rows), model, max_length, "drop")
    encoded = dataclasses.replace(encoded, rows=rows[encoded.rows])
    levels = np.array([problems.ops[row] or 0 for row in encoded.rows])
    samples = {
        int(level): encoded.take(np.flatnonzero(levels == level)) for level in np.unique(levels)
    }
    certificates = certify_checkpoint(
        model,
        samples,
        out,
        config,
        rows_trained_on=rows_trained_on,
        task=problems.name,
        mesh=devices.mesh(),
    )
    _print(certificates.loc[:, ["difficulty", "data_size", "method", "risk_bound", "gibbs_risk"]])
    for path in figures.draw(read_tables(out), out / "figures"):
        console.print(str(path))
    console.print(f"Table: {out / 'certificates.parquet'}")


def _kept(out: Path, asked: Model, decoding: DecodingConfig) -> Kept:
    """Where responses are kept as they end, and what is there already."""
    kept = kept_of(out, asked, decoding)
    if kept.num_found:
        console.print(f"{kept.num_found} responses are there already: {kept.path}")
    return kept


def _rows_trained_on(data: Source, beside: Path, trained_by: Path | None) -> list[int]:
    """Rows of the problems that a fine-tuning saw: the one named, or the one of the checkpoint."""
    run = trained_by or beside
    if trained_by is None and not (run / "manifest.json").is_file():
        return []
    manifest = read_manifest(run)
    if manifest.get("source") != json.loads(json.dumps(dataclasses.asdict(data))):
        if trained_by is None:
            return []
        raise ValueError(
            f"trained_by must be a fine-tuning on the same problems, {data}, got one on "
            f"{manifest.get('source')}"
        )
    console.print(f"{len(manifest['rows'])} problems that it was trained on are left out.")
    return manifest["rows"]


def _encoded(problems: Problems, model: str, max_length: int, on_long: OnLong) -> Encoded:
    """Problems for a checkpoint, see `encode_within`."""
    return encode_within(
        problems,
        load_tokenizer(model),
        context=checkpoint.read_config(model).max_positions,
        max_length=max_length,
        on_long=on_long,
        console=console,
    )


def _write(table: pd.DataFrame, path: Path) -> None:
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))


def _print(table: pd.DataFrame) -> None:
    """A small frame as a table in the terminal."""
    shown = Table(*map(str, table.columns), box=box.SIMPLE)
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    console.print(shown)


def scan_command(
    defaults: ScanConfig, headline: Callable[[pd.DataFrame], None]
) -> Callable[..., None]:
    """The command ``llm scan``, whose flags change `defaults`; `headline` shows the result."""

    def scan(
        recipe: Positional[str],
        preset: str = "",
        out: Path | None = None,
        config: Annotated[
            ScanConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
        ] = defaults,
    ) -> None:
        """Run a scan over difficulty and data size, or carry on with an interrupted one.

        Args:
          recipe: a name that `sweetspot list` shows, or "custom" with the fields given as flags.
          preset: size of the scan; default the recipe's first.
          out: run directory; default runs/RECIPE-PRESET.
          config: fields to change.

        Raises:
          ValueError: beside what `run_scan` raises, if loss, learning rate or seed of the training
            are stated, which are each member's own.
        """
        for name, plural in OF_MEMBERS.items():
            if (stated := getattr(config.training, name)) != getattr(defaults.training, name):
                raise ValueError(f"training.{name} is the member's: state {plural}; got {stated!r}")
        preset = preset or _first_preset(recipe)
        out = out or Path("runs") / f"{recipe}-{preset}"
        table = run_scan(config, out, recipe=recipe, preset=preset)
        headline(table)
        console.print(f"Table: {out / 'table.parquet'}")

    return scan


def _first_preset(recipe: str) -> str:
    return next(iter(RECIPES[recipe].PRESETS)) if recipe in RECIPES else "custom"
