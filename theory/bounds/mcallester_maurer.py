"""McAllester's bound with Maurer's constant."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, log, rounded_up, sqrt


def mcallester_maurer(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the Gibbs risk by the empirical risk plus a square-root term.

    With n examples, $R \le L + \sqrt{(K + \ln(2\sqrt n/\delta)) / (2n)}$: `pac_bayes_kl` relaxed by
    Pinsker's inequality. It falls as 1/sqrt(n) even if the empirical risk is zero.

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
      McAllester (1999), "PAC-Bayesian model averaging"; Maurer (2004), "A note on the PAC-Bayesian
      theorem".

    Example:
      >>> print(f"{mcallester_maurer(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1926
    """
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    budget = kl + log(2 * sqrt(n)) - log(delta)
    return rounded_up(risk + sqrt(budget / (2 * n)))
