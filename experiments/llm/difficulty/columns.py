"""Values of the measures that are made of a data set's columns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from experiments.engine.progress import console
from experiments.llm.difficulty.buckets import Missing, check_complete
from experiments.llm.difficulty.rasch import fit_rasch
from experiments.llm.difficulty.scales import Measure, OfColumns, of_columns
from experiments.llm.difficulty.shrinkage import fit_beta
from experiments.llm.problems.data import Problems

LEAST_DEVIATION = 0.1
"""Deviation of difficulties in logits below which a message says that they do not differ."""


def column_values(
    measure: Measure, problems: Problems, *, fitted_to: Problems | None = None
) -> Float[np.ndarray, " problems"]:
    """Value of each problem; NaN where the data set has none.

    Args:
      measure: one that is made of columns.
      problems: read with these columns, see `experiments.llm.problems.data.read`.
      fitted_to: problems that shrinkage and Rasch's model are fitted to, so that a test is measured
        as its training set was; None for `problems`.

    Raises:
      ValueError: if the problems lack a column, or counts of passes are not whole numbers from 0 to
        the number of attempts (problems are counted from 0).
    """
    made = of_columns(measure)
    if made is None:
        raise ValueError(f"measure must be made of columns, got {measure!r}")
    if made.kind == "column":
        return _cells(problems, made.columns[0])
    passes, trials = _counts(measure, made, problems)
    if fitted_to is None or fitted_to is problems:
        known, attempts = passes, trials
    else:
        known, attempts = _counts(measure, made, fitted_to)
    if made.kind == "rasch":
        assert isinstance(made.trials, int)  # written so
        fitted = fit_rasch(known, trials=made.trials)
        if fitted.deviation < LEAST_DEVIATION:
            console.print(
                f"{measure}: the models pass the same problems no more often than by chance, so "
                f"their passes say nothing of difficulty.",
                style="yellow",
                highlight=False,
            )
        return fitted.difficulties(passes)
    try:
        prior = fit_beta(known[:, 0], attempts)
    except ValueError as error:
        raise ValueError(f"{measure} in {problems.name!r}: {error}") from error
    return prior.posterior_mean(passes[:, 0], trials)


def known_values(measure: Measure, problems: Problems) -> Float[np.ndarray, " problems"] | None:
    """Values that the data set itself states, NaN where it states none; None if it states none.

    Raises:
      ValueError: see `column_values`.
    """
    if measure == "op":
        return np.array([np.nan if op is None else op for op in problems.ops], np.float64)
    return None if of_columns(measure) is None else column_values(measure, problems)


def with_values(measure: Measure, problems: Problems, missing: Missing | None) -> Problems:
    """The problems that have a value, as far as the data set states it; says how many have none.

    Args:
      measure: any; those of a model are there for all problems.
      problems: with the columns that the measure is made of.
      missing: what becomes of problems without a value; None for an error.

    Raises:
      ValueError: see `column_values`; or if values are missing, and that is an error or none is
        left.
    """
    values = known_values(measure, problems)
    if values is None or (is_there := np.isfinite(values)).all():
        return problems
    if missing is None or not is_there.any():
        try:
            check_complete(measure, values)
        except ValueError as error:
            raise ValueError(f"{problems.name}: {error}") from error
    console.print(
        f"{problems.name}: {(~is_there).sum()} of {len(problems)} problems have no {measure} and "
        f"are left out.",
        highlight=False,
    )
    return problems.take(np.flatnonzero(is_there))


def _cells(problems: Problems, column: str) -> Float[np.ndarray, " problems"]:
    """Numbers of a column; NaN for missing ones."""
    if column not in problems.columns:
        raise ValueError(
            f"problems must be read with the column {column!r}, "
            f"got {problems.name!r} with {[*problems.columns]}"
        )
    cells = problems.columns[column]
    return np.array([np.nan if cell is None else cell for cell in cells], np.float64)


def _counts(
    measure: Measure, made: OfColumns, problems: Problems
) -> tuple[Float[np.ndarray, "problems columns"], Float[np.ndarray, " problems"]]:
    """Passes in every column and attempts of every problem, checked."""
    passes = np.stack([_cells(problems, name) for name in made.columns], axis=1)
    trials = np.full(len(problems), float(made.trials)) if isinstance(made.trials, int) else None
    if trials is None:
        trials = _cells(problems, str(made.trials))
    # A row without a number is missing, and not wrong.
    known = np.isfinite(passes) & np.isfinite(trials)[:, None]
    whole = np.where(known, passes, 0.0)
    most = np.where(known, trials[:, None], 0.0)
    is_wrong = (whole % 1 != 0) | (most % 1 != 0) | (whole < 0) | (whole > most)
    if is_wrong.any():
        row, column = np.argwhere(is_wrong)[0].tolist()
        advice = " (rasch:A,B/TRIALS states the attempts)" if made.kind == "rasch" else ""
        raise ValueError(
            f"{measure} in {problems.name!r}, row {row}: passes must be a whole number from 0 to "
            f"the number of attempts, {trials[row]:g}, got {passes[row, column]:g}{advice}"
        )
    return passes, trials
