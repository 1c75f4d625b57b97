"""Trackers, with the real packages where they are installed."""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path

import pytest

from experiments.llm.training.log import open_log

NEEDED = "an extra: pip install 'sweetspot-sft[logging]'"
SETTINGS = {"id": "a1b2c3d4", "config": {"learning_rate": 0.015625}, "num_examples": 12}


def write(tracker, directory: Path, steps=range(3)) -> None:
    log = open_log(tracker, directory, SETTINGS)
    for step in steps:
        log.write(step, {"loss": 0.5 + step, "tokens": 100})
    log.close()


def test_nowhere_leaves_nothing(tmp_path):
    write("none", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_tracker_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"tracker must be one of \('none', .*, got 'paper'"):
        open_log("paper", tmp_path, SETTINGS)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("tracker", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")]
)
def test_a_package_that_is_not_installed_is_told(tracker, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=rf"{tracker}' needs: pip install 'sweetspot-sft\[logging\]'"
    ):
        open_log(tracker, tmp_path, SETTINGS)


@pytest.mark.slow
def test_tensorboard_gets_the_numbers(tmp_path):
    events = pytest.importorskip("tensorboardX.proto.event_pb2", reason=NEEDED)
    write("tensorboard", tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, values, words = file.read_bytes(), {}, ""
    while data:
        # TensorFlow's records: length, its checksum, that many bytes, their checksum.
        (length,) = struct.unpack("<Q", data[:8])
        event = events.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            values[value.tag, event.step] = value.simple_value
            words += str(value.tensor)
    losses = {step: value for (name, step), value in values.items() if name == "loss"}
    assert losses == {0: 0.5, 1: 1.5, 2: 2.5}
    assert "learning_rate" in words


@pytest.mark.slow
def test_wandb_gets_the_numbers(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason=NEEDED)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write("wandb", tmp_path)
    # An interrupted run continues under its name.
    write("wandb", tmp_path, range(3, 5))
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-a1b2c3d4.wandb"))
    assert len(files) == 2
    for file, numbers in zip(
        files, ((b"0.5", b"1.5", b"2.5", b"0.015625"), (b"3.5", b"4.5")), strict=True
    ):
        # A process of wandb writes the file, which takes some time on busy cores.
        for _ in range(100):
            if missing := [number for number in numbers if number not in file.read_bytes()]:
                time.sleep(0.2)
        assert not missing
