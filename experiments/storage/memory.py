"""Memory: what a device or this process has, what a program takes, and an error when it runs out.

All numbers are bytes. Where a system tells nothing they are None: then nothing is refused, and a
program that needs too much fails when it runs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import ExpectedError

PROC, CONTROL_GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class OutOfMemoryError(ExpectedError):
    """A program needs more memory than there is; the message names what makes it smaller."""


def available_memory(*, proc: Path = PROC, groups: Path = CONTROL_GROUPS) -> int | None:
    """RAM that this process can still take: the system's, or less where a control group limits it.

    Args:
      proc, groups: where Linux mounts its process information and control groups.
    """
    found = [_free_in_system(proc), *_free_in_groups(proc, groups)]
    known = [value for value in found if value is not None]
    return max(0, min(known)) if known else None


def _free_in_system(proc: Path) -> int | None:
    """Memory that the system could give without swapping."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _free_in_groups(proc: Path, groups: Path) -> list[int | None]:
    """What is left below the limit of each control group that this process is in, 2 or 1."""
    try:
        entries = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[int | None] = []
    for entry in entries:
        _, controllers, path = entry.split(":", 2)
        if controllers == "":
            root, limit, used = groups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = groups / "memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # A group is limited by those around it too. Inside a container the path may lead nowhere,
        # and the mount itself is the group.
        folder = root / path.lstrip("/")
        for each in (folder, *folder.parents):
            found.append(_left(each / limit, each / used))
            if each == root:
                break
    return found


def _left(limit: Path, used: Path) -> int | None:
    """Limit less use; None if either file is missing or the limit is the word ``max``."""
    try:
        return int(limit.read_text()) - int(used.read_text())
    except (OSError, ValueError):
        return None


def device_memory(device: Any, *, sharing: int = 1) -> int | None:
    """Memory for programs and their arrays on a device.

    A GPU's is fixed when JAX starts (by default three quarters of the card, see
    ``XLA_PYTHON_CLIENT_MEM_FRACTION``). CPU devices share what is available now.

    Args:
      device: a JAX device.
      sharing: how many CPU devices share the RAM.
    """
    if device.platform == "cpu":
        free = available_memory()
        return None if free is None else free // sharing
    return (device.memory_stats() or {}).get("bytes_limit")


def program_memory(compiled: Any) -> int | None:
    """Memory that a compiled program takes on each of its devices: arguments, results, the rest.

    Args:
      compiled: what ``jax.jit(…).lower(…).compile()`` returns.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def peak_memory() -> int | None:
    """The most RAM that this process has held so far."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """True for XLA's error when a device's memory runs out, and for Python's own."""
    # By its words: JAX raises a RuntimeError for every status of XLA.
    is_of_xla = isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return is_of_xla or isinstance(error, MemoryError)


@contextlib.contextmanager
def advice_on_memory(work: str, advice: str) -> Iterator[None]:
    """Replace an error about memory by one line that says what helps.

    Args:
      work: what runs inside, in words.
      advice: what makes it smaller.

    Raises:
      OutOfMemoryError: if the memory runs out inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, ExpectedError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"memory ran out in {work}: {advice}") from error
