"""The script for a new device: whole at a tiny size, and what it does with a section that fails."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.benchmarks import device


def test_sections_take_at_most_eight_minutes():
    assert sum(seconds for _, seconds in device.SECTIONS.values()) <= 480


def test_a_smoke_run_is_not_recorded():
    with pytest.raises(ValueError, match="record needs the full plan, got smoke as well"):
        device.run(smoke=True, record=True)


def test_a_section_that_takes_too_long_or_fails_is_told():
    rows, ended = device.run_section("smoke", "grid", 0.05)
    assert (rows, ended["status"]) == ([], "failed")
    assert ended["reason"].startswith("stopped after")


def test_a_failed_section_stops_no_other_and_the_command_fails(monkeypatch, capsys):
    def ended(plan_name, section, limit):
        assert plan_name == "smoke"
        if section == "step":
            return [["a part", 2.0, "s"]], {"status": "failed", "seconds": 1.0, "reason": "why: it"}
        return [["all", 3.0, "s"]], {"status": "passed", "seconds": 1.0}

    monkeypatch.setattr(device, "run_section", ended)
    table, manifest = device.measure("smoke")
    assert list(manifest["sections"]) == list(device.SECTIONS)
    assert manifest["sections"]["step"]["reason"] == "why: it"
    # What it had measured before is kept.
    values = table.set_index("section")["value"].to_dict()
    assert values == {name: 3.0 for name in device.SECTIONS} | {"step": 2.0}
    assert "why: it" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exited:
        device.run(smoke=True)
    assert exited.value.code == 1


@pytest.mark.slow
def test_an_error_of_a_section_is_its_reason():
    rows, ended = device.run_section("smoke", "no such section", 300)
    assert (rows, ended["status"]) == ([], "failed")
    assert ended["reason"] == "exit status 1: KeyError: 'no such section'"


@pytest.mark.slow
def test_every_section_passes_on_simulated_devices():
    table, manifest = device.measure("smoke")
    assert {name: each["status"] for name, each in manifest["sections"].items()} == dict.fromkeys(
        device.SECTIONS, "passed"
    ), manifest["sections"]
    assert set(table["section"]) == set(device.SECTIONS)
    assert np.isfinite(table["value"].to_numpy()).all()
