"""Configuration of the devices that a checkpoint is spread over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synth.arguments import check_least

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True)
class Devices:
    """Sizes of the axes of a mesh.

    Attributes:
      data: places that hold all parameters, each with rows of a batch of its own.
      fsdp: parts of every matrix, and of a batch.
      tp: parts of the heads and of the SwiGLU's width.

    Raises:
      ValueError: if one is below 1.
    """

    data: int = 1
    fsdp: int = 1
    tp: int = 1

    def __post_init__(self) -> None:
        check_least(self, 1, "data", "fsdp", "tp")

    def mesh(self) -> Mesh | None:
        """The mesh; None for one device, which may be one of several."""
        if max(self.data, self.fsdp, self.tp) == 1:
            return None
        from experiments.storage.sharding import make_mesh

        return make_mesh(data=self.data, fsdp=self.fsdp, tp=self.tp)
