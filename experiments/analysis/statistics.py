"""Intervals and tests over bases: numbers in, numbers out.

The *unit* is the base, a pre-trained starting point. Members of one base share its weights, its
test draws and its pool of training examples, so that only another base repeats the whole
experiment. Every interval and test here takes one number per base: seeds are averaged first (see
`experiments.analysis.optimum.Cube.units`). What the numbers mean, and how often the intervals hold
in simulated studies, is in docs/statistics.md.

Axes of an array of risks: level, size (number of training examples n), base. NaN stands for a cell
without a finished member. Intervals are two-sided and hold 90%; their halves are one-sided 95%
statements.

References:
  Hsu (1984), Constrained simultaneous confidence intervals for multiple comparisons with the best,
    Annals of Statistics 12; Hsu (1996), Multiple comparisons, chapter 4.
  Page (1963), Ordered hypotheses for multiple treatments, JASA 58.
  Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

CONFIDENCE = 0.9
"""Of every interval, two-sided, and of the set of levels that may be best."""


@dataclass(frozen=True)
class Interval:
    """A number and its 90% interval; an end is NaN if there is none, infinite if it is open."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "–"
        if np.isnan(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Estimate(Interval):
    """A mean over bases with Student's interval.

    Attributes:
      mean, low, high: the mean and its 90% interval, NaN ends with fewer than two bases.
      p: two-sided p-value of a mean of zero.
      number: bases behind it.
    """

    p: float
    number: int


@dataclass(frozen=True)
class SignTest:
    """Directions of one difference per base.

    Attributes:
      positive, negative, ties: bases with a difference above, below and at zero.
      p: one-sided p-value: the probability of as many positive ones or more, of those that are not
        ties, if both signs were equally likely; 1 if all are ties.
    """

    positive: int
    negative: int
    ties: int
    p: float

    @property
    def number(self) -> int:
        """Bases that could be compared."""
        return self.positive + self.negative + self.ties

    def __str__(self) -> str:
        if self.number == 0:
            return "–"
        ties = f", {self.ties} tied" if self.ties else ""
        return f"{self.positive} of {self.positive + self.negative}{ties}, p = {self.p:.2g}"


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over bases and Student's 90% interval.

    Args:
      values: one number per base [..., base]; NaN is left out.

    Returns:
      mean, low, high [...]: NaN mean without a base, NaN ends with fewer than two.
    """
    mean, error, number = mean_and_error(values)
    width = special.stdtrit(np.maximum(number - 1, 1), (1 + CONFIDENCE) / 2) * error
    return mean, mean - width, mean + width


def line_change(places: np.ndarray, values: np.ndarray) -> Estimate:
    """Change from the first to the last place along a least-squares line through each base.

    Args:
      places: where the values stand, such as levels [place].
      values: one number per place and base [place, base]; a base that lacks one is left out.
    """
    centred = places.astype(float) - places.mean()
    slopes = centred @ values / (centred @ centred)
    return estimate(slopes * (places[-1] - places[0]))


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the last axis, its standard error (NaN below two values), and the number."""
    finite = np.isfinite(values)
    number = np.asarray(finite.sum(axis=-1))
    total = np.where(finite, values, 0.0).sum(axis=-1)
    mean = np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)
    squares = np.where(finite, values - mean[..., None], 0.0) ** 2
    freedom = number * (number - 1.0)
    squared = np.divide(
        squares.sum(axis=-1), freedom, out=np.full(number.shape, np.nan), where=number > 1
    )
    return mean, np.sqrt(squared), number


def estimate(values: np.ndarray) -> Estimate:
    """Student's interval for the mean over bases of one number per base, or of one contrast.

    A contrast of two cells is `estimate(first - second)`: paired, since each base is in both.

    Args:
      values: one number per base [base]; NaN is left out.
    """
    mean, low, high = (float(each) for each in t_interval(values))
    _, error, number = (float(each) for each in mean_and_error(values))
    p = np.nan
    if number > 1:
        distance = ratio(np.array(mean), np.array(error))
        p = float(2 * special.stdtr(number - 1, -abs(distance)))
    return Estimate(mean, low, high, p, int(number))


def ratio(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Mean over error, infinite without an error; 0 if both vanish."""
    exact = np.where(np.abs(mean) < 1e-12, 0.0, np.copysign(np.inf, mean))
    return np.divide(mean, error, out=exact, where=error > 1e-12)


def sign_test(differences: np.ndarray) -> SignTest:
    """Exact test that a difference is positive more often than negative; ties are dropped.

    Args:
      differences: one number per base [base]; NaN is left out. Bases of several independent
        families may be put together: the sign has no unit.
    """
    positive, negative = int((differences > 0).sum()), int((differences < 0).sum())
    ties = int((differences == 0).sum())
    # P(X >= positive) for X binomial with one half.
    number = positive + negative
    p = 1.0 if positive == 0 else float(special.bdtrc(positive - 1, number, 0.5))
    return SignTest(positive, negative, ties, p)


def trend(values: np.ndarray) -> SignTest:
    """Sign test over bases of Page's trend statistic: does a number rise with n?

    Page's statistic of a base is the sum of its ranks over sizes, each times the size's own rank:
    up to a constant, their correlation. Page's own test compares the sum over bases with all orders
    of ranks equally likely. That is wrong here even without a trend: optima scatter more at small
    n, so their ranks there are more often extreme, and in simulation the test claimed a trend too
    often. The sign of each base's statistic, as a distance from its value without a trend, needs
    none of that.

    Args:
      values: [size, base]; bases that lack a number are left out.
    """
    values = values[:, np.isfinite(values).all(axis=0)]
    # Ranks of the sizes within each base, from their middle; ties share their mean rank.
    ranks = np.sign(values[:, None] - values).sum(axis=1)
    return sign_test((np.arange(len(values)) - (len(values) - 1) / 2) @ ranks)


def interaction(
    risk: np.ndarray, easy: int, hard: int, small: int = 0, large: int = -1
) -> Estimate:
    """Estimate how much better hard data get, relative to easy ones, from a small n to a large one.

    [R(hard, small) - R(easy, small)] - [R(hard, large) - R(easy, large)], one number per base.
    Positive: hard data gain. It needs no optimum and no model of the curve.

    Args:
      risk: [level, size, base].
      easy, hard: positions of two levels.
      small, large: positions of two sizes.
    """
    excess = risk[hard] - risk[easy]
    return estimate(excess[small] - excess[large])


def best_levels(risk: np.ndarray) -> np.ndarray:
    """Mark the levels that cannot be told from the best one at one n.

    Hsu's multiple comparison with the best, in the form for a variance of its own for each pair: a
    level is left out if its risk lies above that of some rival by more than Student's t allows,
    paired over bases, at one minus `CONFIDENCE` shared among the rivals (Bonferroni). So the truly
    best level stays with at least that confidence. (Hsu's own critical value, Dunnett's, needs one
    variance for all pairs. Levels that are more or less noisy than others, which ours are, break
    it: it lost the best level too often in simulation.)

    Args:
      risk: [level, base], without NaN.

    Returns:
      True for each level that stays [level]: at least the one of least mean; all with fewer than
      two bases.
    """
    levels, bases = risk.shape
    if levels < 2 or bases < 2:
        return np.ones(levels, bool)
    mean, error, _ = mean_and_error(risk[:, None] - risk)
    limit = special.stdtrit(bases - 1, 1 - (1 - CONFIDENCE) / (levels - 1))
    return (ratio(mean, error) <= limit).all(axis=1)


def honest_risk(risk: np.ndarray) -> np.ndarray:
    """Risk of the chosen level on a base that had no part in the choice.

    For each base the level of least mean over all other bases is taken, and its risk is measured on
    the base left out. The mean over bases is unbiased for the risk of a level chosen from one base
    less, where the least of the means is biased low.

    Args:
      risk: [level, size, base]; NaN where no member finished.

    Returns:
      [size, base]; NaN with one base, or where the chosen level did not finish.
    """
    chosen = np.full(risk.shape[1:], np.nan)
    for base in range(risk.shape[2] if risk.shape[2] > 1 else 0):
        mean, _, _ = mean_and_error(np.delete(risk, base, axis=2))
        for size, means in enumerate(mean.T):
            if np.isfinite(means).any():
                chosen[size, base] = risk[np.nanargmin(means), size, base]
    return chosen


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: all that stay below alpha hold at once at level alpha.

    Args:
      ps: one p-value of each family, in any order.
    """
    order = np.argsort(ps)
    sorted_ps = np.asarray(ps, dtype=float)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(sorted_ps), 1.0)
    return adjusted.tolist()


def fisher(ps: Sequence[float]) -> float:
    """Combined p-value of independent families (Fisher 1932): is the effect in any of them?

    Discrete p-values, such as those of a sign test, make it err on the safe side.

    Args:
      ps: one-sided p-values in (0, 1] of independent tests in the same direction.
    """
    return float(special.chdtrc(2 * len(ps), -2 * np.log(ps).sum()))
