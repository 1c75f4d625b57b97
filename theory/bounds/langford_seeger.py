"""Langford and Seeger's bound, the first that inverts the binary KL."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, log
from theory.divergence import kl_inverse


def langford_seeger(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the Gibbs risk by inverting the binary KL, with an older constant.

    With n examples, $\mathrm{kl}(L \| R) \le (K + \ln(n/\delta)) / (n - 1)$, solved for the largest
    R. Looser than `pac_bayes_kl` everywhere; kept for comparison with published numbers.

    Args:
      empirical_risk: L, the posterior-average loss on the sample, in [0, 1].
      kl: K, KL(posterior ‖ prior), in nats.
      num_examples: n, the size of the sample, at least 2.
      delta: probability with which the bound may fail, in (0, 1).

    Returns:
      The bound, rounded up; at most 1.

    Raises:
      ValueError: if an argument is out of range, or they do not broadcast.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and the prior was fixed before the sample
      was seen. It holds for all posteriors at once.

    References:
      Langford and Seeger (2001), "Bounds for averaging classifiers".

    Example:
      >>> print(f"{langford_seeger(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1702
    """
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta, fewest=2)
    return kl_inverse(risk, (kl + log(n) - log(delta)) / (n - 1))
