"""The result of a map, and the checks of arguments that all maps share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import ArrayLike, Float

from theory.checks import check_range
from theory.distributions import check_distributions

Layer = Literal["unconditional", "conditional", "probe-certified"]


@dataclass(frozen=True)
class ShiftedBound:
    """A bound on the test risk, and the evidence it rests on.

    Attributes:
      values: bounds in [0, 1], of the shape of the risk bounds that they were made from.
      layer: layer of trust, see `theory.shift`.
      method: name of the map.
      num_labelled: labelled examples used beyond the training data.
    """

    values: Float[np.ndarray, "*cells"]
    layer: Layer
    method: str
    num_labelled: int = 0


def check_arguments(
    risk_bound: Float[ArrayLike, "*cells"],
    test: Float[ArrayLike, "*cells levels"],
    train: Float[ArrayLike, "*cells levels"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the arguments of a map, and return them in float64."""
    risk = check_range("risk_bound", risk_bound, 0, 1)
    test, train = check_distributions(test=test, train=train)
    return risk, test, train


def check_levels(name: str, given: ArrayLike, num_levels: int) -> np.ndarray:
    """Check that the last axis has one entry for each level."""
    array = np.asarray(given)
    if array.ndim == 0 or array.shape[-1] != num_levels:
        raise ValueError(f"{name} must have shape [..., {num_levels}], got {array.shape}")
    return array


def excess(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """F_S - F_T but for the last level, [*cells, levels - 1]; positive if training is easier."""
    return np.cumsum(train - test, axis=-1)[..., :-1]
