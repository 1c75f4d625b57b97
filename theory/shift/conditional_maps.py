"""Maps that hold if the risk depends on difficulty as assumed, and tests of what they assume."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float

from theory import distributions
from theory.checks import check_range
from theory.shift.arguments import ShiftedBound, check_arguments, excess
from theory.shift.unconditional_maps import largest_test_risk


def monotone(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by its largest value over all slice risks that rise with difficulty and have R_S.

    This is a linear programme: maximise the test risk over risks r(1) <= r(2) <= ... in [0, 1]
    whose training risk is within the bound. Its corners are steps, which are 0 below a level and 1
    from there on, and the best mixture of steps lies on the concave majorant of their points
    (training risk, test risk). The majorant's slopes are test/train, pooled over neighbouring
    levels until they fall from the hardest level down: `neyman_pearson` after isotonic regression.

    If training is on exactly d of T equally likely levels, or uniform on 1 to d, it equals
    1 - (d/T) (1 - bound): the share of the levels that the training covers, times how reliable it
    is there. If training is nowhere easier than the test, it is at most the bound.

    Valid when:
      The risk lies in [0, 1] and never falls from one level to the next harder one. Long training
      on exactly one level violates this.

    References:
      Barlow, Bartholomew, Bremner and Brunk (1972), Statistical inference under order restrictions.

    Example:
      >>> print(f"{float(monotone(0.2, test=[0.25] * 4, train=[0, 0, 1, 0]).values):.3f}")
      0.400
    """
    risk, test, train = check_arguments(risk_bound, test, train)
    test, train = (np.flip(each, axis=-1) for each in np.broadcast_arrays(test, train))
    return _conditional(
        largest_test_risk(risk, _pooled_ratio(test, train), test, train), "monotone"
    )


def _pooled_ratio(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Slopes of the concave majorant of the points (training risk, test risk), [*cells, levels].

    The slope at a level is the least over starts at or before it of the largest, over ends at or
    after it, of the chord's slope.
    """
    test_before, train_before = (
        np.concatenate([np.zeros_like(each[..., :1]), np.cumsum(each, axis=-1)], axis=-1)
        for each in (test, train)
    )
    slopes = np.full(test.shape, np.inf)
    for start in range(test.shape[-1]):
        gained, cost = (
            each[..., start + 1 :] - each[..., start, None] for each in (test_before, train_before)
        )
        # Sums of zeros are zero but for rounding. A chord without any mass does not count.
        costs = cost > 1e-12
        chords = np.where(gained > 1e-12, np.inf, 0.0)
        np.divide(gained, cost, out=chords, where=costs)
        largest = np.maximum.accumulate(chords[..., ::-1], axis=-1)[..., ::-1]
        np.minimum(slopes[..., start:], largest, out=slopes[..., start:])
    return slopes


def lipschitz(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
    *,
    constant: float,
) -> ShiftedBound:
    """Bound R_T by R_S + constant W1(test, train).

    Args:
      risk_bound, test, train: see `theory.shift`.
      constant: the most that the risk changes from one level to the next, in risk per level.

    Valid when:
      Neighbouring levels differ in risk by at most `constant`. A constant measured on the base or
      on a reference run is an assumption about this run.

    References:
      Kantorovich and Rubinstein (1958), the dual form of W1.
    """
    risk, test, train = check_arguments(risk_bound, test, train)
    check_range("constant", constant, 0, np.inf)
    return _conditional(risk + constant * distributions.wasserstein(test, train), "lipschitz")


def increments(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
    *,
    least: Float[ArrayLike, " levels-1"],
    most: Float[ArrayLike, " levels-1"],
) -> ShiftedBound:
    """Bound R_T by R_S + sum over j of (F_S - F_T)+ most_j - (F_S - F_T)- least_j.

    ()+ and ()- are the positive and the negative part.

    Valid when:
      least_j <= r(j + 1) - r(j) <= most_j for all j at once. Limits measured on the base or on a
      reference run (`increment_intervals`) are an assumption about this run.
    """
    risk, test, train = check_arguments(risk_bound, test, train)
    least, most = np.asarray(least, dtype=np.float64), np.asarray(most, dtype=np.float64)
    if not least.shape == most.shape == (test.shape[-1] - 1,) or not (least <= most).all():
        raise ValueError(
            f"least and most must have shape [{test.shape[-1] - 1}] and least <= most, "
            f"got {least} and {most}"
        )
    easier = excess(test, train)
    gap = np.sum(np.maximum(easier, 0) * most - np.maximum(-easier, 0) * least, axis=-1)
    # A risk is not negative; limits that put the gap below -R_S contradict the bound.
    return _conditional(np.maximum(risk + gap, 0.0), "increments")


def has_increments(
    lower: Float[ArrayLike, " levels"],
    upper: Float[ArrayLike, " levels"],
    least: ArrayLike,
    most: ArrayLike,
) -> bool:
    """Return whether some risk between `lower` and `upper` has all its rises within the limits.

    False refutes the assumption of `increments`, up to the probability that the intervals fail;
    True does not prove it.

    Args:
      lower, upper: see `theory.shift`.
      least, most: see `theory.shift`; a single number stands for all levels.
    """
    lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    if lower.ndim != 1 or lower.shape != upper.shape or not (lower <= upper).all():
        raise ValueError(
            f"lower and upper must have shape [levels] and lower <= upper, got {lower} and {upper}"
        )
    rises = (np.broadcast_to(limit, len(lower) - 1) for limit in (least, most))
    # The interval of risks that can be reached at each level.
    low, high = lower[0], upper[0]
    for level, (smallest, largest) in enumerate(zip(*rises, strict=True), start=1):
        low, high = max(lower[level], low + smallest), min(upper[level], high + largest)
        if low > high:
            return False
    return True


def is_monotone(lower: Float[ArrayLike, " levels"], upper: Float[ArrayLike, " levels"]) -> bool:
    """Return whether a risk that never falls with difficulty fits between `lower` and `upper`.

    A test of the assumption behind `monotone`, not a part of its proof: the bound holds with its
    own delta wherever the assumption does, whatever this returns. So the intervals need no share of
    that delta; their own is the probability that a risk which does rise is contradicted by chance.

    For point estimates pass the same values twice, or less and plus a tolerance.
    """
    return has_increments(lower, upper, 0.0, np.inf)


def is_lipschitz(
    lower: Float[ArrayLike, " levels"], upper: Float[ArrayLike, " levels"], constant: float
) -> bool:
    """Return whether a risk with steps of at most `constant` fits between `lower` and `upper`.

    The constant is in risk per level, as in `lipschitz`.
    """
    return has_increments(lower, upper, -constant, constant)


def _conditional(values: np.ndarray, method: str) -> ShiftedBound:
    return ShiftedBound(np.minimum(values, 1.0), "conditional", method)
