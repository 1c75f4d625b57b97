"""Where the knowledge of a model ends: numbers in, numbers out, NumPy alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

HALF = 0.5
"""Share of a level that a base gets right where its knowledge is said to end."""


def half_level(accuracy: Float[np.ndarray, "*shape slice"]) -> Float[np.ndarray, "*shape"]:
    """Position of the slice of which half is right, interpolated between neighbours.

    Read from the easiest slice on: the first fall below a half counts. It is 0 if less than half of
    the easiest slice is right, and the last position if no slice falls that low.

    Args:
      accuracy: on each test slice, in [0, 1], easiest first.
    """
    below = accuracy < HALF
    first = np.where(below.any(axis=-1), below.argmax(axis=-1), accuracy.shape[-1])
    last = np.maximum(first - 1, 0)
    after = np.minimum(first, accuracy.shape[-1] - 1)
    high, low = (
        np.take_along_axis(accuracy, place[..., None], axis=-1)[..., 0] for place in (last, after)
    )
    fall = high - low
    share = np.divide(high - HALF, fall, out=np.zeros_like(fall), where=fall > 0)
    return np.where((first == 0) | (first == accuracy.shape[-1]), last, last + share)
