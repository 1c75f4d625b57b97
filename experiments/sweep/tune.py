"""Choose the training of each cell on a validation draw: its learning rate, and its length."""

from __future__ import annotations

import numpy as np
import pandas as pd

CHOSEN = ["compute", "learning_rate"]
"""Columns whose pairs are compared. A sweep has one compute; tables of several may be joined."""


def tune(table: pd.DataFrame) -> pd.DataFrame:
    """Mark the members of every learning rate but the best of each cell as ``not_selected``.

    The best one has the lowest mean validation risk over the cell's members; one with a diverged
    member is not chosen while another is left. Of a table with several computes, a pair of compute
    and learning rate is chosen.
    """
    if "validation_risk" not in set(table["metric"]):
        return table
    cell = ["train_mixture", "loss", "difficulty", "data_size"]
    validation = table[table["metric"] == "validation_risk"]
    means = (
        validation.groupby([*cell, *CHOSEN])["value"]
        .agg(lambda values: values.mean(skipna=False))
        .fillna(np.inf)
        .reset_index()
    )
    best = means.loc[means.groupby(cell)["value"].idxmin()].set_index(cell)[CHOSEN]
    chosen = table.join(best.add_prefix("chosen_"), on=cell)
    is_other = pd.concat([chosen[f"chosen_{name}"] != table[name] for name in CHOSEN], axis=1)
    lost = chosen["chosen_learning_rate"].notna() & is_other.any(axis=1)
    return table.assign(
        status=table["status"].mask(lost & (table["status"] == "ok"), "not_selected")
    )
