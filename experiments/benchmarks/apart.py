"""Calls in a process of their own: XLA's flags, compiled programs and peak memory are a process's.

The modules of what is called are imported there, and JAX starts with host devices as in a study.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from experiments.devices import configure_host_devices

T = TypeVar("T")


@contextlib.contextmanager
def process(**variables: str) -> Iterator[Callable[..., Any]]:
    """A process that stays up for a block; gives a function that calls another one there.

    Args:
      variables: of its environment, besides those of this process.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        # The first call starts the process, which inherits the environment of this one: JAX reads
        # some variables as it is imported.
        kept = dict(os.environ)
        os.environ.update(variables)
        try:
            pool.submit(configure_host_devices).result()
        finally:
            os.environ.clear()
            os.environ.update(kept)
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def apart(function: Callable[..., T], *arguments: Any, **variables: str) -> T:
    """Call a function once, in a process of its own; see `process`."""
    with process(**variables) as call:
        return call(function, *arguments)
