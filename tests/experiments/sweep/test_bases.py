"""Bases of one run used by another."""

from __future__ import annotations

import dataclasses
import pickle
import shutil

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.engine.forecast import forecast
from experiments.storage import checkpoint
from experiments.storage.results import ResultsError, read_manifest, read_table
from experiments.sweep.bases import read_bases
from experiments.sweep.programs import Sweep
from experiments.sweep.study import SweepStudy, run_sweep
from tests.experiments.tiny import TINY, tiny


def test_a_sweep_with_given_bases_has_the_table_of_one_that_trains_them(
    finished_run, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("the bases are given")

    monkeypatch.setattr(Sweep, "pretrain_bases", refuse)
    out = tmp_path / "run"
    table = run_sweep(TINY, out, recipe="tiny", preset="test", bases=finished_run)
    pd.testing.assert_frame_equal(table, read_table(finished_run))
    origin = read_manifest(out)["bases_from"]
    there = read_manifest(finished_run)
    assert origin == {"recipe": "tiny", "preset": "test", "commit": there["sessions"][0]["commit"]}


def test_a_sweep_with_another_grid_may_use_the_bases(finished_run):
    longer = tiny(difficulties=(1, 3), test_hardest=5, learning_rates=(1e-3, 1e-4))
    strict = dataclasses.replace(longer.pretrain, max_risk=0.9)
    given = read_bases(finished_run, dataclasses.replace(longer, pretrain=strict))
    assert len(given.parameters) == TINY.base_seeds


def test_a_plan_has_no_training_of_given_bases(finished_run, tmp_path):
    given = read_bases(finished_run, TINY)
    own, taken = (
        SweepStudy(TINY, tmp_path / "run", recipe="tiny", preset="test", given=each)
        for each in (None, given)
    )
    assert forecast(taken, budget=0).whole.tokens < forecast(own, budget=0).whole.tokens


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base_seeds": 2}, "bases must be at least 2"),
        ({"master_seed": 1}, r"master_seed \(there 0, here 1\)"),
        ({"task_options": {"modulus": 3, "operators": "+"}}, "task_options"),
        ({"pretrain": dataclasses.replace(TINY.pretrain, steps=7)}, r"pretrain.steps \(there 150"),
        ({"decoder": dataclasses.replace(TINY.decoder, num_layers=2)}, "decoder"),
    ],
)
def test_bases_that_are_made_in_another_way_are_refused(changes, told, finished_run):
    with pytest.raises(ResultsError, match=told):
        read_bases(finished_run, tiny(**changes))


def test_changed_bases_are_refused(finished_run, tmp_path):
    copy = shutil.copytree(finished_run, tmp_path / "copy")
    weights = copy / "bases" / "base-0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ResultsError, match="has changed since"):
        read_bases(copy, TINY)


def test_the_command_refuses_what_is_no_run(sweetspot, tmp_path):
    code, printed = sweetspot("run", "tradeoff", "smoke", "--bases", tmp_path, "--out", tmp_path)
    assert code == 2
    assert "is not a run" in printed
    assert list(tmp_path.iterdir()) == []


def test_given_bases_travel_to_another_process(finished_run, tmp_path):
    given = read_bases(finished_run, TINY)
    study = SweepStudy(TINY, tmp_path / "run", recipe="tiny", preset="test", given=given)
    there = pickle.loads(pickle.dumps(study))
    (pretrain,), *_ = there.stages()
    output = there.make(pretrain)
    for path, write in output.files.items():
        write(tmp_path / path)
    written = [checkpoint.load(tmp_path / path)[1] for path in output.files]
    for own, expected in zip(written, given.parameters, strict=True):
        jax.tree.map(np.testing.assert_array_equal, own, expected)
