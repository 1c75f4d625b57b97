"""Fine-tuning a folder: its files, resuming, bad input.

`test_processes` is about kills, and about many devices or processes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.llm.answering.model import Model
from experiments.llm.problems.data import read
from experiments.llm.text.encoding import check_examples, encode
from experiments.llm.text.loader import Loader
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.llm.training import train as train_module
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig
from experiments.llm.training.finetune import finetune
from experiments.llm.training.log import TRACKERS
from experiments.llm.training.lora import split
from experiments.llm.training.meter import DivergedError
from experiments.llm.training.train import count_steps, load_base, make_loader, train
from experiments.storage import checkpoint, tensors
from experiments.storage.memory import OutOfMemoryError
from experiments.storage.results import ResultsError, read_manifest
from tests.experiments.llm.rows import write_sums

TINY = TrainingConfig(
    compute=6,
    compute_unit="steps",
    optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
    learning_rate=3e-3,
    dtype="float32",
    remat=False,
    checkpoint_every=4,
)


@pytest.fixture(scope="module")
def encoded(tiny_folder, tmp_path_factory):
    path = write_sums(tmp_path_factory.mktemp("rows") / "rows.jsonl", 12)
    return encode(read(path), load_tokenizer(tiny_folder), max_length=64)


@pytest.fixture(scope="module")
def out(tiny_folder, encoded, tmp_path_factory) -> Path:
    """A complete run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert finetune(tiny_folder, encoded, TINY, path) == path / "model"
    return path


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_checkpoint_that_has_learnt(out, tiny_folder, encoded):
    written = lines(out)
    assert [line["step"] for line in written] == list(range(6))
    assert written[-1]["loss"] < written[0]["loss"] - 0.1
    assert written[3]["tokens_per_second"] > 0
    assert written[0]["tokens"] == sum(
        len(encoded.tokens[example]) for example in make_loader(encoded, TINY).examples(0)
    )
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["num_examples"] == 12
    (session,) = manifest["sessions"]
    assert session["versions"]["jax"] == jax.__version__
    assert session["wall_time_seconds"] > 0
    assert not (out / "checkpoints").exists()
    assert checkpoint.read_config(out / "model") == checkpoint.read_config(tiny_folder)
    assert load_tokenizer(out / "model").chat_template
    # The saved weights are the trained ones: another step starts with the lower loss.
    config = dataclasses.replace(TINY, compute=1)
    again = train(*load_base(out / "model", config), make_loader(encoded, config), config)
    assert again.losses[0] < written[0]["loss"] - 0.1


def test_a_complete_run_has_nothing_left_to_do(out, tiny_folder, encoded):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    assert finetune(tiny_folder, encoded, TINY, out) == out / "model"
    assert before == {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"
    }


def test_another_configuration_or_other_data_are_refused(out, tiny_folder, encoded):
    other = dataclasses.replace(TINY, learning_rate=1e-3)
    with pytest.raises(ResultsError, match=r"config.learning_rate \(there 0.003, here 0.001\)"):
        finetune(tiny_folder, encoded, other, out)
    with pytest.raises(ResultsError, match=r"num_examples \(there 12, here 5\); data"):
        finetune(tiny_folder, encoded.take(range(5)), TINY, out)


class Interruption:
    """A log that raises KeyboardInterrupt after a step, like Ctrl-C."""

    def __init__(self, step: int):
        self.step = step

    def write(self, step, numbers):
        if step == self.step:
            raise KeyboardInterrupt

    def close(self):
        pass


def test_a_resumed_run_knows_all_its_losses(out, tiny_folder, encoded, tmp_path):
    def again(log=None):
        loader = make_loader(encoded, TINY)
        return train(
            *load_base(tiny_folder, TINY), loader, TINY, directory=tmp_path / "run", log=log
        )

    with pytest.raises(KeyboardInterrupt):
        again(Interruption(4))
    assert len(lines(tmp_path / "run")) == 5
    expected = [line["loss"] for line in lines(out)]
    # First from the checkpoint of step 4, then from that of the last step.
    for _ in range(2):
        assert again().losses.tolist() == expected
        assert [line["loss"] for line in lines(tmp_path / "run")] == expected


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", ["state", "log.jsonl"])
def test_a_damaged_state_is_not_carried_on_with(
    out, tiny_folder, encoded, tmp_path, capsys, damaged
):
    """Of the state's files the largest is changed: its numbers would be read without an error."""

    def again(log=None):
        loader = make_loader(encoded, TINY)
        return train(
            *load_base(tiny_folder, TINY), loader, TINY, directory=tmp_path / "run", log=log
        )

    with pytest.raises(KeyboardInterrupt):
        again(Interruption(4))
    state = [path for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()]
    largest = max(state, key=lambda path: path.stat().st_size)
    flip(largest if damaged == "state" else tmp_path / "run" / "log.jsonl")
    assert again().losses.tolist() == [line["loss"] for line in lines(out)]
    assert "training begins anew" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "run" / "damaged" / "checkpoints").is_dir()


def test_a_damaged_model_is_trained_anew(out, tiny_folder, encoded, tmp_path, capsys):
    shutil.copytree(out, tmp_path / "run")
    expected = (out / "model" / "model.safetensors").read_bytes()
    flip(tmp_path / "run" / "model" / "model.safetensors")
    finetune(tiny_folder, encoded, TINY, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == expected
    assert "model is damaged" in " ".join(capsys.readouterr().out.split())
    assert read_manifest(tmp_path / "run")["status"] == "complete"


def test_a_resumed_run_keeps_its_name_for_a_tracker(tiny_folder, encoded, tmp_path, monkeypatch):
    names = []

    def remember(directory, settings):
        names.append(settings["id"])
        return Interruption(4 if len(names) == 1 else 100)

    monkeypatch.setitem(TRACKERS, "wandb", remember)
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_folder, encoded, TINY, tmp_path / "one", tracker="wandb")
    finetune(tiny_folder, encoded, TINY, tmp_path / "one", tracker="wandb")
    finetune(tiny_folder, encoded, TINY, tmp_path / "two", tracker="wandb")
    assert names[0] == names[1] != names[2]


def test_a_model_that_cannot_be_written_costs_no_training(
    out, tiny_folder, encoded, tmp_path, monkeypatch
):
    def full(*arguments, **others):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tensors, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            finetune(tiny_folder, encoded, TINY, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    written = (tmp_path / "run" / "log.jsonl").read_text()
    model = finetune(tiny_folder, encoded, TINY, tmp_path / "run")
    # No step was repeated.
    assert (tmp_path / "run" / "log.jsonl").read_text() == written
    file = "model.safetensors"
    assert (model / file).read_bytes() == (out / "model" / file).read_bytes()


def test_adapters_are_merged_on_saving(tiny_folder, encoded, tmp_path):
    config = dataclasses.replace(TINY, lora_rank=4, lora_alpha=16.0, checkpoint_every=0)
    model = finetune(tiny_folder, encoded, config, tmp_path / "run")
    old, new = (load_file(folder / "model.safetensors") for folder in (tiny_folder, model))
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {name for name in old if "_proj.weight" in name}
    written = lines(tmp_path / "run")
    assert written[-1]["loss"] < written[0]["loss"]


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_adapters_that_learn_nothing_give_the_base_back(tiny_folder, encoded, tmp_path, stored):
    base = tmp_path / "base"
    decoder, parameters = checkpoint.load(tiny_folder)
    checkpoint.save(base, decoder, parameters, dtype=stored, like=tiny_folder)
    config = dataclasses.replace(
        TINY, compute=1, lora_rank=4, learning_rate=1e-12, dtype="bfloat16", checkpoint_every=0
    )
    frozen, adapters = split(load_base(base, config)[1])
    # The base has its stored type in memory, and no wider one.
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(frozen)} == {stored}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(adapters)} == {"float32"}
    model = finetune(base, encoded, config, tmp_path / "run")
    old, new = (load_file(folder / "model.safetensors") for folder in (base, model))
    for name, tensor in old.items():
        assert new[name].dtype == tensor.dtype
        np.testing.assert_allclose(
            new[name].astype(np.float32), tensor.astype(np.float32), rtol=1e-6, atol=1e-10
        )


def test_a_fine_tuned_checkpoint_states_what_the_evaluation_stops_at(
    tiny_folder, encoded, tmp_path
):
    # As in the base models of Qwen2.5, the generation settings state only the end of texts.
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    text_end, turn_end = (
        load_tokenizer(base).get_vocab()[token] for token in ("<|endoftext|>", "<|im_end|>")
    )
    settings = {"eos_token_id": text_end, "pad_token_id": text_end, "temperature": 0.7}
    (base / "generation_config.json").write_text(json.dumps(settings))
    config = dataclasses.replace(TINY, compute=1, checkpoint_every=0)
    model = finetune(base, encoded, config, tmp_path / "run")
    stop = Model.load(base).stop
    assert stop == tuple(sorted([text_end, turn_end])) == Model.load(model).stop
    stated = json.loads((model / "generation_config.json").read_text())
    assert stated == settings | {"eos_token_id": [*stop]}


def test_a_base_without_a_tokenizer_is_fine_tuned(tiny_folder, encoded, tmp_path):
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    (base / "tokenizer.json").unlink()
    config = dataclasses.replace(TINY, compute=1, checkpoint_every=0)
    assert finetune(base, encoded, config, tmp_path / "run").is_dir()


def test_packing_changes_nothing_but_the_rows(out, tiny_folder, encoded):
    config = dataclasses.replace(TINY, packed=True)
    loader = Loader(encoded, batch_size=4, steps=6, seed=config.seed, packed=True, length=256)
    assert loader.rows == 1
    assert make_loader(encoded, TINY).rows == 4
    packed = train(*load_base(tiny_folder, config), loader, config)
    np.testing.assert_allclose(packed.losses, [line["loss"] for line in lines(out)], rtol=1e-5)


def test_double_precision_is_refused(tiny_folder, encoded, tmp_path):
    with jax.enable_x64(True), pytest.raises(ValueError, match="jax_enable_x64 must be off"):
        finetune(tiny_folder, encoded, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compute_is_counted_in_epochs_steps_or_tokens(encoded):
    def steps(compute, unit):
        return count_steps(dataclasses.replace(TINY, compute=compute, compute_unit=unit), encoded)

    assert [steps(1, "epochs"), steps(3, "epochs"), steps(0.1, "epochs")] == [3, 9, 1]
    assert steps(7, "steps") == 7
    total = int(encoded.lengths.sum())
    assert steps(total, "tokens") == 3
    assert steps(total / 3 + 1, "tokens") == 2


@pytest.mark.parametrize("unit", ["epochs", "steps", "tokens"])
def test_more_steps_than_can_be_held_are_refused(encoded, unit):
    config = dataclasses.replace(TINY, compute=1e300, compute_unit=unit)
    with pytest.raises(ValueError, match="compute must buy at most 100000000 optimiser steps, got"):
        make_loader(encoded, config)


def test_batches_that_cannot_be_held_are_refused(encoded, monkeypatch):
    monkeypatch.setattr(train_module, "available_memory", lambda: 2**34)
    optimiser = dataclasses.replace(TINY.optimiser, batch_size=10**9)
    config = dataclasses.replace(TINY, optimiser=optimiser, packed=False)
    with pytest.raises(OutOfMemoryError, match=r"batch_size = 1000000000 needs at least .* GiB"):
        make_loader(encoded, config)
    # Packed, a batch holds no more than the examples that there are.
    packed = dataclasses.replace(config, packed=True, compute=1.0, compute_unit="epochs")
    assert make_loader(encoded, packed).steps == 1


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
    with pytest.raises(
        ValueError, match=r"context of the checkpoint, 1024 tokens, .* longest 2000"
    ):
        finetune(tiny_folder, long, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tiny_folder, encoded, tmp_path):
    at_once = dataclasses.replace(TINY.optimiser, warmup=0.0)
    config = dataclasses.replace(TINY, learning_rate=1e30, optimiser=at_once, checkpoint_every=0)
    with pytest.raises(DivergedError, match="lower the learning rate"):
        finetune(tiny_folder, encoded, config, tmp_path / "run")


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_parameters_that_the_last_step_spoils_are_not_saved(
    tiny_folder, encoded, tmp_path, lora_rank
):
    # The loss of the only step is finite, because it is computed before the update.
    config = dataclasses.replace(
        TINY,
        compute=1,
        lora_rank=lora_rank,
        learning_rate=3e38,
        optimiser=dataclasses.replace(TINY.optimiser, weight_decay=1e3, warmup=0.0),
        checkpoint_every=1,
    )
    # The second run resumes from the checkpoint of that step, and must fail as well.
    for _ in range(2):
        with pytest.raises(DivergedError, match="the last step left parameters not finite"):
            finetune(tiny_folder, encoded, config, tmp_path / "run")
        assert np.isfinite([line["loss"] for line in lines(tmp_path / "run")]).all()
        assert not (tmp_path / "run" / "model").exists()


def test_examples_that_do_not_fit_a_decoder_are_refused(tiny_folder, encoded):
    decoder = checkpoint.read_config(tiny_folder)
    check_examples(encoded, decoder)
    unknown = dataclasses.replace(
        encoded, tokens=(np.array([decoder.vocab_size], np.int32), *encoded.tokens[1:])
    )
    for wrong, message in (
        (encoded.take([]), "encoded must hold examples, got none"),
        (unknown, f"tokens beyond the {decoder.vocab_size} of the checkpoint, the first in row 0"),
    ):
        with pytest.raises(ValueError, match=message):
            check_examples(wrong, decoder)


def test_an_unknown_tracker_is_told(tiny_folder, encoded, tmp_path):
    with pytest.raises(ValueError, match=r"tracker must be one of .*, got 'paper'"):
        finetune(tiny_folder, encoded, TINY, tmp_path, tracker="paper")  # pyright: ignore
