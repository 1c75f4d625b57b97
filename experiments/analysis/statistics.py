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
  Fieller (1954), Some problems in interval estimation, JRSS B 16.
  Zou and Donner (2008), Construction of confidence limits about effect measures, Statistics in
    Medicine 27.
  Page (1963), Ordered hypotheses for multiple treatments, JASA 58.
  Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

CONFIDENCE = 0.9
"""Of every interval, two-sided, and of the set of levels that may be best."""
WINDOW = 7
"""Levels nearest to the optimum to which its parabola is fitted, if the grid has as many."""
MISFIT = 0.05
"""Level of the test that takes levels from the window which no parabola fits."""
POINTS = 2001
"""Points between the grid's ends at which the slope of the parabola is tested."""


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


@dataclass(frozen=True)
class Optimum:
    """The best level at one n.

    Attributes:
      level: the level of the grid with the least mean risk.
      position: the interpolated optimum d*, held inside the grid.
      low, high: its 90% interval; -inf or inf where the optimum may lie beyond the grid.
      censored: "easiest" or "hardest" where `level` or else d* is that edge of the grid, so that
        the true optimum may lie beyond; else empty.
      best: levels that cannot be told from the best one.
      tied: whether these are all levels.
      own: the optimum of each base, held inside the grid; NaN for a base that lacks a level, and
        for all bases where both ends are infinite: no optimum is seen.
    """

    level: float
    position: float
    low: float
    high: float
    censored: str
    best: tuple[float, ...]
    tied: bool
    own: np.ndarray = field(compare=False)

    @property
    def is_open(self) -> bool:
        """Whether the optimum may lie beyond the grid."""
        return bool(self.censored) or bool(np.isinf([self.low, self.high]).any())

    def __str__(self) -> str:
        unknown = np.isnan(self.low) or (np.isinf(self.low) and np.isinf(self.high))
        if self.tied and unknown:
            return "none"
        return _with_ends(self.position, self.low, self.high)


@dataclass(frozen=True)
class Move:
    """How far the optimum moves from the smallest to the largest n, in levels.

    Attributes:
      mean: the move of d*, each held inside the grid.
      low, high: its 90% interval; infinite where an optimum may lie beyond the grid on that side.
      signs: bases whose own optimum is harder at the largest n.
      trend: bases whose own optima rise over all n in between (see `trend`).
    """

    mean: float
    low: float
    high: float
    signs: SignTest
    trend: SignTest

    def __str__(self) -> str:
        return _with_ends(self.mean, self.low, self.high)


def _with_ends(mean: float, low: float, high: float) -> str:
    """A level or a number of levels with its interval; of an open one, the end that there is."""
    if np.isnan(low):
        return f"{mean:.1f}"
    if np.isinf(low) and np.isinf(high):
        return "unknown"
    if np.isinf(high):
        return f"≥ {low:.1f}"
    if np.isinf(low):
        return f"≤ {high:.1f}"
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over bases and Student's 90% interval.

    Args:
      values: one number per base [..., base]; NaN is left out.

    Returns:
      mean, low, high [...]: NaN mean without a base, NaN ends with fewer than two.
    """
    mean, error, number = _mean_and_error(values)
    width = special.stdtrit(np.maximum(number - 1, 1), (1 + CONFIDENCE) / 2) * error
    return mean, mean - width, mean + width


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    _, error, number = (float(each) for each in _mean_and_error(values))
    p = np.nan
    if number > 1:
        ratio = _ratio(np.array(mean), np.array(error))
        p = float(2 * special.stdtr(number - 1, -abs(ratio)))
    return Estimate(mean, low, high, p, int(number))


def _ratio(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
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
    """How much better hard data get, relative to easy ones, from a small n to a large one.

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
    mean, error, _ = _mean_and_error(risk[:, None] - risk)
    limit = special.stdtrit(bases - 1, 1 - (1 - CONFIDENCE) / (levels - 1))
    return (_ratio(mean, error) <= limit).all(axis=1)


def complete(risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels and bases that make a table without gaps.

    Args:
      risk: [level, base], NaN where there is no finished member.

    Returns:
      Marks of the levels with a finished member [level], and of the bases that have one at each of
      these levels [base].
    """
    levels = np.asarray(np.isfinite(risk).any(axis=1))
    return levels, np.asarray(np.isfinite(risk[levels]).all(axis=0))


def optimum(levels: np.ndarray, risk: np.ndarray) -> Optimum:
    """Find the best level at one n, between the levels of the grid and with an interval.

    A parabola is fitted by least squares to the mean risk of the levels around the optimum, as many
    as it fits and `WINDOW` at most; d* is its vertex, held inside the grid. The window centres on
    the vertex of one parabola through all levels where that fits: around the lowest mean it would
    centre on noise, and a dip by chance would look like an optimum.

    The interval holds every point at which the slope may be zero, by Student's t over the bases'
    own slopes (Fieller's method, which needs no approximation for the quotient). It starts where
    the mean slope stops being clearly downward and ends where it starts being clearly upward. If it
    is not clearly downward at the easiest level the start is -inf, and likewise the end inf: then
    the optimum may lie beyond the grid, or there is none to be seen.

    The optimum of one base is a Newton step from d* on its own parabola, with the curvature of the
    mean one: the noise of one base's curvature would throw it far away.

    Args:
      levels: [level], increasing.
      risk: [level, base]; NaN where no member finished. Levels without a finished member are left
        out, and so are bases without one at some other level, unless that leaves none.

    Raises:
      ValueError: if no member finished.
    """
    has_level, has_all = complete(risk)
    if not has_level.any():
        raise ValueError("risk: no level has a finished member")
    levels, risk, number = levels[has_level].astype(float), risk[has_level], risk.shape[1]
    mean, _, _ = _mean_and_error(risk)
    level = float(levels[mean.argmin()])
    whole = risk[:, has_all] if has_all.any() else mean[:, None]
    is_best = best_levels(whole)
    position, low, high, steps = _vertex(levels, whole)
    own = np.full(number, np.nan)
    if has_all.any() and not (np.isinf(low) and np.isinf(high)):
        own[has_all] = np.clip(position + steps, levels[0], levels[-1])
    is_flat = whole.shape[1] < 2 and np.ptp(mean) < 1e-9
    # Beyond a best level at the grid's edge nothing was tested that could show the risk to rise.
    edges = {levels[0]: "easiest", levels[-1]: "hardest"}
    censored = edges.get(level, edges.get(position, ""))
    if not np.isnan(low):
        low = -np.inf if level == levels[0] else low
        high = np.inf if level == levels[-1] else high
    return Optimum(
        level=level,
        position=position,
        low=low,
        high=high,
        censored=censored,
        best=tuple(float(each) for each in levels[is_best]),
        tied=len(levels) > 1 and bool(is_best.all()) and (whole.shape[1] > 1 or bool(is_flat)),
        own=own,
    )


def _vertex(levels: np.ndarray, risk: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    """Vertex of the mean parabola inside the grid, its interval, and each base's step from it.

    Args:
      levels: [level].
      risk: [level, base], without NaN.

    Returns:
      position, low, high, and steps [base], NaN if the mean parabola has no minimum.
    """
    first, last, bases = levels[0], levels[-1], risk.shape[1]
    nowhere = np.full(bases, np.nan)
    if len(levels) < 3:
        return float(levels[risk.mean(axis=1).argmin()]), -np.inf, np.inf, nowhere
    near, centre = _window(levels, risk)
    # One parabola for each base, whose mean is the parabola of the mean.
    slopes, bends = _parabolas(levels[near], risk[near], centre)
    position = _lowest(levels, centre, slopes.mean(), bends.mean())
    steps = nowhere
    if bends.mean() > 1e-12:
        steps = -(slopes + bends * (position - centre)) / bends.mean()
    if bases < 2:
        return position, np.nan, np.nan, steps
    # The slope of every base between the ends of the grid, and where its mean is clearly not zero.
    points = np.linspace(first, last, POINTS)
    mean, error, _ = _mean_and_error(slopes + bends * (points[:, None] - centre))
    ratio = _ratio(mean, error)
    limit = special.stdtrit(bases - 1, (1 + CONFIDENCE) / 2)
    falls = int(np.cumprod(ratio < -limit).sum())
    rises = int(np.cumprod(ratio[::-1] > limit).sum())
    low = points[min(falls, POINTS - 1)] if falls else -np.inf
    high = points[max(POINTS - 1 - rises, 0)] if rises else np.inf
    return position, float(min(low, position)), float(max(high, position)), steps


def _window(levels: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, float]:
    """Levels to which the parabola is fitted, and where they centre.

    The centre is the vertex of one parabola through all levels, or, if that does not fit, the level
    of least mean. Of the levels nearest to it as many are taken, `WINDOW` at most, as one parabola
    fits; three at least.

    Returns:
      Positions of the levels, increasing, and the centre.
    """
    mean = risk.mean(axis=1)
    best = float(levels[mean.argmin()])
    ends = (levels[0], levels[-1])

    def vertex(near: np.ndarray) -> float:
        slope, bend = _parabolas(levels[near], mean[near, None], best)
        return _lowest(levels, best, slope.item(), bend.item())

    def fits(near: np.ndarray) -> bool:
        # A parabola that is lowest at an end of the grid does not fit a best level inside it.
        contradicts = best not in ends and vertex(near) in ends
        return not contradicts and _fits(levels[near], risk[near])

    everywhere = np.arange(len(levels))
    centre = vertex(everywhere) if fits(everywhere) else best
    nearest = np.argsort(np.abs(levels - centre), kind="stable")
    for width in range(min(WINDOW, len(levels)), 3, -1):
        if fits(near := np.sort(nearest[:width])):
            return near, centre
    return np.sort(nearest[:3]), centre


def _fits(levels: np.ndarray, risk: np.ndarray) -> bool:
    """Whether the mean risk is a parabola up to noise: the F test of lack of fit at `MISFIT`.

    Its noise is the bases' variation about their own parabolas. With one base there is none to
    compare with, so that only three levels fit.
    """
    spare, freedom = len(levels) - 3, risk.shape[1] - 1
    if spare < 1:
        return True
    if freedom < 1:
        return False
    powers = np.vander(levels - levels.mean(), 3)
    residuals = risk - powers @ np.linalg.lstsq(powers, risk)[0]
    mean = residuals.mean(axis=1, keepdims=True)
    misfit = float((mean**2).sum()) * risk.shape[1]
    noise = float(((residuals - mean) ** 2).sum()) / freedom
    if noise < 1e-20:
        return misfit < 1e-20
    return special.fdtrc(spare, spare * freedom, misfit / noise) >= MISFIT


def _parabolas(levels: np.ndarray, risk: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivative at a point of the least-squares parabola of each base [base]."""
    half_bends, slopes, _ = np.linalg.lstsq(np.vander(levels - at, 3), risk)[0]
    return slopes, 2 * half_bends


def _lowest(levels: np.ndarray, at: float, slope: float, bend: float) -> float:
    """Where a parabola, given by its derivatives at a point, is lowest between the grid's ends."""
    if bend > 1e-12:
        return float(np.clip(at - slope / bend, levels[0], levels[-1]))
    ends = np.array([levels[0], levels[-1]])
    heights = slope * (ends - at) + bend * (ends - at) ** 2 / 2
    return float(ends[heights.argmin()])


def move(optima: Sequence[Optimum]) -> Move:
    """Compare the optima at the smallest and the largest n.

    The interval is put together from those of both optima (Zou and Donner's method, with the
    correlation of the bases' own optima): it keeps their asymmetry, and it is open where one of
    them is. A d* at the grid's edge stands for all that lies beyond. So the end of the interval
    towards which the true move may be longer is open.

    Args:
      optima: of each n, smallest first, over the same bases.
    """
    first, last = optima[0], optima[-1]
    mean = last.position - first.position
    if np.isnan([first.low, last.low]).any():
        low = high = np.nan
    else:
        shared = _correlation(first.own, last.own)
        low = mean - _distance(last.position - last.low, first.high - first.position, shared)
        high = mean + _distance(last.high - last.position, first.position - first.low, shared)
    own = np.stack([each.own for each in optima])
    return Move(mean, float(low), float(high), sign_test(own[-1] - own[0]), trend(own))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation over bases, 0 if it is undefined; NaN is left out."""
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if both.sum() < 3 or np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _distance(first: float, second: float, correlation: float) -> float:
    """Length of the difference of two correlated errors."""
    if np.isinf(first) or np.isinf(second):
        return np.inf
    return float(np.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0)))


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
        mean, _, _ = _mean_and_error(np.delete(risk, base, axis=2))
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
