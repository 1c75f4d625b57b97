"""Host devices and XLA flags, set in one place before JAX starts its backend."""

from __future__ import annotations

import os
import sys


def num_cores() -> int:
    """Number of cores this process may use: those it is pinned to, where the system can tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags() -> dict[str, str]:
    """XLA's flags for many small models on a CPU."""
    return {
        "--xla_force_host_platform_device_count": str(num_cores()),
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
    # Only this private module knows whether a backend runs. It is not imported here, because JAX
    # takes a second to load and most commands' help needs none of it.
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized():
        raise RuntimeError(
            "configure_host_devices must be called before JAX starts: before the first array"
        )
    flags = os.environ.get("XLA_FLAGS", "").split()
    names = {flag.split("=")[0] for flag in flags}
    flags += [f"{name}={value}" for name, value in cpu_flags().items() if name not in names]
    os.environ["XLA_FLAGS"] = " ".join(flags)
