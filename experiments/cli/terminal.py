"""Tables that several commands print."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from experiments.engine.progress import console

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from experiments.analysis.pilot import Mixtures
    from experiments.analysis.recommend import Recommendation


def print_rows(columns: Iterable[Any], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table: a header, and the text of each cell."""
    table = Table(*map(str, columns), box=box.SIMPLE)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def print_frame(frame: pd.DataFrame) -> None:
    """Print a small data frame, its numbers to three digits."""
    print_rows(
        frame.columns,
        (
            [f"{value:.3g}" if isinstance(value, float) else value for value in row]
            for row in frame.itertuples(index=False)
        ),
    )


def print_paths(paths: Iterable[Path]) -> None:
    """Print files that were written, each on a line."""
    for path in paths:
        console.print(str(path))


def print_headline(table: pd.DataFrame) -> None:
    """Print, for each study and data size, the best difficulty and the two gaps there."""
    from experiments.analysis import optimum
    from experiments.pages.report import verdict

    means = ("test_risk", *optimum.GAPS)
    for study in optimum.studies(table):
        said = verdict(optimum.shift(table, study))
        console.print(f"\n[bold]{study.title}[/bold]: {said}", highlight=False)
        rows = []
        for row in optimum.optimum(table, study).to_dict("records"):
            best = f"{row['best_difficulty']} [{row['low']}, {row['high']}]"
            best = "none" if row["tied"] else optimum.LIMITS[row["censored"]] + best
            gaps = [f"{row[m]:.2f} [{row[f'{m}_low']:.2f}, {row[f'{m}_high']:.2f}]" for m in means]
            rows.append([row["data_size"], best, *gaps])
        print_rows(("n", "best d", "test risk", "generalization gap", "extrapolation gap"), rows)
    console.print("Means with 90% bootstrap intervals; ≥ or ≤: at the edge of the grid.")


def print_recommendations(table: pd.DataFrame, mixtures: Mixtures, data_size: int) -> None:
    """Print the recommended difficulty for a budget, for each study of a pilot."""
    from experiments.analysis import optimum
    from experiments.analysis.recommend import recommend

    for study in optimum.studies(table):
        _print_recommendation(recommend(table, study, mixtures, data_size))
    console.print(
        "Predictions with 90% bootstrap intervals; no certificate, and none would certify "
        "which difficulty is best."
    )


def _print_recommendation(recommendation: Recommendation) -> None:
    """Print a recommendation, the risks that it rests on, and the choices of other rules."""
    console.print(
        f"\n[bold]{recommendation.study.title}[/bold]: {recommendation.verdict}", highlight=False
    )
    print_rows(
        ("d", "predicted test risk", "above the least"),
        (
            (level, risk, recommendation.excess.get(level, "–"))
            for level, risk in recommendation.predicted.items()
        ),
    )
    rules = ", ".join(f"{rule} {level}" for rule, level in recommendation.choices.items())
    sizes = ", ".join(map(str, recommendation.pilot_sizes))
    console.print(f"Fitted to n = {sizes}. Choices of all rules: {rules}.", highlight=False)
