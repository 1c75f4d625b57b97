"""Provenance of a result: commit, device, and versions of packages."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import jax

from experiments import distribution


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Our own version, and that of each of these packages that is installed, by name."""
    version_by_package = {distribution.NAME: distribution.version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version_by_package[name] = importlib.metadata.version(name)
    return version_by_package


def commit() -> str:
    """Commit of the source tree, with ``-dirty`` after changes; ``unknown`` outside a checkout.

    A wheel may be installed below a checkout of something else, whose commit says nothing here.
    """
    root = Path(__file__).parents[2]
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "unknown"
        return _git(root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(directory: Path, *arguments: str) -> str:
    """Output of a command of git."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def device_name() -> str:
    """Name of the accelerator, or of the processor on a CPU."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
