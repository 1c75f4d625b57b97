"""The exact binomial bound on a test set, to compare every other bound with."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import betainccinv
from scipy.stats import binom

from theory.bounds.arguments import check_arguments, check_concrete, check_fixed
from theory.divergence import kl_inverse

SMALLEST_DELTA = 1e-200
"""Below it SciPy's inverse of the incomplete beta function loses digits, at 1e-300 all of them."""

MOST_EXAMPLES, MOST_ERRORS = 10**10, 10**6
"""Beyond these, the Chernoff bound stands for the root at so small a delta."""


def _by_root(errors: float, n: float, delta: float) -> float:
    """Solve P(at most so many errors) = delta for the risk, in logarithms; `errors` is below n."""
    # The Chernoff bound is above the root. Where it is 1, the root is too, but for rounding.
    lowest, highest = errors / n, float(kl_inverse(errors / n, -np.log(delta) / n))
    if highest == 1 or n > MOST_EXAMPLES or errors > MOST_ERRORS:
        return highest
    # Each term of the tail is the one above it times a ratio that is below 1.
    ratios = np.arange(errors, 0, -1) / (n - np.arange(errors, 0, -1) + 1)

    def excess(risk: float) -> float:
        terms = np.cumprod(ratios * (1 - risk) / risk)
        return binom.logpmf(errors, n, risk) + np.log1p(terms.sum()) - np.log(delta)

    start = lowest + 1e-3 * (highest - lowest)
    root: Any = brentq(excess, start, highest, xtol=1e-300, rtol=np.float64(1e-14))
    return root


def clopper_pearson(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"] = 0.0,
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    """Bound the 0-1 risk of a hypothesis fixed before the sample, exactly.

    It is the largest risk at which so few errors have a probability of delta. No bound that grows
    with the number of errors is tighter. It is one-sided: for an interval, split delta.

    Args:
      empirical_risk: share of errors on the sample, in [0, 1].
      kl: must be 0; an argument only so that all bounds are called alike.
      num_examples: n, the size of the sample.
      delta: probability with which the bound may fail, in (0, 1).

    Returns:
      The bound, rounded up by a relative 1e-12 + 4 n eps; at most 1.

    Raises:
      ValueError: if an argument is out of range, they do not broadcast, `kl` is not 0, or the risk
        is not a whole number of errors (to within 1e-6: a risk in float32 is too coarse).

    Valid when:
      The loss is 0 or 1, the examples are i.i.d., and the hypothesis was fixed before the sample
      was seen: a test set, used once.

    References:
      Clopper and Pearson (1934), "The use of confidence or fiducial limits illustrated in the case
      of the binomial".

    Example:
      >>> print(f"{clopper_pearson(0.1, num_examples=1000, delta=0.05):.4f}")
      0.1170
    """
    for name, values in (
        ("empirical_risk", empirical_risk),
        ("num_examples", num_examples),
        ("delta", delta),
    ):
        check_concrete(name, values, "the bound is solved on the host (chernoff can be traced)")
    check_fixed(kl)
    risk, _, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    errors = np.rint(n * risk)
    whole = np.abs(n * risk - errors) <= 1e-6
    if not whole.all():
        raise ValueError(
            "empirical_risk times num_examples must be a whole number of errors, "
            f"got {(n * risk)[~whole][0]}"
        )
    errors, n, delta = np.broadcast_arrays(errors, n, delta)
    with_all = errors == n
    bound = np.array(betainccinv(errors + 1, np.where(with_all, 1, n - errors), delta))
    for index in np.argwhere((delta < SMALLEST_DELTA) & ~with_all):
        place = tuple(index)
        bound[place] = _by_root(*(float(each[place]) for each in (errors, n, delta)))
    # The error of `betainccinv`, measured against mpmath up to n = 10^7, is below a tenth of this.
    margin = 1e-12 + 4 * n * np.finfo(np.float64).eps
    return np.minimum(np.where(with_all, 1.0, bound * (1 + margin)), 1.0)[()]
