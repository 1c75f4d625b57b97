"""The generated part of the documents about rules that pick a difficulty: their trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis.regret import coverage
from experiments.analysis.regret_means import average_regret
from experiments.analysis.statistics import Interval
from experiments.pages.markdown import markdown_table
from experiments.recipes.prediction import FORMED_ON
from experiments.storage.results import read_parquet
from theory.predictor import BASE_RULE


def groups(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows by what the runs have to do with the rule: formed on them, or later."""
    formed = table["run"].isin(FORMED_ON)
    return {"formed on": table.loc[formed], "later": table.loc[~formed]}


def trial(results: Path) -> str:
    """Mean regret of every rule on held-out data sizes, and how often ranges hold the best.

    Args:
      results: tables that `sweetspot regret` wrote.
    """
    regrets = read_parquet(results / "regret.parquet")
    parts = [_rules(regrets)]
    later = groups(regrets)["later"]
    if len(later):
        runs = ", ".join(f"`{name}`" for name in dict.fromkeys(later["run"]))
        parts.append(
            f"On the runs that came later ({runs}); what each rule had seen of them is below:"
        )
        parts.append(_rules(later))
    parts.append(_recommended(read_parquet(results / "prediction.parquet")))
    return "\n\n".join(parts)


def _recommended(predictions: pd.DataFrame) -> str:
    """Table of what `sweetspot recommend` says on the same pilots, by group of runs."""
    rows = []
    for name, group in groups(predictions).items():
        if "predicted" not in set(group["kind"]):
            continue
        found = coverage(group)
        told = f"{found['told_covered']} of {found['told']}"
        rows.append(
            {
                "runs": name,
                "predictions": found["predictions"],
                "abstains": found["abstained"],
                "range holds the measured best": told,
                "mean regret": f"{found['told_regret']:.4f}",
                f"of {BASE_RULE} alone": f"{found['told_base_rule_regret']:.4f}",
            }
        )
    return (
        "`sweetspot recommend` on the same pilots, by what the runs have to do with the rule:\n\n"
        f"{markdown_table(pd.DataFrame(rows))}"
    )


def _rules(regrets: pd.DataFrame) -> str:
    """Table of rules and what it is over."""
    means = average_regret(regrets)
    rows = [
        {
            "rule": f"**{row['rule']}** (used)" if row["kind"] == "predictor" else row["rule"],
            "regret": Interval(row["regret"], row["low"], row["high"]),
            "skill": _signed(row["skill"], row["skill_low"], row["skill_high"]),
            "moved": f"{row['moved']:.3f}",
            "unmoved": f"{row['unmoved']:.3f}",
            "worst study": f"{row['worst']:.3f}",
            "error of predicted risk": "–" if np.isnan(row["error"]) else f"{row['error']:.3f}",
        }
        for row in means.to_dict("records")
    ]
    return (
        f"{markdown_table(pd.DataFrame(rows))}\n\nMeans over {means['num_tasks'][0]} tasks "
        f"({regrets['run'].nunique()} runs, {means['num_cases'][0]} cases of a base, a pilot and a "
        f"data size {regrets['factor'].min():g} to {regrets['factor'].max():g} times beyond it); "
        f"90% intervals over tasks and bases. Moved, unmoved: regret where the best level of the "
        f"study differs between the pilot's largest n and the data size, and where it does not, "
        f"each over the tasks that have such cases. Worst study: the largest mean regret of one."
    )


def _signed(mean: float, low: float, high: float) -> str:
    """A skill with its interval; – if there is none."""
    return "–" if np.isnan(mean) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
