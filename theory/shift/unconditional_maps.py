"""Maps that hold whatever the risks of the levels are, at no extra delta."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import ArrayLike, Float

from theory import distributions, divergence
from theory.shift.arguments import ShiftedBound, check_arguments


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
    risk, test, train = check_arguments(risk_bound, test, train)
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
    risk, test, train = check_arguments(risk_bound, test, train)
    return _unconditional(_times_largest_ratio(risk, test, train), "importance")


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
      test, train: see `theory.shift`.

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
    risk, test, train = check_arguments(weighted_risk, test, train)
    inside = divergence.kl_inverse(risk, radius)
    return _unconditional(_times_largest_ratio(inside, test, train), "weighted importance")


def _times_largest_ratio(risk: np.ndarray, test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The risk times the largest test/train; 1 where that is infinite, even for a risk of zero."""
    largest = np.asarray(distributions.max_ratio(test, train))
    bounded = np.isfinite(largest)
    return np.where(bounded, np.where(bounded, largest, 1) * risk, 1)


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
    risk, test, train = check_arguments(risk_bound, test, train)
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
    risk, test, train = check_arguments(risk_bound, test, train)
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
    risk, test, train = check_arguments(risk_bound, test, train)
    test, train = np.broadcast_arrays(test, train)
    ratio = _ratio(test, train)
    worst_first = np.argsort(-ratio, axis=-1)
    ratio, test, train = (
        np.take_along_axis(each, worst_first, axis=-1) for each in (ratio, test, train)
    )
    return _unconditional(largest_test_risk(risk, ratio, test, train), "neyman_pearson")


def _ratio(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """test/train, [*cells, levels]: infinite at levels that training lacks."""
    seen = train > 0
    return np.where(seen, test / np.where(seen, train, 1), np.inf)


def largest_test_risk(
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
      test, train: see `theory.shift`, in the same order.
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


def _unconditional(values: np.ndarray, method: str) -> ShiftedBound:
    return ShiftedBound(np.minimum(values, 1.0), "unconditional", method)
