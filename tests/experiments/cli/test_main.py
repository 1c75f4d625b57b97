"""The tree of commands: its help, and one clear line for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import distribution
from experiments.cli import llm
from experiments.llm.recipes import RECIPES as SCANS
from experiments.llm.training.distributed import FirstProcessError
from experiments.llm.training.meter import DivergedError
from experiments.recipes import RECIPES


def test_help_names_every_command(sweetspot):
    code, text = sweetspot("--help")
    assert code == 0
    for name in ("list", "run", "compare", "tasks", "llm"):
        assert f"• {name} " in text


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("tasks", ["export", "gallery"]),
        ("llm", ["prepare", "difficulty", "finetune", "evaluate", "scan", "recommend", "bound"]),
    ],
)
def test_the_help_of_a_group_names_its_commands(sweetspot, group, names):
    code, text = sweetspot(group, "--help")
    assert code == 0
    for name in names:
        assert f"• {name} " in text
        assert sweetspot(group, name, "--help")[0] == 0


def test_a_group_alone_shows_its_help(sweetspot):
    code, text = sweetspot("llm")
    assert code == 0
    assert text == sweetspot("llm", "--help")[1]


def test_completion_knows_the_groups(sweetspot):
    code, text = sweetspot("--tyro-print-completion", "bash")
    assert code == 0
    for name in ("'list'", "'tasks'", "'gallery'", "'llm'", "'scan'", "'--learning-rates'"):
        assert name in text


@pytest.mark.parametrize(
    "line",
    [
        *(f"run {name}" for name in (*RECIPES, "custom")),
        *(f"llm scan {name}" for name in (*SCANS, "custom")),
    ],
)
def test_help_of_every_recipe_shows_the_values_of_its_preset(sweetspot, line):
    *command, name = line.split()
    code, text = sweetspot(*command, name, "--help")
    assert code == 0
    recipe = (SCANS if command[0] == "llm" else RECIPES).get(name)
    if recipe is not None:
        preset = "demo" if "demo" in recipe.PRESETS else next(iter(recipe.PRESETS))
        sizes = " ".join(map(str, recipe.PRESETS[preset].data_sizes))
        assert f"(default: {sizes})" in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run nothing", "recipe must be one of ["),
        ("run tradeoff --preset huge", "preset of tradeoff must be one of ["),
        ("run tradeoff --preset=huge", "got 'huge'"),
        ("run tradeoff --preset smoke --task sums", "task must be one of ['addition', 'chain'"),
        ("run tradeoff --preset smoke --task no_such_module:Task", "cannot be imported as module"),
        (
            "run tradeoff --preset smoke --task synth.task:pool",
            "task 'synth.task:pool' must be a synth.task.Task, a class of them, or a function",
        ),
        (
            "run tradeoff --preset smoke --task-options colour 3",
            "task 'chain-running' has no field ['colour']; it accepts ['hardest', 'layout', ",
        ),
        ("run tradeoff --preset smoke --task-options modulus 1", "modulus must be at least 2"),
        ("run tradeoff --preset smoke --test-hardest 5", "test_hardest must be at least 1.5"),
        ("run tradeoff --preset smoke --seeds 0", "seeds must be at least 1, got 0"),
        ("tasks sums", "task must be one of ['addition', 'chain'"),
        ("tasks chain --difficulty 99", "99"),
        ("tasks export igsm --out data --preset easy", "preset must be one of ("),
        ("tasks export igsm --out data --train-sizes 5 6", "train_sizes must be one number, or"),
        ("figures --results no/such/run", "no/such/run/table.parquet does not exist"),
        ("report --results no/such/run", "no/such/run/table.parquet does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    sweetspot, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, text = sweetspot(*arguments.split())
    assert code == 2
    assert message in text
    assert "Traceback" not in text
    assert sum(message in line for line in text.splitlines()) == 1
    # Nothing is left where a run would have been.
    assert list(tmp_path.rglob("*.parquet")) == []
    assert list(tmp_path.rglob("manifest.json")) == []


@pytest.mark.parametrize(
    "error",
    [
        DivergedError("the loss of step 3 is nan: lower the learning rate"),
        ImportError("tokenizers need: pip install 'sweetspot-sft[llm]'"),
        FirstProcessError("ResultsError: runs/x is in use"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_stops_a_command_is_one_line(sweetspot, monkeypatch, error):
    def fail() -> None:
        raise error

    monkeypatch.setattr(llm, "prepare", fail)
    code, text = sweetspot("llm", "prepare")
    assert code == 2
    assert text == f"error: {error}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run tradeoff --preset smoke --sed 3", "--sed"),
        ("run tradeoff --preset smoke --seeds many", "many"),
        ("run tradeoff --preset smoke --losses sfft", "sfft"),
        ("run", "a name that `sweetspot list` shows"),
        ("train", "train"),
        ("tasks export dyck --out data", "invalid choice 'dyck'"),
        ("tasks export igsm", "--out"),
    ],
)
def test_arguments_that_cannot_be_read(sweetspot, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, text = sweetspot(*arguments.split())
    assert code == 2
    assert message.lower() in text.lower()
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_the_program_itself():
    """A process of its own: the installed entry point's exit code, and no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "run", "nothing"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "error: recipe must be one of" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rum", "got 'rum'; did you mean 'run'?"),
        ("llm scna", "command of llm must be one of ['prepare', "),
        ("llm scna", "got 'scna'; did you mean 'scan'?"),
        ("run tradeof", "did you mean 'tradeoff'?"),
        ("run tradeoff smoek", "got 'smoek'; did you mean 'smoke'?"),
        ("llm scan tiny-igm", "did you mean 'tiny-igsm'?"),
        ("recommend --data-size 9 --pilot dmo", "did you mean 'demo'?"),
        ("tasks chian", "did you mean 'chain'?"),
        ("run tradeoff smoke --task chain-runing", "did you mean 'chain-running'?"),
        ("report --resutls x", "--results DIRECTORY"),
        ("run tradeoff smoke --sed 3", "--seeds INTEGER"),
        ("run custom smoke", "recipe 'custom' has no presets, got 'smoke'"),
        ("run tradeoff smoke --preset demo", "preset must be one, got 'smoke' and --preset demo"),
        ("run tradeoff --seeds 1 smoke", "preset must stand right after the recipe, got 'smoke'"),
    ],
)
def test_a_word_that_is_mistyped_is_suggested(sweetspot, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, text = sweetspot(*arguments.split())
    assert code == 2
    assert message in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_flag_is_looked_for_in_its_own_command(sweetspot):
    """`llm bound` and `llm finetune` have a --seed, which is no help for `run`."""
    code, text = sweetspot("run", "tradeoff", "smoke", "--sed", "3")
    assert code == 2
    assert "--seeds" in text
    assert "llm" not in text


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ("regret --results a --results b", "--results"),
        ("run tradeoff --data-sizes 8 --data_sizes=16", "--data-sizes"),
        ("llm evaluate --grader boxed --grader.name igsm", "--grader.name"),
        ("compare --out x --out y a b", "--out"),
    ],
)
def test_a_flag_that_is_given_twice_is_refused(sweetspot, tmp_path, monkeypatch, arguments, flag):
    monkeypatch.chdir(tmp_path)
    code, text = sweetspot(*arguments.split())
    assert code == 2
    assert text == (
        f"error: {flag} must be given once, with all its values (such as {flag} A B), "
        "got it twice\n"
    )


def test_version(sweetspot):
    code, text = sweetspot("--version")
    assert (code, text) == (0, f"sweetspot {distribution.version()}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_command(sweetspot, shell):
    code, text = sweetspot("completion", shell)
    assert code == 0
    for name in ("completion", "gallery", "learning-rates", "help"):
        assert name in text
    code, text = sweetspot("completion", "tsch")
    assert code == 2
    assert "tcsh" in text


def test_no_command_shows_the_help(sweetspot):
    assert sweetspot() == sweetspot("--help")


def test_plain_and_nested_grader_are_one_flag(sweetspot, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "experiments.llm.answering.run.run_evaluation", lambda study: asked.append(study) or 1 / 0
    )
    for flag in ("--grader", "--grader.name"):
        with pytest.raises(ZeroDivisionError):
            sweetspot(
                *("llm", "evaluate", "--model", "x", "--source", "y", "--out", "z"),
                *(flag, "math-verify", "--grader.timeout", "3"),
            )
    assert [(study.grader.name, study.grader.timeout) for study in asked] == [
        ("math-verify", 3.0)
    ] * 2
    code, text = sweetspot("llm", "evaluate", "--grader", "mathverify")
    assert code == 2
    assert "math-verify" in text


def test_a_word_that_no_message_could_repeat_is_refused(sweetspot):
    code, text = sweetspot("run", "tradeoff", "--out", "x" * 100_000)
    assert code == 2
    (line,) = text.splitlines()
    assert line.startswith("error: a word of the command line must have at most 1024 characters")
    assert len(line) < 200
