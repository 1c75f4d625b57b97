"""XLA's flags for host devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import devices


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


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "home/sweetspot/jax/*/*-cache"),
        ({"JAX_COMPILATION_CACHE_DIR": "own"}, "own/*-cache"),
        ({"JAX_COMPILATION_CACHE_DIR": ""}, None),
    ],
)
def test_compiled_programs_are_kept_where_the_user_wants_them(variables, expected, tmp_path):
    script = """
from experiments.devices import keep_compiled_programs
keep_compiled_programs()
import jax
jax.jit(lambda x: x + 1)(2.0)
"""
    root = Path(__file__).parents[2]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMP")}
    always = {
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XDG_CACHE_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(root),
    }
    # The second process reads what the first one wrote.
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=kept | always | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    if expected is None:
        assert found == []
    else:
        assert found
        assert set(tmp_path.glob(expected)) <= set(found)
        assert len(list(tmp_path.glob(expected))) > 0


def test_a_home_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    devices.keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
