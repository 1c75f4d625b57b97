"""Host devices and XLA flags, set in one place before JAX starts its backend."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from pathlib import Path


def num_cores() -> int:
    """Number of cores this process may use: those it is pinned to, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


DEVICE_COUNT = "--xla_force_host_platform_device_count"


def cpu_flags() -> dict[str, str]:
    """XLA's flags for many small models on a CPU."""
    return {
        DEVICE_COUNT: str(num_cores()),
        "--xla_cpu_multi_thread_eigen": "false",
        # Level 1 compiles faster than the default, and toys run no slower.
        "--xla_backend_optimization_level": "1",
        # The concurrent scheduler lets devices start independent all-reduces of a mesh in different
        # orders. With one thread a core they then wait for each other for ever.
        "--xla_cpu_enable_concurrency_optimized_scheduler": "false",
    }


def configure_host_devices() -> None:
    """Give XLA one single-threaded host device for each core this process may use.

    On small models this is about twice as fast as one device that uses every core. A flag that the
    user has set in ``XLA_FLAGS`` stays. Other platforms ignore these flags.

    Raises:
      RuntimeError: if JAX has started its backend, which reads the flags only then.
    """
    if _has_started():
        raise RuntimeError(
            "configure_host_devices must be called before JAX starts: before the first array"
        )
    os.environ["XLA_FLAGS"] = _joined(cpu_flags() | _stated())


def keep_compiled_programs() -> None:
    """Keep compiled programs in the user's cache folder, so that later processes need not compile.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder, or none if it is empty. Each kind of
    processor has a folder of its own, because homes are shared by machines that differ. To be
    called before JAX is imported.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(home) / "sweetspot" / "jax" / _processor()
    # Without a place to write, programs are compiled in each process, as before.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)


def _processor() -> str:
    """Short name of this kind of processor: of its architecture and instruction sets."""
    told = [platform.machine()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told += sorted({line for line in lines if line.startswith(("model name", "flags", "Feat"))})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def worker_environment(*, num_devices: int, has_gpu: bool) -> dict[str, str]:
    """Variables for a worker process on any machine, to be set before it imports JAX.

    Call it before `leave_accelerators`. Flags of this process hold for the worker too, so that both
    compile the same programs.

    Args:
      num_devices: single-threaded host devices.
      has_gpu: whether the worker has a GPU; else it stays on the CPU.
    """
    flags = cpu_flags() | _stated() | {DEVICE_COUNT: str(num_devices)}
    platforms = os.environ.get("JAX_PLATFORMS", "") if has_gpu else "cpu"
    # XLA shares large element-wise operations among all cores of the machine, unless NPROC says how
    # many it may use. A worker takes no more than it has asked the cluster for.
    threads = {} if has_gpu else {"NPROC": str(num_devices)}
    return {"XLA_FLAGS": _joined(flags), "JAX_PLATFORMS": platforms, **threads}


def leave_accelerators() -> None:
    """Keep JAX in this process on the CPU, so that workers have the accelerators to themselves.

    Without effect if JAX has started.
    """
    if _has_started():
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def _has_started() -> bool:
    """Return whether JAX has started its backend."""
    # Only this private module knows. It is not imported here, because JAX takes a second to load
    # and most commands' help needs none of it.
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def _stated() -> dict[str, str]:
    """Flags in ``XLA_FLAGS``: the value of each by its name, "" for one without a value."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return {name: value for name, _, value in (flag.partition("=") for flag in flags)}


def _joined(flags: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" if value else name for name, value in flags.items())
