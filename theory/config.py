"""Configuration of a posterior's training; it loads without JAX."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Integral
from typing import Any

LARGEST = 2**31 - 1
"""The largest whole number that is accepted: counts are held in 32 bits."""


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and abs(int(value)) <= LARGEST


@dataclass(frozen=True)
class PosteriorConfig:
    """Settings of a posterior's training.

    Attributes:
      steps: optimiser steps.
      batch_size: examples in a step.
      draws: vectors drawn in a step; each serves ``batch_size / draws`` examples.
      learning_rate: of the shift, for gradient descent in units of the prior's scale (gradients
        are clipped to length 1).
      scale_learning_rate: of the log ratio, for Adam.
      warmup: share of the steps over which the learning rates rise; then they fall as a cosine.
      first_temperature, temperature: of the bounded loss, in nats. The first falls geometrically to
        the second over half of the steps, because at a low temperature an example that is far from
        solved has no gradient.
      free: share of the steps over which the KL term rises from zero.

    Raises:
      ValueError: if a field is out of range.
    """

    steps: int = 1200
    batch_size: int = 32
    draws: int = 32
    learning_rate: float = 2.0
    scale_learning_rate: float = 0.02
    warmup: float = 0.05
    first_temperature: float = 4.0
    temperature: float = 2.0
    free: float = 0.5

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "draws"):
            if not _is_count(value := getattr(self, name)):
                raise ValueError(
                    f"{name} must be a whole number of at most {LARGEST}, got {value!r}"
                )
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}"
            )
        if self.draws < 1 or self.batch_size % self.draws:
            raise ValueError(f"draws must divide batch_size = {self.batch_size}, got {self.draws}")
        for name in ("learning_rate", "scale_learning_rate", "first_temperature", "temperature"):
            if not 0 < getattr(self, name) <= sys.float_info.max:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup", "free"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
