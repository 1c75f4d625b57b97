"""Memory that there is, that a program takes, and the error when it runs out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.storage.memory import (
    OutOfMemoryError,
    advice_on_memory,
    available_memory,
    device_memory,
    is_out_of_memory,
    peak_memory,
    program_memory,
)

MIB = 2**20


def system(tmp_path: Path, groups: dict[str, str], *, own: str, free: int = 800) -> dict[str, Path]:
    """A fake /proc with so much free memory in MiB, and fake control groups."""
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {free * 1024} kB\n")
    (proc / "self" / "cgroup").write_text(own)
    for name, text in groups.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(text)
    return {"proc": proc, "groups": mounted}


@pytest.mark.parametrize(
    ("groups", "own", "expected"),
    [
        ({}, "0::/\n", 800),
        ({"memory.max": "max\n", "memory.current": "5\n"}, "0::/\n", 800),
        ({"memory.max": f"{500 * MIB}", "memory.current": f"{200 * MIB}"}, "0::/\n", 300),
        # The group around the own one is the tighter one.
        (
            {
                "job/memory.max": f"{500 * MIB}",
                "job/memory.current": f"{400 * MIB}",
                "job/step/memory.max": f"{450 * MIB}",
                "job/step/memory.current": "0",
            },
            "0::/job/step\n",
            100,
        ),
        (
            {
                "memory/box/memory.limit_in_bytes": f"{64 * MIB}",
                "memory/box/memory.usage_in_bytes": f"{MIB}",
            },
            "11:cpu,cpuacct:/elsewhere\n4:memory:/box\n",
            63,
        ),
        # Used beyond the limit: nothing is left, and not less than that.
        ({"memory.max": "5", "memory.current": "9"}, "0::/\n", 0),
    ],
)
def test_available_memory_is_the_least_that_any_limit_leaves(tmp_path, groups, own, expected):
    assert available_memory(**system(tmp_path, groups, own=own)) == expected * MIB


def test_available_memory_is_unknown_where_the_system_tells_nothing(tmp_path):
    assert available_memory(proc=tmp_path / "none", groups=tmp_path / "none") is None


def test_memory_of_devices():
    free = device_memory(jax.devices()[0])
    shared = device_memory(jax.devices()[0], sharing=2)
    assert free is not None
    assert shared is not None
    assert 0.3 < shared / free < 0.7
    card = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 7})
    silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert device_memory(card, sharing=4) == 7
    assert device_memory(silent) is None


def test_memory_of_a_program_counts_arguments_results_and_what_lies_between():
    number = 1000

    def program(matrix):
        # The first product is neither argument nor result, and lies between.
        product = matrix @ matrix
        return product @ product + matrix

    shape = jax.ShapeDtypeStruct((number, number), jnp.float32)
    needed = program_memory(jax.jit(program).lower(shape).compile())
    assert needed is not None
    assert 3 * 4 * number**2 <= needed < 6 * 4 * number**2
    assert program_memory(SimpleNamespace(memory_analysis=lambda: None)) is None


def test_peak_memory_never_falls():
    before = peak_memory()
    held = np.ones(32 * MIB // 8)
    after = peak_memory()
    del held
    assert before is not None
    assert after is not None
    assert 30 * MIB < before <= after <= peak_memory()  # type: ignore[operator]


def test_a_genuine_error_of_xla_is_told_from_others():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jnp.ones((10**14,), jnp.float32).block_until_ready()
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("INTERNAL: something else"))
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))


def test_advice_replaces_errors_about_memory_alone():
    with (
        pytest.raises(OutOfMemoryError, match="memory ran out in the step: lower batch_size"),
        advice_on_memory("the step", "lower batch_size"),
    ):
        jnp.ones((10**14,), jnp.float32).block_until_ready()
    with pytest.raises(RuntimeError, match="INTERNAL"), advice_on_memory("the step", "lower it"):
        raise RuntimeError("INTERNAL: something else")
    # The innermost advice stays.
    with (
        pytest.raises(OutOfMemoryError, match="inner"),
        advice_on_memory("outer", "outer"),
        advice_on_memory("inner", "inner"),
    ):
        raise MemoryError
