"""The exact binomial bound on a test set, to compare every other bound with."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.special import betainccinv

from theory.bounds.arguments import check_arguments, check_fixed


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
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    check_fixed(kl)
    errors = np.rint(n * risk)
    whole = np.abs(n * risk - errors) <= 1e-6
    if not whole.all():
        raise ValueError(
            "empirical_risk times num_examples must be a whole number of errors, "
            f"got {(n * risk)[~whole][0]}"
        )
    errors, n, delta = np.broadcast_arrays(errors, n, delta)
    with_all = errors == n
    bound = betainccinv(errors + 1, np.where(with_all, 1, n - errors), delta)
    # The error of `betainccinv`, measured against mpmath up to n = 10^7, is below a tenth of this.
    margin = 1e-12 + 4 * n * np.finfo(np.float64).eps
    return np.minimum(np.where(with_all, 1.0, bound * (1 + margin)), 1.0)[()]
