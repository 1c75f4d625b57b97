"""The quadratic PAC-Bayes bound."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, log, rounded_up, sqrt


def quadratic(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the Gibbs risk by the square of a sum of square roots.

    With n examples and $r = (K + \ln(2\sqrt n/\delta)) / (2n)$, $R \le (\sqrt{L + r} + \sqrt r)^2$:
    `pac_bayes_kl` relaxed by Pinsker's inequality for small risks. It equals `thiemann` at the best
    trade-off, and falls as 1/n if the empirical risk is zero.

    Args:
      empirical_risk: L, the posterior-average loss on the sample, in [0, 1].
      kl: K, KL(posterior ‖ prior), in nats.
      num_examples: n, the size of the sample.
      delta: probability with which the bound may fail, in (0, 1).

    Returns:
      The bound, rounded up and clipped at 1.

    Raises:
      ValueError: if an argument is out of range, or they do not broadcast.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and the prior was fixed before the sample
      was seen. It holds for all posteriors at once.

    References:
      Rivasplata, Tankasali and Szepesvári (2019), "PAC-Bayes with backprop"; Pérez-Ortiz,
      Rivasplata, Shawe-Taylor and Szepesvári (2021), "Tighter risk certificates for neural
      networks".

    Example:
      >>> print(f"{quadratic(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1782
    """
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    half_rate = (kl + log(2 * sqrt(n)) - log(delta)) / (2 * n)
    return rounded_up((sqrt(risk + half_rate) + sqrt(half_rate)) ** 2)
