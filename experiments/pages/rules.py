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


def trial(results: Path) -> str:
    """Mean regret of every rule on held-out data sizes, and how often intervals hold the best.

    Args:
      results: tables that `sweetspot regret` wrote.
    """
    regrets = read_parquet(results / "regret.parquet")
    found = coverage(read_parquet(results / "prediction.parquet"))
    new = regrets.loc[~regrets["run"].isin(FORMED_ON)]
    parts = [_rules(regrets)]
    if len(new):
        runs = ", ".join(f"`{name}`" for name in dict.fromkeys(new["run"]))
        parts.append(f"On the runs that came after the rule was written down alone ({runs}):")
        parts.append(_rules(new))
    share = found["told_covered"] / max(found["told"], 1)
    parts.append(
        f"`sweetspot recommend` on the same pilots: of {found['predictions']} predictions it "
        f"abstains in {found['abstained']}; the interval of the others holds the measured best "
        f"level in {found['told_covered']} of {found['told']} ({share:.0%}), and their mean regret "
        f"is {found['told_regret']:.4f}."
    )
    return "\n\n".join(parts)


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
            "error of predicted risk": "–" if np.isnan(row["error"]) else f"{row['error']:.3f}",
        }
        for row in means.to_dict("records")
    ]
    return (
        f"{markdown_table(pd.DataFrame(rows))}\n\nMeans over {means['num_tasks'][0]} tasks "
        f"({regrets['run'].nunique()} runs, {means['num_cases'][0]} cases of a base, a pilot and a "
        f"data size {regrets['factor'].min():g} to {regrets['factor'].max():g} times beyond it); "
        f"90% intervals over tasks and bases."
    )


def _signed(mean: float, low: float, high: float) -> str:
    """A skill with its interval; – if there is none."""
    return "–" if np.isnan(mean) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
