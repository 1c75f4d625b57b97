"""The commands ``sweetspot llm …`` on a tiny checkpoint: what they write and say."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from functools import partial

import pandas as pd
import pytest

from experiments.certify.config import CheckpointConfig
from experiments.certify.samples import _rows_trained_on
from experiments.cli import llm as commands
from experiments.cli.finetune import finetune_checkpoint
from experiments.cli.main import main
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.problems.data import read, read_source
from experiments.llm.recipes import RECIPES
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig, Watch
from tests.experiments.llm.rows import write_sums

QUICK = DecodingConfig(max_new_tokens=4, batch_size=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Source:
    return Source(
        str(write_sums(tmp_path_factory.mktemp("rows") / "rows.jsonl", 12, levels=(1, 2)))
    )


def test_prepare_says_what_there_is_and_others_read_it(tiny_folder, data, tmp_path, capsys):
    commands.prepare(str(tiny_folder), data, tmp_path, max_length=1024)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["read"], report["dropped"], report["truncated"]) == (12, {}, 0)
    assert report["solution_tokens"]["least"] > 5
    # Lines are broken where they are full.
    told = " ".join(capsys.readouterr().out.split())
    assert "12 of 12 examples kept" in told
    assert report["difficulties"] == {"1": 6, "2": 6}
    assert "difficulty 1: 6, 2: 6" in told
    again = read(tmp_path / "problems.parquet")
    first = read_source(data)
    assert (again.prompts, again.solutions) == (first.prompts, first.solutions)
    assert list(again.ops) == list(first.ops)
    table = pd.read_parquet(tmp_path / "problems.parquet")
    assert table["cot_tokens"].max() == report["solution_tokens"]["most"]


def test_prepare_refuses_or_drops_what_is_too_long(tiny_folder, data, tmp_path, capsys):
    with pytest.raises(ValueError, match="at most max_length 20 tokens, but"):
        commands.prepare(str(tiny_folder), data, tmp_path, max_length=20)
    assert not (tmp_path / "problems.parquet").exists()
    commands.prepare(str(tiny_folder), data, tmp_path, max_length=56, on_long="drop")
    assert "dropped" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    (dropped,) = report["dropped"].values()
    assert len(read(tmp_path / "problems.parquet")) == 12 - dropped < 12


def test_difficulty_measures_and_cuts_into_buckets(tiny_folder, data, tmp_path, capsys):
    commands.measure_difficulty(
        str(tiny_folder),
        data,
        tmp_path,
        measures=("cot_tokens",),
        bucket_by="cot_tokens",
        number=3,
        drop_hardest=0.25,
    )
    measures = pd.read_parquet(tmp_path / "measures.parquet")
    assert len(measures) == 12
    assert set(pd.read_parquet(tmp_path / "correlations.parquet").columns) >= {"first", "second"}
    cut = read(tmp_path / "problems.parquet")
    assert sorted(op or 0 for op in cut.ops) == [1] * 3 + [2] * 3 + [3] * 3
    kept = pd.read_parquet(tmp_path / "problems.parquet")["cot_tokens"].tolist()
    assert sorted(kept) == sorted(measures["cot_tokens"].tolist())[:9]
    assert "cot_tokens ≤" in capsys.readouterr().out


def test_a_base_that_solves_nothing_still_leaves_its_measures(tiny_folder, data, tmp_path, capsys):
    commands.measure_difficulty(
        str(tiny_folder),
        data,
        tmp_path,
        measures=("cot_tokens", "pass_rate"),
        decoding=dataclasses.replace(QUICK, samples=2, temperature=0.7),
        dtype="float32",
    )
    measures = pd.read_parquet(tmp_path / "measures.parquet")
    assert measures["pass_rate"].tolist() == [0.0] * 12
    # What does not vary cannot be compared, nor drawn.
    pairs = pd.read_parquet(tmp_path / "correlations.parquet")
    assert set(pairs["first"]) | set(pairs["second"]) == {"op", "cot_tokens"}
    assert not (tmp_path / "figures").exists()
    said = " ".join(capsys.readouterr().out.split())
    # A sample may end by chance before.
    share = re.search(r"(\d+)% of the samples reached max_new_tokens 4", said)
    assert share is not None
    assert int(share[1]) >= 75


def test_difficulty_refuses_what_does_not_fit(tiny_folder, data, tmp_path):
    with pytest.raises(ValueError, match="bucket_by must be given with edges"):
        commands.measure_difficulty(str(tiny_folder), data, tmp_path, edges=(3.0,))
    with pytest.raises(ValueError, match=r"bucket_by must be one of .* got 'perplexity'"):
        commands.measure_difficulty(
            str(tiny_folder), data, tmp_path, measures=("cot_tokens",), bucket_by="perplexity"
        )
    # There is no such checkpoint: these are told before it is read.
    refused = partial(
        commands.measure_difficulty, "nowhere", data, tmp_path, bucket_by="cot_tokens"
    )
    with pytest.raises(ValueError, match=r"drop_easiest must be a share in \[0, 1\), got 1.5"):
        refused(drop_easiest=1.5)
    with pytest.raises(ValueError, match="number of buckets must be at least 2, got 1"):
        refused(number=1)


def test_finetune_then_evaluate(tiny_folder, data, tmp_path, capsys):
    config = TrainingConfig(
        compute=1,
        compute_unit="steps",
        optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
        dtype="float32",
        checkpoint_every=0,
    )
    options = {"difficulty": 1, "data_size": 4, "max_length": 1024, "config": config}
    finetune_checkpoint(str(tiny_folder), data, tmp_path / "run", **options)
    assert f"Checkpoint: {tmp_path / 'run' / 'model'}" in capsys.readouterr().out.replace("\n", "")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["num_examples"] == 4
    # What is too long is left out before the data size is counted.
    dropping = options | {"max_length": 57, "on_long": "drop", "difficulty": None, "data_size": 8}
    finetune_checkpoint(str(tiny_folder), data, tmp_path / "fewer", **dropping)
    assert json.loads((tmp_path / "fewer" / "manifest.json").read_text())["num_examples"] == 8
    commands.evaluate_checkpoint(
        str(tmp_path / "run" / "model"), data, tmp_path / "test", decoding=QUICK, dtype="float32"
    )
    about = json.loads((tmp_path / "test" / "evaluation.json").read_text())
    assert (about["model"], about["decoding"]["max_new_tokens"]) == (
        str(tmp_path / "run" / "model"),
        4,
    )
    slices = pd.read_parquet(tmp_path / "test" / "slices.parquet")
    assert slices["slice"].tolist() == [1, 2]
    responses = pd.read_parquet(tmp_path / "test" / "responses.parquet")
    assert len(responses) == 12
    # The same call has nothing to do, and another grader needs no new responses.
    for grader, told in (
        (GraderConfig("boxed"), "is complete: nothing left to run"),
        (GraderConfig("gsm8k"), "12 responses are there already"),
    ):
        capsys.readouterr()
        commands.evaluate_checkpoint(
            str(tmp_path / "run" / "model"),
            data,
            tmp_path / "test",
            grader=grader,
            decoding=QUICK,
            dtype="float32",
        )
        assert told in " ".join(capsys.readouterr().out.split())
        about = json.loads((tmp_path / "test" / "evaluation.json").read_text())
        assert about["grader"]["name"] == grader.name
    again = pd.read_parquet(tmp_path / "test" / "responses.parquet")
    assert again["response"].tolist() == responses["response"].tolist()
    with pytest.raises(
        ValueError, match=r"difficulty must be one of those stated, \[1, 2\], got 9"
    ):
        finetune_checkpoint(str(tiny_folder), data, tmp_path / "other", difficulty=9)


@pytest.mark.slow  # fine-tunes and certifies
def test_what_a_checkpoint_was_trained_on_is_not_certified(tiny_folder, data, tmp_path, capsys):
    """Without being told: the run's manifest lies beside the checkpoint."""
    config = TrainingConfig(
        compute=1,
        compute_unit="steps",
        optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
        dtype="float32",
        checkpoint_every=0,
    )
    for size in (4, 12):
        out = tmp_path / str(size)
        finetune_checkpoint(str(tiny_folder), data, out, data_size=size, config=config)
    points = CheckpointConfig(methods=("checkpoint",), data_sizes=(2,))
    commands.certify_problems(
        str(tmp_path / "4" / "model"), data, tmp_path / "bound", config=points
    )
    assert "4 problems that it was trained on are left out" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"must hold problems beside those that .*12 trained on"):
        commands.certify_problems(str(tmp_path / "12" / "model"), data, tmp_path / "no")


def test_recipes_state_command_device_cost_and_numbers():
    for name, recipe in RECIPES.items():
        text = recipe.__doc__ or ""
        assert f"sweetspot llm scan {name}" in text
        assert "Expect" in text
        assert recipe.DEVICE
        for preset, config in recipe.PRESETS.items():
            assert config.num_members > 0
            hours = recipe.HOURS[preset]
            assert f"{hours:.2g} hours" in text, f"{name} {preset}: {hours}"
            # Hours that were not measured are computed.
            if hasattr(recipe, "hours"):
                assert hours == float(f"{recipe.hours(config):.2g}")


def test_columns_are_measures_and_cut_into_buckets(tiny_folder, tmp_path, capsys):
    rates = [0.1, 0.9, 0.5, 0.3, 0.7, None]
    rows = [
        {"problem": f"{row} + 1?", "solution": f"{row + 1}." * (row + 1), "answer": row + 1}
        | {"solve_rate": rate, "difficulty": 1.5 + row, "k": row % 3, "n": 2 + row}
        for row, rate in enumerate(rates)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["llm", "difficulty", "--model", str(tiny_folder), "--source", str(path)]
    words += ["--measures", "column:solve_rate", "column:difficulty", "passes:k/n", "cot_tokens"]
    words += ["--bucket-by", "column:solve_rate", "--harder", "lower", "--edges", "0.4", "0.6"]

    def run(*more: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["sweetspot", *words, *more, "--out", str(tmp_path / "out")])
            main()
        return " ".join(capsys.readouterr().out.split())

    with pytest.raises(SystemExit):
        run()
    assert "missing for 1 of 6, the first in row 5" in " ".join(capsys.readouterr().err.split())
    said = run("--missing", "drop")
    assert "1 of 6 problems have no column:solve_rate and are left out." in said
    assert "column:solve_rate ≥ 0.6" in said
    cut = pd.read_parquet(tmp_path / "out" / "problems.parquet")
    assert cut["difficulty"].tolist() == [3, 1, 2, 3, 1]
    assert cut["column:solve_rate"].tolist() == rates[:5]
    assert read(tmp_path / "out" / "problems.parquet", numbers=["k"]).columns["k"] == [
        0,
        1,
        2,
        0,
        1,
    ]
    measures = pd.read_parquet(tmp_path / "out" / "measures.parquet")
    assert measures["column:difficulty"].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert measures["passes:k/n"].between(0, 1).all()
    pairs = pd.read_parquet(tmp_path / "out" / "correlations.parquet")
    assert {("cot_tokens", "column:solve_rate"), ("column:difficulty", "passes:k/n")} <= {
        *zip(pairs["first"], pairs["second"], strict=True)
    }


def test_prepare_keeps_columns_that_are_named(tiny_folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"problem": f"{row}?", "answer": row, "rate": row / 4} for row in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    commands.prepare(str(tiny_folder), Source(str(path)), tmp_path / "out", keep=("rate",))
    table = pd.read_parquet(tmp_path / "out" / "problems.parquet")
    assert table["rate"].tolist() == [0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match=r"got 'rating'; did you mean 'rate'\?"):
        commands.prepare(str(tiny_folder), Source(str(path)), tmp_path / "no", keep=("rating",))


@pytest.mark.slow
def test_finetune_with_a_validation_loss_and_answers(tiny_folder, data, tmp_path, capsys):
    optimiser = dataclasses.replace(PAPER_OPTIMISER, batch_size=4)
    config = TrainingConfig(compute=1, optimiser=optimiser, dtype="float32", checkpoint_every=0)
    watch = Watch(validation_share=0.25, sample_responses=1, sample_tokens=3)
    out = tmp_path / "run"
    finetune_checkpoint(str(tiny_folder), data, out, config=config, watch=watch)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["num_examples"] == 9
    assert sorted([*manifest["rows"], *manifest["validation"]["rows"]]) == list(range(12))
    last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert last["validation_loss"] > 0
    assert last["epoch"] == 1.0
    (answer,) = map(json.loads, (out / "samples.jsonl").read_text().splitlines())
    assert answer["row"] == manifest["validation"]["rows"][0]
    # Certificates leave out what the checkpoint was chosen by, too.
    assert unseen_rows(out, data) == []
    # Other problems for the validation loss; those that are trained on as well are told.
    capsys.readouterr()
    finetune_checkpoint(str(tiny_folder), data, tmp_path / "two", config=config, validation=data)
    told = " ".join(capsys.readouterr().out.split())
    assert "12 of 12 examples of the validation loss are also trained on" in told
    with pytest.raises(ValueError, match="and validation_share must not both be given"):
        finetune_checkpoint("nowhere", data, tmp_path, validation=data, watch=watch)


def unseen_rows(run, data) -> list[int]:
    """Rows of the data that neither trained a checkpoint nor chose it."""
    seen = _rows_trained_on(run, data, is_named=True)
    assert seen is not None
    return sorted({*range(12)} - {*seen})
