"""Certificates of tiny checkpoints: what they claim, about which loss, on which problems."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.certify.checkpoints import certify_checkpoint
from experiments.certify.config import CheckpointConfig
from experiments.llm.problems.data import Problems
from experiments.llm.text.encoding import Encoded, Report, encode
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
from experiments.storage.config import Devices
from experiments.storage.results import ResultsError
from synth.config import DecoderConfig, FinetuneConfig
from synth.decoder import logits
from synth.finetune import Stratum, pretrain
from synth.tasks.igsm import problems
from tests.experiments.llm.tiny import random_parameters
from theory.bounds import BOUNDS
from theory.certificate import BOUND, MONTE_CARLO, Certificate
from theory.config import PosteriorConfig

# Compiling its programs takes a minute.
pytestmark = pytest.mark.slow

DECODER = DecoderConfig(
    vocab_size=10,
    hidden_size=16,
    intermediate_size=32,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    positions="sequential",
    max_positions=16,
    unroll=False,
)
FIELDS = [field.name for field in dataclasses.fields(Certificate)]
KNOWN, FOREIGN = 1, 2
"""Difficulties: the end marker that the checkpoint has learnt, and another one."""

SIZES = (32, 256)
CONFIG = CheckpointConfig(
    methods=("checkpoint", "held-out", "lora"),
    data_sizes=SIZES,
    prior_scales=(0.02, 0.5),
    posterior=PosteriorConfig(steps=250, batch_size=32, draws=8, learning_rate=1.5),
    num_draws=2048,
    num_fresh=64,
    # Neither divides the length of a problem.
    chunk_tokens=4,
    draws_at_once=48,
)


def encoded(tokens: list[Any], prompt_lengths: list[int], first_row: int = 0) -> Encoded:
    """Examples as if read from rows of a problem set."""
    lengths = [len(each) for each in tokens]
    return Encoded(
        tuple(np.asarray(each, np.int32) for each in tokens),
        np.asarray(prompt_lengths),
        first_row + np.arange(len(tokens)),
        Report(len(tokens), {}, 0, max(lengths), max(lengths)),
    )


def successors(key: jax.Array, end: int) -> jax.Array:
    """Two digits modulo 5, a sign, their successors, an end marker."""
    digits = jax.random.randint(key, (2,), 0, 5)
    return jnp.concatenate([digits, jnp.array([5]), (digits + 1) % 5, jnp.array([end])])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint that solves the problems of `KNOWN`."""

    def sample(key):
        return successors(key, 6), jnp.arange(6) > 2

    config = FinetuneConfig(steps=250, learning_rate=1e-2)
    strata = [Stratum(config.optimiser.batch_size, sample)]
    parameters, losses = jax.jit(lambda key: pretrain(DECODER, strata, config, key))(
        jax.random.key(0)
    )
    assert losses[-1] < 0.02
    path = tmp_path_factory.mktemp("checkpoint") / "solves"
    checkpoint.save(path, DECODER, parameters)
    return path


def drawn(number: int) -> dict[int, Encoded]:
    """Problems of both difficulties."""
    samples = {}
    for level, end in ((KNOWN, 6), (FOREIGN, 7)):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), level), number)
        tokens = np.asarray(jax.vmap(lambda key, end=end: successors(key, end))(keys))
        samples[level] = encoded(list(tokens), [3] * number, 1000 * level)
    return samples


@pytest.fixture(scope="module")
def samples() -> dict[int, Encoded]:
    return drawn(max(SIZES) + CONFIG.num_fresh)


@pytest.fixture(scope="module")
def out(folder, samples, tmp_path_factory) -> Path:
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    certify_checkpoint(folder, samples, path, CONFIG, rows_trained_on=range(1000), task="digits")
    return path


@pytest.fixture(scope="module")
def table(out) -> pd.DataFrame:
    return pd.read_parquet(out / "certificates.parquet")


@pytest.fixture
def no_weights(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("weights are read")

    monkeypatch.setattr(checkpoint, "load", refuse)


# The type stubs do not follow pandas' indexing.
def certified(*arguments: Any, **options: Any) -> Any:
    """The table of a run."""
    return certify_checkpoint(*arguments, **options)


def of(table: pd.DataFrame, method: str, level: int) -> Any:
    """Rows of one method and difficulty, by data size."""
    chosen = (table["method"] == method) & (table["difficulty"] == level)
    return table[chosen].set_index("data_size")


# What is claimed.


def test_every_cell_has_one_row_for_each_method(table):
    found = list(table[["method", "difficulty", "data_size"]].itertuples(index=False, name=None))
    expected = itertools.product(CONFIG.methods, (KNOWN, FOREIGN), SIZES)
    assert sorted(found) == sorted(expected)
    assert table.notna().all(axis=None)
    assert set(table["task"]) == {"digits"}
    assert set(table["base"]) == {"solves"}
    risks = table.filter(regex="risk|test_bound")
    assert ((risks >= 0) & (risks <= 1)).all(axis=None)
    assert (table["num_examples"] == table["data_size"]).all()
    assert (table["num_fresh"] == np.where(table["method"] == "lora", 4 * 64, 64)).all()


def test_every_row_gives_back_its_certificate(table):
    for _, row in table.iterrows():
        found = Certificate.from_row({name: row[name] for name in FIELDS})
        entry = found.ledger.entry(BOUND)
        assert entry is not None
        expected = BOUNDS[found.bound](
            found.empirical_risk_bound, found.kl, num_examples=found.num_examples, delta=entry.each
        )
        assert found.risk_bound == pytest.approx(min(float(expected), 1.0), abs=1e-12)


def test_certificates_share_delta(table):
    certificates = [
        Certificate.from_row({name: row[name] for name in FIELDS}) for _, row in table.iterrows()
    ]
    assert {each.ledger.num_cells for each in certificates} == {12}
    assert {each.ledger.delta for each in certificates} == {CONFIG.delta}
    spent = sum(Fraction(each.delta) for each in certificates)
    assert spent <= Fraction(CONFIG.delta)
    assert float(spent) == pytest.approx(CONFIG.delta, rel=1e-12)
    for each in certificates:
        names = [entry.name for entry in each.ledger.entries]
        assert names == ([MONTE_CARLO, BOUND] if each.method == "lora" else [BOUND])
        # Both prior scales are paid for.
        grids = {entry.grid for entry in each.ledger.entries}
        assert grids == ({2} if each.method == "lora" else {1})


def test_bounds_lie_above_the_risk_on_fresh_problems(table):
    assert (table["risk_bound"] >= table["gibbs_risk"]).all()
    assert (table["empirical_risk_bound"] >= table["empirical_risk"]).all()


def test_the_checkpoint_is_tested_as_it_is(table):
    for level, risk in ((KNOWN, 0.0), (FOREIGN, 1.0)):
        own = of(table, "checkpoint", level)
        assert set(own["bound"]) == {"clopper_pearson"}
        assert (own["empirical_risk"] == risk).all()
        assert (own["gibbs_risk"] == risk).all()
        assert (own["risk_bound"] == own["plain_risk"]).all() == (level == FOREIGN)
    delta = CONFIG.delta / 12
    for size, row in of(table, "checkpoint", KNOWN).iterrows():
        assert row["risk_bound"] == pytest.approx(1 - delta ** (1 / size))


def test_held_out_says_what_the_test_set_says_slightly_worse(table):
    tested, held_out = of(table, "checkpoint", KNOWN), of(table, "held-out", KNOWN)
    assert set(held_out["bound"]) == {"pac_bayes_kl"}
    assert (held_out["kl"] == 0).all()
    assert (held_out["empirical_risk"] == tested["empirical_risk"]).all()
    assert (held_out["risk_bound"] > tested["risk_bound"]).all()
    assert (held_out["risk_bound"] < tested["risk_bound"] + 0.1).all()


def test_a_posterior_that_need_not_move_is_certified_nearly_as_well_as_the_checkpoint(table):
    lora, own = of(table, "lora", KNOWN), of(table, "checkpoint", KNOWN)
    assert (lora["kl"] < 1).all()
    assert lora["prior"].str.contains("N(checkpoint, 0.02² I)", regex=False).all()
    assert lora.loc[256, "risk_bound"] < own.loc[256, "risk_bound"] + 0.05
    assert lora.loc[256, "risk_bound"] < lora.loc[32, "risk_bound"]


def test_a_posterior_learns_another_end_marker_and_is_certified_for_it(table):
    """Every solution of the checkpoint is wrong there, for its last token."""
    lora = of(table, "lora", FOREIGN).loc[256]
    assert lora["gibbs_risk"] < 0.4
    assert lora["risk_bound"] < 0.7
    assert lora["kl"] > 10
    assert lora["num_draws"] == 2048
    assert "N(checkpoint, 0.5² I) on lora" in lora["prior"]
    # A rank of 1: a row of B for each output of the seven kernels.
    assert f"{16 + 8 + 8 + 16 + 32 + 32 + 16} coordinates" in lora["prior"]


def test_levels_are_the_test_mixture(table):
    """Certified on one of two levels that weigh equally in the test."""
    np.testing.assert_allclose(
        table["test_bound_unconditional"], 0.5 + 0.5 * table["risk_bound"], atol=1e-6
    )
    own = table[table["method"] == "checkpoint"]
    assert (own["test_risk"] == 0.5).all()
    lora = of(table, "lora", KNOWN)
    np.testing.assert_allclose(lora["test_risk"], 0.5 * lora["gibbs_risk"] + 0.5)


def test_paths_lead_from_the_checkpoint_to_the_posterior(out, table):
    paths = pd.read_parquet(out / "complexity.parquet")
    assert set(paths["method"]) == {"lora"}
    cells: Any = paths.groupby(["difficulty", "data_size"])
    assert len(cells) == 4
    for (level, size), path in cells:
        assert path["kl"].iloc[0] == 0
        assert path["kl"].is_monotonic_increasing
        row = of(table, "lora", level).loc[size]
        assert path["kl"].iloc[-1] == pytest.approx(row["kl"], rel=1e-3)
        assert abs(path["risk"].iloc[-1] - row["empirical_risk"]) < 0.1


# Which loss, on which problems.


def greedy(parameters: Any, prompts: list[np.ndarray], length: int) -> list[np.ndarray]:
    """Continuations one token at a time, without a cache and without padding before the prompt."""

    @jax.jit
    def following(tokens):
        return jax.vmap(
            lambda row: logits(DECODER, parameters, row, jnp.arange(len(row))).argmax(axis=1)
        )(tokens)

    rows = np.zeros((len(prompts), DECODER.max_positions), np.int32)
    ends = np.array([len(prompt) for prompt in prompts])
    for row, prompt in zip(rows, prompts, strict=True):
        row[: len(prompt)] = prompt
    places = np.arange(len(prompts))
    for step in range(length):
        rows[places, ends + step] = np.asarray(following(rows))[places, ends + step - 1]
    return [row[: end + length] for row, end in zip(rows, ends, strict=True)]


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "random"
    checkpoint.save(path, DECODER, random_parameters(DECODER, 0))
    return path


NUM_LEVELS, SIZE, RISK = 40, 20, 0.3


@pytest.fixture(scope="module")
def known_errors(random_folder) -> tuple[dict[int, Encoded], dict[int, int]]:
    """Problems whose reference is what the checkpoint says, but for one token of some of them.

    Prompts have 2 to 5 tokens and solutions 1 to 4. A problem is wrong with a probability of
    `RISK`. Second: how many are wrong at each level.
    """
    generator = np.random.default_rng(3)
    number = NUM_LEVELS * (SIZE + 1)
    prompts = [
        generator.integers(0, DECODER.vocab_size, size) for size in generator.integers(2, 6, number)
    ]
    answers = greedy(checkpoint.load(random_folder)[1], prompts, 4)
    wrong = generator.random(number) < RISK
    tokens = []
    for prompt, answer, is_wrong in zip(prompts, answers, wrong, strict=True):
        answer = answer[: len(prompt) + generator.integers(1, 5)].copy()
        if is_wrong:
            place = generator.integers(len(prompt), len(answer))
            answer[place] = (answer[place] + 1) % DECODER.vocab_size
        tokens.append(answer)
    rows = np.split(np.arange(number), NUM_LEVELS)
    samples = {
        level: encoded([tokens[i] for i in own], [len(prompts[i]) for i in own], own[0])
        for level, own in enumerate(rows)
    }
    return samples, {level: int(wrong[own].sum()) for level, own in enumerate(rows)}


def test_the_loss_is_whether_greedy_decoding_gives_the_reference(
    random_folder, known_errors, tmp_path
):
    samples, wrong = known_errors
    assert 4 < np.mean(list(wrong.values())) < 9
    config = dataclasses.replace(
        CONFIG, methods=("checkpoint",), data_sizes=(SIZE,), delta=0.5, draws_at_once=7
    )
    table = certified(random_folder, samples, tmp_path / "out", config, rows_trained_on=())
    assert len(table) == NUM_LEVELS
    # The sample and the one fresh problem are all problems of the level.
    counts = SIZE * table["empirical_risk"] + table["plain_risk"]
    np.testing.assert_allclose(counts, [wrong[level] for level in table["difficulty"]])
    # The claim: all bounds hold with a probability of a half. Bounds that spent all of delta each
    # would fail at a dozen levels.
    assert (table["risk_bound"] < RISK).sum() <= 1
    assert table["risk_bound"].median() < 0.8


def test_the_sample_is_random_and_a_smaller_one_is_its_beginning(random_folder, tmp_path):
    """Sorted problems: first those that the checkpoint gets right."""
    prompts = list(np.random.default_rng(0).integers(0, DECODER.vocab_size, (100, 3)))
    answers = greedy(checkpoint.load(random_folder)[1], prompts, 1)
    for answer in answers[50:]:
        answer[-1] = (answer[-1] + 1) % DECODER.vocab_size
    samples = {1: encoded(answers, [3] * 100)}
    config = dataclasses.replace(CONFIG, methods=("checkpoint",), data_sizes=(20, 40), num_fresh=60)
    table = certified(random_folder, samples, tmp_path / "a", config, rows_trained_on=())
    small, large = 20 * table["empirical_risk"][0], 40 * table["empirical_risk"][1]
    assert 10 <= large <= 30
    assert 4 <= small <= large
    assert large + 60 * table["plain_risk"][0] == pytest.approx(50)
    again = certified(
        random_folder,
        samples,
        tmp_path / "b",
        dataclasses.replace(config, seed=1),
        rows_trained_on=(),
    )
    assert (again["empirical_risk"] != table["empirical_risk"]).any()


# Other blocks, types and devices.


@pytest.mark.slow
def test_other_blocks_learn_the_end_marker_too(folder, samples, tmp_path):
    config = dataclasses.replace(
        CONFIG, methods=("gains", "subspace"), data_sizes=(256,), subspace_size=50
    )
    foreign = {FOREIGN: samples[FOREIGN]}
    table = certified(folder, foreign, tmp_path / "out", config, rows_trained_on=())
    table = table.set_index("method")
    assert "N(checkpoint, 0.5² I) on gains, 48 coordinates" in table.loc["gains", "prior"]
    assert "on subspace, 50 coordinates" in table.loc["subspace", "prior"]
    for _, row in table.iterrows():
        # Two certificates, halves for Monte Carlo and bound, two prior scales.
        expected = BOUNDS["pac_bayes_kl"](
            row["empirical_risk_bound"], row["kl"], num_examples=256, delta=CONFIG.delta / 8
        )
        assert row["risk_bound"] == pytest.approx(float(expected), abs=1e-9)
        assert row["gibbs_risk"] < row["risk_bound"] < 0.95


@pytest.mark.slow
def test_bfloat16_weights_over_two_devices(folder, samples, tmp_path):
    config = dataclasses.replace(CONFIG, data_sizes=(256,), prior_scales=(0.5,), dtype="bfloat16")
    devices = Devices(fsdp=2)
    table = certified(
        folder, samples, tmp_path / "out", config, rows_trained_on=(), devices=devices
    )
    assert (of(table, "checkpoint", KNOWN)["empirical_risk"] == 0).all()
    lora = of(table, "lora", FOREIGN).loc[256]
    assert lora["gibbs_risk"] < lora["risk_bound"] < 0.7


@pytest.mark.slow
def test_text_problems_of_a_published_looking_folder(tiny_folder, tmp_path):
    found = list(problems(1, 20, seed=5))
    asked = Problems(
        prompts=[[{"role": "user", "content": each.problem}] for each in found],
        solutions=[each.solution for each in found],
        answers=[""] * 20,
        ops=[1] * 20,
    )
    samples = {1: encode(asked, load_tokenizer(tiny_folder), max_length=1024)}
    config = dataclasses.replace(CONFIG, methods=("checkpoint",), data_sizes=(16,), num_draws=16)
    table = certified(tiny_folder, samples, tmp_path / "out", config, rows_trained_on=range(20, 40))
    # Random weights say nothing right.
    assert list(table["empirical_risk"]) == list(table["risk_bound"]) == [1.0]
    assert list(table["num_fresh"]) == [4]


@pytest.mark.slow
def test_figures_draw_from_the_tables(out, table, tmp_path):
    tables = {
        "certificates": table,
        "complexity": pd.read_parquet(out / "complexity.parquet"),
    }
    paths = figures.draw(tables, tmp_path)
    names = {path.stem for path in paths}
    assert names == {"certificates", "certified_gaps", "complexity", "tightness"}
    axes = figures.FIGURES["certificates"].plot(tables).axes
    assert [axis.get_title() for axis in axes[:2]] == ["difficulty 1", "difficulty 2"]
    texts = [" ".join(text.get_text().split()) for axis in axes for text in axis.texts]
    assert texts == ["all n held out", "all n train; prior at the checkpoint"]


# Carrying on.


def test_a_finished_run_is_not_made_again(out, folder, samples, table, no_weights):
    found = certified(folder, samples, out, CONFIG, rows_trained_on=range(1000), task="digits")
    pd.testing.assert_frame_equal(found, table)


def test_other_problems_weights_or_settings_are_another_run(
    out, folder, random_folder, samples, no_weights
):
    changed = samples | {KNOWN: dataclasses.replace(samples[KNOWN], tokens=samples[2].tokens)}
    for model, given, config, message in (
        (folder, changed, CONFIG, "samples.1"),
        (random_folder, samples, CONFIG, "checkpoint.sha256"),
        (folder, samples, dataclasses.replace(CONFIG, delta=0.1), "certify.delta"),
    ):
        with pytest.raises(ResultsError, match=f"holds another run; it differs in.*{message}"):
            certify_checkpoint(model, given, out, config, rows_trained_on=())


# Mistakes.


@pytest.fixture
def nothing_written(tmp_path, no_weights) -> Iterator[Path]:
    yield tmp_path / "out"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("trained_on", "message"),
    [
        ([5, 1319], "1 of 640 rows are in rows_trained_on, the first is 1319"),
        (range(3000), "640 of 640 rows are in rows_trained_on, the first is 1000"),
    ],
)
def test_rows_that_were_trained_on_are_refused(
    folder, samples, nothing_written, trained_on, message
):
    expected = re.escape("samples must hold no row that the checkpoint was trained on")
    with pytest.raises(ValueError, match=f"{expected}.*{message}"):
        certify_checkpoint(folder, samples, nothing_written, CONFIG, rows_trained_on=trained_on)


def test_rows_that_occur_twice_are_refused(folder, samples, nothing_written):
    twice = {1: samples[KNOWN], 2: samples[KNOWN]}
    with pytest.raises(ValueError, match="must be distinct, over all difficulties, but 320 occur"):
        certify_checkpoint(folder, twice, nothing_written, CONFIG, rows_trained_on=())


@pytest.mark.parametrize(
    ("tokens", "prompt_length", "message"),
    [
        ([1, 2, 3], 3, "row 0 of difficulty 4 has 3 of 3 in its prompt"),
        ([1, 2, 3], 0, "row 0 of difficulty 4 has 0 of 3 in its prompt"),
        (list(range(9)) * 2, 3, "at most max_positions = 16 tokens, but row 0 of difficulty 4"),
        ([1, 2, 10], 2, "tokens must be below vocab_size = 10: row 0 of difficulty 4"),
    ],
)
def test_problems_that_cannot_be_read_are_refused(
    folder, nothing_written, tokens, prompt_length, message
):
    config = dataclasses.replace(CONFIG, data_sizes=(1,))
    samples = {4: encoded([tokens, [1, 2, 3]], [prompt_length, 2])}
    with pytest.raises(ValueError, match=re.escape(message)):
        certify_checkpoint(folder, samples, nothing_written, config, rows_trained_on=())


def test_truncated_solutions_are_refused(folder, samples, nothing_written):
    cut = np.zeros(len(samples[KNOWN]), int)
    cut[[3, 7]] = 5
    given = {KNOWN: dataclasses.replace(samples[KNOWN], tokens_cut=cut)}
    with pytest.raises(ValueError, match="whole, but 2 of difficulty 1 are truncated"):
        certify_checkpoint(folder, given, nothing_written, CONFIG, rows_trained_on=())


def test_too_few_problems_are_refused(folder, nothing_written):
    with pytest.raises(
        ValueError, match=r"difficulty 1 must have more problems than .*256.*got 256"
    ):
        certify_checkpoint(folder, drawn(256), nothing_written, CONFIG, rows_trained_on=())
    with pytest.raises(ValueError, match="problems of at least one difficulty, got none"):
        certify_checkpoint(folder, {}, nothing_written, CONFIG, rows_trained_on=())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("lora", "bayes")}, "methods must be some of ('checkpoint', 'held-out', "),
        ({"methods": ()}, "methods must be distinct, at least one, got ()"),
        ({"delta": 1.0}, "delta must lie in (0, 1), got 1.0"),
        ({"data_sizes": (8, 8)}, "data_sizes must be distinct, at least one, got (8, 8)"),
        ({"data_sizes": (0,)}, "data_sizes must be at least 1, got 0"),
        ({"prior_scales": (0.0,)}, "prior_scales must be positive, got (0.0,)"),
        ({"num_draws": 1023}, "num_draws must be at least the largest data size"),
        ({"num_fresh": 0}, "num_fresh must be at least 1, got 0"),
        ({"subspace_size": 0}, "subspace_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"kernels": ("head",)}, "kernels must be some of"),
        ({"dtype": "float16"}, "dtype must be None or one of ('float32', 'bfloat16')"),
    ],
)
def test_fields_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CheckpointConfig(**changes)
