"""Work in processes that are ended when it takes too long: nothing can hang or kill the caller."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal


@dataclass(frozen=True)
class Lost:
    """Stands in for a result that there is none of.

    Attributes:
      reason: ``timeout``; ``crash``, where the process ended; ``error``, where it raised.
      detail: of an error.
    """

    reason: Literal["timeout", "crash", "error"]
    detail: str = ""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    item: int | None = None
    deadline: float | None = None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def num_processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
      processes: how many, at most; None for one a processor.

    Returns:
      The result of each item, or why it is lost.

    Raises:
      RuntimeError: if a process ends before its first item.
    """
    # Not forked: JAX has threads in this process.
    context = multiprocessing.get_context("spawn")
    results: list[Any | Lost] = [None] * len(items)
    left = list(reversed(range(len(items))))
    workers: list[_Worker] = []

    def start() -> _Worker:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, function, prepare), daemon=True)
        process.start()
        # Or the end of the process would not close the pipe.
        theirs.close()
        return _Worker(process, ours)

    def next_of(worker: _Worker) -> _Worker | None:
        """The worker with its next item, or None after its end where nothing is left."""
        if not left:
            worker.end()
            return None
        worker.item, worker.deadline = left.pop(), time.monotonic() + timeout
        # Should it have ended just now, the pipe says so next.
        with contextlib.suppress(OSError):
            worker.connection.send(items[worker.item])
        return worker

    def advance(worker: _Worker, ready: bool) -> _Worker | None:
        """The worker after what has happened, or the one in its place."""
        lost = None
        if ready:
            try:
                result = worker.connection.recv()
            except (EOFError, OSError):
                lost = Lost("crash")
            else:
                if worker.item is not None:
                    results[worker.item] = result
                return next_of(worker)
        elif worker.deadline is not None and time.monotonic() > worker.deadline:
            lost = Lost("timeout")
        if lost is None:
            return worker
        worker.end()
        if worker.item is None:
            raise RuntimeError(
                f"a process ended (exit code {worker.process.exitcode}) at its start"
            )
        results[worker.item] = lost
        return start() if left else None

    try:
        for _ in range(min(processes or num_processors(), len(items))):
            workers.append(start())
        while workers:
            deadlines = [worker.deadline for worker in workers if worker.deadline is not None]
            patience = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
            ready = wait([worker.connection for worker in workers], patience)
            for place in reversed(range(len(workers))):
                follower = advance(workers[place], workers[place].connection in ready)
                workers[place : place + 1] = [follower] if follower else []
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
