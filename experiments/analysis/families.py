"""Compare task families: does the best difficulty move to harder data as data grow, in each?

Input is one finished run per family. `write_families` concatenates their tables and adds two
columns: `family`, and `base_hardest`, the hardest level that the family's bases were trained on.
Levels of different families are not comparable, so each family is judged on its own grid.
Imports no JAX, so that figures may use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis import optimum
from experiments.analysis.optimum import Study
from experiments.analysis.statistics import fisher, holm, sign_test
from experiments.analysis.verdicts import verdict
from experiments.storage.results import (
    ResultsError,
    read_finished,
    read_table,
    stated,
    write_json,
    write_parquet,
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


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Say for each family whether its best difficulty moves to harder data.

    Args:
      table: as `write_families` makes it.

    Returns:
      One row per family: family; base_hardest and base_accuracy, the mean over the levels
      that the bases were trained on; shift, the comparison of the smallest and the largest n;
      p_adjusted, the sign test's p after Holm's adjustment for the number of families; holds (a
      word of `experiments.analysis.verdicts`); and the sentence that says why.
    """
    judged = []
    for title, rows, study in family_studies(table):
        moved = optimum.shift(rows, study)
        holds, sentence = verdict(moved)
        hardest = int(rows["base_hardest"].iloc[0])
        row: dict[str, Any] = {"family": title, "base_hardest": hardest}
        row["base_accuracy"] = base_accuracy(rows, study, hardest)
        row |= {"shift": moved, "holds": holds, "sentence": sentence}
        judged.append(row)
    result = pd.DataFrame(judged)
    result.insert(4, "p_adjusted", holm([row["shift"].move.signs.p for row in judged]))
    return result


def pooled(judged: pd.DataFrame) -> str:
    """The sign test over the bases of all families, and Fisher's test over families, in words.

    Args:
      judged: as `verdicts` makes it. Its families must have no base in common.
    """
    shifts = judged["shift"].tolist()
    own = [each.largest.own - each.smallest.own for each in shifts]
    signs = sign_test(np.concatenate(own))
    combined = fisher([each.move.signs.p for each in shifts])
    return (
        f"Over all families the optimum of a base is harder at the largest n in {signs} (sign test "
        f"over bases). Fisher's test over the families' own sign tests: p = {combined:.2g}."
    )


def base_accuracy(rows: pd.DataFrame, study: Study, hardest: int) -> float:
    """Mean accuracy of a study's bases on the levels 1 .. hardest."""
    bases = optimum.study_rows(rows, study.untrained)
    own = (bases["metric"] == "risk") & (bases["slice"] <= hardest)
    return float(1 - bases.loc[own.fillna(False).astype(bool), "value"].mean())


def shown(judged: pd.DataFrame) -> pd.DataFrame:
    """The table of `verdicts` as text, for the terminal and docs/results.md."""
    rows = []
    for row in judged.to_dict("records"):
        shift: optimum.Shift = row["shift"]
        rows.append(
            {
                "family": row["family"],
                "base on its levels": f"{row['base_accuracy']:.0%} on 1..{row['base_hardest']}",
                "d*, least data": f"{shift.smallest} at n = {shift.smallest_size}",
                "d*, most data": f"{shift.largest} at n = {shift.largest_size}",
                "move": str(shift.move),
                "harder in": str(shift.move.signs),
                "Holm's p": f"{row['p_adjusted']:.2g}",
                "claim": row["holds"],
                "in words": row["sentence"],
            }
        )
    return pd.DataFrame(rows)
