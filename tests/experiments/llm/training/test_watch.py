"""Validation loss, early stopping, answers on the way, and the ends of epochs in the log."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.llm.answering.perplexity import perplexities
from experiments.llm.answering.samples import Samples
from experiments.llm.problems.data import read
from experiments.llm.text.encoding import encode
from experiments.llm.text.examples import held_out, num_shared
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig, Watch
from experiments.llm.training.finetune import finetune
from experiments.llm.training.loss import loss_sums
from experiments.llm.training.train import load_base, make_loader, train
from experiments.llm.training.watch import UNWATCHED, Validation, Watched
from experiments.storage.results import ResultsError, read_manifest
from tests.experiments.llm.rows import write_sums

TINY = TrainingConfig(
    compute=12,
    compute_unit="steps",
    optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
    learning_rate=3e-3,
    dtype="float32",
    remat=False,
    checkpoint_every=5,
)
CONSTANT = dataclasses.replace(
    TINY,
    learning_rate=1e-3,
    optimiser=dataclasses.replace(TINY.optimiser, schedule="constant", warmup=0.0),
)


@pytest.fixture(scope="module")
def examples(tiny_folder, tmp_path_factory):
    path = write_sums(tmp_path_factory.mktemp("rows") / "rows.jsonl", 14)
    encoded = encode(read(path), load_tokenizer(tiny_folder), max_length=64)
    return encoded.take(range(9)), encoded.take(range(9, 14))


@pytest.fixture(scope="module")
def others(examples):
    """Examples with other solutions, random ones: training forgets what it learns of them."""
    generator, whole = np.random.default_rng(0), examples[1]
    tokens = [
        np.concatenate([row[:start], generator.integers(0, 300, len(row) - start, np.int32)])
        for row, start in zip(whole.tokens, whole.prompt_lengths, strict=True)
    ]
    return dataclasses.replace(whole, tokens=tuple(tokens))


@pytest.fixture(scope="module")
def stopped(tiny_folder, examples, others, tmp_path_factory) -> Path:
    """A complete run that stopped early."""
    out = tmp_path_factory.mktemp("runs") / "stopped"
    finetune(tiny_folder, examples[0], CONSTANT, out, watched=watched(others))
    return out


def watched(validation, patience: int = 3) -> Watched:
    return Watched(Watch(evaluate_every=1, patience=patience), validation)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> dict[int, float]:
    """Validation losses by steps done."""
    return {
        line["step"] + 1: line["validation_loss"]
        for line in lines(out)
        if "validation_loss" in line
    }


@pytest.mark.parametrize(("packed", "lora_rank"), [(False, 0), (True, 2)])
def test_the_validation_loss_is_the_mean_over_all_tokens(tiny_folder, examples, packed, lora_rank):
    config = dataclasses.replace(TINY, packed=packed, lora_rank=lora_rank, loss="dft")
    decoder, parameters = load_base(tiny_folder, config)
    nats = tokens = 0.0
    some_of = examples[1].take([0, 1])
    for row, prompt in zip(some_of.tokens, some_of.prompt_lengths, strict=True):
        places = np.arange(len(row))
        counts = jnp.asarray(places >= prompt)
        some, number = loss_sums(
            decoder, parameters, jnp.asarray(row), jnp.asarray(places), counts, "sft"
        )
        nats, tokens = nats + float(some), tokens + float(number)
    assert tokens == (some_of.lengths - some_of.prompt_lengths).sum()
    validation = Validation(decoder, some_of, config)
    frozen = {} if not lora_rank else parameters
    assert validation.loss(frozen, parameters) == pytest.approx(nats / tokens, rel=1e-6)


def test_it_agrees_with_perplexity_but_for_the_end_marker(tiny_folder, examples):
    decoder, parameters = load_base(tiny_folder, TINY)
    one = examples[1].take([0])
    without_end = dataclasses.replace(one, tokens=(one.tokens[0][:-1],), tokens_cut=np.array([1]))
    expected = math.log(perplexities(decoder, parameters, one)[0])
    assert Validation(decoder, without_end, TINY).loss({}, parameters) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.slow
def test_watching_changes_no_step_and_the_log_tells(tiny_folder, examples, tmp_path):
    plain = train(
        *load_base(tiny_folder, TINY), make_loader(examples[0], TINY), TINY, directory=tmp_path
    )
    out = tmp_path / "run"
    looking = Watched(Watch(evaluate_every=5), examples[1])
    model = finetune(tiny_folder, examples[0], TINY, out, watched=looking)
    assert [line["loss"] for line in lines(out)] == plain.losses.tolist()
    assert [*losses(out)] == [5, 10, 12]
    # Without patience the last state is saved, and its loss is the last one.
    decoder, parameters = load_base(model, TINY)
    last = Validation(decoder, examples[1], TINY).loss({}, parameters)
    assert last == losses(out)[12]
    stated = read_manifest(out)["watch"]
    assert (stated["evaluate_every"], stated["num_examples"]) == (5, 5)
    assert read_manifest(out)["status"] == "complete"


def test_ends_of_epochs_are_in_the_log(tiny_folder, examples, tmp_path, capsys):
    """Nine examples in steps of four: an epoch ends in the steps 2, 4, 6, 9 and 11."""
    config = dataclasses.replace(TINY, checkpoint_every=0)
    looking = Watched(Watch(evaluate_every=100), examples[1])
    finetune(tiny_folder, examples[0], config, tmp_path / "run", watched=looking)
    written = lines(tmp_path / "run")
    assert [line["epoch"] for line in written] == [round(4 * k / 9, 4) for k in range(1, 13)]
    means = {line["step"]: line["epoch_loss"] for line in written if "epoch_loss" in line}
    assert [*means] == [2, 4, 6, 8, 11]
    every = [line["loss"] for line in written]
    assert means[2] == pytest.approx(np.mean(every[:3]))
    assert means[4] == pytest.approx(np.mean(every[3:5]))
    assert means[11] == pytest.approx(np.mean(every[9:]))
    said = capsys.readouterr().out
    assert f"Epoch 1 of 5.333: mean loss {means[2]:.4f}" in said
    assert "Epoch 5 of 5.333" in said


def test_training_stops_early_and_the_best_state_is_saved(
    stopped, tiny_folder, examples, others, tmp_path
):
    found = losses(stopped)
    best = min(found, key=lambda step: found[step])
    assert best > 1
    assert [*found] == list(range(1, best + 4))
    assert len(lines(stopped)) == best + 3 < 12
    decoder, parameters = load_base(stopped / "model", CONSTANT)
    assert Validation(decoder, others, CONSTANT).loss({}, parameters) == found[best]
    # The state of that step is the one of a run that ends there.
    loader = make_loader(examples[0], CONSTANT)
    loader.steps = best
    short = train(*load_base(tiny_folder, CONSTANT), loader, CONSTANT, directory=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, short.parameters, parameters)
    assert not (stopped / "checkpoints").exists()
    card = (stopped / "model" / "README.md").read_text()
    assert f"| lowest validation loss | {found[best]:.4f}, after step {best} |" in card


class Interruption:
    """A log that raises KeyboardInterrupt after a step, like Ctrl-C."""

    def __init__(self, step: int):
        self.step = step

    def write(self, step, numbers):
        if step == self.step:
            raise KeyboardInterrupt

    def close(self):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 5])
def test_an_interrupted_run_stops_at_the_same_step_with_the_same_model(
    stopped, tiny_folder, examples, others, tmp_path, capsys, every
):
    config = dataclasses.replace(CONSTANT, checkpoint_every=every)
    out, looking = tmp_path / "run", watched(others)

    def again(log=None):
        return train(
            *load_base(tiny_folder, config),
            make_loader(examples[0], config),
            config,
            directory=out,
            log=log,
            watched=looking,
        )

    expected, found = [line["loss"] for line in lines(stopped)], losses(stopped)
    best = min(found, key=lambda step: found[step])
    # Before the best state, after it, and at the end: each time it carries on.
    for step in (best - 1, best + 1, len(expected) - 1):
        with pytest.raises(KeyboardInterrupt):
            again(Interruption(step))
        kept = {int(path.name) for path in (out / "checkpoints").iterdir()}
        assert len(kept) <= 2
    trained = again()
    assert trained.losses.tolist() == expected
    assert losses(out) == found
    # All is done: nothing is trained again, and the same state is returned.
    capsys.readouterr()
    once_more = again(Interruption(0))
    assert f"Carries on after step {len(expected)} of 12" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, trained.parameters, once_more.parameters)
    _, saved = load_base(stopped / "model", config)
    jax.tree.map(np.testing.assert_array_equal, trained.parameters, saved)


def test_a_damaged_best_state_is_not_carried_on_with(
    tiny_folder, examples, others, tmp_path, capsys
):
    def again(log=None):
        loader = make_loader(examples[0], CONSTANT)
        base, looking = load_base(tiny_folder, CONSTANT), watched(others)
        return train(*base, loader, CONSTANT, directory=tmp_path, log=log, watched=looking)

    expected = again().losses.tolist()
    states = sorted((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert len(states) == 2
    files = [path for path in states[0].rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert again().losses.tolist() == expected
    assert "training begins anew" in " ".join(capsys.readouterr().out.split())


def test_another_watch_is_another_run(stopped, tiny_folder, examples, others):
    other = watched(others, patience=4)
    with pytest.raises(ResultsError, match=r"watch.patience \(there 3, here 4\)"):
        finetune(tiny_folder, examples[0], CONSTANT, stopped, watched=other)
    with pytest.raises(ResultsError, match=r"differs in watch"):
        finetune(tiny_folder, examples[0], CONSTANT, stopped)


def test_when_to_stop_is_a_function_of_the_losses(others):
    looking = Watched(Watch(patience=2), others)
    assert looking.best({}) is None
    assert not looking.is_over({})
    history = {10: 3.0, 20: 2.0, 30: 2.0, 40: math.nan}
    assert looking.best(history) == 20
    assert looking.is_over(history)
    assert not looking.is_over({10: 3.0, 20: 2.0, 30: 2.0})
    assert not looking.is_over({10: 3.0, 20: math.nan, 30: 2.5})
    assert looking.is_over({10: math.nan, 20: math.nan})
    assert UNWATCHED.best(history) is None
    assert not UNWATCHED.is_over(history)
    assert not UNWATCHED.is_evaluated(100, 100)


def test_what_does_not_fit_is_told(tiny_folder, examples, others):
    loader = make_loader(examples[0], CONSTANT)
    long = Watch(sample_responses=1, sample_tokens=1020)
    with pytest.raises(ValueError, match=r"patience needs a validation loss .* patience 3 without"):
        Watched(Watch(patience=3))
    with pytest.raises(ValueError, match="validation must hold examples, got none"):
        Watched(Watch(), examples[1].take([]))
    with pytest.raises(ValueError, match="directory must be given with patience"):
        train(*load_base(tiny_folder, CONSTANT), loader, CONSTANT, watched=watched(others))
    with pytest.raises(ValueError, match=r"validation_share must lie in \[0, 1\), got 1.0"):
        Watch(validation_share=1.0)
    with pytest.raises(ValueError, match=r"sample_tokens must be at most 9.., what the context"):
        Samples(tiny_folder, examples[0], long, Path("none"))


def test_examples_are_held_out(examples):
    some, out = held_out(examples[0], 0.25, seed=3)
    assert (len(some), len(out)) == (7, 2)
    assert sorted([*some.rows, *out.rows]) == list(range(9))
    assert list(some.rows) == sorted(some.rows)
    assert list(held_out(examples[0], 0.25, seed=3)[1].rows) == list(out.rows)
    assert len(held_out(examples[0], 1e-9, seed=3)[1]) == 1
    with pytest.raises(ValueError, match=r"must leave examples to train on, got 0\.99 of 9"):
        held_out(examples[0], 0.99, seed=3)
    assert num_shared(examples[0], examples[0].take([2, 3])) == 2
    assert num_shared(some, out) == 0


class Remembering:
    """A log that remembers texts."""

    def __init__(self):
        self.texts: list = []
        self.stop: int | None = None

    def write(self, step, numbers):
        if step == self.stop:
            raise KeyboardInterrupt

    def write_texts(self, step, texts):
        self.texts.append((step, dict(texts)))

    def close(self):
        pass


@pytest.mark.slow
def test_answers_on_the_way_are_written(tiny_folder, examples, tmp_path):
    config = dataclasses.replace(TINY, lora_rank=2)
    watch = Watch(sample_responses=2, sample_every=4, sample_tokens=6)
    file, log = tmp_path / "samples.jsonl", Remembering()

    def again():
        sampler = Samples(tiny_folder, examples[1], watch, file)
        return train(
            *load_base(tiny_folder, config),
            make_loader(examples[0], config),
            config,
            directory=tmp_path,
            log=log,
            watched=Watched(watch, None, sampler),
        )

    log.stop = 9
    with pytest.raises(KeyboardInterrupt):
        again()
    log.stop = None
    # The checkpoint is that of step 5: the answers after step 8 are given again, not twice.
    again()
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert [answer["step"] for answer in answers] == [4, 4, 8, 8, 12, 12]
    assert [answer["row"] for answer in answers] == [9, 10] * 3
    assert answers[0]["prompt"].strip().startswith("user\nWhat is ")
    assert "\\boxed{" in answers[0]["solution"]
    assert answers[0]["truncated"]
    assert [step for step, _ in log.texts] == [3, 7, 7, 11]
    assert log.texts[0][1]["response 9"] == answers[0]["prompt"] + answers[0]["response"]
    # Speed is that of training alone.
    assert all("tokens_per_second" in line for line in lines(tmp_path)[1:5])
