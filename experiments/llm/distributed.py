"""One process or many: who they are, and parameters that are spread over all of them."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from synth.decoder import Parameters


@dataclass(frozen=True)
class Processes:
    """The processes of one program, as `jax.distributed.initialize` wants them.

    Attributes:
      coordinator: ``host:port`` of the first process; None on a cluster that JAX knows (Slurm, a
        TPU pod, Open MPI …) with `num_processes` None too.
      num_processes: how many there are; 1 for no other.
      process_id: number of this one, from 0.

    Raises:
      ValueError: if a field is out of range.
    """

    coordinator: str | None = None
    num_processes: int | None = 1
    process_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_processes is None or self.num_processes == 1:
            return
        if self.num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, got {self.num_processes}")
        if self.coordinator is None or ":" not in self.coordinator:
            raise ValueError(f"coordinator must be host:port, got {self.coordinator!r}")
        if self.process_id is None or not 0 <= self.process_id < self.num_processes:
            raise ValueError(
                f"process_id must be between 0 and {self.num_processes - 1}, got {self.process_id}"
            )

    def join(self) -> None:
        """Wait for the other processes, before JAX starts; nothing to do for one."""
        if self.num_processes != 1:
            jax.distributed.initialize(self.coordinator, self.num_processes, self.process_id)


def is_first() -> bool:
    """Whether this process writes what all of them share."""
    return jax.process_index() == 0


def gathered(parameters: Parameters) -> Parameters:
    """Parameters on the host of every process, one after the other, wherever they were."""

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, parameters)
