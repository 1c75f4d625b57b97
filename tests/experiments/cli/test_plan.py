"""``--plan`` of the commands: a table, exit code 0, and nothing on disk."""

from __future__ import annotations

import dataclasses

import pytest

from experiments.cli import llm as commands
from experiments.cli.plan import Plan
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig
from tests.experiments.llm.rows import write_sums

PLAN = Plan(plan_on="h200")
QUICK = DecodingConfig(max_new_tokens=4, batch_size=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Source:
    return Source(
        str(write_sums(tmp_path_factory.mktemp("rows") / "rows.jsonl", 12, levels=(1, 2)))
    )


def rows(text: str) -> dict[str, str]:
    """Cells in the second column of a printed table, by the first."""
    cells = [line.strip().split("  ", 1) for line in text.splitlines() if "  " in line.strip()]
    return {name: value.strip() for name, value in cells}


EXPORT = (
    *("tasks", "export", "igsm", "--preset", "tiny", "--difficulties", "2", "--train-sizes", "40"),
    *("--base-difficulties", "1", "--base-sizes", "20", "--test-difficulties", "1", "2"),
    *("--test-examples", "10"),
)


def test_an_export_is_planned_and_then_made(sweetspot, tmp_path):
    command = (*EXPORT, "--out", tmp_path / "data")
    code, said = sweetspot(*command, "--plan")
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    told = rows(said)
    assert (told["problems"], told["parts"]) == ("80", "5")
    assert "hours here" in told
    disk = float(told["disk"].removesuffix(" kB")) * 1e3
    assert sweetspot(*command)[0] == 0
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert kept / 1.5 < disk < kept * 1.5
    code, said = sweetspot(*command, "--plan")
    assert code == 0
    assert "nothing is left to run" in said


def test_an_unknown_device_is_refused_with_the_accepted_names(sweetspot, tmp_path):
    code, said = sweetspot(*EXPORT, "--out", tmp_path / "data", "--plan-on", "abacus")
    assert code == 2
    assert "device must be one of ['A100', 'H100'" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # compiles a fine-tuning and two decodings
def test_commands_on_a_checkpoint_are_planned(tiny_folder, data, tmp_path, capsys):
    config = TrainingConfig(
        compute=6,
        compute_unit="steps",
        optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
        dtype="float32",
    )
    commands.finetune_checkpoint(
        str(tiny_folder), data, tmp_path / "run", max_length=1024, config=config, planning=PLAN
    )
    told = rows(capsys.readouterr().out)
    assert (told["steps"], told["examples"], told["parts"]) == ("6", "12", "1")
    assert told["compiled programs"] == "1 (1 training step)"
    assert "hours on one H200" in told
    commands.evaluate_checkpoint(
        *(str(tiny_folder), data, tmp_path / "test"),
        grader=GraderConfig("gsm8k"),
        decoding=QUICK,
        dtype="float32",
        planning=PLAN,
    )
    told = rows(capsys.readouterr().out)
    assert told["problems"] == "12"
    # Each of the twelve answers is cut after four tokens.
    assert told["tokens"] == "48"
    commands.measure_difficulty(
        *(str(tiny_folder), data, tmp_path / "measures"),
        measures=("cot_tokens", "perplexity"),
        dtype="float32",
        planning=PLAN,
    )
    told = rows(capsys.readouterr().out)
    assert told["compiled programs"] == "1 (1 reading solutions)"
    assert list(tmp_path.iterdir()) == []
