"""A fine-tuning that is killed, or spread over devices and processes, gives the same model.

On the same devices it is equal bit for bit, wherever a kill came; on others it agrees to 1e-4.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from signal import SIGINT, SIGKILL

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.llm.training.config import PAPER_OPTIMISER, Processes, TrainingConfig
from experiments.storage import checkpoint
from synth.config import DecoderConfig
from tests.experiments.llm.rows import write_sums
from tests.experiments.llm.tiny import random_parameters
from tests.experiments.llm.worker import Mishap, Work, finish, free_port, start

pytestmark = pytest.mark.slow

FULL = TrainingConfig(
    compute=10,
    compute_unit="steps",
    optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=8),
    learning_rate=3e-3,
    dtype="float32",
    remat=False,
    checkpoint_every=4,
)
ADAPTERS = dataclasses.replace(FULL, lora_rank=2, lora_alpha=4.0)

MISHAPS = {
    "between steps": Mishap(step=5),
    "on writing a checkpoint": Mishap(event="open", path="checkpoints/8.*commit_success"),
    "on putting it in its place": Mishap(event="os.rename", path="checkpoints/8[^/]*$"),
    "on removing the one before": Mishap(event="os.rmdir", path="checkpoints/4$"),
    "on putting the model in its place": Mishap(event="os.rename", path=r"\.model\.[^/]*$"),
    "before saying that all is complete": Mishap(event="shutil.rmtree", path=r"\.model\.[^/]*$"),
    "by Ctrl-C": Mishap(step=5, signal=SIGINT),
    "as the disk is full": Mishap(step=5, signal=None),
}
"""Moments in terms of calls of orbax and Python; if these change, the process is not killed."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_sums(tmp_path_factory.mktemp("rows") / "rows.jsonl", 24)


@pytest.fixture(scope="module")
def odd_folder(tiny_folder, tmp_path_factory) -> Path:
    """A base with three heads and one key-value head, which a mesh axis of two does not divide."""
    vocab_size = checkpoint.read_config(tiny_folder).vocab_size
    decoder = DecoderConfig(
        vocab_size=vocab_size,
        hidden_size=24,
        intermediate_size=40,
        num_layers=2,
        num_heads=3,
        num_kv_heads=1,
        positions="sequential",
        max_positions=1024,
    )
    path = tmp_path_factory.mktemp("odd") / "odd"
    checkpoint.save(path, decoder, random_parameters(decoder, 1), like=tiny_folder)
    return path


@pytest.fixture(scope="module")
def alone(tiny_folder, rows, tmp_path_factory) -> Path:
    """Run that all others are compared with: one device, without interruption."""
    work = Work(tiny_folder, rows, FULL, tmp_path_factory.mktemp("alone") / "run")
    work.run()
    return work.out


def numbers(out: Path) -> list[dict[str, float]]:
    """Numbers that a run logged, without its speed."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    names = ("step", "loss", "gradient_norm", "learning_rate", "tokens")
    return [{name: line[name] for name in names} for line in lines]


def assert_identical(first: Path, second: Path) -> None:
    assert numbers(first) == numbers(second)
    models = [(out / "model" / "model.safetensors").read_bytes() for out in (first, second)]
    assert models[0] == models[1]


def assert_close(first: Path, second: Path) -> None:
    """Assert that losses and parameters agree to 1e-4, and that the second model can be loaded."""
    losses = [[line["loss"] for line in numbers(out)] for out in (first, second)]
    assert len(losses[0]) == 10
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-4)
    models = [load_file(out / "model" / "model.safetensors") for out in (first, second)]
    assert models[0].keys() == models[1].keys()
    for name, tensor in models[0].items():
        np.testing.assert_allclose(models[1][name], tensor, rtol=0, atol=1e-4, err_msg=name)
    checkpoint.load(second / "model")


def assert_complete(out: Path) -> None:
    assert json.loads((out / "manifest.json").read_text())["status"] == "complete"
    visible = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert visible == {"manifest.json", "log.jsonl", "model"}


@pytest.mark.parametrize("name", MISHAPS)
def test_an_interrupted_run_ends_as_if_nothing_had_been(name, tiny_folder, rows, alone, tmp_path):
    mishap = MISHAPS[name]
    work = Work(tiny_folder, rows, FULL, tmp_path / "run")
    (code,) = finish(start([work], devices=jax.device_count(), mishap=mishap))
    assert code == (-SIGKILL if mishap.signal == SIGKILL else 1)
    assert len(numbers(work.out)) > 4
    # The run resumed instead of starting again: logged speeds before the checkpoint are kept.
    written = (work.out / "log.jsonl").read_text().splitlines()[:4]
    work.run()
    assert_identical(work.out, alone)
    assert_complete(work.out)
    assert (work.out / "log.jsonl").read_text().splitlines()[:4] == written


def test_eight_devices_give_what_one_gives(tiny_folder, odd_folder, rows, alone, tmp_path):
    four_by_two = {"fsdp": 4, "tp": 2}
    full = Work(tiny_folder, rows, FULL, tmp_path / "full", four_by_two)
    adapters = Work(tiny_folder, rows, ADAPTERS, tmp_path / "adapters", four_by_two)
    odd = Work(odd_folder, rows, FULL, tmp_path / "odd", {"data": 2, "fsdp": 2, "tp": 2})
    # A run that starts on one device is resumed on eight.
    moved = dataclasses.replace(full, out=tmp_path / "moved")
    begun = start([dataclasses.replace(moved, axes=None)], devices=1, mishap=Mishap(step=5))
    assert finish(begun) == [-SIGKILL]
    process = start([full, moved, adapters, odd], devices=8)
    ones = [
        dataclasses.replace(work, out=tmp_path / f"one-{work.out.name}", axes=None)
        for work in (adapters, odd)
    ]
    for one in ones:
        one.run()
    assert finish(process) == [0]
    assert_close(alone, full.out)
    assert_close(alone, moved.out)
    assert numbers(moved.out)[:4] == numbers(alone)[:4]
    for one, work in zip(ones, (adapters, odd), strict=True):
        assert_close(one.out, work.out)


def pair(works, scratch: Path, mishap: Mishap | None = None) -> tuple[list[int | None], list[dict]]:
    """Run two processes with one device each: exit codes, and their records."""
    coordinator = f"127.0.0.1:{free_port()}"
    records = [scratch / f"record-{number}.json" for number in range(2)]
    codes = finish(
        *(
            start(
                works,
                devices=1,
                mishap=mishap,
                processes=Processes(coordinator, 2, number),
                record=record,
            )
            for number, record in enumerate(records)
        )
    )
    return codes, [json.loads(record.read_text()) for record in records if record.exists()]


def test_two_processes_give_what_one_gives_also_after_a_kill(tiny_folder, rows, alone, tmp_path):
    killed = Work(tiny_folder, rows, FULL, tmp_path / "killed", {"fsdp": 2})
    codes, _ = pair([killed], tmp_path, Mishap(step=5))
    assert codes == [-SIGKILL, -SIGKILL]
    assert (killed.out / "checkpoints" / "4").is_dir()

    fresh = dataclasses.replace(killed, out=tmp_path / "fresh")
    adapters = dataclasses.replace(killed, config=ADAPTERS, out=tmp_path / "adapters")
    # The last run has nothing left to do.
    codes, records = pair([killed, fresh, adapters, fresh], tmp_path)
    assert codes == [0, 0], records
    assert_identical(killed.out, fresh.out)
    assert_close(alone, fresh.out)
    for work in (killed, fresh, adapters):
        assert_complete(work.out)
    one = dataclasses.replace(adapters, out=tmp_path / "one", axes=None)
    one.run()
    assert_close(one.out, adapters.out)

    assert records[0]["losses"] == records[1]["losses"]
    assert len(records[0]["losses"]) == 6 + 10 + 10
    shared = [path for path in records[1]["written"] if path.startswith(str(tmp_path))]
    assert all("/checkpoints/" in path for path in shared), shared
    assert any(path.endswith("log.jsonl") for path in records[0]["written"])


def test_what_the_first_process_cannot_do_ends_both(tiny_folder, rows, alone, tmp_path):
    other = Work(tiny_folder, rows, dataclasses.replace(FULL, seed=1), alone, {"fsdp": 2})
    codes, records = pair([other], tmp_path)
    assert codes == [1, 1]
    assert records[0]["error"].startswith("ResultsError")
    assert "config.seed (there 0, here 1)" in records[0]["error"]
    assert records[1]["error"] == f"FirstProcessError: {records[0]['error']}"
    assert not records[0]["losses"]
