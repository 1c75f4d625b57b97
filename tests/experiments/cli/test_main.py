"""The command line: what it prints, what it writes, and one clear line for every mistake."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments import figures
from experiments.analysis import families
from experiments.cli import llm
from experiments.cli.main import main
from experiments.engine.progress import console
from experiments.llm.recipes import RECIPES as SCANS
from experiments.llm.training.distributed import FirstProcessError
from experiments.llm.training.meter import DivergedError
from experiments.recipes import RECIPES
from experiments.storage.results import read_manifest, read_table
from tests.experiments.tiny import TINY
from tests.experiments.worlds import world, write_run

# What a sweep's own table is enough for.
FIGURES = [name for name, figure in figures.FIGURES.items() if figure.TABLES == ("table",)]
SHRUNK = (
    *("--decoder.hidden-size", "8"),
    *("--decoder.intermediate-size", "8"),
    *("--decoder.num-layers", "1"),
    *("--decoder.num-heads", "1"),
    *("--decoder.num-kv-heads", "1"),
    *("--pretrain.steps", "2"),
    *("--pretrain.batch-size", "4"),
    *("--difficulties", "1", "2"),
    *("--data-sizes", "2", "4"),
    *("--compute", "2"),
    *("--batch-size", "4"),
    *("--seeds", "1"),
    *("--test-hardest", "3"),
    *("--test-examples", "4"),
    *("--risk-examples", "4"),
)
OWN_TASK = """
import dataclasses
from synth.task import TextExample, TextTask

@dataclasses.dataclass(frozen=True)
class Twice(TextTask):
    name = "twice"
    hardest: int = 4
    letter: str = "a"

    @property
    def vocabulary(self):
        return ("<pad>", ">", ".", self.letter)

    def max_length(self, difficulty):
        return 3 * difficulty + 2

    def sample(self, generator, difficulty):
        word = " ".join([self.letter] * difficulty)
        return TextExample(word + " >", f"{word} {word} .")

    def encode(self, text):
        return [self.vocabulary.index(word) for word in text.split()]
"""


@pytest.fixture
def sweetspot(monkeypatch, capsys):
    """Run a command line; return its exit code and everything it printed."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sweetspot", *map(str, arguments)])
        # Wide enough that no line of a test's long paths is broken.
        monkeypatch.setattr(console, "_width", 1000)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = 0 if stop.code is None else stop.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return code, captured.out + captured.err

    return call


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's own with a task in it, importable."""
    (tmp_path / "own_tasks.py").write_text(OWN_TASK)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_tasks"
    sys.modules.pop("own_tasks", None)


def test_list_shows_every_recipe_and_preset(sweetspot):
    code, text = sweetspot("list")
    assert code == 0
    for name, recipe in RECIPES.items():
        for preset, config in recipe.PRESETS.items():
            assert any(
                {name, preset, str(config.num_members)} <= set(line.replace("│", " ").split())
                for line in text.splitlines()
            )


def test_tasks_shows_examples_of_the_level_asked_for(sweetspot):
    code, text = sweetspot("tasks", "chain-running", "--difficulty", "2", "--examples", "3")
    assert code == 0
    head, *examples = text.splitlines()
    assert head.startswith("chain-running: difficulty 1 to 12, 12 token ids; at difficulty 2 up")
    # log10 of 5 × 15²
    assert "up to 14 tokens, 10^3.1 distinct problems" in head
    assert len(examples) == 3
    for line in examples:
        problem, solution = line.split(" : ")
        assert len(problem.split()) == 6
        assert len(solution.split()) == 7


def test_the_name_of_a_task_may_follow_flags(sweetspot):
    arguments = ("--difficulty", "2", "--examples", "1", "chain-running")
    code, text = sweetspot("tasks", *arguments)
    assert code == 0
    assert text == sweetspot("tasks", "chain-running", *arguments[:4])[1]


def test_tasks_shows_all(sweetspot):
    code, text = sweetspot("tasks", "--examples", "1")
    assert code == 0
    assert "chain: difficulty" in text
    assert "chain-running: difficulty" in text


def test_a_task_of_ones_own(sweetspot, own_module):
    code, text = sweetspot("tasks", f"{own_module}:Twice", "--difficulty", "2", "--examples", "1")
    assert code == 0
    assert "own_tasks:Twice: difficulty 1 to 4, 4 token ids" in text
    assert "unknown distinct problems" in text
    assert "a a > a a a a ." in text


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


def test_tasks_export_writes_a_data_set(sweetspot, tmp_path):
    sizes = ("--difficulties", "3", "4", "--train-sizes", "6", "--base-difficulties", "2")
    tests = ("--base-sizes", "4", "--test-difficulties", "2", "5", "--test-examples", "3")
    out = tmp_path / "data"
    code, text = sweetspot("tasks", "export", "igsm", "--out", out, *sizes, *tests)
    assert code == 0, text
    assert "22 problems in 5 files; 0 test problems occur in training." in text
    assert f"{out / 'README.md'}" in text
    assert len((out / "train" / "op04.jsonl").read_text().splitlines()) == 6


def test_tasks_gallery_writes_the_page(sweetspot, finished_run, tmp_path):
    out = tmp_path / "page.html"
    code, text = sweetspot(
        *("tasks", "gallery", "--out", out, "--names", "chain-running", "--results", finished_run)
    )
    assert code == 0, text
    assert str(out) in text
    assert "run tiny: trained on 1..d" in out.read_text(encoding="utf-8")


@pytest.mark.slow
def test_run_of_a_shrunk_preset(sweetspot, tmp_path):
    """Flags change the preset's fields one by one; what they leave alone is the preset's."""
    out = tmp_path / "run"
    arguments = ("run", "tradeoff", "--preset", "smoke", "--out", out, *SHRUNK)
    code, text = sweetspot(*arguments)
    assert code == 0, text
    assert f"Table: {out / 'table.parquet'}" in text
    manifest, table = read_manifest(out), read_table(out)
    assert (manifest["recipe"], manifest["preset"]) == ("tradeoff", "smoke")
    assert manifest["config"]["decoder"]["hidden_size"] == 8
    assert manifest["config"]["pretrain"]["steps"] == 2
    preset = RECIPES["tradeoff"].PRESETS["smoke"]
    assert manifest["config"]["pretrain"]["max_risk"] == preset.pretrain.max_risk == 1.0
    assert manifest["config"]["chunk_members"] == preset.chunk_members
    trained = table[table["train_mixture"] != "none"]
    assert trained.groupby(["difficulty", "data_size", "seed"]).ngroups == 4

    code, text = sweetspot(*arguments)
    assert code == 0
    assert "is complete: nothing left to run." in text
    pd.testing.assert_frame_equal(read_table(out), table)


@pytest.mark.slow
def test_run_with_a_task_of_ones_own(tmp_path):
    """In a process of its own, found by PYTHONPATH, with an option for the task."""
    (tmp_path / "own_tasks.py").write_text(OWN_TASK)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments", "run", "tradeoff", "--preset", "smoke"),
            *("--out", str(tmp_path / "run"), "--task", "own_tasks:Twice", *SHRUNK),
            *("--task-options", "letter", "b"),
        ],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(read_table(tmp_path / "run")["task"]) == {"own_tasks:Twice"}
    manifest = read_manifest(tmp_path / "run")
    assert manifest["config"]["task_options"] == {"letter": "b"}
    assert manifest["decoder"]["vocab_size"] == 4


def test_report_draws_the_figures_and_writes_the_page(sweetspot, finished_run, tmp_path):
    directory = Path(shutil.copytree(finished_run, tmp_path / "run"))
    code, text = sweetspot("report", "--results", directory)
    assert code == 0, text
    assert str(directory / "report.html") in text
    drawn = {path.name for path in (directory / "figures").iterdir()}
    assert drawn == {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == len(FIGURES)


@pytest.mark.slow
def test_figures_go_where_they_are_asked_for(sweetspot, finished_run, tmp_path):
    code, text = sweetspot("figures", "--results", finished_run, "--out", tmp_path / "pictures")
    assert code == 0, text
    drawn = sorted(str(path) for path in (tmp_path / "pictures").iterdir())
    assert sorted(text.splitlines()) == drawn
    assert len(drawn) == 2 * len(FIGURES)
    assert not (finished_run / "figures").exists()


# Mistakes.


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
            "task 'synth.task:pool' cannot be built from {} (missing a required argument: 'task')",
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
        ImportError("tokenizers need: pip install 'sweetspot[llm]'"),
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


def test_recommend_answers_from_a_finished_run(sweetspot, finished_run):
    code, text = sweetspot("recommend", "--results", finished_run, "--data-size", "48")
    assert code == 0
    assert "trained on 1..d: " in text
    assert "n = 48" in text
    assert "Fitted to n = 3, 12. Choices of all rules: bound " in text
    assert "no certificate" in text


def test_recommend_carries_on_with_its_pilot(sweetspot, finished_run, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", SimpleNamespace(PRESETS={"test": TINY}))
    pilot = ("--recipe", "tiny", "--pilot", "test", "--out", finished_run)
    code, text = sweetspot("recommend", *pilot, "--data-size", "48")
    assert code == 0
    assert "is complete: nothing left to run" in text
    assert "Fitted to n = 3, 12." in text


def test_regret_writes_tables_and_figures(sweetspot, tmp_path):
    runs = [write_run(tmp_path / name, world(seed=seed)) for seed, name in enumerate("ab")]
    code, text = sweetspot("regret", "--results", *runs, "--out", tmp_path / "out")
    assert code == 0
    for name in (
        "regret.parquet",
        "prediction.parquet",
        "figures/regret.png",
        "figures/predicted_optimum.svg",
    ):
        assert (tmp_path / "out" / name).exists()
        assert name in text
    assert "best in pilot" in text


def test_compare_writes_the_table_and_says_what_holds(sweetspot, finished_run, tmp_path):
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    code, text = sweetspot("compare", "--results", finished_run, other, "--out", tmp_path / "out")
    assert code == 0, text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "families.parquet",
        "manifest.json",
        "figures",
    }
    assert sorted(path.stem for path in (tmp_path / "out" / "figures").glob("*.png")) == [
        "families_map",
        "families_optimum",
    ]
    for family in ("tiny", "other"):
        assert f"{family}: " in text
    assert families.RULE in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compare --results RUN RUN", "results must be runs of different families"),
        ("compare --results nowhere", "nowhere is not a run"),
        ("recommend --data-size 9", "either results (a run directory) or pilot (a preset)"),
        ("recommend --data-size 9 --results nowhere", "nowhere is not a run"),
        ("recommend --data-size 9 --results RUN", "at least the pilot's largest, 12, got 9"),
        ("recommend --data-size 9 --pilot huge", "preset of tradeoff must be one of"),
        ("regret --results RUN", "none has a data size 4 times its second smallest"),
        ("regret --results RUN RUN", "results must be directories of different names"),
    ],
)
def test_predictions_that_cannot_be_made(sweetspot, finished_run, tmp_path, arguments, message):
    words = arguments.replace("RUN", str(finished_run)).split()
    out = ["--out", tmp_path / "out"] if words[0] in ("regret", "compare") else []
    code, text = sweetspot(*words, *out)
    assert code == 2
    assert text.startswith("error: ")
    assert message in text
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_another_recipe_is_refused(sweetspot, finished_run):
    code, text = sweetspot("run", "tradeoff", "--preset", "smoke", "--out", finished_run)
    assert code == 2
    (line,) = text.splitlines()
    assert line.startswith(f"error: {finished_run} holds another run; it differs in recipe (there")
    assert 'recipe (there "tiny", here "tradeoff")' in line


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


def test_host_flags_are_set_once_and_those_of_the_user_stay():
    script = """
import os
from experiments.devices import configure_host_devices, cpu_flags
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=3"
configure_host_devices()
flags = os.environ["XLA_FLAGS"].split()
asked = dict(flag.split("=") for flag in flags)
assert len(asked) == len(flags)
assert asked == cpu_flags() | {"--xla_force_host_platform_device_count": "3"}, flags
assert asked["--xla_cpu_multi_thread_eigen"] == "false"
configure_host_devices()
assert os.environ["XLA_FLAGS"].split() == flags
import jax
assert jax.local_device_count() == 3
try:
    configure_host_devices()
except RuntimeError as error:
    assert "before JAX starts" in str(error)
else:
    raise AssertionError("flags that come too late were accepted")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
