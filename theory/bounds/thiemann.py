"""Thiemann et al.'s bound, which can be minimised by posterior and trade-off in turns."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, known_range, log, rounded_up, sqrt
from theory.checks import is_traced, same_kind


def thiemann(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
    trade_off: Float[ArrayLike, "*cells"] | None = None,
) -> Any:
    r"""Bound the Gibbs risk by a weighted sum of empirical risk and KL.

    With n examples, $B = K + \ln(2\sqrt n/\delta)$ and a trade-off $\lambda$,
    $R \le L/(1 - \lambda/2) + B/(n\lambda(1 - \lambda/2))$. The best trade-off is
    $2/(\sqrt{2nL/B + 1} + 1)$, and the bound is `quadratic` there.

    Args:
      empirical_risk: L, the posterior-average loss on the sample, in [0, 1].
      kl: K, KL(posterior ‖ prior), in nats.
      num_examples: n, the size of the sample.
      delta: probability with which the bound may fail, in (0, 1).
      trade_off: in (0, 2); the best one unless given.

    Returns:
      The bound, rounded up and clipped at 1.

    Raises:
      ValueError: if an argument is out of range, or they do not broadcast.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and the prior was fixed before the sample
      was seen. It holds for all posteriors and **all trade-offs** at once, because each of them
      follows by arithmetic from kl(L‖R) <= B/n, in which there is no trade-off. So no delta is
      spent if it is chosen after seeing the data.

    References:
      Thiemann, Igel, Wintenberger and Seldin (2017), "A strongly quasiconvex PAC-Bayesian bound".

    Example:
      >>> print(f"{thiemann(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1782
    """
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    budget = kl + log(2 * sqrt(n)) - log(delta)
    chosen: Any = (
        2 / (sqrt(2 * n * risk / budget + 1) + 1)
        if trade_off is None
        else known_range("trade_off", trade_off, 0, 2, ends=False)
    )
    if is_traced(risk, chosen):
        risk, budget, n, chosen = same_kind(risk, budget, n, chosen)
        chosen = jnp.where((chosen > 0) & (chosen < 2), chosen, jnp.nan)
    return rounded_up((risk + budget / (n * chosen)) / (1 - chosen / 2))
