"""The generated part of the documents about total bounds: where each is least, run by run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis import certified, optimum
from experiments.figures.bound_over_curve import applies
from experiments.figures.style import ledger_line
from experiments.pages.markdown import markdown_table
from experiments.storage.results import read_parquet

WORDS = {"range": "levels 1..d", "exact": "exactly d", "window": "d − 2..d"}
METHOD, HARDEST = "held-out", "hardest"
"""Whose bounds are compared: a model tuned on one half of the sample, certified on the other."""


def recorded(results: Path) -> dict[str, pd.DataFrame]:
    """Certificates of `METHOD` with all total bounds, by the name of the recorded run."""
    found = {}
    for path in sorted(results.glob("*/certificates.parquet")):
        table = read_parquet(path)
        is_run = (path.parent / "table.parquet").is_file()
        if is_run and "is_monotone" in table and applies({"certificates": table}):
            own = table.loc[table["method"] == METHOD]
            if len(own):
                found[path.parent.name] = own
    return found


def total_bounds(results: Path) -> str:
    """Table of the pairs in which each least bound is near the least risk, and of the regret."""
    rows, minima = [], []
    tables = recorded(results)
    # Runs of mixtures first, then those of exact levels.
    for name, table in sorted(tables.items(), key=lambda each: each[1]["train_mixture"].iloc[0])[
        ::-1
    ]:
        kind = str(table["train_mixture"].iloc[0])
        least = with_hardest(table).assign(kind=kind)
        minima.append(least)
        rows.append({"run": f"`{name}`", "training data": WORDS[kind]} | _cells(least))
    every = pd.concat(minima)
    for kind, group in every.groupby("kind", sort=False):
        rows.append({"run": "**all**", "training data": WORDS[str(kind)]} | _cells(group))
    ledger = ledger_line(next(iter(tables.values()))).split(":")[0]
    return (
        f"{markdown_table(pd.DataFrame(rows))}\n\nPairs of a run and a data size from n = 64 on in "
        f"which the least bound is within one level of the grid from the least measured test risk "
        f"of the same predictor, and the mean regret of training there; “vacuous”: the bound is 1 "
        f"at every level. In each run {ledger}; bases and learning rates are the sweep's, samples "
        f"and tests are drawn anew.\n\n{coverage_times_reliability(results)}"
    )


def coverage_times_reliability(results: Path) -> str:
    """Compare the levels where 1 - (d/T)(1 - R) and the test risk are least, R being measured.

    Over all recorded sweeps of the levels 1 to d that have more than one d.
    """
    near, same, hardest, costs = 0, 0, 0, []
    for path in sorted(results.glob("*/table.parquet")):
        table = read_parquet(path)
        for study in optimum.studies(table):
            if study.train_mixture != "range":
                continue
            risk = optimum.cube(table, study, "test_risk")
            if len(risk.difficulties) == 1:
                continue  # nothing to choose
            inside = optimum.cube(table, study, "in_distribution_risk").mean
            share = risk.difficulties[:, None] / table["slice"].max()
            chosen = np.argmin(1 - share * (1 - inside), axis=0)
            best = np.argmin(risk.mean, axis=0)
            same += int((chosen == best).sum())
            near += int((abs(chosen - best) <= 1).sum())
            hardest += int((len(share) - 1 - best <= 1).sum())
            costs += (risk.mean[chosen, np.arange(len(best))] - risk.mean.min(axis=0)).tolist()
    return (
        f"With the *measured* in-distribution risk in place of B it is least at the level of the "
        f"least test risk in {same} of {len(costs)} pairs of a recorded run and a data size, and "
        f"within one level of the grid in {near}; training there costs "
        f"{100 * np.mean(costs):.1f} points on average, and {100 * max(costs):.1f} at most. The "
        f"hardest level of the grid is within one level of the best in {hardest} of them."
    )


def _cells(least: pd.DataFrame) -> dict[str, str]:
    """The variants' cells of one row, and those of a rule that looks at nothing."""
    cells = {}
    for row in certified.agreement(least).to_dict("records"):
        near = f"{row['near']} of {row['pairs']}"
        said = row["pairs"] - row["vacuous"]
        cells[row["variant"]] = f"{near}, regret {row['regret']:.3f}" if said else "vacuous"
    cells["always the hardest"] = cells.pop(HARDEST)
    return cells


def with_hardest(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `certified.minima`, and those of the rule that always takes the hardest level."""
    least, curves = certified.minima(table), certified.curves(table)
    rows = []
    for cell, group in curves.groupby(certified.CELL, sort=False):
        cells = group.sort_values("difficulty")
        levels, risk = (cells[name].to_numpy() for name in ("difficulty", "test_risk"))
        row = dict(zip(certified.CELL, cell, strict=True))  # type: ignore[arg-type]
        row |= {"variant": HARDEST, "certified": float(levels[-1])}
        row |= {"steps": float(len(risk) - 1 - risk.argmin()), "regret": risk[-1] - risk.min()}
        rows.append(row)
    return pd.concat([least, pd.DataFrame(rows)], ignore_index=True)
