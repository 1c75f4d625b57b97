"""The Chernoff bound on a test set."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, check_fixed, log
from theory.divergence import kl_inverse


def chernoff(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"] = 0.0,
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the risk of a hypothesis fixed before the sample, for any loss in [0, 1].

    With n examples, $\mathrm{kl}(L \| R) \le \ln(1/\delta) / n$, solved for the largest R. For the
    0-1 loss `clopper_pearson` is tighter.

    Args:
      empirical_risk: L, the mean loss on the sample, in [0, 1].
      kl: must be 0; an argument only so that all bounds are called alike.
      num_examples: n, the size of the sample.
      delta: probability with which the bound may fail, in (0, 1).

    Returns:
      The bound, rounded up; at most 1.

    Raises:
      ValueError: if an argument is out of range, they do not broadcast, or `kl` is not 0.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and the hypothesis (or posterior) was fixed
      before the sample was seen: a test set, used once.

    References:
      Chernoff (1952), "A measure of asymptotic efficiency for tests of a hypothesis based on the
      sum of observations"; Hoeffding (1963), "Probability inequalities for sums of bounded random
      variables".

    Example:
      >>> print(f"{chernoff(0.1, num_examples=1000, delta=0.05):.4f}")
      0.1248
    """
    check_fixed(kl)
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    return kl_inverse(risk, (kl - log(delta)) / n)
