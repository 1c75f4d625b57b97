"""``--plan`` of the commands: a table, exit code 0, and nothing on disk."""

from __future__ import annotations

import dataclasses

import pytest

from experiments.certify.config import CheckpointConfig, MembersConfig
from experiments.cli import llm as commands
from experiments.cli.finetune import finetune_checkpoint
from experiments.cli.plan import Plan
from experiments.cli.studies import certify_cells
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig, Watch
from tests.experiments.llm.rows import write_sums
from tests.experiments.tiny import TINY

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
    finetune_checkpoint(
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
    commands.certify_problems(
        *(str(tiny_folder), data, tmp_path / "bound"),
        config=CheckpointConfig(
            methods=("checkpoint", "lora"), data_sizes=(2, 4), num_draws=64, num_fresh=2
        ),
        planning=PLAN,
    )
    told = rows(capsys.readouterr().out)
    # Points of all cells in one part, and a posterior for each of two levels and two sizes.
    assert (told["parts of the certification"], told["certificates"]) == ("5", "8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # compiles a fine-tuning, a validation loss and a decoding
def test_validation_losses_and_answers_on_the_way_are_planned(tiny_folder, data, tmp_path, capsys):
    def told(**fields):
        finetune_checkpoint(
            *(str(tiny_folder), data, tmp_path / "run"),
            max_length=1024,
            config=TrainingConfig(
                compute=6,
                compute_unit="steps",
                optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
                lora_rank=2,
                dtype="float32",
            ),
            watch=Watch(**fields),
            planning=PLAN,
        )
        return rows(capsys.readouterr().out)

    def operations(row):
        return float(row["FLOPs"])

    half = told(validation_share=0.5, evaluate_every=6)
    assert half["compiled programs"] == "2 (1 training step, 1 validation loss)"
    # Six validation losses add five times what two do; two digits are shown.
    two, six = (
        operations(told(validation_share=0.5, evaluate_every=every)) - operations(half)
        for every in (3, 1)
    )
    assert two > 0
    assert six == pytest.approx(5 * two, rel=0.4)
    answers = told(sample_responses=3, sample_every=4, sample_tokens=8)
    kinds = "3 (1 training step, 1 reading prompts, 1 decoding)"
    assert answers["compiled programs"] == kinds
    # Three answers of eight tokens after the fourth step and after the last, the sixth.
    few = told(sample_responses=3, sample_every=6, sample_tokens=8)
    assert operations(answers) > operations(few)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # a sweep, and compilations of a fine-tuning
def test_a_certification_of_a_sweep_is_planned(finished_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    config = MembersConfig(methods=("base", "held-out", "gains"), num_draws=256)
    certify_cells(finished_run, config=config, planning=PLAN)
    told = rows(capsys.readouterr().out)
    levels, sizes = len(TINY.difficulties), len(TINY.data_sizes)
    assert told["parts of the certification"] == str(2 * levels)
    assert told["certificates"] == str(3 * levels * sizes)
    assert "hours on one H200" in told
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before
