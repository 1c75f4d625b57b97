r"""The total bound: from a posterior's risk on its sample to its risk on the test.

Liu et al. (2026), Proposition 4.1, bound the test risk of a fine-tuned posterior by its risk on the
training sample, a generalization term (PAC-Bayes) and an extrapolation term (a distance between the
difficulties of test and training). Here each variant puts two theorems together:

- ``literal``: the proposition as it stands, the square-root bound and the total variation;
- ``unconditional``: the tightest of both that hold without an assumption, PAC-Bayes-kl and the
  worst case over all risks of the levels;
- ``monotone``: PAC-Bayes-kl and the worst case over risks that rise with difficulty.

All three fail on the same event, that the sample is untypical, so they may be shown together at one
delta. If n points share a figure, delta has to be split over them (`theory.certificate.Ledger`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.mcallester_maurer import mcallester_maurer
from theory.bounds.pac_bayes_kl import pac_bayes_kl
from theory.shift import Layer, ShiftedBound, monotone, neyman_pearson, total_variation

VARIANTS: dict[str, tuple[Callable[..., Any], Callable[..., ShiftedBound]]] = {
    "literal": (mcallester_maurer, total_variation),
    "unconditional": (pac_bayes_kl, neyman_pearson),
    "monotone": (pac_bayes_kl, monotone),
}
"""Each variant's bound on the training mixture's risk, and its map from there to the test risk."""


@dataclass(frozen=True)
class TotalBound:
    """A bound on the test risk and its parts, which add up to it.

    Attributes:
      values: the bound, in [0, 1].
      sample_risk: risk of the posterior on its sample.
      generalization: what the bound on the training mixture's risk adds to that.
      extrapolation: what the step from there to the test adds; negative where the test is easier
        than the training, and cut where the sum would exceed 1.
      variant: key of `VARIANTS`.
      layer: layer of trust, see `theory.shift`.
    """

    values: Float[np.ndarray, "*cells"]
    sample_risk: Float[np.ndarray, "*cells"]
    generalization: Float[np.ndarray, "*cells"]
    extrapolation: Float[np.ndarray, "*cells"]
    variant: str
    layer: Layer


def total_bound(
    sample_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
    variant: str = "unconditional",
) -> TotalBound:
    """Bound the test risk of a posterior. All arguments broadcast.

    Args:
      sample_risk: its risk on the training sample, in [0, 1].
      kl: KL(posterior ‖ prior), in nats.
      num_examples: n, the size of the sample.
      delta: probability with which the bound may fail, in (0, 1).
      test, train: probabilities of the difficulties in the test and in the training mixture.
      variant: key of `VARIANTS`.

    Raises:
      ValueError: if an argument is out of range, they do not broadcast, or the variant is unknown.

    Valid when:
      The loss lies in [0, 1]; the examples are i.i.d. from the training mixture; the prior was
      fixed before they were seen; test and training share p(problem | difficulty). The layer
      ``conditional`` needs the assumption of its map as well. It holds for all posteriors at once.

    References:
      Liu et al. (2026), Proposition 4.1; Maurer (2004), "A note on the PAC-Bayesian theorem";
      Neyman and Pearson (1933).

    Example:
      >>> uniform, up_to_3 = [0.25] * 4, [1 / 3] * 3 + [0]
      >>> total = total_bound(0.1, 5.0, num_examples=1000, delta=0.05, test=uniform, train=up_to_3)
      >>> print(f"{float(total.values):.4f}, extrapolation {float(total.extrapolation):.4f}")
      0.3640, extrapolation 0.2120
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {sorted(VARIANTS)}, got {variant!r}")
    bound, extend = VARIANTS[variant]
    sample = np.asarray(sample_risk, dtype=np.float64)
    training_risk = np.minimum(bound(sample, kl, num_examples=num_examples, delta=delta), 1.0)
    shifted = extend(training_risk, test, train)
    shape = np.broadcast_shapes(sample.shape, training_risk.shape, shifted.values.shape)
    sample, training_risk, values = (
        np.broadcast_to(each, shape) for each in (sample, training_risk, shifted.values)
    )
    return TotalBound(
        values,
        sample,
        training_risk - sample,
        values - training_risk,
        variant,
        shifted.layer,
    )
