"""One process or many: who they are, what the first does for all, parameters spread over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import multihost_utils

from synth.decoder import Parameters

PATIENCE = 60
"""Seconds between the ends of two processes after which the later one is taken to hang."""

MESSAGE_BYTES = 1024
"""Room for what went wrong in the first process; longer texts are cut."""


class FirstProcessError(RuntimeError):
    """The first process could not do what the others wait for."""


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
        """Wait for the other processes, before JAX starts; nothing to do for one.

        A process that ends early, because of an error, ends the others `PATIENCE` later: they wait
        for its part of a sum, and would wait for ever.
        """
        if self.num_processes != 1:
            jax.distributed.initialize(
                self.coordinator,
                self.num_processes,
                self.process_id,
                shutdown_timeout_seconds=PATIENCE,
            )


def is_first() -> bool:
    """Whether this process writes what all of them share."""
    return jax.process_index() == 0


def first_decides(decide: Callable[[], bool]) -> bool:
    """Let the first process do something; the others wait for it, and take over its answer.

    Args:
      decide: is called in the first process alone.

    Raises:
      FirstProcessError: in the others, if `decide` fails; in the first, what it raised.
    """
    if jax.process_count() == 1:
        return decide()
    answer, error = b"", None
    if is_first():
        try:
            answer = b"yes" if decide() else b"no"
        except Exception as raised:
            answer, error = f"{type(raised).__name__}: {raised}".encode(), raised
    padded = np.frombuffer(answer[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0"), np.uint8)
    heard = multihost_utils.broadcast_one_to_all(padded)
    if error is not None:
        raise error
    text = np.asarray(heard).tobytes().rstrip(b"\0").decode(errors="replace")
    if text not in ("yes", "no"):
        raise FirstProcessError(text)
    return text == "yes"


def gathered(parameters: Parameters) -> Parameters:
    """Parameters on the host of every process, one after the other, wherever they were."""

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, parameters)
