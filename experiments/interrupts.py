"""Ctrl-C and SIGTERM: one line, the right exit code, and no crash, whatever the process is doing.

Python runs a signal's handler in the main thread, between two of its own instructions. While XLA
computes that can take minutes, and an exception that is raised then tears the computation down
while its threads still use it. So the handler here does nothing. A thread of its own is woken by
the signal, lets a file that is being written come to its end, and ends the process at once.

A run survives a kill at any moment, see `experiments.storage.writing`. It survives this as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CLOSING_SECONDS = 2.0
"""Seconds that an end waits for files that are being written, and again for each closer."""

_writing = threading.RLock()
_closers: list[Callable[[], object]] = []


def catch_signals() -> None:
    """End the process with one line after SIGINT (exit code 130) or SIGTERM (143).

    Only the command line calls this, from the main thread and before it imports anything large.
    Processes that are started later have the system's handlers.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in SIGNALS:
        # A shell that starts a command in the background may have it ignore Ctrl-C.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    # A signal that comes during a fork waits, so that the child's own handlers get it.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS),
        after_in_parent=_unblock,
        after_in_child=_leave_signals,
    )
    threading.Thread(target=_wait, args=(read,), name="interrupts", daemon=True).start()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that an interrupt lets come to its end, if that takes less than two seconds."""
    with _writing:
        yield


def when_interrupted(close: Callable[[], object]) -> Callable[[], None]:
    """Call a function before an interrupt ends the process, for example to end other processes.

    Args:
      close: called in a thread; after two seconds the process ends without it.

    Returns:
      A function that withdraws it.
    """
    _closers.append(close)
    return lambda: _closers.remove(close)


def live_with_parent() -> None:
    """Called once in a worker process: leave Ctrl-C to the parent, and end when the parent is gone.

    Ctrl-C reaches all processes of a terminal, but only the parent acts on it. A parent that is
    killed cannot end its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_outlive, args=(os.getppid(),), daemon=True).start()


def _outlive(parent: int) -> None:
    """Body of a thread: end this process once it has another parent."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _do_nothing(number: int, frame: object) -> None:
    """Handler of both signals: with a handler of Python's, the system wakes the thread."""
    del number, frame


def _leave_signals() -> None:
    """Give a forked process the system's handlers: it has no thread that waits for signals."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _unblock()


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _wait(read: int) -> None:
    """Body of the thread: end the process at the first of the two signals."""
    while True:
        for number in os.read(read, 64):
            if number in SIGNALS:
                _end(signal.Signals(number))


def _end(number: signal.Signals) -> None:
    """End this process and those that it started."""
    # No new file is begun once the lock is held; it is never given back.
    _writing.acquire(timeout=CLOSING_SECONDS)
    for close in [*reversed(_closers), _kill_children, sys.stdout.flush]:
        thread = threading.Thread(target=_quietly, args=(close,), daemon=True)
        thread.start()
        thread.join(CLOSING_SECONDS)
    # A progress bar hides the cursor of a terminal.
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""
    line = f"Interrupted ({number.name}). A command with a run directory carries on if repeated.\n"
    with contextlib.suppress(OSError):
        os.write(2, (show_cursor + line).encode())
    os._exit(128 + number)


def _quietly(close: Callable[[], object]) -> None:
    """Call a function whose failure can no longer be told."""
    with contextlib.suppress(Exception):
        close()


def _kill_children() -> None:
    # A process that has not loaded `multiprocessing` has no children. It is not imported at the top
    # of this file, because that would delay `catch_signals`.
    if multiprocessing := sys.modules.get("multiprocessing"):
        for child in multiprocessing.active_children():
            child.kill()
