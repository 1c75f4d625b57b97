"""Several processes of one program: joining them, decisions of the first, gathered parameters."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.errors import ExpectedError
from synth.decoder import Parameters

MESSAGE_BYTES = 1024
"""Most bytes of the first process's error that the others are told; the rest is cut."""


class FirstProcessError(ExpectedError):
    """The first process failed at work that the others wait for."""


def is_first() -> bool:
    """Return whether this is the first process, which writes the files that all share."""
    return jax.process_index() == 0


def first_decides(decide: Callable[[], bool]) -> bool:
    """Call a function in the first process, and return its answer in all processes.

    Args:
      decide: called in the first process only; the others wait.

    Raises:
      FirstProcessError: in the other processes, if `decide` fails. The first raises its error.
    """
    if jax.process_count() == 1:
        return decide()
    # The answer, or the error, travels as text. An error must be told too: the others wait.
    answer, error = b"", None
    if is_first():
        try:
            answer = b"yes" if decide() else b"no"
        except Exception as raised:
            answer, error = f"{type(raised).__name__}: {raised}".encode(), raised
    # All processes must broadcast arrays of one shape, so that every answer has the same length.
    padded = np.frombuffer(answer[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0"), np.uint8)
    received = multihost_utils.broadcast_one_to_all(padded)
    if error is not None:
        raise error
    text = np.asarray(received).tobytes().rstrip(b"\0").decode(errors="replace")
    if text not in ("yes", "no"):
        raise FirstProcessError(text)
    return text == "yes"


def gathered(parameters: Parameters) -> Parameters:
    """Copy parameters to the host of every process, one leaf after the other."""

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(whole, parameters)
