"""Commands of the simulator's study: what they print, and what they write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments import figures
from experiments.analysis.verdicts import RULE
from experiments.recipes import RECIPES
from experiments.storage.results import read_manifest, read_table
from tests.experiments.tiny import OWN_TASK, TINY
from tests.experiments.worlds import world, write_run

# Figures that need a sweep's own table alone, and the one that applies where it has its bases.
FIGURES = [
    name
    for name, figure in figures.FIGURES.items()
    if figure.TABLES == ("table",) and (name == "base_accuracy" or not hasattr(figure, "applies"))
]
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


def test_list_shows_every_recipe_and_preset(sweetspot):
    code, text = sweetspot("list")
    assert code == 0
    for name, recipe in RECIPES.items():
        for preset, config in recipe.PRESETS.items():
            assert any(
                {name, preset, str(config.num_members)} <= set(line.replace("│", " ").split())
                for line in text.splitlines()
            )


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


def test_the_directory_of_another_recipe_is_refused(sweetspot, finished_run):
    code, text = sweetspot("run", "tradeoff", "--preset", "smoke", "--out", finished_run)
    assert code == 2
    (line,) = text.splitlines()
    assert line.startswith(f"error: {finished_run} holds another run; it differs in recipe (there")
    assert 'recipe (there "tiny", here "tradeoff")' in line


def test_recommend_answers_from_a_finished_run(sweetspot, finished_run):
    code, text = sweetspot("recommend", "--results", finished_run, "--data-size", "48")
    assert code == 0
    assert "trained on 1..d: " in text
    assert "n = 48" in text
    assert "Fitted to n = 3, 12. Choices of all rules: nearest candidate " in text
    assert "no certificate" in text


def test_recommend_tells_programs_as_json_and_draws_learning_curves(
    sweetspot, finished_run, tmp_path
):
    options = ["--data-size", "48", "--json", "--figures", str(tmp_path / "drawn")]
    code, text = sweetspot("recommend", finished_run, *options)
    assert code == 0
    answers = json.loads(text)
    assert [answer["data_size"] for answer in answers] == [48] * len(answers)
    for answer in answers:
        assert answer["abstains"] == bool(answer["doubts"])
        assert set(answer["measured"]) == {str(size) for size in answer["pilot_sizes"]}
        levels = list(answer["predicted"])
        assert str(answer["difficulty"]) in levels
        for risk in answer["predicted"].values():
            assert 0 <= risk["low"] <= risk["mean"] <= risk["high"] <= 1
        assert answer["noise"].startswith("Intervals")
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {"learning_curves.png", "learning_curves.svg"}


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
    assert RULE in text


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


def test_report_draws_the_figures_and_writes_the_page(sweetspot, finished_run, tmp_path):
    directory = Path(shutil.copytree(finished_run, tmp_path / "run"))
    code, text = sweetspot("report", "--results", directory)
    assert code == 0, text
    assert str(directory / "report.html") in text
    drawn = {path.name for path in (directory / "figures").iterdir()}
    assert drawn == {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == len(FIGURES)


def test_a_directory_may_be_the_first_word(sweetspot, finished_run, tmp_path):
    directory = Path(shutil.copytree(finished_run, tmp_path / "run"))
    flag = sweetspot("recommend", "--results", directory, "--data-size", "48")
    assert flag[0] == 0
    assert sweetspot("recommend", directory, "--data-size", "48") == flag
    for words in (("figures", directory, "--names", "map"), ("figures", "--results", directory)):
        code, text = sweetspot(*words, "--out", tmp_path / words[-1])
        assert code == 0, text
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    code, text = sweetspot("compare", directory, other, "--out", tmp_path / "out")
    assert code == 0, text
    code, text = sweetspot("regret", directory, other, "--out", tmp_path / "regret")
    assert "none has a data size 4 times its second smallest" in text


@pytest.mark.parametrize(
    "command", ["figures", "report", "bound", "llm recommend --data-size 9", "regret", "compare"]
)
def test_a_directory_is_given_once(sweetspot, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for words in ([], ["a", "--results", "b"]):
        code, text = sweetspot(*command.split(), *words)
        assert code == 2
        (line,) = text.splitlines()
        assert line.startswith("error: results must be ")
    assert list(tmp_path.iterdir()) == []


def test_a_mistyped_figure_is_suggested(sweetspot, finished_run):
    code, text = sweetspot("figures", finished_run, "--names", "mpa")
    assert code == 2
    assert text.endswith("got 'mpa'; did you mean 'map'?\n")


def test_names_are_not_markup(sweetspot, finished_run, tmp_path):
    """A path with brackets: a traceback after the work, were it read as markup."""
    directory = Path(shutil.copytree(finished_run, tmp_path / "[/b] [red] :smile:"))
    code, text = sweetspot("recommend", "--results", directory, "--data-size", "9")
    assert (code, "got 9" in text) == (2, True)
    code, text = sweetspot("figures", "--results", directory, "--names", "map")
    assert code == 0, text
    assert str(directory / "figures" / "map.png") in text.splitlines()


@pytest.mark.slow
def test_figures_go_where_they_are_asked_for(sweetspot, finished_run, tmp_path):
    code, text = sweetspot("figures", "--results", finished_run, "--out", tmp_path / "pictures")
    assert code == 0, text
    drawn = sorted(str(path) for path in (tmp_path / "pictures").iterdir())
    assert sorted(text.splitlines()) == drawn
    assert len(drawn) == 2 * len(FIGURES)
    assert not (finished_run / "figures").exists()
