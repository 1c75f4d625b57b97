"""One process or many: who they are, what the first does for all, parameters spread over them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.errors import ExpectedError
from synth.decoder import Parameters

MESSAGE_BYTES = 1024
"""Room for what went wrong in the first process; longer texts are cut."""


class FirstProcessError(ExpectedError):
    """The first process could not do what the others wait for."""


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
