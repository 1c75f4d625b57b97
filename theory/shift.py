"""The extrapolation gap: from a bound on the training mixture's risk to one on the test risk.

Training and test share p(problem | difficulty) and differ in their distributions of difficulty,
which are known. Then the gap is a number (`extrapolation_gap`), and a bound on the training
mixture's risk R_S becomes one on the test risk R_T in one of three layers of trust:

- **unconditional**: holds whatever the risks of the levels are, at no extra delta;
- **conditional**: holds if the risk depends on difficulty as assumed; `is_monotone`, `is_lipschitz`
  and `has_increments` test whether measured risks contradict the assumption;
- **probe-certified**: labels are bought at each level, and their number is reported.

Axes: ``levels``, the difficulties in increasing order, the same for all arguments of a call;
``*cells``, any leading shape, for many posteriors at once. F_S and F_T are the distribution
functions of difficulty in training and test, r(j) is the risk at level j.

Arguments, the same in every function:

- `risk_bound` [*cells]: bound on the training mixture's risk R_S, in [0, 1].
- `slice_risk` [*cells, levels]: risk at each level, in [0, 1].
- `test`, `train` [*cells, levels]: probabilities of the difficulties in the test and in training;
  their leading axes broadcast against those of the risks.
- `num_errors` [*cells, levels]: wrong examples at each level.
- `num_examples` [levels]: labelled examples at each level; 0 where nothing was measured.
- `lower`, `upper` [levels]: ends of simultaneous intervals for the slice risks, such as
  `slice_intervals` gives; 0 and 1 at a level that was not measured.
- `least`, `most` [levels - 1]: smallest and largest rise of the risk from a level to the next.
- `delta`: probability that the result fails, in (0, 1).

ValueError is raised if an argument is out of range, the levels differ in number, or no level has
examples. Every map and gap requires that training and test share p(problem | difficulty); further
conditions are under "Valid when". Results are exact up to rounding in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from theory import distributions, divergence
from theory.bounds.clopper_pearson import clopper_pearson
from theory.checks import check_count, check_range

Layer = Literal["unconditional", "conditional", "probe-certified"]


@dataclass(frozen=True)
class ShiftedBound:
    """A bound on the test risk, and the evidence it rests on.

    Attributes:
      values: bounds in [0, 1], of the shape of the risk bounds that they were made from.
      layer: layer of trust (see the module).
      method: name of the map.
      num_labelled: labelled examples used beyond the training data.
    """

    values: Float[np.ndarray, "*cells"]
    layer: Layer
    method: str
    num_labelled: int = 0


def _distributions(
    test: Float[ArrayLike, "*cells levels"], train: Float[ArrayLike, "*cells levels"]
) -> tuple[np.ndarray, np.ndarray]:
    """Check both distributions, and normalise them."""
    distributions = []
    for name, given in (("test", test), ("train", train)):
        array = np.asarray(given, dtype=np.float64)
        sums = array.sum(axis=-1, keepdims=True) if array.ndim else np.zeros(1)
        if not (array >= 0).all() or not (np.abs(sums - 1) <= 1e-6).all():
            raise ValueError(
                f"{name} must be probabilities [..., levels] that sum to 1 (within 1e-6), "
                f"got {array}"
            )
        distributions.append(array / sums)
    first, second = distributions
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"test and train must have the same levels, got {first.shape[-1]} and "
            f"{second.shape[-1]}"
        )
    return first, second


def _arguments(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return check_range("risk_bound", risk_bound, 0, 1), *_distributions(test, train)


def _per_level(name: str, given: ArrayLike, num_levels: int) -> np.ndarray:
    """Check that the last axis has one entry for each level."""
    array = np.asarray(given)
    if array.ndim == 0 or array.shape[-1] != num_levels:
        raise ValueError(f"{name} must have shape [..., {num_levels}], got {array.shape}")
    return array


def _excess(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """F_S - F_T but for the last level, [*cells, levels - 1]; positive if training is easier."""
    return np.cumsum(train - test, axis=-1)[..., :-1]


def _unconditional(values: np.ndarray, method: str) -> ShiftedBound:
    return ShiftedBound(np.minimum(values, 1.0), "unconditional", method)


def _conditional(values: np.ndarray, method: str) -> ShiftedBound:
    return ShiftedBound(np.minimum(values, 1.0), "conditional", method)


def extrapolation_gap(
    slice_risk: Float[ArrayLike, "*cells levels"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> Float[np.ndarray, "*cells"]:
    """Test risk minus the training mixture's risk, exactly; shape [*cells]."""
    test, train = _distributions(test, train)
    risk = _per_level("slice_risk", check_range("slice_risk", slice_risk, 0, 1), test.shape[-1])
    return np.sum(risk * (test - train), axis=-1)


def gap_by_increments(
    slice_risk: Float[ArrayLike, "*cells levels"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> Float[np.ndarray, "*cells"]:
    """The same gap [*cells] as a sum over levels j of (F_S(j) - F_T(j)) (r(j + 1) - r(j)).

    Equal to `extrapolation_gap` by summation by parts. The conditional bounds follow from this
    form: only the rises of the risk matter, each weighed by how much easier training is below it.
    """
    test, train = _distributions(test, train)
    risk = _per_level("slice_risk", check_range("slice_risk", slice_risk, 0, 1), test.shape[-1])
    return np.sum(np.diff(risk) * _excess(test, train), axis=-1)


def total_variation(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by R_S + TV(test, train).

    Valid when:
      The loss lies in [0, 1].

    References:
      Ben-David et al. (2010), A theory of learning from different domains.
    """
    risk, test, train = _arguments(risk_bound, test, train)
    return _unconditional(risk + distributions.total_variation(test, train), "total_variation")


def importance(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by beta R_S with beta = max test/train, or by 1 if the test has unseen levels.

    Valid when:
      The loss is not negative.

    References:
      Cortes, Mansour and Mohri (2010), Learning bounds for importance weighting.
    """
    risk, test, train = _arguments(risk_bound, test, train)
    largest = np.asarray(distributions.max_ratio(test, train))
    # An infinite ratio gives no bound, not even for a risk of zero.
    bounded = np.isfinite(largest)
    return _unconditional(np.where(bounded, np.where(bounded, largest, 1) * risk, 1), "importance")


def weighted_importance(
    weighted_risk: Float[ArrayLike, "*cells"],
    radius: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by beta klinv(weighted risk, radius): importance weights inside the bound.

    The loss times test/train over beta = max test/train lies in [0, 1], and its expectation under
    the training mixture is R_T / beta. If the errors are at levels of little weight this is
    tighter than `importance`, which gives every error the largest weight. Unlike the other maps it
    starts from the sample and not from a bound on R_S, so it needs a delta of its own.

    Args:
      weighted_risk: mean over the sample of the loss times test/train over beta, in [0, 1], any
        shape; 0 if beta is infinite.
      radius: right side of a bound in terms of klinv, in nats, such as (KL + ln(xi(n)/delta))/n;
        broadcasts against `weighted_risk`.
      test, train: see the module.

    Valid when:
      `weighted_risk` and `radius` come from one posterior and sample for which the PAC-Bayes-kl
      bound is valid.

    References:
      Cortes, Mansour and Mohri (2010), Learning bounds for importance weighting.

    Example:
      >>> bound = weighted_importance(0.01, 0.02, test=[0.5, 0.5], train=[0.8, 0.2])
      >>> print(f"{float(bound.values):.4f}")
      0.1107
    """
    risk, test, train = _arguments(weighted_risk, test, train)
    largest = np.asarray(distributions.max_ratio(test, train))
    bounded, inside = np.isfinite(largest), divergence.kl_inverse(risk, radius)
    values = np.where(bounded, np.where(bounded, largest, 1) * inside, 1)
    return _unconditional(values, "weighted importance")


def kl_dro(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by the largest value with kl(R_T || R_S) <= KL(test || train), in nats.

    By the data processing inequality: a loss maps both distributions of problems to Bernoulli
    distributions, which are no further apart. The inverse grows with R_S, so that a bound on R_S
    may take its place.

    Valid when:
      The loss lies in [0, 1].

    References:
      Hu and Hong (2013), Kullback-Leibler divergence constrained distributionally robust
      optimization.
    """
    risk, test, train = _arguments(risk_bound, test, train)
    distance = distributions.kl_divergence(test, train)
    return _unconditional(np.asarray(divergence.kl_inverse_first(risk, distance)), "kl_dro")


def chi_square(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by the maximum over R in [0, bound] of R + sqrt(chi2(test, train) R (1 - R)).

    By Cauchy-Schwarz on the covariance of the loss and test/train, as the variance of a loss in
    [0, 1] is at most R (1 - R). The expression rises up to R = (1 + 1 / sqrt(1 + chi2)) / 2, and
    then falls to 1.

    Valid when:
      The loss lies in [0, 1].

    References:
      Duchi and Namkoong (2019), Variance-based regularization with convex objectives.
    """
    risk, test, train = _arguments(risk_bound, test, train)
    distance = np.asarray(distributions.chi_square(test, train))
    bounded = np.isfinite(distance)
    distance = np.where(bounded, distance, 0)
    risk = np.minimum(risk, (1 + 1 / np.sqrt(1 + distance)) / 2)
    values = risk + np.sqrt(distance * risk * (1 - risk))
    return _unconditional(np.where(bounded, values, 1), "chi_square")


def neyman_pearson(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by its largest value over all slice risks whose R_S is within the bound.

    No map that uses only the bound on R_S can be smaller, so this is the best unconditional one.
    The worst slice risks are 1 at the levels of largest test/train, until their training risk
    reaches the bound: this is the most powerful test between the two distributions, at size R_S.
    A level without training data adds nothing to the training risk, so for disjoint ranges the
    bound is 1.

    Valid when:
      The loss lies in [0, 1].

    References:
      Neyman and Pearson (1933), On the problem of the most efficient tests of statistical
      hypotheses.
    """
    risk, test, train = _arguments(risk_bound, test, train)
    test, train = np.broadcast_arrays(test, train)
    ratio = _ratio(test, train)
    worst_first = np.argsort(-ratio, axis=-1)
    ratio, test, train = (
        np.take_along_axis(each, worst_first, axis=-1) for each in (ratio, test, train)
    )
    return _unconditional(_largest(risk, ratio, test, train), "neyman_pearson")


def _ratio(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """test/train, [*cells, levels]: infinite at levels that training lacks."""
    seen = train > 0
    return np.where(seen, test / np.where(seen, train, 1), np.inf)


def _largest(
    risk: Float[np.ndarray, "*cells"],
    ratio: Float[np.ndarray, "*cells levels"],
    test: Float[np.ndarray, "*cells levels"],
    train: Float[np.ndarray, "*cells levels"],
) -> Float[np.ndarray, "*cells"]:
    """The test risk if the levels in their order have risk 1, as far as the training risk reaches.

    Args:
      risk: the training risk that is there to spend.
      ratio: test risk that a unit of training risk buys at each level, never rising in their order;
        infinite where it costs nothing.
      test, train: see the module, in the same order.
    """
    spent = np.clip(risk[..., None] - (np.cumsum(train, axis=-1) - train), 0, train)
    is_free = np.isinf(ratio)
    return np.sum(np.where(is_free, test, np.where(is_free, 0, ratio) * spent), axis=-1)


UNCONDITIONAL: dict[str, Callable[..., ShiftedBound]] = {
    "total_variation": total_variation,
    "importance": importance,
    "kl_dro": kl_dro,
    "chi_square": chi_square,
    "neyman_pearson": neyman_pearson,
}
"""The unconditional maps by name: (risk_bound, test, train) -> ShiftedBound."""


def unconditional(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> ShiftedBound:
    """Bound R_T by the smallest of the unconditional maps.

    No delta is spent on the choice: all of them hold whenever the bound on R_S does.

    Valid when:
      The loss lies in [0, 1].

    Example:
      >>> float(unconditional(0.04, np.array([0.5, 0.5]), np.array([0.9, 0.1])).values)
      0.2
    """
    maps = [bound(risk_bound, test, train).values for bound in UNCONDITIONAL.values()]
    return _unconditional(np.minimum.reduce(maps), "minimum")


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
    risk, test, train = _arguments(risk_bound, test, train)
    test, train = (np.flip(each, axis=-1) for each in np.broadcast_arrays(test, train))
    return _conditional(_largest(risk, _pooled_ratio(test, train), test, train), "monotone")


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
      risk_bound, test, train: see the module.
      constant: the most that the risk changes from one level to the next, in risk per level.

    Valid when:
      Neighbouring levels differ in risk by at most `constant`. A constant measured on the base or
      on a reference run is an assumption about this run.

    References:
      Kantorovich and Rubinstein (1958), the dual form of W1.
    """
    risk, test, train = _arguments(risk_bound, test, train)
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
    risk, test, train = _arguments(risk_bound, test, train)
    least, most = np.asarray(least, dtype=np.float64), np.asarray(most, dtype=np.float64)
    if not least.shape == most.shape == (test.shape[-1] - 1,) or not (least <= most).all():
        raise ValueError(
            f"least and most must have shape [{test.shape[-1] - 1}] and least <= most, "
            f"got {least} and {most}"
        )
    excess = _excess(test, train)
    gap = np.sum(np.maximum(excess, 0) * most - np.maximum(-excess, 0) * least, axis=-1)
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
      lower, upper: see the module.
      least, most: see the module; a single number stands for all levels.
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


def slice_upper_bounds(
    num_errors: Int[ArrayLike, "*cells levels"],
    num_examples: Int[ArrayLike, " levels"],
    *,
    delta: float,
) -> Float[np.ndarray, "*cells levels"]:
    """Bound the risks of all levels at once: Clopper-Pearson at delta / (levels with examples).

    A level without examples gets the bound 1.

    Valid when:
      The numbers of examples were fixed before any label was seen, and examples are independent
      draws of their level that training did not use. For a Gibbs risk, each example is judged by
      fresh weights of the posterior.

    References:
      Clopper and Pearson (1934); Langford (2005), Tutorial on practical prediction theory.
    """
    check_range("delta", delta, 0, 1, ends=False)
    examples = check_count("num_examples", num_examples, 0)
    errors = _per_level("num_errors", check_count("num_errors", num_errors, 0), examples.size)
    if examples.ndim != 1 or not (probed := np.count_nonzero(examples)):
        raise ValueError(f"num_examples must be counts [levels], not all 0; got {examples}")
    if (errors > examples).any():
        raise ValueError(f"num_errors must be at most num_examples {examples}, got {errors}")
    bounds, seen = np.ones(errors.shape), examples > 0
    bounds[..., seen] = clopper_pearson(
        errors[..., seen] / examples[seen], num_examples=examples[seen], delta=delta / probed
    )
    return bounds


def slice_intervals(
    num_errors: Int[ArrayLike, "*cells levels"],
    num_examples: Int[ArrayLike, " levels"],
    *,
    delta: float,
) -> tuple[Float[np.ndarray, "*cells levels"], Float[np.ndarray, "*cells levels"]]:
    """Bound the risks of all levels at once from below and above, with half of delta on each side.

    A level without examples gets [0, 1].

    Valid when:
      As for `slice_upper_bounds`.
    """
    check_range("delta", delta, 0, 1, ends=False)
    correct = np.asarray(num_examples) - np.asarray(num_errors)
    upper = slice_upper_bounds(num_errors, num_examples, delta=delta / 2)
    return 1 - slice_upper_bounds(correct, num_examples, delta=delta / 2), upper


def increment_intervals(
    lower: Float[ArrayLike, "*cells levels"], upper: Float[ArrayLike, "*cells levels"]
) -> tuple[Float[np.ndarray, "*cells levels-1"], Float[np.ndarray, "*cells levels-1"]]:
    """Bound the rises between neighbouring levels: `least` and `most`, each [*cells, levels - 1].

    Valid when:
      The intervals hold for all levels at once; then so do these, at the same delta.
    """
    lower, upper = np.asarray(lower), np.asarray(upper)
    return lower[..., 1:] - upper[..., :-1], upper[..., 1:] - lower[..., :-1]


def probe(
    num_errors: Int[ArrayLike, "*cells levels"],
    num_examples: Int[ArrayLike, " levels"],
    test: Float[ArrayLike, " levels"],
    *,
    delta: float,
) -> ShiftedBound:
    """Bound the test risk by labels bought at each level; no bound on R_S is needed.

    A level without examples counts with a risk of 1.

    Valid when:
      As for `slice_upper_bounds`, and the test shares p(problem | difficulty) with the probe.
    """
    test, _ = _distributions(test, test)
    _per_level("num_examples", num_examples, len(test))
    upper = slice_upper_bounds(num_errors, num_examples, delta=delta)
    return ShiftedBound(
        np.minimum(upper @ test, 1.0), "probe-certified", "probe", int(np.sum(num_examples))
    )
