"""The best level at one n, interpolated between the levels of the grid, and its move with n.

Axes as in `experiments.analysis.statistics`, whose intervals are used.

References:
  Fieller (1954), Some problems in interval estimation, JRSS B 16.
  Zou and Donner (2008), Construction of confidence limits about effect measures, Statistics in
    Medicine 27.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from experiments.analysis.statistics import (
    CONFIDENCE,
    SignTest,
    best_levels,
    mean_and_error,
    ratio,
    sign_test,
    trend,
)

WINDOW = 7
"""Levels nearest to the optimum to which its parabola is fitted, if the grid has as many."""
MISFIT = 0.05
"""Level of the test that takes levels from the window which no parabola fits."""
POINTS = 2001
"""Points between the grid's ends at which the slope of the parabola is tested."""


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
        return with_ends(self.position, self.low, self.high)


@dataclass(frozen=True)
class Move:
    """The distance by which the optimum moves from the smallest to the largest n, in levels.

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
        return with_ends(self.mean, self.low, self.high)


def with_ends(mean: float, low: float, high: float) -> str:
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
    mean, _, _ = mean_and_error(risk)
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
    mean, error, _ = mean_and_error(slopes + bends * (points[:, None] - centre))
    ratios = ratio(mean, error)
    limit = special.stdtrit(bases - 1, (1 + CONFIDENCE) / 2)
    falls = int(np.cumprod(ratios < -limit).sum())
    rises = int(np.cumprod(ratios[::-1] > limit).sum())
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
    """Test whether the mean risk is a parabola up to noise: the F test of lack of fit at `MISFIT`.

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
    """Find the lowest point between the grid's ends of a parabola, given by its derivatives."""
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
