"""Scans of a tiny checkpoint: the same table, figures and recommendation as the simulator's."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import figures
from experiments.analysis import optimum
from experiments.analysis.answers import Answers
from experiments.analysis.pilot import read_answers, read_pilot, read_scan, study_risks
from experiments.analysis.recommend import recommend
from experiments.analysis.studies import studies_of_answers
from experiments.cli import llm
from experiments.cli.main import main
from experiments.engine.run import in_this_process
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import Columns, GraderConfig, Source
from experiments.llm.scan import levels as scan_levels
from experiments.llm.scan.grid import NO_DATA, BaseConfig, ScanConfig
from experiments.llm.scan.record import record
from experiments.llm.scan.study import run_scan
from experiments.llm.training import train
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig
from experiments.storage.results import ResultsError, read_tables
from tests.experiments.llm.rows import write_sums

METRICS = ("train_risk", "in_distribution_risk", "test_risk")


@pytest.fixture(scope="module")
def config(tiny_folder, tmp_path_factory) -> ScanConfig:
    """Two levels × two sizes, two steps each; three test levels."""
    folder = tmp_path_factory.mktemp("problems")
    write_sums(folder / "train.jsonl", 28, levels=(1, 2))
    write_sums(folder / "test.jsonl", 9, levels=(1, 2, 3), seed=1)
    return ScanConfig(
        checkpoint=str(tiny_folder),
        train=Source(str(folder / "train.jsonl")),
        test=Source(str(folder / "test.jsonl")),
        difficulties=(1, 2),
        data_sizes=(4, 8),
        losses=("sft",),
        learning_rates=(1e-3,),
        training=TrainingConfig(
            compute=2,
            compute_unit="steps",
            optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
            dtype="float32",
            remat=False,
            checkpoint_every=0,
        ),
        max_length=1024,
        risk_examples=4,
        decoding=DecodingConfig(max_new_tokens=4, batch_size=16),
        grader=GraderConfig("boxed"),
    )


@pytest.fixture(scope="module")
def scanned(config, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    out = tmp_path_factory.mktemp("scan") / "run"
    return out, run_scan(config, out, recipe="test", preset="test")


def test_the_table_is_the_simulators(scanned, config):
    _, table = scanned
    assert optimum.studies(table) == [optimum.Study("exact")]
    base = table.loc[table["train_mixture"] == "none"]
    assert base["slice"].dropna().tolist() == [1, 2, 3]
    members = table.loc[table["train_mixture"] == "exact"]
    cells = members.groupby(["difficulty", "data_size"])
    assert sorted(cells.groups) == [(1, 4), (1, 8), (2, 4), (2, 8)]
    for _, rows in cells:
        value = rows.loc[rows["slice"].isna()].set_index("metric")["value"]
        total = value["train_risk"] + value["generalization_gap"] + value["extrapolation_gap"]
        assert total == pytest.approx(value["test_risk"])
        assert all(0 <= value[name] <= 1 for name in METRICS)
        assert value["final_loss"] > 0
        slices = rows.loc[rows["metric"] == "risk"]
        assert slices["num_examples"].tolist() == [3, 3, 3]
        assert np.average(slices["value"]) == pytest.approx(value["test_risk"])


def test_the_manifest_says_what_was_run(scanned):
    out, _ = scanned
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["kind"], manifest["status"]) == ("llm", "complete")
    assert manifest["levels"] == {
        "train": {"1": 14, "2": 14},
        "test": {"1": 3, "2": 3, "3": 3},
    }
    assert manifest["report"]["read"] == 28
    assert manifest["sessions"][0]["versions"]["jax"]
    responses = pd.read_parquet(out / "responses" / "base.parquet")
    assert len(responses) == 9
    assert not (out / "work").exists()


def test_a_record_has_tables_and_a_sample_of_the_answers(scanned, tmp_path):
    out, table = scanned
    record(out, tmp_path / "kept", problems=2)
    files = ["answers.parquet", "manifest.json", "responses.jsonl", "table.parquet"]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == files
    pd.testing.assert_frame_equal(read_tables(tmp_path / "kept", "table")["table"], table)
    lines = (tmp_path / "kept" / "responses.jsonl").read_text().splitlines()
    rows = pd.DataFrame([json.loads(line) for line in lines])
    # The base and both levels at n = 8, two problems of each of three test levels.
    models = ["base", "0_exact_1_8_sft_0.001", "0_exact_2_8_sft_0.001"]
    assert list(rows["model"].unique()) == models
    assert rows.groupby(["model", "slice"]).size().tolist() == [2] * 9
    whole = pd.read_parquet(out / "responses" / f"{models[2]}.parquet").set_index("row")
    own = rows.loc[rows["model"] == models[2]].set_index("problem")
    assert own["response"].equals(whole["response"].loc[own.index])
    # A run that goes on is no record.
    half = json.loads((out / "manifest.json").read_text()) | {"status": "running"}
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "manifest.json").write_text(json.dumps(half))
    with pytest.raises(ResultsError, match="is not finished"):
        record(tmp_path / "half", tmp_path / "kept")


def test_its_answers_are_one_small_table(scanned):
    out, table = scanned
    answers = read_answers(out)
    assert answers is not None
    (study,) = studies_of_answers(answers)
    gains = Answers.of(answers, study).gains().set_index(["difficulty", "data_size"])
    risks = table.loc[(table["metric"] == "test_risk") & (table["train_mixture"] != "none")]
    means = risks.groupby(["difficulty", "data_size"])["value"].mean()
    assert len(gains) == len(means)
    for cell, risk in means.items():
        assert gains.loc[cell, "accuracy"] == pytest.approx(1 - risk)
    assert "n = " in figures.finding("scan_gains", {"answers": answers})


def test_figures_draw_from_it(scanned, tmp_path):
    out, _ = scanned
    drawn = {path.stem for path in figures.draw(read_tables(out), tmp_path)}
    named = {"map", "change_by_slice", "accuracy_over_difficulty", "gaps", "scan_gains"}
    assert named <= drawn


def test_a_scan_is_a_pilot(scanned):
    out, _ = scanned
    table, levels = read_scan(out)
    (study,) = optimum.studies(table)
    members = study_risks(table, study, levels)
    np.testing.assert_allclose(members.test_mixture, 1 / 3)
    np.testing.assert_allclose(members.train_mixture, [[1, 0, 0], [0, 1, 0]])
    found = recommend(table, study, levels, 64, replicates=50, answers=read_answers(out))
    # One seed: what noise there is comes from the nine problems, which tell nothing apart.
    assert found.abstains
    assert "noise of the 9 test problems alone" in found.noise
    with pytest.raises(ResultsError, match="is a scan of a real checkpoint"):
        read_pilot(out)


def test_what_is_lost_is_run_again_and_nothing_else(scanned, config, tmp_path):
    out, table = scanned
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(out), str(copy)], check=True)
    lost = copy / "parts" / "0_exact_2_4_sft_0.001.parquet"
    lost.unlink()
    (copy / "table.parquet").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (copy / "parts").iterdir()}
    again = run_scan(config, copy, recipe="test", preset="test")
    pd.testing.assert_frame_equal(again, table)
    assert lost.exists()
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    with pytest.raises(ResultsError, match=r"config.risk_examples \(there 4, here 5\)"):
        run_scan(dataclasses.replace(config, risk_examples=5), copy, recipe="test", preset="test")


def test_buckets_of_length_and_a_budget_of_tokens(config, tmp_path):
    by_length = dataclasses.replace(
        config,
        measure="cot_tokens",
        buckets=2,
        selections=("above",),
        difficulties=(1,),
        data_sizes=(250,),
        data_unit="tokens",
        risk_examples=2,
        test_examples=2,
    )
    table = run_scan(by_length, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (edge,) = manifest["buckets"]["edges"]
    assert manifest["buckets_in_words"] == [f"cot_tokens ≤ {edge:g}", f"cot_tokens > {edge:g}"]
    assert sum(manifest["levels"]["train"].values()) == 28
    members = table.loc[table["train_mixture"] == "above"]
    assert members["data_unit"].unique().tolist() == ["tokens"]
    trained_on = members.loc[members["metric"] == "final_loss", "num_examples"].item()
    # A problem with its solution has some 50 tokens here.
    assert 3 <= trained_on <= 7


@pytest.mark.slow  # begins two scans
def test_other_data_are_not_taken_for_those_that_a_run_began_with(scanned, config, tmp_path):
    out, _ = scanned
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(out), str(copy)], check=True)
    (copy / "table.parquet").unlink()
    train = Path(config.train.source)
    kept = train.read_text()
    try:
        write_sums(train, 28, levels=(1, 2), seed=7)
        with pytest.raises(ResultsError, match=r"something else; it differs in data.train"):
            run_scan(config, copy, recipe="test", preset="test")
    finally:
        train.write_text(kept)
    run_scan(config, copy, recipe="test", preset="test")


@pytest.mark.slow
def test_the_base_is_asked_once_for_levels(config, tmp_path, monkeypatch):
    by_perplexity = dataclasses.replace(
        config, measure="perplexity", buckets=2, difficulties=(1,), data_sizes=(4,)
    )
    table = run_scan(by_perplexity, tmp_path / "run")
    (tmp_path / "run" / "table.parquet").unlink()
    (tmp_path / "run" / "parts" / "0_exact_1_4_sft_0.001.parquet").unlink()
    # As a kill before the manifest left it.
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    told = {name: manifest.pop(name) for name in ("levels", "report", "buckets")}
    path.write_text(json.dumps(manifest))
    monkeypatch.delattr(scan_levels, "measure")
    pd.testing.assert_frame_equal(run_scan(by_perplexity, tmp_path / "run"), table)
    again = json.loads(path.read_text())
    assert {name: again[name] for name in told} == told


def test_a_scan_of_ones_own_data_by_command(config, tmp_path, monkeypatch):
    """Every field that such a scan needs has a flag."""
    asked = {}

    def note(config, out, **names):
        asked.update(names, config=config, out=out)
        return pd.DataFrame()

    monkeypatch.setattr("experiments.llm.scan.study.run_scan", note)
    monkeypatch.setattr(llm, "print_headline", lambda table: None)
    flags = {
        "checkpoint": config.checkpoint,
        "train.source": config.train.source,
        "train.columns.difficulty": "difficulty",
        "test.source": config.test.source,
        "measure": "pass_rate",
        "pass-rate-samples": "4",
        "losses": "sft",
        "learning-rates": "1e-3",
        "training.batch-size": "4",
        "grader.name": "math-verify",
        "out": str(tmp_path / "run"),
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["sweetspot", "llm", "scan", "custom", *words])
    main()
    assert asked.pop("executor") is in_this_process
    assert asked == {
        "out": tmp_path / "run",
        "recipe": "custom",
        "preset": "custom",
        "config": ScanConfig(
            checkpoint=config.checkpoint,
            train=Source(config.train.source, columns=Columns(difficulty="difficulty")),
            test=config.test,
            measure="pass_rate",
            pass_rate_samples=4,
            losses=("sft",),
            learning_rates=(1e-3,),
            training=TrainingConfig(optimiser=config.training.optimiser),
            grader=GraderConfig("math-verify"),
        ),
    }
    assert asked["config"].sampled.samples == 4


@pytest.mark.slow
def test_a_killed_member_carries_on(scanned, config, tmp_path, monkeypatch):
    saving = dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, checkpoint_every=1),
        difficulties=(1,),
        data_sizes=(8,),
    )
    expected = run_scan(saving, tmp_path / "whole")
    program = train.make_step

    def stopping(*arguments):
        step, calls = program(*arguments), itertools.count()

        def once(*state):
            if next(calls):
                raise KeyboardInterrupt
            return step(*state)

        return once

    monkeypatch.setattr(train, "make_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_scan(saving, tmp_path / "cut")
    monkeypatch.undo()
    assert list((tmp_path / "cut" / "work").glob("*/checkpoints/1"))
    pd.testing.assert_frame_equal(run_scan(saving, tmp_path / "cut"), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data_sizes": (4, 11)},
            r"level 1 .* 11 examples to train on \(data_sizes\) and 4",
        ),
        (
            {"difficulties": (1, 7)},
            r"level 7 \(exact\) has no training problems; levels are \[1, 2\]",
        ),
        ({"checkpoint": ""}, "checkpoint must be a folder or hub id, got ''"),
        ({"train": NO_DATA}, r"train must name a data set \(--train.source\), got ''"),
        (
            {"base": BaseConfig(levels=(1, 2), least_accuracy=0.5)},
            r"the base gets 0% of its own levels \[1, 2\] right, less than .* 50%",
        ),
        ({"max_length": 20}, "no example is left to train on"),
    ],
)
def test_what_cannot_work_is_told_before_training(fields, message, config, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_scan(dataclasses.replace(config, **fields), tmp_path / "run")
    assert not list((tmp_path / "run").glob("parts/0_*"))


LONG_ROW = {"problem": "word " * 300, "solution": r"\boxed{1}", "answer": "1", "op": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grader": GraderConfig("igsm", modulus=5)}, "grader 'igsm' needs an iGSM problem"),
        (
            {"decoding": DecodingConfig(max_new_tokens=1000)},
            r"test.jsonl: prompt and max_new_tokens must fit into the context",
        ),
        (
            {"base": BaseConfig(TrainingConfig(), levels=(1, 9))},
            r"base.levels must be levels of the test, \[1, 2, 3\], got \[9\]",
        ),
        (
            {"data_sizes": (4, 11)},
            r"level 1 .* 11 examples to train on \(data_sizes\) and 4",
        ),
        ({"max_length": 4096, "train": "long"}, r"no example is left .*more than 1,024 tokens"),
    ],
)
def test_what_cannot_work_is_told_before_the_base_is_trained(fields, message, config, tmp_path):
    base = {"base": BaseConfig(dataclasses.replace(config.training)), "base_data": config.train}
    if fields.get("train"):
        rows = json.dumps(LONG_ROW) + "\n"
        (tmp_path / "long.jsonl").write_text(rows * 20)
        fields = {**fields, "train": Source(str(tmp_path / "long.jsonl"))}
    with pytest.raises(ValueError, match=message):
        run_scan(dataclasses.replace(config, **(base | fields)), tmp_path / "run")
    assert not (tmp_path / "run" / "base").exists()
    assert not (tmp_path / "run" / "parts").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rates": (1e-3, 1e-3)}, r"learning_rates must be positive, one for each of"),
        ({"selections": ("most",)}, r"selections must be distinct, some of .*, got \('most',\)"),
        ({"difficulties": (2, 1)}, r"difficulties must be distinct integers .* got \(2, 1\)"),
        ({"measure": "cot_tokens", "difficulties": (4,)}, r"buckets from 1 to 3, got \(4,\)"),
        ({"buckets": 1}, "buckets must be at least 2, got 1"),
    ],
)
def test_a_wrong_field_is_told(fields, message, config):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **fields)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("learning-rate", "3e-4", "training.learning_rate is the member's: state learning_rates;"),
        ("loss", "dft", "training.loss is the member's: state losses; got 'dft'"),
        ("seed", "4", "training.seed is the member's: state seeds; got 4"),
    ],
)
def test_what_each_member_has_of_its_own_is_no_flag(
    flag, value, message, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    arguments = ["llm", "scan", "tiny-igsm", f"--training.{flag}", value, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["sweetspot", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.slow
def test_the_smallest_recipe_runs_from_nothing(tmp_path):
    """Tokenizer, base, scan, report, through the command line."""
    command = [sys.executable, "-m", "experiments", "llm", "scan", "tiny-igsm"]
    options = ["--preset", "smoke", "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8 members are done after" in done.stdout
    table = read_tables(tmp_path / "run")["table"]
    assert len(optimum.studies(table)) == 2
    report = [sys.executable, "-m", "experiments", "report", "--results", str(tmp_path / "run")]
    subprocess.run(report, capture_output=True, check=True)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
