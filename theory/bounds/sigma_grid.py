"""The price, in nats, of choosing the prior's scale on the sample, from a grid fixed before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from theory.checks import check_count


def finite_grid_kl(num_scales: Int[ArrayLike, "*cells"]) -> Any:
    """Nats to add to the KL for the best of G priors: ln G.

    The scale may depend on the sample, but the grid may not.

    Args:
      num_scales: G, the number of scales that could have been chosen, whether tried or not.

    Raises:
      ValueError: if `num_scales` is not an integer of at least 1.

    Example:
      >>> print(f"{finite_grid_kl(8):.4f}")
      2.0794
    """
    return np.log(check_count("num_scales", num_scales, 1))


def countable_grid_kl(index: Int[ArrayLike, "*cells"]) -> Any:
    """Nats to add to the KL for scale number j of a countable grid: 2 ln j + ln(pi²/6).

    Dziugaite and Roy's grid has the variances c exp(-j/b), with c and b fixed before the sample.

    Args:
      index: j, from 1.

    Raises:
      ValueError: if `index` is not an integer of at least 1.

    References:
      Dziugaite and Roy (2017), "Computing nonvacuous generalization bounds for deep (stochastic)
      neural networks with many more parameters than training data".

    Example:
      >>> print(f"{countable_grid_kl(10):.4f}")
      5.1029
    """
    return 2 * np.log(check_count("index", index, 1)) + math.log(math.pi**2 / 6)
