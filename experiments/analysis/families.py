"""Compare task families: does the best difficulty move to harder data as data grow, in each?

Input is one finished run per family. `write_families` concatenates their tables and adds two
columns: `family`, and `base_hardest`, the hardest level that the family's bases were trained on.
Levels of different families are not comparable, so each family is judged on its own grid.
Imports no JAX, so that figures may use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis import optimum
from experiments.analysis.optimum import Shift, Study
from experiments.storage.results import (
    ResultsError,
    read_finished,
    read_table,
    stated,
    write_json,
    write_parquet,
)

HOLDS, FAILS = 0.95, 0.5
RULE = (
    f"“Yes”: the best level is harder at the largest n than at the smallest with bootstrap "
    f"probability {HOLDS} or more, and lies inside the grid at the smallest n. “No”: that "
    f"probability is {FAILS} or less. “Undecided”: neither, or the grid is too narrow to tell."
)
KEPT = ("recipe", "preset", "config", "sessions")
"""Fields of each run's manifest that the common manifest repeats."""


def write_families(directories: Sequence[Path], out: Path) -> pd.DataFrame:
    """Concatenate finished runs; write OUT/families.parquet and OUT/manifest.json.

    Args:
      directories: one run of each family. Its name is the preset for runs of the recipe
        `families`, otherwise the last part of the path.
      out: where the table and the runs' configurations and provenance go.

    Returns:
      The table.

    Raises:
      ResultsError: if a directory is no finished run, or `out` is one of the runs.
      ValueError: if there is none, or two families have one name.
    """
    runs = [_read(Path(directory)) for directory in directories]
    names = [name for name, _, _ in runs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"results must be runs of different families, got {names}")
    if Path(out).resolve() in {Path(directory).resolve() for directory in directories}:
        raise ResultsError(f"out must be a directory of its own, {out} is one of the runs")
    table = pd.concat([table for _, table, _ in runs], ignore_index=True)
    manifest = {
        "families": {
            name: {key: manifest[key] for key in KEPT if key in manifest}
            for name, _, manifest in runs
        }
    }
    write_parquet(Path(out) / "families.parquet", table)
    write_json(Path(out) / "manifest.json", manifest)
    return table


def _read(directory: Path) -> tuple[str, pd.DataFrame, dict[str, Any]]:
    """Name, table and manifest of one family's run."""
    manifest = read_finished(directory)
    if manifest.get("kind") == "llm":
        raise ResultsError(
            f"{directory} is a scan of a real checkpoint, whose base was pre-trained on no levels: "
            f"compare is for runs of task families"
        )
    is_preset = manifest.get("recipe") == "families"
    name = stated(manifest, directory, "preset") if is_preset else directory.resolve().name
    table = read_table(directory)
    table.insert(0, "family", name)
    table["base_hardest"] = stated(manifest, directory, "config", "pretrain", "hardest")
    return name, table, manifest


def family_studies(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, Study]]:
    """Title, rows and study of each panel: one per family, or one per study if it has several."""
    for family, rows in table.groupby("family", sort=False):
        studies = optimum.studies(rows)
        for study in studies:
            title = str(family) if len(studies) == 1 else f"{family}, {study.title}"
            yield title, rows, study


def left_out(table: pd.DataFrame) -> list[str]:
    """Name each family's cells without a finished member, as `optimum.left_out`."""
    return [
        f"{family}: {sentence}"
        for family, rows in table.groupby("family", sort=False)
        for sentence in optimum.left_out(rows)
    ]


def verdicts(table: pd.DataFrame, *, replicates: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Say for each family whether its best difficulty moves to harder data (see `RULE`).

    Args:
      table: as `write_families` makes it.
      replicates, seed: of the bootstrap.

    Returns:
      One row per family: family; base_hardest and base_accuracy, the mean over the levels
      that the bases were trained on; for the smallest and the largest n, smallest_size,
      smallest_best, smallest_low, smallest_high (90% interval) and smallest_censored, likewise
      largest_…; probability_harder; holds ("yes", "no", "undecided"); and the sentence that says
      why.
    """
    judged = []
    for title, rows, study in family_studies(table):
        best = optimum.optimum(rows, study, replicates=replicates, seed=seed)
        moved = optimum.shift(rows, study, replicates=replicates, seed=seed)
        holds, sentence = judge(moved)
        hardest = int(rows["base_hardest"].iloc[0])
        row: dict[str, Any] = {"family": title, "base_hardest": hardest}
        row["base_accuracy"] = base_accuracy(rows, study, hardest)
        for which, at in (("smallest", best.iloc[0]), ("largest", best.iloc[-1])):
            row |= {
                f"{which}_size": at["data_size"],
                f"{which}_best": at["best_difficulty"],
                f"{which}_low": at["low"],
                f"{which}_high": at["high"],
                f"{which}_censored": at["censored"],
            }
        row |= {"probability_harder": moved.probability_harder, "holds": holds}
        judged.append(row | {"sentence": sentence})
    return pd.DataFrame(judged)


def base_accuracy(rows: pd.DataFrame, study: Study, hardest: int) -> float:
    """Mean accuracy of a study's bases on the levels 1 .. hardest."""
    bases = optimum.study_rows(rows, study.untrained)
    own = (bases["metric"] == "risk") & (bases["slice"] <= hardest)
    return float(1 - bases.loc[own.fillna(False).astype(bool), "value"].mean())


def judge(moved: Shift) -> tuple[str, str]:
    """Judge by `RULE` whether a shift holds, and give the reason in a sentence.

    The sentence claims no more than was measured: it names edges of the grid and ties.
    """
    small, large = moved.smallest_size, moved.largest_size
    from_, to = moved.best_at_smallest, moved.best_at_largest
    at = f"d = {from_} is best at n = {small} and d = {to} at n = {large}"
    if small == large:
        return "undecided", f"Only n = {small} was run."
    if moved.tied_size is not None:
        return "undecided", f"At n = {moved.tied_size} all levels tested are equally good or bad."
    if moved.censored_at_smallest == "hardest":
        return "undecided", (
            f"The hardest level tested (d = {from_}) is already best at n = {small}: "
            f"the grid is too narrow to tell."
        )
    if moved.censored_at_largest == "easiest":
        return "undecided", (
            f"The easiest level tested (d = {to}) is still best at n = {large}: "
            f"the grid is too narrow to tell."
        )
    limit = ""
    if moved.censored_at_largest:
        limit = f"; d = {to} is the hardest level tested, so it is a lower limit"
    if moved.probability_harder >= HOLDS and moved.censored_at_smallest:
        return "undecided", (
            f"The best level moves to harder data ({at}{limit}), but it starts at the easiest "
            f"level tested, so that the grid does not show where."
        )
    if moved.probability_harder >= HOLDS:
        return "yes", f"The best level moves to harder data: {at}{limit}."
    if moved.probability_harder <= FAILS:
        how = "does not move" if to == from_ else f"moves to {'harder' if to > from_ else 'easier'}"
        how += "" if to == from_ else " data in the mean, but mostly not when resampled"
        return "no", f"The best level {how}: {at}{limit}."
    why = "resampling does not settle it"
    if to == from_:
        why = f"resampling often finds a harder one at n = {large}"
    return "undecided", f"Not settled: {at}{limit}, but {why}."


def shown(judged: pd.DataFrame) -> pd.DataFrame:
    """The table of `verdicts` as text, for the terminal and docs/results.md."""

    def best(row: Mapping[str, Any], which: str) -> str:
        limit = optimum.LIMITS[row[f"{which}_censored"]]
        interval = f"[{row[f'{which}_low']}, {row[f'{which}_high']}]"
        return f"{limit}{row[f'{which}_best']} {interval} at n = {row[f'{which}_size']}"

    return pd.DataFrame(
        {
            "family": row["family"],
            "base on its levels": f"{row['base_accuracy']:.0%} on 1..{row['base_hardest']}",
            "best d, least data": best(row, "smallest"),
            "best d, most data": best(row, "largest"),
            "P(harder)": optimum.format_probability(row["probability_harder"]),
            "shift": row["holds"],
            "in words": row["sentence"],
        }
        for row in judged.to_dict("records")
    )
