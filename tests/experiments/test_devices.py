"""XLA's flags for host devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_host_flags_are_set_once_and_those_of_the_user_stay():
    script = """
import os
from experiments.devices import configure_host_devices, cpu_flags
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"
configure_host_devices()
flags = os.environ["XLA_FLAGS"].split()
asked = dict(flag.split("=") for flag in flags)
assert len(asked) == len(flags)
assert asked == cpu_flags() | {"--xla_force_host_platform_device_count": "3"}, flags
assert asked["--xla_cpu_multi_thread_eigen"] == "false"
configure_host_devices()
assert os.environ["XLA_FLAGS"].split() == flags
import jax
assert jax.local_device_count() == 3
try:
    configure_host_devices()
except RuntimeError as error:
    assert "before JAX starts" in str(error)
else:
    raise AssertionError("flags that come too late were accepted")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
