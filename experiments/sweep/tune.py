"""Choose a learning rate for each cell on a validation draw."""

from __future__ import annotations

import numpy as np
import pandas as pd


def tune(table: pd.DataFrame) -> pd.DataFrame:
    """Mark the members of every learning rate but the best of each cell as ``not_selected``.

    The best rate has the lowest mean validation risk over the cell's members; a rate with a
    diverged member is not chosen while another is left.
    """
    if "validation_risk" not in set(table["metric"]):
        return table
    cell = ["train_mixture", "loss", "difficulty", "data_size"]
    validation = table[table["metric"] == "validation_risk"]
    means = (
        validation.groupby([*cell, "learning_rate"])["value"]
        .agg(lambda values: values.mean(skipna=False))
        .fillna(np.inf)
        .reset_index()
    )
    best = means.loc[means.groupby(cell)["value"].idxmin()].set_index(cell)["learning_rate"]
    chosen = table.join(best.rename("chosen"), on=cell)["chosen"]
    lost = chosen.notna() & (chosen != table["learning_rate"])
    return table.assign(
        status=table["status"].mask(lost & (table["status"] == "ok"), "not_selected")
    )
