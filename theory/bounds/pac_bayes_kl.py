"""The PAC-Bayes-kl bound, the one to take where nothing speaks for another."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.bounds.arguments import check_arguments, check_concrete, like, log
from theory.divergence import kl_inverse
from theory.maurer import log_xi


def pac_bayes_kl(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the Gibbs risk by inverting the binary KL, with the exact constant.

    With n examples, $\mathrm{kl}(L \| R) \le (K + \ln(\xi(n)/\delta)) / n$, solved for the largest
    R. The constant `theory.maurer.xi` is at most $2\sqrt n$.

    Of the bounds of this package that hold for all posteriors it is the tightest but for
    `catoni_grid`, which has no constant that grows with n and pays for its grid instead. Which of
    the two is smaller depends on the cell: `catoni_grid` would have been in most of the recorded
    certificates that are by this bound, by less than 0.01, and looser by less than 0.01 in the
    others. To choose after seeing both, split delta over them.

    Args:
      empirical_risk: L, the posterior-average loss on the sample, in [0, 1].
      kl: K, KL(posterior ‖ prior), in nats.
      num_examples: n, the size of the sample; may not be traced.
      delta: probability with which the bound may fail, in (0, 1).

    Returns:
      The bound, rounded up; at most 1.

    Raises:
      ValueError: if an argument is out of range, or they do not broadcast.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and the prior was fixed before the sample
      was seen. It holds for all posteriors at once. A prior may be trained on other data: then the
      risk, the KL and n are those of the examples that it has not seen.

    References:
      Seeger (2002), "PAC-Bayesian generalisation error bounds for Gaussian process classification";
      Maurer (2004), "A note on the PAC-Bayesian theorem", Theorem 5.

    Example:
      >>> print(f"{pac_bayes_kl(0.1, 10.0, num_examples=1000, delta=0.05):.4f}")
      0.1635
    """
    check_concrete("num_examples", num_examples, "the constant is summed for it on the host")
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    constant = like(risk, log_xi(num_examples))
    return kl_inverse(risk, (kl + constant - log(delta)) / n)
