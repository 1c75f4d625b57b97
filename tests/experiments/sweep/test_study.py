"""Runs in a directory: interrupted, resumed, repeated, and read back."""

from __future__ import annotations

import dataclasses
import errno
import importlib.metadata
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import distribution
from experiments.engine.session import PACKAGES
from experiments.storage import checkpoint
from experiments.storage.results import ResultsError, read_manifest, read_table
from experiments.sweep.programs import Sweep
from experiments.sweep.study import SweepStudy, run_sweep
from synth.config import Lora
from synth.gaps import correct_examples
from tests.experiments.tiny import TINY, tiny


def run_tiny(directory: Path, config=TINY, **options) -> pd.DataFrame:
    return run_sweep(config, directory, recipe="tiny", preset="test", **options)


def files(directory: Path) -> dict[str, int]:
    """Time of the last change of every file but the lock, hidden ones as well."""
    return {
        str(path.relative_to(directory)): path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def copied_run(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))


@pytest.fixture
def no_training(monkeypatch):
    """A sweep that must not compute anything."""

    def refuse(*_):
        raise AssertionError("nothing is left to compute")

    for name in ("pretrain_bases", "evaluate_bases", "finetune_chunk"):
        monkeypatch.setattr(Sweep, name, refuse)


# A finished run.


def test_manifest_says_what_ran_where_and_for_how_long(finished_run):
    manifest = read_manifest(finished_run)
    assert manifest["status"] == "complete"
    assert (manifest["recipe"], manifest["preset"]) == ("tiny", "test")
    assert manifest["config"]["master_seed"] == TINY.master_seed
    assert set(manifest["config"]) == {field.name for field in dataclasses.fields(TINY)}
    assert manifest["decoder"]["vocab_size"] == 7  # padding, three markers, one sign, two numbers
    assert manifest["decoder"]["max_positions"] == 5 * TINY.test_hardest + 4
    members = [name for chunk in manifest["chunks"] for name in chunk["members"]]
    assert sorted(members) == sorted(member.name for member in TINY.members)
    assert manifest["chunks"][0]["group"] == {"length": 9, "steps": 20, "rows": 12, "loss": "sft"}
    (session,) = manifest["sessions"]
    assert session["versions"] == {
        distribution.NAME: distribution.version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    assert session["platform"] == jax.default_backend()
    assert session["num_devices"] == jax.local_device_count()
    assert session["device"]
    assert session["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", session["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", session["started"])
    assert 0 < session["wall_time_seconds"] < 3600


def test_manifest_says_where_the_time_went(finished_run):
    (session,) = read_manifest(finished_run)["sessions"]
    phases = session["phases"]
    assert set(phases) == {
        *("compile", "draw", "stack", "pretrain", "train", "evaluate", "rows", "write", "rest")
    }
    assert min(phases.values()) >= 0
    # The clock starts before the directory is opened, and the session after it.
    assert sum(phases.values()) >= session["wall_time_seconds"] - 0.1
    assert session["pretraining_began"] > session["started"][:-1]


def test_files_of_a_run(finished_run):
    names = [member.name for member in TINY.members]
    chunks = [chunk["name"] for chunk in read_manifest(finished_run)["chunks"]]
    checkpoints = ["bases/base-0", *(f"members/{name}" for name in names)]
    assert set(files(finished_run)) == {
        *("manifest.json", ".manifest.json", "table.parquet"),
        *(f"parts/{name}.parquet" for name in ["bases", *chunks]),
        *(f"predictions/{name}.npz" for name in names),
        *(f"{path}/{file}" for path in checkpoints for file in os.listdir(finished_run / path)),
    }
    assert {path.name for path in (finished_run / "members").iterdir()} == set(names)


def test_saved_members_reproduce_the_predictions_and_the_table(finished_run):
    sweep, table = Sweep(TINY), read_table(finished_run)
    score = jax.jit(correct_examples, static_argnums=0)
    for member in TINY.members:
        config, parameters = checkpoint.load(finished_run / "members" / member.name)
        assert config == sweep.decoder
        with np.load(finished_run / "predictions" / f"{member.name}.npz") as file:
            kept = {name: file[name] for name in file.files}
        (bucket,) = sweep.draws.slice_pools("test", member.base_seed, member.seed)
        found = np.asarray(score(config, parameters, bucket.tokens, bucket.loss_mask))
        slices = np.split(found, TINY.test_hardest)
        for level, part in enumerate(slices, start=1):
            np.testing.assert_array_equal(part, kept[f"test_{level}"])
        train = sweep.draws.training_pool(member)
        fresh = sweep.draws.in_distribution_pool(member)
        rows = TINY.risk_examples
        # Positions go by row: training rows first, then fresh draws, as the sweep has them.
        both = score(
            config,
            parameters,
            jnp.concatenate([train.tokens[:rows], fresh.tokens]),
            jnp.concatenate([train.loss_mask[:rows], fresh.loss_mask]),
        )
        np.testing.assert_array_equal(both[:rows], kept["train"])
        np.testing.assert_array_equal(both[rows:], kept["in_distribution"])
        stated = table[
            (table["seed"] == member.seed)
            & (table["difficulty"] == member.difficulty)
            & (table["data_size"] == member.data_size)
            & (table["metric"] == "test_risk")
        ]["value"].item()
        assert abs(stated - np.mean([1 - part.mean() for part in slices])) < 1e-12


def test_a_complete_run_is_not_run_again(finished_run, no_training):
    before = files(finished_run)
    pd.testing.assert_frame_equal(run_tiny(finished_run), read_table(finished_run))
    assert files(finished_run) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": tiny(compute=21.0)}, "config.compute (there 20.0, here 21.0)"),
        ({"config": tiny(master_seed=1)}, "config.master_seed (there 0, here 1)"),
        ({"recipe": "loss"}, 'recipe (there "tiny", here "loss")'),
        ({"preset": "gpu"}, 'preset (there "test", here "gpu")'),
    ],
)
def test_the_directory_of_another_run_is_refused(finished_run, no_training, change, message):
    arguments = {"config": TINY, "recipe": "tiny", "preset": "test"} | change
    before = files(finished_run)
    with pytest.raises(ResultsError, match=re.escape(message)):
        run_sweep(arguments.pop("config"), finished_run, **arguments)
    assert files(finished_run) == before


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"qkv_bias": True, "qk_norm": True}, "qkv_bias and qk_norm are both on"),
        ({"lora": Lora(rank=2)}, "lora must be merged"),
    ],
)
def test_a_decoder_that_cannot_be_saved_is_refused_before_its_bases_are_trained(
    tmp_path, no_training, switches, message
):
    config = tiny(decoder=dataclasses.replace(TINY.decoder, **switches))
    with pytest.raises(ValueError, match=message):
        run_tiny(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_a_lost_table_is_made_anew_from_the_parts(copied_run, finished_run):
    """As the error about a corrupt table advises: delete it, and run the command again."""
    (copied_run / "table.parquet").unlink()
    pd.testing.assert_frame_equal(run_tiny(copied_run), read_table(finished_run), check_exact=True)


# Interruptions.


def test_only_a_lost_base_is_trained_again(tmp_path, monkeypatch):
    """Training takes minutes a base; those that are there are as they were."""
    asked = []
    monkeypatch.setattr(Sweep, "pretrain_bases", lambda _, seeds: asked.extend(seeds) or seeds)
    study = SweepStudy(tiny(base_seeds=3), tmp_path, recipe="tiny", preset="test")
    for there in (0, 2):
        (tmp_path / "bases" / f"base-{there}").mkdir(parents=True)
    (pretrain,), *_ = study.stages()
    output = study.make(pretrain)
    assert asked == [1]
    assert list(output.files) == ["bases/base-1"]


def test_an_interrupted_run_resumes_to_the_same_table(tmp_path, finished_run, monkeypatch):
    """Stopped after a chunk, then by a full disk, then finished: bit for bit the same."""
    expected, directory = read_table(finished_run), tmp_path / "run"
    partial = run_tiny(directory, max_chunks=1)
    first, second, *_ = read_manifest(directory)["chunks"]
    assert read_manifest(directory)["status"] == "running"
    trained = partial[partial["train_mixture"] != "none"]
    assert trained.groupby(["seed", "difficulty", "data_size"]).ngroups == 2
    before = files(directory)

    whole_write = pd.DataFrame.to_parquet

    def write(self, path, **options):
        if f".{second['name']}.parquet" not in str(path):
            return whole_write(self, path, **options)
        Path(path).write_bytes(b"PAR1 and then")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", write)
        with pytest.raises(OSError, match="No space left"):
            run_tiny(directory)
    after = files(directory)
    assert {path.name for path in (directory / "parts").iterdir()} == {
        "bases.parquet",
        f"{first['name']}.parquet",
    }
    kept = [name for name in before if name.startswith(("parts", "bases", "members"))]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}

    pd.testing.assert_frame_equal(run_tiny(directory), expected, check_exact=True)
    pd.testing.assert_frame_equal(read_table(directory), expected, check_exact=True)
    manifest = read_manifest(directory)
    assert manifest["status"] == "complete"
    assert len(manifest["sessions"]) == 3
    assert set(files(directory)) == set(files(finished_run))
    # A finished chunk was not computed a second time.
    name = f"parts/{first['name']}.parquet"
    assert files(directory)[name] == before[name]


def damage(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_whatever_is_damaged_is_made_anew_as_it_was(copied_run, finished_run):
    """A part, the weights of a base and of a member, predictions, and the table."""
    name, member = read_manifest(copied_run)["chunks"][-1]["name"], TINY.members[0].name
    damaged = (
        *(f"parts/{name}.parquet", "bases/base-0/model.safetensors", "table.parquet"),
        *(f"members/{member}/config.json", f"predictions/{member}.npz"),
    )
    for path in damaged:
        damage(copied_run / path)
    run_tiny(copied_run)
    for path in files(finished_run):
        if "manifest" not in path:
            assert (copied_run / path).read_bytes() == (finished_run / path).read_bytes(), path


def test_rows_of_other_members_are_no_finished_chunk(copied_run, finished_run):
    """Without fingerprints, as in a run of an earlier version."""
    manifest = read_manifest(copied_run)
    first, second = (f"parts/{chunk['name']}.parquet" for chunk in manifest["chunks"][:2])
    del manifest["fingerprints"], manifest["tables"]
    (copied_run / "manifest.json").write_text(json.dumps(manifest))
    (copied_run / second).write_bytes((copied_run / first).read_bytes())
    found = run_tiny(copied_run)
    pd.testing.assert_frame_equal(found, read_table(finished_run), check_exact=True)
    assert (copied_run / "damaged" / second).exists()


def test_another_master_seed_gives_another_table(tmp_path, finished_run):
    found = run_tiny(tmp_path / "run", tiny(master_seed=1), max_chunks=1)
    expected = read_table(finished_run)
    keys = ["seed", "difficulty", "data_size", "metric", "slice"]
    pairs = found.merge(expected, on=[*keys, "train_mixture"], suffixes=("", "_expected"))
    assert len(pairs) == len(found) > 0
    losses = pairs.loc[pairs["metric"] == "final_loss", ["value", "value_expected"]].to_numpy()
    assert len(losses) == 2
    assert (losses[:, 0] != losses[:, 1]).all()
    bases = [
        checkpoint.load(directory / "bases" / "base-0")[1]
        for directory in (tmp_path / "run", finished_run)
    ]
    assert np.abs(bases[0]["embedding"] - bases[1]["embedding"]).max() > 0.1


def test_a_sweep_travels_to_another_process(tmp_path, finished_run):
    study = SweepStudy(TINY, tmp_path / "run", recipe="tiny", preset="test")
    there = pickle.loads(pickle.dumps(study))
    assert there.identity == study.identity
    assert there.stages() == study.stages()
    shutil.copytree(finished_run / "bases", tmp_path / "run" / "bases")
    chunk = there.stages()[-1][0]
    output = pickle.loads(pickle.dumps(there.make(chunk)))
    part = pd.read_parquet(finished_run / "parts" / f"{chunk.name}.parquet")
    pd.testing.assert_frame_equal(output.tables["table"], part)
    for path, write in output.files.items():
        write(tmp_path / "run" / path)
        assert (tmp_path / "run" / path).exists()


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_table(tmp_path, finished_run):
    directory = tmp_path / "run"
    script = """
import sys
from pathlib import Path
import tests.conftest
from experiments.sweep.study import SweepStudy, run_sweep
from experiments.engine.session import PACKAGES
from tests.experiments.tiny import TINY
run_sweep(TINY, Path(sys.argv[1]), recipe="tiny", preset="test")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 300
        while not list(directory.glob("parts/group*.parquet")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert read_manifest(directory)["status"] == "running"
    finished = len(list(directory.glob("parts/group*.parquet")))
    assert 1 <= finished < len(read_manifest(directory)["chunks"])
    found = run_tiny(directory)
    pd.testing.assert_frame_equal(found, read_table(finished_run), check_exact=True)
