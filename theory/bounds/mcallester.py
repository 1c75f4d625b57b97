"""McAllester's first bound."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, log, rounded_up, sqrt


def mcallester(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the Gibbs risk by the empirical risk plus a square root.

    With n examples, $R \le L + \sqrt{(K + \ln(1/\delta) + \ln n + 2) / (2n - 1)}$. Of historical
    interest: looser than `mcallester_maurer` everywhere.

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
      McAllester (1999), "PAC-Bayesian model averaging".

    Example:
      >>> print(f"{mcallester(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.2047
    """
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    return rounded_up(risk + sqrt((kl - log(delta) + log(n) + 2) / (2 * n - 1)))
