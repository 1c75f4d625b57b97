"""Commands on tasks: the list with its examples, the export, and the gallery."""

from __future__ import annotations

import sys

import pytest

from tests.experiments.tiny import OWN_TASK


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's own with a task in it, importable."""
    (tmp_path / "own_tasks.py").write_text(OWN_TASK)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_tasks"
    sys.modules.pop("own_tasks", None)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--examples", str(10**30)), "examples must be at most 1000, got about 10"),
        (("--examples", "0"), "examples must be at least 1, got 0"),
        (("--difficulty", str(10**30)), "difficulty"),
        (("--difficulty", "-1"), "difficulty"),
    ],
)
def test_numbers_that_cannot_be_shown_are_refused_in_one_line(sweetspot, arguments, message):
    code, text = sweetspot("tasks", "chain", *arguments)
    assert code == 2
    (line,) = text.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_task_of_ones_own(sweetspot, own_module):
    code, text = sweetspot("tasks", f"{own_module}:Twice", "--difficulty", "2", "--examples", "1")
    assert code == 0
    assert "own_tasks:Twice: difficulty 1 to 4, 4 token ids" in text
    assert "unknown distinct problems" in text
    assert "a a > a a a a ." in text


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
