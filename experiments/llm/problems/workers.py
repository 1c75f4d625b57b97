"""A map over worker processes with a time limit for each item.

A worker that hangs is killed, and one that dies is replaced: neither can stop the caller.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from experiments.devices import num_cores
from experiments.interrupts import live_with_parent

MEBIBYTES = 1024
"""Memory that a process may take beyond what it has when it is ready; an item that needs more is an
error of its own, or ends the process."""

START_SECONDS = 300.0
"""Seconds in which a new process must be ready for its first item."""


@dataclass(frozen=True)
class Lost:
    """Takes the place of a result that could not be computed.

    Attributes:
      reason: ``timeout``; ``crash`` if the process ended; ``error`` if the function raised.
      detail: text of the error.
    """

    reason: Literal["timeout", "crash", "error"]
    detail: str = ""


class _Worker:
    """A process, with the number of the item that it works on; None while it starts."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        prepare: Callable[[], object] | None,
        environment: Mapping[str, str],
    ):
        # Spawn, because forking is unsafe: JAX runs threads in this process.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, prepare), daemon=True)
        with _variables(environment):
            self.process.start()
        # Close our copy of the child's end; otherwise `recv` never sees EOF when it dies.
        theirs.close()
        self.number: int | None = None
        self.deadline = time.monotonic() + START_SECONDS

    def give(self, number: int, item: Any, timeout: float) -> None:
        """Send an item to the process."""
        self.number, self.deadline = number, time.monotonic() + timeout
        # If the process has just died, the next `outcome` reports it.
        with contextlib.suppress(OSError):
            self.connection.send(item)

    def outcome(self, has_message: bool) -> tuple[Any | Lost, bool] | None:
        """Result, and whether the process can go on; None if it is still at work."""
        if has_message:
            try:
                return self.connection.recv(), True
            except (EOFError, OSError):
                return Lost("crash"), False
        return (Lost("timeout"), False) if time.monotonic() > self.deadline else None

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def map_in_workers(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    timeout: float,
    processes: int | None = None,
    prepare: Callable[[], object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Any | Lost]:
    """Apply a function to items in other processes, with a time limit for each item.

    A process that exceeds the limit or dies is replaced, while the others continue.

    Args:
      function: applied to each item; importable from a module, so that processes can load it.
      items: arguments, one for each call.
      timeout: seconds for one item.
      processes: the most processes; None for one a core.
      prepare: called once in each process before its first item, outside the time limit; importable
        like `function`.
      environment: variables that the processes start with, beside those of this process.

    Returns:
      The result of each item, or a `Lost` that says why there is none.

    Raises:
      RuntimeError: if a process does not get ready for its first item.
    """
    results: list[Any | Lost] = [None] * len(items)
    waiting = list(reversed(range(len(items))))
    workers: list[_Worker] = []
    try:
        for _ in range(min(processes or num_cores(), len(items))):
            workers.append(_Worker(function, prepare, environment or {}))
        while workers:
            patience = min(worker.deadline for worker in workers) - time.monotonic()
            # Wait for the first message, but no longer than to the earliest deadline.
            ready = wait([worker.connection for worker in workers], max(0.0, patience))
            for worker in list(workers):
                outcome = worker.outcome(worker.connection in ready)
                if outcome is None:
                    continue
                result, goes_on = outcome
                # Keep the result; the first message of a process only says that it is ready.
                if worker.number is not None:
                    results[worker.number] = result
                elif not goes_on:
                    worker.end()
                    raise RuntimeError(
                        f"a process could not start ({result.reason}, exit code "
                        f"{worker.process.exitcode})"
                    )
                # Give the process its next item, or end it and start another for what is left.
                if goes_on and waiting:
                    number = waiting.pop()
                    worker.give(number, items[number], timeout)
                    continue
                workers.remove(worker)
                worker.end()
                if waiting:
                    workers.append(_Worker(function, prepare, environment or {}))
    finally:
        for worker in workers:
            worker.end()
    return results


@contextlib.contextmanager
def _variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, which a process that starts now inherits."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _limit_memory() -> None:
    """Limit the memory of this process to `MEBIBYTES` beyond what it has, where the system can."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        taken = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
        limit = 1024 * (taken + 1024 * MEBIBYTES)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _serve(
    connection: Connection,
    function: Callable[[Any], Any],
    prepare: Callable[[], object] | None,
) -> None:
    """Body of a worker process: report that it is ready, then answer until it is ended."""
    live_with_parent()
    if prepare is not None:
        prepare()
    _limit_memory()
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
