"""The ledger of claims: what each prediction that was written down came to.

Input are predictions (see `experiments.analysis.contrasts`) and the tables of the runs that test
them. A prediction of a run is computed for each base, and its mean over bases has Student's
interval (`experiments.analysis.statistics`).

A contrast *holds* if its 90% interval lies above zero, *fails* if the interval lies below zero, and
is *undecided* otherwise; moves are judged by `experiments.analysis.verdicts.RULE`. A claim holds in
a run if all its predictions hold, fails if one of them fails, and is undecided otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.analysis import optimum, statistics, vertex
from experiments.analysis.contrasts import Contrast, Covered, Move, Prediction, Rise, Term
from experiments.analysis.optimum import Cube
from experiments.analysis.statistics import Interval
from experiments.analysis.studies import Study
from experiments.analysis.verdicts import FAILS, HOLDS, UNDECIDED, judge


@dataclass(frozen=True)
class Finding:
    """The effect and the verdict of one prediction in one run.

    Attributes:
      run: name of the run.
      prediction: what was predicted.
      effect: its mean and 90% interval over bases, in units of the metric, or levels for a `Move`.
      p: two-sided p-value of an effect of zero; of a `Move` the one-sided one of the sign test.
      number: bases behind it.
      verdict: `HOLDS`, `FAILS` or `UNDECIDED`.
    """

    run: str
    prediction: Prediction
    effect: Interval
    p: float
    number: int
    verdict: str


def term_values(table: pd.DataFrame, term: Term) -> pd.Series:
    """Mean of a term's metric over seeds and levels, by base; members that diverged are left out.

    Raises:
      ValueError: if the table has no such cell.
    """
    chosen = (
        (table["train_mixture"] == term.mixture)
        & (table["loss"] == term.loss)
        & (table["difficulty"] == term.difficulty)
        & (table["data_size"] == term.data_size)
        & (table["metric"] == term.metric)
    )
    if term.levels is None:
        in_levels = table["slice"].isna()
    else:
        in_levels = table["slice"].between(*term.levels).fillna(False).astype(bool)
    rows = table.loc[chosen & in_levels]
    if rows.empty:
        raise ValueError(f"table: no rows for {term}")
    finished = rows.loc[rows["status"] == "ok"]
    return finished.groupby("base_seed")["value"].mean()


def contrast_values(table: pd.DataFrame, contrast: Contrast) -> np.ndarray:
    """A contrast by base [base], NaN where one of its cells has no finished member.

    Raises:
      ValueError: if the table lacks one of the cells.
    """
    terms = [term.weight * term_values(table, term) for term in contrast.terms]
    together = pd.concat(terms, axis=1).sort_index()
    return together.sum(axis=1, skipna=False).to_numpy(dtype=float)


def verdict(effect: Interval) -> str:
    """Judge an effect that is predicted to be above zero, by its interval."""
    return HOLDS if effect.low > 0 else FAILS if effect.high < 0 else UNDECIDED


def finding(run: str, table: pd.DataFrame, prediction: Contrast | Move) -> Finding:
    """Compute a prediction from the table of a run.

    Raises:
      ValueError: if the table lacks a cell that the prediction names.
    """
    if isinstance(prediction, Contrast):
        effect = statistics.estimate(contrast_values(table, prediction))
        return Finding(run, prediction, effect, effect.p, effect.number, verdict(effect))
    risk = _risk(table, prediction, [prediction.from_size, prediction.to_size])
    between = (risk.data_sizes >= prediction.from_size) & (risk.data_sizes <= prediction.to_size)
    risk = risk.only(sizes=between)
    optima = [_optimum(risk, size) for size in range(int(between.sum()))]
    return _moved(run, prediction, optima, _step(risk))


def rise(run: str, tables: Mapping[str, pd.DataFrame], prediction: Rise) -> Finding:
    """Compute a rise from the tables of its runs.

    Args:
      run: name of all runs together.
      tables: by preset.
      prediction: names the presets.

    Raises:
      ValueError: if a run is missing, or lacks a cell.
    """
    if missing := [preset for preset in prediction.presets if preset not in tables]:
        raise ValueError(f"tables: no run of {missing}")
    optima, steps = [], []
    for preset in prediction.presets:
        risk = _risk(tables[preset], prediction, [prediction.data_size])
        optima.append(_optimum(risk, risk.data_sizes.tolist().index(prediction.data_size)))
        steps.append(_step(risk))
    return _moved(run, prediction, optima, min(steps))


def _risk(table: pd.DataFrame, prediction: Move | Rise, sizes: Sequence[int]) -> Cube:
    """Test risk of the predicted study, which must have some data sizes."""
    risk = optimum.cube(table, study_of(table, prediction), "test_risk")
    for size in sizes:
        if size not in risk.data_sizes:
            raise ValueError(f"table: no data size {size}, has {risk.data_sizes.tolist()}")
    return risk


def _step(risk: Cube) -> float:
    return float(np.diff(risk.difficulties).min())


def _optimum(risk: Cube, size: int) -> vertex.Optimum:
    return vertex.optimum(risk.difficulties, risk.units[:, size])


def _moved(
    run: str, prediction: Move | Rise, optima: Sequence[vertex.Optimum], step: float
) -> Finding:
    """The move from the first to the last of some optima, on a grid whose least step is given."""
    moved = vertex.move(optima)
    number = int(np.isfinite(optima[-1].own - optima[0].own).sum())
    effect = Interval(moved.mean, moved.low, moved.high)
    return Finding(run, prediction, effect, moved.signs.p, number, judge(moved, step))


def study_of(table: pd.DataFrame, prediction: Move | Rise) -> Study:
    """The study of a table whose optimum is predicted to move.

    Raises:
      ValueError: if the table has none of that mixture and loss.
    """
    for study in optimum.studies(table):
        if study.train_mixture == prediction.mixture:
            losses = set(optimum.study_rows(table, study)["loss"])
            if losses == {prediction.loss}:
                return study
    raise ValueError(f"table: no study of {prediction.mixture!r} and {prediction.loss!r}")


def findings(run: str, table: pd.DataFrame, predictions: Iterable[Prediction]) -> list[Finding]:
    """Compute the predictions whose cells the table of a run has; the others are left out."""
    found = []
    for prediction in predictions:
        if isinstance(prediction, (Contrast, Move)):
            with contextlib.suppress(ValueError):
                found.append(finding(run, table, prediction))
    return found


def covered(run: str, certificates: pd.DataFrame, prediction: Covered) -> Finding:
    """Compare a bound on the test risk with that risk, as measured for the same predictor.

    The effect is the distance of the bound above the risk in the cell where it is least, for each
    base.

    Args:
      run: its name.
      certificates: of the run, one row for each certificate.
      prediction: names the method and the bound.

    Raises:
      ValueError: if the run has no certificate by this method.
    """
    rows = certificates.loc[certificates["method"] == prediction.method]
    if rows.empty:
        raise ValueError(f"certificates: none by {prediction.method!r}")
    above = rows[prediction.bound] - rows["test_risk"]
    effect = statistics.estimate(above.groupby(rows["base_seed"]).min().to_numpy(dtype=float))
    return Finding(run, prediction, effect, effect.p, effect.number, verdict(effect))


def claim_verdict(found: Sequence[Finding]) -> str:
    """Judge a claim by its predictions in one run: see the rule at the top."""
    verdicts = {each.verdict for each in found}
    return FAILS if FAILS in verdicts else UNDECIDED if verdicts != {HOLDS} else HOLDS
