"""The benchmarks of growth and of phases: their ratios, shares, bars and tables."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest

from experiments.benchmarks import apart, growth, phases
from tests.experiments.benchmarks.test_benchmarks import MANIFEST

ROOT = Path(__file__).parents[3]


def growth_table() -> pd.DataFrame:
    """A millisecond for each member-step among 8, and 1.25 among 256; the machine drifts."""
    rows = [
        {"kind": kind, "amount": amount, "repeat": repeat, "seconds": seconds * (1 + repeat)}
        | {"member_steps": 100.0, "tokens": 1000.0}
        for repeat in range(3)
        for kind, amount, seconds in (
            *(("members", 8, 0.1), ("members", 1, 0.2), ("members", 256, 0.125)),
            *(("devices", 2, 0.1), ("devices", 1, 0.2), ("devices", 8, 0.1)),
            *(("tokens", 24, 0.002), ("tokens", 49, 0.003)),
        )
    ]
    grids = [{"kind": "grid", "amount": n, "repeat": 0, "bytes": n * 1e6} for n in (8, 80)]
    return pd.DataFrame(rows + grids)


def manifest_of(verdicts, **facts):
    return MANIFEST | facts | {"verdicts": [dataclasses.asdict(verdict) for verdict in verdicts]}


def test_growth_is_compared_within_a_repeat():
    members, devices, grid = growth.verdicts(growth_table())
    assert (members.lowest, members.value, members.highest) == pytest.approx((0.8,) * 3)
    assert (devices.value, grid.value) == pytest.approx((1.0, 0.1))
    assert [verdict.passed for verdict in (members, devices, grid)] == [False, True, False]


def test_markdown_of_growth():
    table = growth_table()
    text = growth.markdown(table, manifest_of(growth.verdicts(table)))
    assert "| 1 | 4.00 (2.00–6.00) ms per member-step | 2.00 (2.00–2.00) |" in text
    assert "| 49 | 6.00 (3.00–9.00) µs per token | 1.50 (1.50–1.50) |" in text
    assert "| 80 | 80 (80–80) MB at most | 10.00 (10.00–10.00) |" in text
    assert "First cases: 8, 2, 24, 8." in text


@pytest.mark.parametrize("quick", [False, True])
def test_members_are_shared_equally(quick):
    cases = growth.cases(quick)
    assert all(case.members % case.devices == 0 for case in cases)
    assert {case.devices for case in cases} == {1, 2, 8}
    # Twice and four times the tokens of the first.
    lengths = [case.amount for case in cases if case.kind == "tokens"]
    assert [round(length / lengths[0]) for length in lengths] == [1, 2, 4][: len(lengths)]


def phases_table() -> pd.DataFrame:
    """80 s of training, 20 s of the rest, 100 s of compilation; one start is too slow."""
    seconds = {"pretrain": 30.0, "train": 50.0, "evaluate": 15.0, "rest": 5.0, "compile": 100.0}
    seconds["compile (warm)"] = 10.0
    rows = [
        {"sweep": "demo", "phase": phase, "repeat": 0, "seconds": taken}
        for phase, taken in seconds.items()
    ]
    starts = [
        {"sweep": "smoke", "phase": "start", "repeat": repeat, "seconds": taken}
        for repeat, taken in enumerate((2.0, 3.0, 5.0))
    ]
    return pd.DataFrame(rows + starts)


def test_share_outside_of_training():
    (seconds,) = (own for _, own in phases.by_phase(phases_table()).items())
    assert phases.outside(seconds) == pytest.approx(0.2)
    assert phases.outside(seconds, "compile") == pytest.approx(0.6)
    share, start = phases.verdicts(phases_table())
    assert share.value == pytest.approx(0.75)
    assert (start.lowest, start.value, start.highest) == pytest.approx((0.8, 4 / 3, 2.0))
    assert [share.passed, start.passed] == [False, True]


def test_markdown_of_phases():
    table = phases_table()
    text = phases.markdown(table, manifest_of(phases.verdicts(table), programs={"demo": 4}))
    assert "| measuring on the test | 15.0 s (15.0%) |" in text
    assert "| all of these | 100.0 s |" in text
    assert "cache empty | 100.0 s (60% outside of training with it) |" in text
    assert "cache full | 10.0 s (27% outside of training with it) |" in text
    assert "6 programs" in text
    assert "3.0 (2.0–5.0) s in 3 starts" in text


def cache() -> str | None:
    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def test_a_process_of_its_own_has_its_own_variables_and_devices(tmp_path):
    before = dict(os.environ)
    assert apart.apart(cache, JAX_COMPILATION_CACHE_DIR=str(tmp_path)) == str(tmp_path)
    assert dict(os.environ) == before
    with apart.process(XLA_FLAGS="--xla_force_host_platform_device_count=3") as call:
        assert call(jax.device_count) == 3
        # The same process again.
        assert call(os.getpid) == call(os.getpid) != os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["growth", "phases"])
def test_quick_run_end_to_end(name):
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.benchmarks.{name}", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| bar | at least | measured |" in done.stdout
