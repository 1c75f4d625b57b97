"""Manifests of earlier versions: they read as today's, and their runs carry on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.llm.problems.config import Source
from experiments.llm.recipes import RECIPES as SCANS
from experiments.llm.scan.grid import BaseConfig, ScanConfig
from experiments.llm.training.config import TrainingConfig
from experiments.recipes import RECIPES
from experiments.storage.migration import upgrade
from experiments.storage.records import from_record
from experiments.storage.results import open_run, read_manifest
from experiments.sweep.grid import PretrainConfig, SweepConfig, sweep_config
from synth.config import Optimiser

RESULTS = Path(__file__).parents[3] / "experiments" / "results"
RECORDED = sorted(path.parent for path in RESULTS.glob("*/manifest.json"))

OLD_DECODER = {
    "vocab_size": 1,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 4,
    "head_dim": None,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-06,
    "qkv_bias": True,
    "qk_norm": False,
    "tied_head": False,
    "positions": "randomised",
    "max_positions": 256,
    "position_start": 64,
    "position_gap": 5,
    "unroll": True,
}
OLD_SWEEP = {
    "task": "chain-running",
    "task_options": {"modulus": 7},
    "decoder": OLD_DECODER,
    "pretrain": {
        "hardest": 4,
        "steps": 2500,
        "batch_size": 48,
        "learning_rate": 0.004,
        "weight_decay": 0.02,
        "max_risk": 0.5,
    },
    "mixtures": ["range"],
    "window_width": 2,
    "difficulties": [4, 6, 9, 12, 16],
    "data_sizes": [16, 64, 256, 1024],
    "data_unit": "examples",
    "compute": 400.0,
    "compute_unit": "steps",
    "losses": ["sft"],
    "learning_rates": [0.0015],
    "batch_size": 16,
    "schedule": "constant",
    "warmup": 0.03,
    "weight_decay": 0.1,
    "clip": 0.5,
    "base_seeds": 3,
    "seeds": 1,
    "master_seed": 0,
    "test_hardest": 24,
    "test_examples": 96,
    "risk_examples": 256,
    "validation_examples": 32,
    "mapping": "auto",
    "chunk_members": 12,
    "save_members": False,
    "save_predictions": False,
}
SWEEP = SweepConfig(
    task_options={"modulus": 7},
    pretrain=PretrainConfig(optimiser=Optimiser(batch_size=48, weight_decay=0.02)),
    difficulties=(4, 6, 9, 12, 16),
    data_sizes=(16, 64, 256, 1024),
    compute=400.0,
    optimiser=Optimiser(16, "constant", 0.03, 0.1, clip=0.5),
    base_seeds=3,
    seeds=1,
    test_hardest=24,
    test_examples=96,
    risk_examples=256,
    chunk_members=12,
)

OLD_TRAINING = {
    "loss": "sft",
    "compute": 6.0,
    "compute_unit": "epochs",
    "batch_size": 8,
    "accumulation": 2,
    "learning_rate": 0.001,
    "schedule": "constant",
    "warmup": 0.1,
    "weight_decay": 0.2,
    "b2": 0.9,
    "clip": 2.0,
    "packed": True,
    "lora_rank": 0,
    "lora_alpha": 32.0,
    "dtype": "float32",
    "remat": False,
    "attention": "plain",
    "chunk_tokens": 512,
    "seed": 0,
    "checkpoint_every": 500,
}
OLD_SOURCE = {
    "source": "data.jsonl",
    "split": None,
    "configuration": None,
    "columns": {
        "messages": None,
        "problem": None,
        "solution": None,
        "answer": None,
        "difficulty": None,
        "choices": None,
        "system": "Please reason step by step, and put your final answer within \\boxed{}.",
    },
}
OLD_SCAN = {
    "checkpoint": "folder",
    "train": OLD_SOURCE,
    "test": OLD_SOURCE,
    "base_data": OLD_SOURCE,
    "export": None,
    "base": {
        "training": OLD_TRAINING | {"compute": 1.0},
        "scratch": None,
        "levels": [],
        "least_accuracy": 0.0,
    },
    "measure": "op",
    "pass_rate_samples": 8,
    "pass_rate_temperature": 0.7,
    "buckets": 3,
    "edges": [],
    "selections": ["exact"],
    "difficulties": [1, 2, 3],
    "data_sizes": [1000, 2000, 5000],
    "data_unit": "examples",
    "losses": ["sft", "dft"],
    "learning_rates": [5e-05, 1e-05],
    "seeds": 1,
    "training": OLD_TRAINING,
    "max_length": 2048,
    "risk_examples": 200,
    "test_examples": 0,
    "decoding": {
        "max_new_tokens": 512,
        "samples": 1,
        "temperature": 0.0,
        "batch_size": 32,
        "prompt_multiple": 64,
        "thinking": False,
        "seed": 0,
    },
    "grader": {
        "name": "boxed",
        "modulus": None,
        "mode": "strict",
        "timeout": 10.0,
        "processes": None,
    },
    "devices": {"data": 1, "fsdp": 1, "tp": 1},
    "save_members": False,
}
TRAINING = TrainingConfig(
    compute=6.0,
    optimiser=Optimiser(8, "constant", 0.1, 0.2, b2=0.9, clip=2.0),
    accumulation=2,
    learning_rate=0.001,
    packed=True,
    dtype="float32",
    remat=False,
    checkpoint_every=500,
)
SCAN = ScanConfig(
    checkpoint="folder",
    train=Source("data.jsonl"),
    test=Source("data.jsonl"),
    base_data=Source("data.jsonl"),
    base=BaseConfig(dataclasses.replace(TRAINING, compute=1.0)),
    training=TRAINING,
)


def as_json(config) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(config)))


@pytest.mark.parametrize(
    ("old", "config"), [(OLD_SWEEP, SWEEP), (OLD_SCAN, SCAN), (OLD_TRAINING, TRAINING)]
)
def test_an_old_configuration_is_that_of_today(old, config):
    before = json.dumps(old)
    upgraded = upgrade({"config": old})
    assert upgraded == {"config": as_json(config)}
    assert json.dumps(old) == before
    assert upgrade(upgraded) == upgraded
    assert from_record(type(config), upgraded["config"]) == config


def test_an_old_sweep_is_found_in_other_manifests():
    old, new = {"recipe": "a", "config": OLD_SWEEP}, {"recipe": "a", "config": as_json(SWEEP)}
    assert upgrade({"sweep": old, "delta": 1}) == {"sweep": new, "delta": 1}
    assert upgrade({"families": {"chain": old}}) == {"families": {"chain": new}}


def test_other_manifests_stay_as_they_are():
    for manifest in ({"settings": {"seed": 1}}, {"config": {"batch_size": 3}}, {"config": 1}):
        assert upgrade(manifest) == manifest


def test_a_run_of_an_earlier_version_carries_on(tmp_path):
    for name, old, config in (("sweep", OLD_SWEEP, SWEEP), ("scan", OLD_SCAN, SCAN)):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "manifest.json").write_text(json.dumps({"config": old, "status": "running"}))
        with open_run(directory, {"config": dataclasses.asdict(config)}) as run:
            run.update_manifest(status="complete")
        stored = json.loads((directory / "manifest.json").read_text())
        assert stored == {"config": as_json(config), "status": "complete"}


def test_an_account_at_the_top_becomes_the_first_session():
    account = {"commit": "abc", "device": "CPU", "versions": {"jax": "1"}, "wall_time_seconds": 9.0}
    old = {"ledger": "δ", "status": "running", **account}
    assert upgrade(old) == {"ledger": "δ", "status": "running", "sessions": [account]}
    assert upgrade(upgrade(old)) == upgrade(old)
    (session,) = read_manifest(RESULTS / "tiny-igsm", "certificates.json")["sessions"]
    assert (session["commit"], session["wall_time_seconds"]) == ("f066ff1c199a", 1768.8)


def test_there_are_recorded_runs():
    assert {path.name for path in RECORDED} >= {"tradeoff", "certificates", "tiny-igsm", "families"}


@pytest.mark.parametrize("directory", RECORDED, ids=lambda path: path.name)
def test_recorded_manifests_can_be_read(directory):
    manifest = read_manifest(directory)
    if "made_from" in manifest:
        # Put together from other recorded runs, each of which has a manifest of its own.
        assert set(manifest["made_from"]) <= {path.name for path in RECORDED}
        return
    if "difficulty" in manifest:
        # Measures of difficulty by a checkpoint, which has no configuration of a sweep.
        assert manifest["status"] == "complete"
        return
    # A certification without its sweep holds that sweep's manifest.
    manifest = manifest.get("sweep", manifest)
    for run in manifest.get("families", {"": manifest}).values():
        if run.get("kind") == "llm":
            config = from_record(ScanConfig, run["config"])
            assert config == SCANS[run["recipe"]].PRESETS[run["preset"]]
        else:
            config = sweep_config(run["config"])
        assert as_json(config) == run["config"]


@pytest.mark.parametrize(
    ("directory", "recipe", "preset"),
    [("tradeoff", "tradeoff", "cpu"), ("modulus-7", "prediction", "modulus-7")],
)
def test_recorded_sweeps_are_those_of_the_recipes(directory, recipe, preset):
    config = sweep_config(read_manifest(RESULTS / directory)["config"])
    expected = RECIPES[recipe].PRESETS[preset]
    assert dataclasses.replace(config, chunk_members=expected.chunk_members) == expected


def test_recorded_certificates_are_of_the_recorded_sweep():
    directory = RESULTS / "certificates"
    certificates = upgrade(json.loads((directory / "certificates.json").read_text()))
    assert certificates["sweep"]["config"] == read_manifest(directory)["config"]


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"config must have fields among .*, got \['speed'\]"):
        from_record(SweepConfig, {"speed": 1})
