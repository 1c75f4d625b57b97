r"""Predict the best difficulty for a data budget, from the base alone or from a pilot.

Two things are known about the best difficulty. The base alone says about where it is: **data of
which the base gets 40% right** (`right_share`). A pilot says what the risk of each difficulty will
be at the budget (`bound`), but with noise, as the best difficulties are nearly alike. The rule that
is used (`nearest_candidate`) takes, of the difficulties that the prediction cannot tell from the
best one, the one that the base alone would take. So does the one-standard-error rule of model
selection: the simplest of the models that cannot be told from the best (Hastie, Tibshirani and
Friedman 2009, The Elements of Statistical Learning, section 7.10). How each rule fared is in
docs/results.md.

The risk at a larger budget is predicted as follows. The PAC-Bayes-kl bound with the extrapolation
gap added has the form

    U(n, d) = klinv(L(n, d), K(n, d) / n) + G_ext(n, d),

with L the train risk, K a complexity in nats and G_ext the test risk minus the training mixture's
(Liu et al. 2026, Proposition 4.1, has the same two gaps). Here U is a **prediction** and no
certificate: K is the complexity that the measured gap implies, and the terms are extrapolated to n
from smaller data sizes. Certificates for every d would not certify the argmin of U either, as an
upper bound can be loose where the risk is smallest. A rule is judged by its regret on data sizes
that it has not seen.

That prediction (`bound`) extrapolates well because its limit is known: more data close the
generalization gap klinv(L, K / n) − L, which ends at 0, and the test risk follows that gap.

Axes used throughout: ``difficulty`` (training difficulties in increasing order), ``data_size``
(numbers of examples in increasing order), ``slice`` (test difficulties in increasing order). Any
axes before these are replicates, such as bases or draws of a bootstrap. NumPy, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy import stats

from theory.divergence import binary_kl, kl_inverse

MARGIN = 0.01
"""Distance from 0 and 1 to which risks are moved before they are transformed.

A finite test cannot tell a small risk from 0, and a fit must not follow such differences on a scale
on which they are infinite.
"""

PRIOR_WEIGHT = 0.03
"""Weight of the prior guess of the slope of test risk over generalization gap, see `bound`.

It equals that of a pilot of two data sizes between which the gap changes by a quarter.
"""

RIGHT = 0.4
"""Share of the training mixture that the base should get right by the rule `right_share`.

Any share from .35 to .5 did about as well on the runs that it was formed on.
"""

TELLING = float(stats.norm.ppf(0.95))
"""Standard errors by which a difference must exceed 0, so that its 90% interval lies above it."""


@dataclass(frozen=True)
class Pilot:
    """Measurements at small data sizes, from which to extrapolate.

    Attributes:
      difficulties: hardest level of each training mixture, increasing.
      data_sizes: numbers of examples, increasing; at least two, for a slope.
      train_risk: risk on the training examples, in [0, 1].
      in_distribution_risk: risk on fresh draws from the training mixture, in [0, 1].
      slice_risk: risk on each test slice, in [0, 1].
      train_mixture: probability of each slice's level in each training mixture.
      test_mixture: probability of each slice in the test.
      base_slice_risk: risk of the untouched base on each test slice, in [0, 1].
      slice_examples: number of test problems behind each risk of a slice.

    Raises:
      ValueError: if shapes do not fit, an axis does not increase, or a value is missing or out of
        range.
    """

    difficulties: Int[np.ndarray, " difficulty"]
    data_sizes: Float[np.ndarray, " data_size"]
    train_risk: Float[np.ndarray, "*replicate difficulty data_size"]
    in_distribution_risk: Float[np.ndarray, "*replicate difficulty data_size"]
    slice_risk: Float[np.ndarray, "*replicate difficulty data_size slice"]
    train_mixture: Float[np.ndarray, "difficulty slice"]
    test_mixture: Float[np.ndarray, " slice"]
    base_slice_risk: Float[np.ndarray, "*replicate slice"]
    slice_examples: Float[np.ndarray, " slice"]

    def __post_init__(self) -> None:
        for field in fields(self):
            dtype = np.int64 if field.name == "difficulties" else np.float64
            object.__setattr__(self, field.name, np.asarray(getattr(self, field.name), dtype))
        for name, fewest in (("difficulties", 1), ("data_sizes", 2)):
            values = getattr(self, name)
            if values.ndim != 1 or len(values) < fewest or not _increases_from_one(values):
                raise ValueError(
                    f"{name} must be at least {fewest} increasing numbers from 1, got {values}"
                )
        levels, sizes = len(self.difficulties), len(self.data_sizes)
        slices = self.test_mixture.shape[-1] if self.test_mixture.ndim else 0
        replicates = self.train_risk.shape[:-2]
        wanted = {
            "train_risk": (*replicates, levels, sizes),
            "in_distribution_risk": (*replicates, levels, sizes),
            "slice_risk": (*replicates, levels, sizes, slices),
            "train_mixture": (levels, slices),
            "test_mixture": (slices,),
            "base_slice_risk": (*replicates, slices),
            "slice_examples": (slices,),
        }
        for name, shape in wanted.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
            if name == "slice_examples":
                if not (np.isfinite(values) & (values > 0)).all():
                    raise ValueError(f"{name} must be positive everywhere, got {values}")
            elif not ((values >= 0) & (values <= 1)).all():
                wrong = values[~((values >= 0) & (values <= 1))][0]
                raise ValueError(f"{name} must lie in [0, 1] everywhere, got {wrong}")

    @property
    def test_risk(self) -> Float[np.ndarray, "*replicate difficulty data_size"]:
        """Risk on the test mixture."""
        return self.slice_risk @ self.test_mixture


Rule = Callable[[Pilot, float], Float[np.ndarray, "*replicate difficulty"]]
"""A function of a pilot and a data size, which is at least the pilot's largest.

It returns a score for each difficulty; smaller is better. The score is a predicted test risk,
except for the rules that only rank.
"""


def _increases_from_one(values: np.ndarray) -> bool:
    return bool(values[0] >= 1 and (np.diff(values) > 0).all())


def _inside(risk: np.ndarray) -> np.ndarray:
    """Map risks from [0, 1] to [MARGIN, 1 - MARGIN]."""
    return MARGIN + (1 - 2 * MARGIN) * risk


def _outside(inside: np.ndarray) -> np.ndarray:
    """Undo `_inside`, and clip to [0, 1]."""
    return np.clip((inside - MARGIN) / (1 - 2 * MARGIN), 0.0, 1.0)


def _check_ahead(sizes: np.ndarray, data_size: float) -> None:
    if data_size < sizes[-1]:
        raise ValueError(
            f"data_size must be at least the pilot's largest, {sizes[-1]:g}, got {data_size:g}"
        )


def implied_complexity(
    train_risk: ArrayLike, in_distribution_risk: ArrayLike, data_size: ArrayLike
) -> Float[np.ndarray, "*shape"]:
    """The K, in nats, at which klinv(train risk, K / n) is the in-distribution risk.

    It is n · kl(train risk ‖ in-distribution risk), and 0 where the gap is not positive. It
    describes a measured gap, and includes the term that a bound adds for its confidence. It is no
    KL of a posterior, and no guarantee follows from it. Both risks are moved inside by `MARGIN`, so
    that it is finite.

    Args:
      train_risk: in [0, 1].
      in_distribution_risk: in [0, 1]; broadcasts against `train_risk`.
      data_size: number of training examples; broadcasts against both.
    """
    train = _inside(np.asarray(train_risk, dtype=np.float64))
    fresh = _inside(np.asarray(in_distribution_risk, dtype=np.float64))
    return np.asarray(data_size) * binary_kl(train, np.maximum(train, fresh))


def _in_distribution(
    train_risk: np.ndarray, complexity: np.ndarray, data_size: float
) -> Float[np.ndarray, "*replicate difficulty"]:
    """klinv(L, K / n), for risks moved inside as in `implied_complexity`."""
    radius = np.maximum(complexity, 0.0) / data_size
    return _outside(kl_inverse(_inside(np.clip(train_risk, 0.0, 1.0)), radius))


def _last_terms(pilot: Pilot) -> tuple[np.ndarray, np.ndarray]:
    """L and K at the pilot's largest data size."""
    train, fresh = pilot.train_risk[..., -1], pilot.in_distribution_risk[..., -1]
    return train, implied_complexity(train, fresh, pilot.data_sizes[-1])


def base_accuracy(pilot: Pilot) -> Float[np.ndarray, "*replicate difficulty"]:
    """Share of each training mixture that the untouched base gets right."""
    return np.einsum("...s,ds->...d", 1 - pilot.base_slice_risk, pilot.train_mixture)


def tells_apart(pilot: Pilot) -> Bool[np.ndarray, "*replicate"]:
    """Return True where the base gets more of one training mixture right than of another."""
    return np.ptp(base_accuracy(pilot), axis=-1) > 1e-9  # more than rounding


def right_share(pilot: Pilot, data_size: float) -> Float[np.ndarray, "*replicate difficulty"]:
    """Distance of the base's accuracy on a training mixture from `RIGHT`; ranks, and is no risk.

    It takes no scale of difficulty: the pass rate of the base on the data is enough. No fine-tuned
    member is looked at, and the data size does not matter.
    """
    del data_size
    return np.abs(base_accuracy(pilot) - RIGHT)


def bound(pilot: Pilot, data_size: float) -> Float[np.ndarray, "*replicate difficulty"]:
    """Predicted test risk: U(n, d) with L and K of the pilot's largest data size n₀.

    The generalization gap G_gen(n, d) = klinv(L, K / n) − L then shrinks to 0 as n grows. The test
    risk falls by a share s_d of this decrease, and the extrapolation gap grows by the rest, so
    U(n, d) = R_T(n₀, d) − s_d (G_gen(n₀, d) − G_gen(n, d)).

    If more data reduced the risk on the training levels, by the same amount on each, and on no
    other level, s_d would be the test's mass on the training levels. The pilot corrects this guess:
    s_d is the slope of the measured test risks over the measured generalization gaps, shrunk
    towards that mass by `PRIOR_WEIGHT`.

    Valid when:
      Training at n differs from the pilot only in its data, as with a fixed number of steps;
      otherwise L would change.
    """
    _check_ahead(pilot.data_sizes, data_size)
    # The share, by ridge regression of the test risk on the gap, both centred over data sizes.
    gaps = np.maximum(pilot.in_distribution_risk - pilot.train_risk, 0.0)
    moved, followed = (v - v.mean(axis=-1, keepdims=True) for v in (gaps, pilot.test_risk))
    mass = (pilot.train_mixture > 0) @ pilot.test_mixture
    share = (moved * followed).sum(axis=-1) + PRIOR_WEIGHT * mass
    share /= (moved**2).sum(axis=-1) + PRIOR_WEIGHT
    # The gap at the data size in question.
    train, complexity = _last_terms(pilot)
    gap = _in_distribution(train, complexity, data_size) - train
    return pilot.test_risk[..., -1] - share * (gaps[..., -1] - gap)


def standard_error(pilot: Pilot) -> Float[np.ndarray, "*replicate difficulty"]:
    """Standard error of the test risk at the pilot's largest data size, by the number of problems.

    A share r of wrong answers to m problems has the variance r (1 − r) / m. As none wrong of m is
    not certain to stay so, r is the mean of its posterior under Jeffreys' prior.
    """
    number = pilot.slice_examples
    risk = (pilot.slice_risk[..., -1, :] * number + 0.5) / (number + 1)
    return np.sqrt((pilot.test_mixture**2 * risk * (1 - risk) / number).sum(axis=-1))


def nearest_of_candidates(
    distance: Float[ArrayLike, "*replicate difficulty"],
    predicted: Float[ArrayLike, "*replicate difficulty"],
    width: Float[ArrayLike, "*replicate difficulty difficulty"],
) -> Float[np.ndarray, "*replicate difficulty"]:
    """The distance of the candidates, infinite for all other difficulties.

    A difficulty is a candidate unless its predicted risk is clearly above the least one: unless the
    90% interval of the difference lies above 0.

    Args:
      distance: of `right_share`.
      predicted: risk.
      width: half of the width of the 90% interval of the difference of two predicted risks.
    """
    predicted = np.asarray(predicted)
    least = choose(predicted)[..., None]
    above = predicted - np.take_along_axis(predicted, least, axis=-1)
    widths = np.broadcast_to(width, (*predicted.shape, predicted.shape[-1]))
    limit = np.take_along_axis(widths, least[..., None], axis=-2)[..., 0, :]
    return np.where(above <= limit, distance, np.inf)


def nearest_candidate(pilot: Pilot, data_size: float) -> Float[np.ndarray, "*replicate difficulty"]:
    """The rule: of the difficulties that `bound` cannot tell from the best, that of `right_share`.

    What can be told is decided by the noise of a finite test alone. The score ranks and is no risk.
    For a base that gets the same share of every mixture right, such as nothing, it is the predicted
    risk itself.
    """
    predicted = bound(pilot, data_size)
    error = standard_error(pilot)
    width = TELLING * np.hypot(error[..., None], error[..., None, :])
    scores = nearest_of_candidates(right_share(pilot, data_size), predicted, width)
    return np.where(tells_apart(pilot)[..., None], scores, predicted)


def best_in_pilot(pilot: Pilot, data_size: float) -> Float[np.ndarray, "*replicate difficulty"]:
    """Test risk at the pilot's largest data size, as if it did not change."""
    del data_size
    return pilot.test_risk[..., -1]


def _ranks(pilot: Pilot, order: np.ndarray) -> np.ndarray:
    """The same scores [difficulty] for all replicates."""
    return np.broadcast_to(order.astype(np.float64), pilot.train_risk.shape[:-1])


def easiest(pilot: Pilot, data_size: float) -> Float[np.ndarray, "*replicate difficulty"]:
    """Always the easiest difficulty of the pilot; the score ranks and is no risk."""
    del data_size
    return _ranks(pilot, np.arange(len(pilot.difficulties)))


def medium(pilot: Pilot, data_size: float) -> Float[np.ndarray, "*replicate difficulty"]:
    """Always the middle difficulty, the easier of two; the score ranks and is no risk."""
    del data_size
    levels = len(pilot.difficulties)
    return _ranks(pilot, np.abs(np.arange(levels) - (levels - 1) / 2))


def hardest(pilot: Pilot, data_size: float) -> Float[np.ndarray, "*replicate difficulty"]:
    """Always the hardest difficulty of the pilot; the score ranks and is no risk."""
    del data_size
    return _ranks(pilot, -np.arange(len(pilot.difficulties)))


PREDICTOR, BASE_RULE, RISK = "nearest candidate", "right share", "bound"
"""Names of the rule that is used, of the one that needs no pilot, and of the one whose scores are
predicted risks."""
RISKS = ("bound", "best in pilot")
"""Rules whose scores are predicted test risks."""
NAIVE = ("easiest", "medium", "hardest", "best in pilot")
RULES: dict[str, Rule] = {
    PREDICTOR: nearest_candidate,
    BASE_RULE: right_share,
    RISK: bound,
    "best in pilot": best_in_pilot,
    "easiest": easiest,
    "medium": medium,
    "hardest": hardest,
}
"""All rules by name: the one that is used, its two parts, and the naive ones."""


def choose(scores: ArrayLike) -> Int[np.ndarray, "*replicate"]:
    """Position of the least score along the last axis; ties go to the easier difficulty."""
    return np.argmin(np.asarray(scores), axis=-1)


def regret(test_risk: ArrayLike, choice: ArrayLike) -> Float[np.ndarray, "*replicate"]:
    """R_T at the chosen difficulty minus the smallest R_T: the cost of the choice, at least 0.

    Args:
      test_risk: measured risk of each difficulty, shape [..., difficulty].
      choice: position of the chosen difficulty, shape [...].

    Raises:
      ValueError: if a risk is missing.
    """
    risk = np.asarray(test_risk, dtype=np.float64)
    if not np.isfinite(risk).all():
        raise ValueError(f"test_risk must be known at every difficulty, got {risk}")
    chosen = np.take_along_axis(risk, np.asarray(choice)[..., None], axis=-1)[..., 0]
    return chosen - risk.min(axis=-1)


def rank_correlation(predicted: ArrayLike, measured: ArrayLike) -> Float[np.ndarray, "*replicate"]:
    """Spearman's correlation over difficulties (last axis); NaN where either does not vary."""
    ranks = [stats.rankdata(values, axis=-1) for values in (predicted, measured)]
    first, second = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    product = (first * second).sum(axis=-1)
    return np.divide(product, scale, out=np.full_like(scale, np.nan), where=scale > 0)
