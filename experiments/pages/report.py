"""One self-contained HTML page for a run: verdict and advice, figures, tables, provenance.

The page loads nothing: figures, styles, the table sorter and CSV files are inside it. Every
sentence and number comes from the tables and the manifest; fields of the manifest that this module
does not know are shown unchanged. The template is `report.html.jinja` beside this module.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis import claims, gain, optimum, slices
from experiments.analysis.statistics import Interval, t_interval
from experiments.analysis.verdicts import RULE, verdict
from experiments.figures.style import ledger_line
from experiments.pages.headline import points
from experiments.pages.page import write_page
from experiments.pages.paper import LEDGER_COLUMNS, ledger_rows
from experiments.pages.pictures import sections
from experiments.pages.tables import sortable
from experiments.pages.task_words import task_words
from experiments.recipes import RECIPES

CITE = (
    "The question and the claims: Liu et al. (2026), Data Difficulty and the Generalization–"
    "Extrapolation Tradeoff in LLM Fine-Tuning, ICML. The software: the sweetspot developers, "
    "sweetspot (CITATION.cff)."
)
METRICS = {
    "test_risk": "test risk",
    "train_risk": "train risk",
    "generalization_gap": "generalization gap",
    "extrapolation_gap": "extrapolation gap",
}


GROUPS = ("easier than the mixture", "unknown to the base")
"""Groups of test levels whose risk is shown, see `experiments.analysis.slices`."""


def cells(table: pd.DataFrame, *, window_width: int = 2) -> pd.DataFrame:
    """One row per study and cell: numbers of members, and risks as `statistics.Interval`.

    Args:
      table: the tidy result table.
      window_width: of the mixture ``window``.
    """
    parts = []
    for study in optimum.studies(table):
        frames = {name: optimum.mean_interval(table, study, name) for name in METRICS}
        part = frames["test_risk"].drop(columns=["mean", "low", "high"])
        part.insert(0, "study", study.title)
        for name, title in METRICS.items():
            numbers = frames[name][["mean", "low", "high"]].itertuples(index=False)
            part = part.assign(**{title: [Interval(*row) for row in numbers]})
        # The risk on groups of test levels, where the table has slices and a mixture that we know.
        groups = {name: np.full((len(part), 1), np.nan) for name in GROUPS}
        with contextlib.suppress(ValueError):
            groups = slices.groups(table, study, window_width=window_width)
        for name in GROUPS:
            ends = (each.ravel() for each in t_interval(groups[name]))
            part[f"risk, levels {name}"] = [Interval(*row) for row in zip(*ends, strict=True)]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def certificates(table: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and method of a table of certificates, means over members."""
    shown = {
        "risk_bound": "risk bound",
        "gibbs_risk": "measured risk",
        "kl": "KL (nats)",
        "plain_risk": "risk of plain fine-tuning",
        "test_bound_unconditional": "test risk bound",
        "test_risk": "measured test risk",
    }
    means = table.pivot_table(list(shown), ["difficulty", "data_size", "method"], sort=False)
    return means.loc[:, list(shown)].rename(columns=shown).round(3).reset_index()


def advice(table: pd.DataFrame) -> pd.DataFrame:
    """Say what to train on with n examples, in one row per study and data size.

    Columns: study (if there are several); n; train on, the levels that cannot be told from the
    best; gain on the untouched base in points of test accuracy, with its 90% interval, of a level
    chosen on the other bases.
    """
    rows, all_studies = [], optimum.studies(table)
    for study in all_studies:
        gains: Mapping[int, Interval] = {}
        with contextlib.suppress(ValueError):
            gains = gain.gains(table, study)
        for row in optimum.optimum(table, study).to_dict("records"):
            found: optimum.Optimum = row["optimum"]
            levels = ", ".join(f"{level:g}" for level in found.best)
            n = int(row["data_size"])
            own = {"study": study.title} if len(all_studies) > 1 else {}
            own |= {"n": n, "train on d =": "any level" if found.tied else levels}
            is_known = n in gains and np.isfinite(gains[n].low)
            own["points above the base"] = points(gains[n]) if is_known else "–"
            rows.append(own)
    return pd.DataFrame(rows)


def worth(table: pd.DataFrame) -> list[tuple[str, str]]:
    """For each study, at which data sizes fine-tuning is better than not to; none from one base."""
    said = []
    for study in optimum.studies(table):
        with contextlib.suppress(ValueError):
            said.append((study.title, gain.worth_it(gain.gains(table, study))))
    return [(title, sentence) for title, sentence in said if sentence]


def made_by(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Recipe as a command, commit, date and device of a run, as far as its manifest states them."""
    recipe, preset = manifest.get("recipe"), manifest.get("preset")
    program = "sweetspot llm scan" if manifest.get("kind") == "llm" else "sweetspot run"
    sessions = manifest.get("sessions") or [{}]
    first = sessions[0] if isinstance(sessions[0], Mapping) else {}
    facts = {
        "recipe": f"{program} {recipe} --preset {preset}" if recipe and preset else "",
        "commit": first.get("commit"),
        "started": first.get("started"),
        "device": first.get("device"),
    }
    return {name: str(value) for name, value in facts.items() if value}


def write_report(
    directory: Path,
    tables: Mapping[str, pd.DataFrame],
    manifest: Mapping[str, Any],
    figure_paths: Sequence[Path],
) -> Path:
    """Write `report.html` into a directory.

    Args:
      directory: where the page goes, usually the run's own directory.
      tables: name -> table; "table" is needed, "certificates" has a section if given.
      manifest: as `results.read_manifest` returns it; shown unchanged, nested.
      figure_paths: SVG or PNG files as `figures.draw` returns them.

    Returns:
      The page's path.

    Raises:
      ValueError: if "table" is missing, or a path is neither SVG nor PNG.
    """
    if "table" not in tables:
        raise ValueError(f"tables: 'table' is needed, got {sorted(tables)}")
    table = tables["table"]
    studies = optimum.studies(table)
    members = table.drop_duplicates(optimum.MEMBER)
    trained = members.loc[members["train_mixture"] != optimum.UNTRAINED]
    bounds = tables.get("certificates")
    details = {name: value for name, value in manifest.items() if name != "config"}
    return write_page(
        Path(directory) / "report.html",
        "report.html.jinja",
        name=manifest.get("recipe", Path(directory).name),
        preset=manifest.get("preset"),
        status=manifest.get("status", "unknown"),
        verdicts=[(study.title, *verdict(optimum.shift(table, study))) for study in studies],
        rule=RULE,
        intervals=optimum.intervals_are_over(table),
        facts={
            "members": f"{len(trained):,}",
            "bases": table["base_seed"].nunique(),
            "diverged": int((trained["status"] == "diverged").sum()),
            "test examples per slice": _slice_examples(table),
        },
        left_out=optimum.left_out(table),
        advice=sortable(advice(table)),
        worth=worth(table),
        task=task_words(manifest.get("config")),
        made_by=made_by(manifest),
        unit="tokens" if "tokens" in set(table["data_unit"]) else "examples",
        is_checkpoint=manifest.get("kind") == "llm",
        cite=CITE,
        headline=sortable(optimum.headline(table)),
        cells=sortable(cells(table, window_width=_window_width(manifest))),
        predictions=_predictions(table, manifest),
        certificates=sortable(certificates(bounds)) if bounds is not None else None,
        ledger=ledger_line(bounds) if bounds is not None else "",
        sections=sections(figure_paths, tables),
        config=manifest.get("config", {}),
        details=details,
        raw=json.dumps(manifest, indent=1, default=str),
    )


def _window_width(manifest: Mapping[str, Any]) -> int:
    """Width of the mixture ``window`` as the run states it; that of most runs if it does not."""
    config = manifest.get("config")
    width = config.get("window_width") if isinstance(config, Mapping) else None
    return width if isinstance(width, int) else 2


def _predictions(table: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Effects and verdicts of the predictions of the run's recipe; None if there are none."""
    recipe = RECIPES.get(str(manifest.get("recipe")))
    predictions = getattr(recipe, "PREREGISTERED", ())
    found = claims.findings(str(manifest.get("preset")), table, predictions)
    if not found:
        return None
    rows = [(row[0], *row[2:]) for row in ledger_rows(found)]
    return sortable(pd.DataFrame(rows, columns=[LEDGER_COLUMNS[0], *LEDGER_COLUMNS[2:]]))


def _slice_examples(table: pd.DataFrame) -> str:
    """Smallest and largest number of examples behind a risk by slice."""
    numbers = table.loc[table["metric"] == "risk", "num_examples"]
    low, high = numbers.min(), numbers.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
