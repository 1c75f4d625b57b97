"""Occam's razor, a bound for one hypothesis out of countably many."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, log
from theory.divergence import kl_inverse


def occam(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the risk of one hypothesis by its prior probability.

    With n examples and $K = \ln(1/P(h))$, $\mathrm{kl}(L \| R) \le (K + \ln(1/\delta)) / n$, solved
    for the largest R. K is the KL of the point mass on h. For point masses the bound is tighter
    than `pac_bayes_kl`, as it has no constant.

    Args:
      empirical_risk: L, the loss of the chosen hypothesis on the sample, in [0, 1].
      kl: ln(1/P(h)), in nats; `theory.bounds.description_length_kl` gives it for a file.
      num_examples: n, the size of the sample.
      delta: probability with which the bound may fail, in (0, 1).

    Returns:
      The bound, rounded up; at most 1.

    Raises:
      ValueError: if an argument is out of range, or they do not broadcast.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and the prior, over countably many
      hypotheses, was fixed before the sample was seen. It holds for all hypotheses at once.

    References:
      Blumer, Ehrenfeucht, Haussler and Warmuth (1987), "Occam's razor"; Langford (2005), "Tutorial
      on practical prediction theory for classification"; Lotfi et al. (2022), "PAC-Bayes
      compression bounds so tight that they can explain generalization".

    Example:
      >>> print(f"{occam(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1552
    """
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    return kl_inverse(risk, (kl - log(delta)) / n)
