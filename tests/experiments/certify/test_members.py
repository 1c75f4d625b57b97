"""Certificates of the tiny sweep: what they claim, on which data, and at which cost in delta."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.certify import posteriors
from experiments.certify.cells import tuned_rates
from experiments.certify.config import (
    BLOCK_SETTINGS,
    DEFAULT_CERTIFICATES,
    DEVELOPMENT_SEED,
    POINT_METHODS,
    BlockSettings,
    MembersConfig,
)
from experiments.certify.members import MemberCertification, certify
from experiments.certify.points import halved_steps
from experiments.recipes import RECIPES
from experiments.storage import checkpoint
from experiments.storage.results import ResultsError, read_manifest, read_table
from experiments.sweep.draws import Draws
from experiments.sweep.grid import Member, SweepConfig
from experiments.sweep.programs import Sweep
from experiments.sweep.study import run_sweep
from synth.config import FinetuneConfig, Optimiser
from synth.decoder import draw_positions, logits
from synth.finetune import TrainingData, finetune
from synth.task import Mixture, Pool, pool
from synth.tasks import make_task
from tests.experiments.tiny import OWN_TASK, TINY, tiny
from theory.bounds import BOUNDS, mcallester_maurer
from theory.certificate import BOUND, MONTE_CARLO, Certificate, Ledger
from theory.config import PosteriorConfig

LEVEL, SEEDS, SIZES = 2, (0, 1), (3, 12)
CONFIG = MembersConfig(
    # Large, so that a dozen examples say something.
    delta=0.5,
    methods=(*POINT_METHODS, "gains"),
    difficulties=(LEVEL,),
    seeds=SEEDS,
    num_candidates=2,
    # Not a multiple of either size: two draws are left over.
    num_draws=50,
)
FLAGS = (
    "--delta 0.5 --methods base test-set held-out candidates gains --difficulties 2 "
    "--seeds 0 1 --num-candidates 2 --num-draws 50"
)
CELL = ["base_seed", "cell_seed", "difficulty", "data_size"]
FIELDS = [field.name for field in dataclasses.fields(Certificate)]
PATH_STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def _small_training() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quick = PosteriorConfig(steps=6, batch_size=4, draws=2)
        patch.setitem(BLOCK_SETTINGS, "gains", BlockSettings(0.1, quick))
        patch.setattr(posteriors, "PATH_STEPS", PATH_STEPS)
        patch.setattr(posteriors, "PATH_DRAWS", 12)
        yield


@pytest.fixture(scope="module")
def certified(finished_run, tmp_path_factory) -> Path:
    """A run with its certificates; tests that change it work on a copy."""
    directory = tmp_path_factory.mktemp("certified") / "tiny"
    shutil.copytree(finished_run, directory)
    certify(directory, CONFIG)
    return directory


@pytest.fixture(scope="module")
def table(certified) -> pd.DataFrame:
    return pd.read_parquet(certified / "certificates.parquet")


@pytest.fixture
def copied(certified, tmp_path) -> Path:
    return Path(shutil.copytree(certified, tmp_path / "copy"))


@pytest.fixture
def no_work(monkeypatch) -> None:
    def refuse(*_):
        raise AssertionError("nothing is left to compute")

    monkeypatch.setattr(MemberCertification, "part_rows", refuse)


def written_run(directory: Path, finished_run: Path, config: SweepConfig = TINY) -> Path:
    """A directory with a manifest and a table, but without bases."""
    directory.mkdir()
    manifest = read_manifest(finished_run) | {"config": dataclasses.asdict(config)}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(finished_run / "table.parquet", directory)
    return directory


def files(directory: Path) -> dict[str, int]:
    """Time of the last change of every file but the lock."""
    return {
        str(path.relative_to(directory)): path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# The type stubs do not follow pandas' indexing.
def of(table: pd.DataFrame, method: str) -> Any:
    """Rows of one method, by cell."""
    return table[table["method"] == method].set_index(CELL)


def stored(row: pd.Series) -> Certificate:
    return Certificate.from_row({name: row[name] for name in FIELDS})


# What is claimed.


def test_every_cell_has_one_row_for_each_method(table):
    expected = itertools.product(SEEDS, SIZES, CONFIG.methods)
    found = list(table[["cell_seed", "data_size", "method"]].itertuples(index=False, name=None))
    assert len(found) == len(set(found)) == 20
    assert set(found) == set(expected)
    for name, value in {
        "task": TINY.task,
        "base": "base-0",
        "base_seed": 0,
        "train_mixture": "range",
        "loss": "sft",
        "difficulty": LEVEL,
        "seed": TINY.master_seed,
    }.items():
        assert set(table[name]) == {value}
    assert table.drop(columns=["base_risk", "test_bound_probe"]).notna().all(axis=None)
    risks = table.filter(regex="risk|test_bound")
    assert set(risks) > {"gibbs_risk", "base_risk", "plain_risk", "test_risk"}
    assert ((risks >= 0) & (risks <= 1) | risks.isna()).all(axis=None)
    assert (table["num_fresh"] == np.where(table["method"] == "gains", 32, 8)).all()


def test_every_row_gives_back_its_certificate(table):
    for _, row in table.iterrows():
        found = stored(row)
        assert found.to_row() == {name: row[name] for name in FIELDS}
        assert found.method == row["method"]
        # What supports the bound, and no more than that.
        delta = found.ledger.entries[-1].each
        bound = BOUNDS[found.bound]
        expected = bound(
            found.empirical_risk_bound, found.kl, num_examples=found.num_examples, delta=delta
        )
        assert found.risk_bound == pytest.approx(min(float(expected), 1.0), abs=1e-12)
        with pytest.raises(ValueError, match="is what the other fields support"):
            dataclasses.replace(found, risk_bound=found.risk_bound - 1e-6)


def test_claims_share_delta_equally_and_probes_are_claims(table):
    certificates = [stored(row) for _, row in table.iterrows()]
    probes = table["test_bound_probe"].notna()
    assert (probes == (table["method"] == "test-set")).all()
    claims = len(table) + int(probes.sum())
    assert claims == 24
    assert {each.ledger.num_cells for each in certificates} == {claims}
    assert {each.ledger.delta for each in certificates} == {CONFIG.delta}
    spent = sum(Fraction(each.delta) for each in certificates)
    spent += sum(Fraction(delta) for delta in table.loc[probes, "delta"])
    assert spent <= Fraction(CONFIG.delta)
    assert float(spent) == pytest.approx(CONFIG.delta, rel=1e-12)
    for each in certificates:
        names = [entry.name for entry in each.ledger.entries]
        assert names == ([MONTE_CARLO, BOUND] if each.method == "gains" else [BOUND])
        assert {entry.grid for entry in each.ledger.entries} == {1}


def test_bounds_count_the_examples_that_the_prior_has_not_seen(table):
    sizes = table["data_size"]
    halved = table["method"].isin(["test-set", "held-out", "candidates"])
    expected = np.where(halved, sizes - sizes // 2, sizes)
    np.testing.assert_array_equal(table["num_examples"], expected)
    assert set(of(table, "test-set")["num_examples"]) == {2, 6}
    # Point predictors are right or wrong on whole examples.
    errors = (table["empirical_risk"] * table["num_examples"])[table["num_draws"] == 0]
    exact = errors[table["method"] != "candidates"]
    np.testing.assert_allclose(exact, exact.round(), atol=1e-9)


def test_theorems_fit_their_predictors(table):
    theorems = table.groupby("method")["bound"].unique().map(list).to_dict()
    kl, exact = ["pac_bayes_kl"], ["clopper_pearson"]
    assert theorems == {
        "base": exact,
        "test-set": exact,
        "held-out": kl,
        "candidates": kl,
        "gains": kl,
    }
    fixed = table["method"].isin(["base", "test-set", "held-out"])
    assert (table.loc[fixed, "kl"] == 0).all()
    assert (of(table, "candidates")["kl"] <= np.log(CONFIG.num_candidates) + 1e-12).all()
    assert (of(table, "gains")["kl"] > 0).all()


def test_held_out_says_what_the_test_set_says_slightly_worse(table):
    test_set, held_out = of(table, "test-set"), of(table, "held-out")
    same = ["empirical_risk", "gibbs_risk", "test_risk", "num_examples", "delta"]
    pd.testing.assert_frame_equal(test_set[same], held_out[same])
    says_something = held_out["risk_bound"] < 1
    assert says_something.sum() >= 2
    assert (test_set["risk_bound"] < held_out["risk_bound"])[says_something].all()


def test_trained_posteriors_are_corrected_for_their_draws(table):
    gains = of(table, "gains")
    assert (gains["num_draws"] == 48).all()
    assert (gains["empirical_risk_bound"] > gains["empirical_risk"]).all()
    wrong = gains["empirical_risk"] * 48
    np.testing.assert_allclose(wrong, wrong.round(), atol=1e-9)
    others = table[table["method"] != "gains"]
    assert (others["num_draws"] == 0).all()
    assert (others["empirical_risk_bound"] == others["empirical_risk"]).all()


def test_the_test_risk_is_bounded_from_the_mixtures(table):
    """BlockSettings on levels 1 and 2 and tested on 1 to 4: half of the test is never seen."""
    bounds = table["risk_bound"]
    np.testing.assert_allclose(
        table["test_bound_unconditional"], (0.5 + 0.5 * bounds).clip(upper=1), atol=1e-6
    )
    np.testing.assert_allclose(
        table["test_bound_monotone"], table["test_bound_unconditional"], atol=1e-6
    )
    assert (table["test_bound_literal"] >= table["test_bound_unconditional"]).all()
    exact = table["num_draws"] == 0
    literal = 0.5 + mcallester_maurer(
        table["empirical_risk"],
        table["kl"],
        num_examples=table["num_examples"],
        delta=table["delta"],
    )
    np.testing.assert_allclose(
        table["test_bound_literal"][exact], np.minimum(literal, 1)[exact], atol=1e-6
    )
    levels = table["test_risk"] * 4 * TINY.test_examples
    points = table["method"] != "candidates"
    np.testing.assert_allclose(levels[points], levels[points].round(), atol=1e-9)


def test_the_probe_is_a_mean_of_clopper_pearson_bounds_at_each_level(table):
    """For some errors at the four levels that add up to the measured test risk."""
    levels, examples = 4, TINY.test_examples
    probed = of(table, "test-set")
    assert (probed["num_probes"] == levels * examples).all()
    errors = np.array(list(itertools.combinations_with_replacement(range(examples + 1), levels)))
    for _, row in probed.iterrows():
        upper = scipy.stats.beta.isf(
            row["delta"] / levels, np.arange(examples) + 1, examples - np.arange(examples)
        )
        fit = errors.mean(axis=1) == row["test_risk"] * examples
        means = np.append(upper, 1.0)[errors[fit]].mean(axis=1)
        assert 0 < len(means) < 200
        assert np.abs(means - row["test_bound_probe"]).min() < 1e-9


def test_paths_lead_from_the_prior_to_the_posterior(certified, table):
    paths = pd.read_parquet(certified / "complexity.parquet")
    assert len(paths) == len(SEEDS) * len(SIZES) * PATH_STEPS
    assert set(paths["method"]) == {"gains"}
    assert paths["risk"].between(0, 1).all()
    starts = set()
    for cell, path in paths.groupby(CELL):
        assert path["kl"].iloc[0] == 0
        assert path["kl"].is_monotonic_increasing
        kl = of(table, "gains").loc[cell, "kl"]
        assert path["kl"].iloc[-1] == pytest.approx(kl, rel=1e-4)
        starts.add(path["risk"].iloc[0])
    assert starts != {0.0}


# On which data.


def member(seed: int, size: int) -> Member:
    return Member(0, seed, "range", LEVEL, size, "sft", 5e-3)


def training_key(seed: int) -> jax.Array:
    """Key of the sample of a seed: members, base 0, seed, training, range, level 2."""
    key = jax.random.key(TINY.master_seed)
    for number in (1, 0, seed, 0, 0, LEVEL):
        key = jax.random.fold_in(key, number)
    return key


@pytest.fixture(scope="module")
def recomputed(certified) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """By another road, for each seed and size: errors [base or fine-tuned, example].

    The samples are drawn here, fine-tuning cannot see a second half, and each prediction is
    compared with its label.
    """
    sweep, rows = Sweep(TINY), max(SIZES)
    decoder, base = checkpoint.load(certified / "bases" / "base-0")
    config = FinetuneConfig(20, 5e-3, optimiser=Optimiser(batch_size=8))

    def wrong(parameters, key, row, tokens, loss_mask):
        positions = draw_positions(decoder, jax.random.fold_in(key, row), tokens.size)
        scores = logits(decoder, parameters, tokens, positions)
        return jnp.any((scores.argmax(axis=1)[:-1] != tokens[1:]) & loss_mask[1:])

    def measure(key_fit, key_positions, half, sample, fresh):
        in_first = (jnp.arange(rows) < half)[:, None]
        first = TrainingData(
            jnp.where(in_first, sample.tokens, 0), sample.loss_mask & in_first, half
        )
        tuned, _ = finetune(decoder, base, first, config, key_fit)
        # One bucket of test slices beside the two pools.
        keys = jax.random.split(key_positions, 3)
        return {
            name: jnp.stack(
                [
                    jax.vmap(wrong, (None, None, 0, 0, 0))(
                        model, key, jnp.arange(len(drawn.tokens)), drawn.tokens, drawn.loss_mask
                    )
                    for model in (base, tuned)
                ]
            )
            for name, key, drawn in zip(("sample", "fresh"), keys[:2], (sample, fresh), strict=True)
        }

    cells = list(itertools.product(SEEDS, SIZES))
    arguments = []
    for seed, size in cells:
        key_positions, key = jax.random.split(sweep.draws.cell_key("certify", member(seed, size)))
        key_fit = jax.random.fold_in(jax.random.fold_in(key, size), 0)
        sample = pool(sweep.task, training_key(seed), Mixture.up_to(LEVEL), rows)
        fresh = sweep.draws.in_distribution_pool(member(seed, size))
        arguments.append((key_fit, key_positions, jnp.int32(size // 2), sample, fresh))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arguments)
    errors = jax.device_get(jax.jit(jax.vmap(measure))(*stacked))
    return {
        cell: {name: each[index] for name, each in errors.items()}
        for index, cell in enumerate(cells)
    }


@pytest.mark.slow
def test_the_base_is_tested_on_the_sample_that_the_sweep_trained_on(table, recomputed):
    for (seed, size), errors in recomputed.items():
        row = of(table, "base").loc[(0, seed, LEVEL, size)]
        assert row["empirical_risk"] == errors["sample"][0, :size].mean()
        assert row["gibbs_risk"] == row["base_risk"] == errors["fresh"][0].mean()
    assert 0 < of(table, "base")["empirical_risk"].mean() < 1


def test_the_test_set_is_the_half_that_fine_tuning_has_not_seen(table, recomputed):
    for (seed, size), errors in recomputed.items():
        row = of(table, "test-set").loc[(0, seed, LEVEL, size)]
        assert row["empirical_risk"] == errors["sample"][1, size // 2 : size].mean()
        assert row["gibbs_risk"] == errors["fresh"][1].mean()
    assert (of(table, "test-set")["gibbs_risk"] != of(table, "base")["gibbs_risk"]).any()


def test_plain_risks_are_those_of_the_sweeps_own_members(certified, table):
    sweep = read_table(certified)
    sweep = sweep[(sweep["metric"] == "in_distribution_risk") & (sweep["difficulty"] == LEVEL)]
    expected = sweep.set_index(["seed", "data_size"])["value"]
    for (seed, size), rows in table.groupby(["cell_seed", "data_size"]):
        assert set(rows["plain_risk"]) == {expected.loc[(seed, size)]}


@pytest.fixture
def spoilt(finished_run, tmp_path, monkeypatch) -> Callable[[str], pd.DataFrame]:
    """Certificates of point predictors if one half of each sample were that of the other seed."""

    def call(half: str) -> pd.DataFrame:
        drawn = Draws.training_pool

        def training_pool(draws: Draws, member: Member) -> Pool:
            own = drawn(draws, member)
            other = drawn(draws, dataclasses.replace(member, seed=1 - member.seed))
            in_first = np.arange(own.num_examples) < member.data_size // 2
            kept = in_first == (half == "second")

            def mixed(one: jax.Array, two: jax.Array) -> jax.Array:
                return jnp.where(kept.reshape(-1, *[1] * (one.ndim - 1)), one, two)

            return jax.tree.map(mixed, own, other)

        monkeypatch.setattr(Draws, "training_pool", training_pool)
        directory = Path(shutil.copytree(finished_run, tmp_path / half))
        found = certify(directory, dataclasses.replace(CONFIG, methods=POINT_METHODS))
        monkeypatch.undo()
        return found

    return call


def test_nothing_of_the_second_half_reaches_what_it_tests(table, spoilt):
    measured = ["gibbs_risk", "test_risk"]
    second = of(spoilt("second"), "test-set")
    own = of(table, "test-set")
    pd.testing.assert_frame_equal(second[measured], own[measured])
    assert (second["empirical_risk"] != own["empirical_risk"]).any()
    # The first half does: were it spoilt, it would be seen.
    first = of(spoilt("first"), "test-set")
    assert (first[measured] != own[measured]).to_numpy().any()


# Once, interrupted, and again.


def test_the_manifest_says_what_made_the_certificates(certified):
    manifest = read_manifest(certified / "certificates")
    assert manifest["status"] == "complete"
    assert manifest["certify"]["num_draws"] == CONFIG.num_draws
    assert manifest["certify"]["data_sizes"] == list(SIZES)
    assert manifest["sweep"]["config"]["master_seed"] == TINY.master_seed
    assert list(manifest["trained"]) == ["gains"]
    assert manifest["trained"]["gains"]["posterior"]["steps"] == 6
    assert str(Ledger(CONFIG.delta, num_cells=24)) == manifest["ledger"]
    (session,) = manifest["sessions"]
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", session["commit"])
    assert session["wall_time_seconds"] > 0
    assert {"device", "versions"} <= set(session)


def test_a_finished_call_is_not_made_again(copied, table, no_work):
    before = read_manifest(copied / "certificates")
    parts = files(copied / "certificates" / "parts")
    pd.testing.assert_frame_equal(certify(copied, CONFIG), table)
    assert files(copied / "certificates" / "parts") == parts
    assert read_manifest(copied / "certificates") == before


def test_an_interrupted_call_carries_on_to_the_same_tables(copied, certified, table, monkeypatch):
    """As a kill between the units leaves it, and one within a unit."""
    folder = copied / "certificates"
    assert {path.stem for path in (folder / "parts").iterdir()} == {
        "points_2",
        "gains_2",
        "gains_2_complexity",
    }
    for part in (folder / "parts").glob("gains_*"):
        part.unlink()
    for name in ("certificates", "complexity"):
        (copied / f"{name}.parquet").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    left = files(copied)
    with monkeypatch.context() as patch:

        def interrupt(*_):
            raise KeyboardInterrupt

        patch.setattr(MemberCertification, "_certify_posteriors", interrupt)
        with pytest.raises(KeyboardInterrupt):
            certify(copied, CONFIG)
    # The interrupted session is on record, and nothing else has changed.
    interrupted = files(copied)
    for name in ("certificates/manifest.json", "certificates/.manifest.json"):
        assert interrupted.pop(name) > left.pop(name)
    assert interrupted == left

    found = certify(copied, CONFIG)
    pd.testing.assert_frame_equal(found, table, check_exact=True)
    for name in ("certificates", "complexity"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(copied / f"{name}.parquet"),
            pd.read_parquet(certified / f"{name}.parquet"),
            check_exact=True,
        )
    assert (
        files(copied)["certificates/parts/points_2.parquet"]
        == (left["certificates/parts/points_2.parquet"])
    )
    finished = read_manifest(folder)
    assert finished["status"] == "complete"
    assert finished["sessions"][0] == manifest["sessions"][0]
    assert len(finished["sessions"]) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_draws": 60}, "certify.num_draws (there 50, here 60)"),
        ({"delta": 0.1}, "certify.delta (there 0.5, here 0.1)"),
        ({"seeds": (0,)}, "certify.seeds (there [0, 1], here [0])"),
    ],
)
def test_certificates_of_another_configuration_are_kept(copied, no_work, changes, message):
    before = files(copied)
    with pytest.raises(ResultsError, match=re.escape(message)):
        certify(copied, dataclasses.replace(CONFIG, **changes))
    assert files(copied) == before


def test_certificates_of_other_training_are_kept(copied, no_work, monkeypatch):
    monkeypatch.setitem(
        BLOCK_SETTINGS, "gains", BlockSettings(0.2, BLOCK_SETTINGS["gains"].posterior)
    )
    with pytest.raises(ResultsError, match=r"trained\.gains\.prior_scale \(there 0\.1, here 0\.2"):
        certify(copied, CONFIG)


@pytest.mark.slow
def test_another_block_of_some_cells_alone(finished_run, tmp_path, monkeypatch):
    monkeypatch.setitem(
        BLOCK_SETTINGS, "lora", BlockSettings(0.05, BLOCK_SETTINGS["gains"].posterior)
    )
    directory = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = MembersConfig(
        methods=("base", "lora"), trained_difficulties=(1,), data_sizes=(3,), num_draws=30
    )
    found = certify(directory, config)
    assert found[["difficulty", "method"]].to_numpy().tolist() == [
        [1, "base"],
        [1, "lora"],
        [2, "base"],
    ]
    lora = stored(found.iloc[1])
    # One layer of width 16 with two heads, one of them for keys, and an inner width of 32.
    assert f"{16 + 8 + 8 + 16 + 32 + 32 + 16} coordinates" in lora.prior
    assert lora.ledger.num_cells == 3
    assert lora.num_draws == 30
    assert lora.kl > 0


@pytest.mark.slow  # a sweep and its certificates
def test_members_of_epochs_take_half_of_their_steps_on_half_of_a_sample(finished_run, tmp_path):
    epochs = tiny(compute=8.0, compute_unit="epochs", difficulties=(2,), data_sizes=(4, 12))
    draws = Sweep(epochs).draws
    steps = {each.data_size: halved_steps(draws, each) for each in epochs.members}
    # Eight epochs of 2 and of 6 examples, 8 in a step.
    assert steps == {4: 2, 12: 6}
    directory = tmp_path / "run"
    run_sweep(epochs, directory, recipe="tiny", preset="test", bases=finished_run)
    found = certify(directory, MembersConfig(methods=("test-set",), num_draws=60))
    assert found["data_size"].tolist() == [4, 12]
    assert found["risk_bound"].between(0.1, 1).all()


def test_rates_are_those_that_the_sweep_kept_for_each_cell(finished_run):
    table = read_table(finished_run)
    large = (table["data_size"] == 12) & (table["train_mixture"] != "none")
    kept = table.assign(learning_rate=table["learning_rate"].mask(large, 3e-3))
    dropped = kept.loc[large].assign(learning_rate=1e-3, status="not_selected")
    config = dataclasses.replace(CONFIG, difficulties=(2,), data_sizes=(3, 12))
    rates = tuned_rates(config, TINY, pd.concat([dropped, kept]))
    assert (rates[2, 3], rates[2, 12]) == (TINY.learning_rates[0], 3e-3)
    with pytest.raises(ResultsError, match="no finished member with difficulty 2, data size 3"):
        tuned_rates(config, TINY, dropped)


def test_another_seed_draws_a_sample_that_did_not_choose_the_rates(finished_run, tmp_path):
    own_rate = TINY.learning_rates[0]
    directory = written_run(tmp_path / "run", finished_run, tiny(learning_rates=(own_rate, 1.0)))
    shutil.copytree(finished_run / "bases", directory / "bases")
    config = dataclasses.replace(CONFIG, methods=("base", "test-set"), master_seed=5)
    made = certify(directory, config)
    assert set(made["seed"]) == {5}
    before = certify(
        Path(shutil.copytree(finished_run, tmp_path / "own")),
        dataclasses.replace(config, master_seed=None),
    )
    assert set(before["seed"]) == {TINY.master_seed}
    assert made["empirical_risk"].tolist() != before["empirical_risk"].tolist()
    np.testing.assert_array_equal(made["plain_risk"], before["plain_risk"])


@pytest.mark.parametrize("preset", RECIPES["certificates"].PRESETS)
def test_the_recipe_of_certificates_fits_the_defaults(preset):
    sweep = RECIPES["certificates"].PRESETS[preset]
    config = DEFAULT_CERTIFICATES.fitted(sweep)
    assert config.difficulties == config.trained_difficulties == sweep.difficulties
    assert config.data_sizes == sweep.data_sizes
    # No draw is left over.
    assert [config.num_draws % size for size in sweep.data_sizes] == [0] * len(sweep.data_sizes)


# Mistakes.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("base", "bayes")}, "methods must be some of ('base', 'test-set', "),
        ({"methods": ()}, "methods must be some of"),
        ({"delta": 0.0}, "delta must lie in (0, 1), got 0.0"),
        ({"delta": 1.0}, "delta must lie in (0, 1), got 1.0"),
        ({"delta": float("nan")}, "delta must lie in (0, 1), got nan"),
        ({"num_candidates": 1}, "num_candidates must be at least 2, got 1"),
        ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
    ],
)
def test_fields_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MembersConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "sweep", "message"),
    [
        ({"difficulties": (2, 5)}, {}, "difficulties must be some of [1, 2], got [5]"),
        ({"difficulties": (2, 2)}, {}, "difficulties must be distinct, got (2, 2)"),
        ({"trained_difficulties": (1,)}, {}, "trained_difficulties must be some of [2], got [1]"),
        ({"data_sizes": (4,)}, {}, "data_sizes must be some of [3, 12], got [4]"),
        ({"base_seeds": (0, 1)}, {}, "base_seeds must be some of [0], got [1]"),
        ({"seeds": (2,)}, {}, "seeds must be some of [0, 1], got [2]"),
        ({"seeds": (0, 0)}, {}, "seeds must be distinct, got (0, 0)"),
        ({"seeds": ()}, {}, "leave nothing to certify"),
        ({"mixture": "exact"}, {}, "mixture must be one of ('range',), got 'exact'"),
        ({"num_draws": 11}, {}, "num_draws must be at least the largest data size"),
        ({}, {"data_unit": "tokens"}, "data_unit of the sweep must be 'examples'"),
        ({}, {"data_sizes": (1, 3)}, "data_sizes must be at least 2, to be halved; got (1, 3)"),
        (
            {},
            {"learning_rates": (0.1, 0.2)},
            "master_seed must not be the sweep's, because it chose",
        ),
        (
            {"master_seed": 0},
            {"learning_rates": (0.1, 0.2)},
            "by members that had trained on all of S; got 0",
        ),
        ({"master_seed": DEVELOPMENT_SEED}, {}, f"master_seed {DEVELOPMENT_SEED} is the one that"),
        ({}, {"master_seed": DEVELOPMENT_SEED}, f"master_seed {DEVELOPMENT_SEED} is the one that"),
    ],
)
def test_what_does_not_fit_the_sweep_is_refused_before_any_work(
    finished_run, tmp_path, no_work, changes, sweep, message
):
    directory = written_run(tmp_path / "run", finished_run, tiny(**sweep))
    before = files(directory)
    with pytest.raises(ValueError, match=re.escape(message)):
        certify(directory, dataclasses.replace(CONFIG, **changes))
    assert files(directory) == before


def test_missing_bases_members_and_runs_are_named(finished_run, tmp_path, no_work):
    directory = written_run(tmp_path / "run", finished_run)
    with pytest.raises(ResultsError, match=r"bases/base-0'\] do not exist; run the sweep first"):
        certify(directory, CONFIG)
    shutil.copytree(finished_run / "bases", directory / "bases")
    table = read_table(finished_run)
    is_lost = (table["difficulty"] == LEVEL) & (table["seed"] == 1)
    table.assign(status=table["status"].mask(is_lost, "diverged")).to_parquet(
        directory / "table.parquet"
    )
    with pytest.raises(ResultsError, match=r"table\.parquet has changed since the run wrote it"):
        certify(directory, CONFIG)
    # Without fingerprints, as in a run of an earlier version.
    manifest = read_manifest(directory)
    del manifest["tables"]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResultsError, match=r"no finished member with \{'base_seed': 0, 'seed': 1"):
        certify(directory, CONFIG)
    weights = directory / "bases" / "base-0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(ResultsError, match=r"bases/base-0 has changed since the run wrote it"):
        certify(directory, CONFIG)
    with pytest.raises(ResultsError, match="is not a run"):
        certify(tmp_path / "nowhere", CONFIG)


@pytest.fixture
def own_run(finished_run, tmp_path) -> Path:
    """A run whose manifest names a module of its own, which leaves a file where it is imported."""
    directory = tmp_path / "run"
    shutil.copytree(finished_run, directory)
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["task"] = "planted:Twice"
    path.write_text(json.dumps(manifest))
    mark = f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
    (tmp_path / "planted.py").write_text(mark + OWN_TASK)
    return directory


def test_a_manifest_alone_imports_nothing(own_run, tmp_path, no_work, monkeypatch, sweetspot):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = files(own_run)
    with pytest.raises(ValueError, match=r"name it yourself \(--task planted:Twice\)"):
        certify(own_run, CONFIG)
    with pytest.raises(ValueError, match="task must be that of the sweep, 'planted:Twice', got 'o"):
        certify(own_run, CONFIG, task="other:Twice")
    with pytest.raises(ValueError, match="got 'chain-running'"):
        certify(own_run, CONFIG, task="chain-running")
    code, text = sweetspot("bound", "--results", own_run, *FLAGS.split())
    assert code == 2
    assert "name it yourself" in text
    assert not (tmp_path / "imported").exists()
    assert files(own_run) == before


def test_a_task_that_the_user_names_is_certified(own_run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(MemberCertification, "part_rows", lambda *_: 1 / 0)
    path = own_run / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["task_options"] = {"letter": "b"}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ZeroDivisionError):
        certify(own_run, CONFIG, task="planted:Twice")
    assert (tmp_path / "imported").exists()


def test_a_task_object_is_certified_as_it_is(own_run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        MemberCertification,
        "part_rows",
        lambda self, part: seen.append(self.sweep.task) or ([], []),
    )
    task = make_task("parity", hardest=4)
    certify(own_run, CONFIG, task=task)
    assert seen
    assert all(each is task for each in seen)
    assert not (tmp_path / "imported").exists()


# The command.


def test_bound_prints_each_cell_and_the_ledger(copied, table, no_work, sweetspot):
    code, text = sweetspot("bound", "--results", copied, *FLAGS.split())
    assert code == 0, text
    told, header, *lines = [line.split() for line in text.splitlines() if line.strip()]
    assert told[-4:] == ["nothing", "left", "to", "run."]
    assert header == ["d", "n", "plain", *CONFIG.methods]
    cells = {tuple(line[:2]): line[2:] for line in lines}
    for size, rows in table.groupby("data_size"):
        plain, *pairs = cells[(str(LEVEL), str(size))]
        assert plain == f"{rows['plain_risk'].mean():.3f}"
        means = rows.groupby("method")[["risk_bound", "gibbs_risk"]].mean()
        for method, bound, own in zip(CONFIG.methods, pairs[::2], pairs[1::2], strict=True):
            assert bound == f"{means.loc[method, 'risk_bound']:.2f}"
            assert own == f"({means.loc[method, 'gibbs_risk']:.2f})"
    assert "δ = 0.5 = 24 cells × (0.0208 bound)" in text
    assert f"Table: {copied / 'certificates.parquet'}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--difficulties 5", "difficulties must be some of [1, 2], got [5]"),
        ("--methods bayes", "methods must be some of"),
        ("--delta 2", "delta must lie in (0, 1), got 2.0"),
        ("--delta 0.1", "holds another run; it differs in certify.delta (there 0.5, here 0.1)"),
    ],
)
def test_bound_refuses_in_one_line(copied, no_work, sweetspot, arguments, message):
    # A flag may stand only once: the others are those of a run that is certified already.
    flag = arguments.split()[0]
    others = re.sub(rf"{flag}( [^-]\S*)+", "", FLAGS)
    code, text = sweetspot("bound", "--results", copied, *others.split(), *arguments.split())
    assert code == 2
    assert sum(message in line for line in text.splitlines()) == 1
    assert "Traceback" not in text
