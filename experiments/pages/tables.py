"""Tables of a page: cells that sort, and the same numbers as a CSV file to take away."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis.statistics import Interval


def sortable(frame: pd.DataFrame) -> dict[str, Any]:
    """Header, rows of (text, sort key), and the address of a CSV file with the numbers.

    Intervals sort by their mean.
    """

    def cell(value: Any) -> tuple[str, Any]:
        if not isinstance(value, Interval):
            return str(value), value
        # NaN would not be a number to the sorter.
        return str(value), "" if np.isnan(value.mean) else value.mean

    header = [str(name).removeprefix("num_").replace("_", " ") for name in frame.columns]
    rows = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    return {"header": header, "rows": rows, "csv": csv_address(frame)}


def csv_address(frame: pd.DataFrame) -> str:
    """A data address of the frame as CSV; an interval becomes its mean and both ends."""
    columns = {}
    for name in frame.columns:
        values = frame[name].tolist()
        if values and all(isinstance(value, Interval) for value in values):
            for part in ("mean", "low", "high"):
                columns[f"{name} {part}"] = [getattr(value, part) for value in values]
        else:
            columns[str(name)] = values
    text = pd.DataFrame(columns).to_csv(index=False)
    return f"data:text/csv;base64,{base64.b64encode(text.encode()).decode('ascii')}"
