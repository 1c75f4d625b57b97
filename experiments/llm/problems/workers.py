"""Work in processes that are ended when it takes too long: nothing can hang or kill the caller."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from experiments.devices import num_cores

START_SECONDS = 300.0
"""A process that is not ready by then never will be."""


@dataclass(frozen=True)
class Lost:
    """Stands in for a result that there is none of.

    Attributes:
      reason: ``timeout``; ``crash``, where the process ended; ``error``, where it raised.
      detail: of an error.
    """

    reason: Literal["timeout", "crash", "error"]
    detail: str = ""


class _Worker:
    """A process and what it works on: an item by its number, or its start."""

    def __init__(self, function: Callable[[Any], Any], prepare: Callable[[], None] | None):
        # Not forked: JAX has threads in this process.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, prepare), daemon=True)
        self.process.start()
        # Or the end of the process would not close the pipe.
        theirs.close()
        self.number: int | None = None
        self.deadline = time.monotonic() + START_SECONDS

    def give(self, number: int, item: Any, timeout: float) -> None:
        """Let it work on an item."""
        self.number, self.deadline = number, time.monotonic() + timeout
        # Should it have ended just now, the pipe says so next.
        with contextlib.suppress(OSError):
            self.connection.send(item)

    def outcome(self, has_spoken: bool) -> tuple[Any | Lost, bool] | None:
        """A result and whether the process goes on; None where there is none yet."""
        if has_spoken:
            try:
                return self.connection.recv(), True
            except (EOFError, OSError):
                return Lost("crash"), False
        return (Lost("timeout"), False) if time.monotonic() > self.deadline else None

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def map_in_workers(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    timeout: float,
    processes: int | None = None,
    prepare: Callable[[], None] | None = None,
) -> list[Any | Lost]:
    """Apply a function to items in other processes, each item within a time limit.

    A process that exceeds it, or ends, is replaced, and the others go on meanwhile.

    Args:
      function, prepare: of a module, so that processes find them. The second runs once in each
        process before its first item; its time does not count.
      items: what to work on.
      timeout: seconds for one item.
      processes: how many, at most; None for one a core.

    Returns:
      The result of each item, or why it is lost.

    Raises:
      RuntimeError: if a process does not come to its first item.
    """
    results: list[Any | Lost] = [None] * len(items)
    left = list(reversed(range(len(items))))
    workers: list[_Worker] = []
    try:
        for _ in range(min(processes or num_cores(), len(items))):
            workers.append(_Worker(function, prepare))
        while workers:
            patience = min(worker.deadline for worker in workers) - time.monotonic()
            spoken = wait([worker.connection for worker in workers], max(0.0, patience))
            for worker in list(workers):
                outcome = worker.outcome(worker.connection in spoken)
                if outcome is None:
                    continue
                result, goes_on = outcome
                if worker.number is not None:
                    results[worker.number] = result
                elif not goes_on:
                    worker.end()
                    raise RuntimeError(
                        f"a process could not start ({result.reason}, exit code "
                        f"{worker.process.exitcode})"
                    )
                if goes_on and left:
                    number = left.pop()
                    worker.give(number, items[number], timeout)
                    continue
                workers.remove(worker)
                worker.end()
                if left:
                    workers.append(_Worker(function, prepare))
    finally:
        for worker in workers:
            worker.end()
    return results


def _serve(
    connection: Connection,
    function: Callable[[Any], Any],
    prepare: Callable[[], None] | None,
) -> None:
    """Say that this process is ready, then answer until it is ended."""
    # Ctrl-C is left to the process that started this one, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare is not None:
        prepare()
    connection.send(None)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            result = function(item)
        except Exception as error:
            result = Lost("error", f"{type(error).__name__}: {error}")
        connection.send(result)
