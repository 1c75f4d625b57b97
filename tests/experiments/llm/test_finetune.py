"""Fine-tuning a folder: what it leaves, exact resume after a kill, processes, bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments import checkpoint
from experiments.llm.data import encode, read
from experiments.llm.finetune import TrainingConfig, finetune, load_base, make_loader, train
from experiments.llm.tokenizer import load_tokenizer
from experiments.results import ResultsError
from tests.experiments.llm.rows import write_rows

TINY = TrainingConfig(
    compute=6,
    compute_unit="steps",
    batch_size=4,
    learning_rate=3e-3,
    dtype="float32",
    remat=False,
    checkpoint_every=2,
)


@pytest.fixture(scope="module")
def encoded(tiny_folder, tmp_path_factory):
    path = write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 12)
    return encode(read(path), load_tokenizer(tiny_folder), max_length=1024)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_checkpoint_that_has_learnt(tiny_folder, encoded, tmp_path):
    model = finetune(tiny_folder, encoded, TINY, tmp_path / "run")
    written = lines(tmp_path / "run")
    assert [line["step"] for line in written] == list(range(6))
    assert written[-1]["loss"] < written[0]["loss"] - 0.1
    assert written[3]["tokens_per_second"] > 0
    assert written[0]["tokens"] > 4 * 20
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["num_examples"] == 12
    assert not (tmp_path / "run" / "checkpoints").exists()
    config, _ = checkpoint.load(model)
    assert config == checkpoint.load(tiny_folder)[0]
    assert load_tokenizer(model).chat_template
    # The saved weights are those that were trained: the loss goes on where it stopped.
    decoder, trained = load_base(model, TINY)
    again = train(decoder, trained, make_loader(encoded, TINY), TINY)
    assert again.losses[0] < written[0]["loss"] - 0.1
    # A second call has nothing to do.
    before = (model / "model.safetensors").stat().st_mtime_ns
    assert finetune(tiny_folder, encoded, TINY, tmp_path / "run") == model
    assert (model / "model.safetensors").stat().st_mtime_ns == before


def test_another_configuration_or_other_data_are_refused(tiny_folder, encoded, tmp_path):
    finetune(tiny_folder, encoded, TINY, tmp_path / "run")
    other = dataclasses.replace(TINY, learning_rate=1e-3)
    with pytest.raises(ResultsError, match=r"config.learning_rate \(there 0.003, here 0.001\)"):
        finetune(tiny_folder, encoded, other, tmp_path / "run")
    with pytest.raises(ResultsError, match=r"num_examples \(there 12, here 5\); data"):
        finetune(tiny_folder, encoded.take(range(5)), TINY, tmp_path / "run")


def test_adapters_are_merged_on_saving(tiny_folder, encoded, tmp_path):
    config = dataclasses.replace(TINY, lora_rank=4, lora_alpha=16.0)
    model = finetune(tiny_folder, encoded, config, tmp_path / "run")
    old, new = (load_file(folder / "model.safetensors") for folder in (tiny_folder, model))
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {name for name in old if "_proj.weight" in name}
    written = lines(tmp_path / "run")
    assert written[-1]["loss"] < written[0]["loss"]


def test_packing_changes_nothing_but_the_rows(tiny_folder, encoded):
    losses, rows = [], []
    for packed in (False, True):
        config = dataclasses.replace(TINY, packed=packed, compute=2, compute_unit="epochs")
        loader = make_loader(encoded, config)
        rows.append(loader.rows * loader.length)
        losses.append(train(*load_base(tiny_folder, config), loader, config).losses)
    assert len(losses[0]) == 6
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert rows[1] <= rows[0]


def test_compute_is_counted_in_epochs_steps_or_tokens(encoded):
    def steps(compute, unit):
        return dataclasses.replace(TINY, compute=compute, compute_unit=unit).steps(encoded)

    assert [steps(1, "epochs"), steps(3, "epochs"), steps(0.1, "epochs")] == [3, 9, 1]
    assert steps(7, "steps") == 7
    total = int(encoded.lengths.sum())
    assert steps(total, "tokens") == 3
    assert steps(total / 3 + 1, "tokens") == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"compute": 0.0}, "compute must be positive, got 0.0"),
        ({"compute_unit": "hours"}, r"compute_unit must be one of .*, got 'hours'"),
        ({"accumulation": 0}, "accumulation must be at least 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, got -1.0"),
        ({"loss": "mse"}, r"loss must be one of .*, got 'mse'"),
        ({"attention": "cudnn"}, "attention 'cudnn' needs dtype 'bfloat16', got 'float32'"),
    ],
)
def test_a_wrong_field_is_told(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **fields)


def test_examples_longer_than_the_context_are_told_before_training(tiny_folder, encoded, tmp_path):
    long = dataclasses.replace(encoded, tokens=(np.ones(2000, np.int32), *encoded.tokens[1:]))
    with pytest.raises(ValueError, match="context of the checkpoint, 1024 tokens, got one of 2000"):
        finetune(tiny_folder, long, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tiny_folder, encoded, tmp_path):
    config = dataclasses.replace(TINY, learning_rate=1e30, warmup=0.0, clip=1e30)
    from experiments.llm.finetune import DivergedError

    with pytest.raises(DivergedError, match="lower the learning rate"):
        finetune(tiny_folder, encoded, config, tmp_path / "run")


def test_tensorboard_gets_the_numbers(tiny_folder, encoded, tmp_path):
    pytest.importorskip("tensorboardX", reason="an extra: pip install 'sweetspot[logging]'")
    finetune(tiny_folder, encoded, TINY, tmp_path / "run", tracker="tensorboard")
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"gradient_norm" in file.read_bytes()


def test_an_unknown_tracker_is_told(tiny_folder, encoded, tmp_path):
    with pytest.raises(ValueError, match=r"tracker must be one of .*, got 'paper'"):
        finetune(tiny_folder, encoded, TINY, tmp_path / "run", tracker="paper")
