"""Correction of a posterior average for its estimation by draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from theory.checks import check_count, check_range
from theory.divergence import kl_inverse


def monte_carlo_risk(
    estimate: Float[ArrayLike, "*cells"],
    *,
    num_draws: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
) -> Any:
    r"""Bound the posterior-average empirical risk by its Monte Carlo estimate.

    With m draws, $\mathrm{kl}(\hat L_m \| L) \le \ln(1/\delta) / m$, solved for the largest L. Use
    it in place of the estimate as the `empirical_risk` of a bound, and take its delta from the
    bound's.

    Args:
      estimate: mean loss over the draws, in [0, 1].
      num_draws: m. A draw is one set of weights, with its loss on the whole sample; or one set of
        weights *for each example*, and then m is draws times examples.
      delta: probability with which the correction may fail, in (0, 1).

    Returns:
      The corrected risk, rounded up; at most 1.

    Raises:
      ValueError: if an argument is out of range.

    Valid when:
      The losses lie in [0, 1], and the draws are independent, from the posterior, and fresh: none
      was used to choose it.

    References:
      Langford and Caruana (2001), "(Not) bounding the true error".

    Example:
      >>> print(f"{monte_carlo_risk(0.1, num_draws=1000, delta=0.01):.4f}")
      0.1312
    """
    estimate = check_range("estimate", estimate, 0, 1)
    draws = check_count("num_draws", num_draws, 1)
    return kl_inverse(estimate, -np.log(check_range("delta", delta, 0, 1, ends=False)) / draws)
