"""The README as a new user reads it: its code runs, its generated parts are up to date."""

import doctest
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.analysis.families import write_families
from experiments.pages import readme
from experiments.storage.results import read_table
from synth.task import Mixture, pool
from synth.tasks import make_task
from tests.experiments.conftest import MOVING, synthetic_table
from tests.experiments.worlds import write_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The one fenced block of a language that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the README's own task in it, importable."""
    (tmp_path / "my_task.py").write_text(block("python", "my_task.py"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_task", None)


@pytest.mark.parametrize("containing", ["make_task", "CATEGORIES"])
def test_python_session(containing: str) -> None:
    session = block("pycon", containing)
    parsed = doctest.DocTestParser().get_doctest(session, {}, "README", "README.md", 0)
    runner = doctest.DocTestRunner()
    runner.run(parsed)
    assert runner.summarize().attempted >= 5
    assert runner.summarize().failed == 0


def test_generated_parts_are_up_to_date() -> None:
    assert readme.filled(README) == README


def test_task_without_a_word_on_its_length_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = inspect.getmodule(make_task("chain").__class__)
    monkeypatch.setattr(chain, "__doc__", "A chain.\n\nKnob: operations. It grows.\n")
    with pytest.raises(ValueError, match=r"synth\.tasks\.chain must say 'Knob: what it is"):
        readme.tasks()


def test_families_wait_for_their_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "FAMILIES", tmp_path / "families")
    assert readme.family_verdicts() == ""
    run = write_run(tmp_path / "ours", synthetic_table(MOVING, num_bases=2, num_seeds=2))
    write_families([run], tmp_path / "families")
    text = readme.family_verdicts()
    assert "| ours | " in text
    assert "- **ours**: The best level moves to harder data: " in text
    assert "](families/figures/families_map.png)" in text


def test_missing_part_is_named() -> None:
    with pytest.raises(ValueError, match="begin:headline"):
        readme.filled("no parts here")


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 5
    assert [path for path in pictures if not (ROOT / path).is_file()] == []


def test_own_task_draws_what_it_says(own_task: Path) -> None:
    task = make_task("my_task:RunningSum", hardest=6)
    drawn = pool(task, jax.random.key(0), Mixture.up_to(6), 20)
    for tokens, loss_mask, difficulty in zip(
        np.asarray(drawn.tokens), np.asarray(drawn.loss_mask), np.asarray(drawn.difficulty),
        strict=True,
    ):  # fmt: skip
        problem, solution = tokens[~loss_mask], tokens[loss_mask]
        *digits, colon = task.decode(problem).split()
        assert (colon, len(digits)) == (":", difficulty)
        sums = np.cumsum([int(digit) for digit in digits]) % 10
        expected = [text for pair in zip(digits, sums, strict=True) for text in pair]
        assert task.decode(solution).split() == [*map(str, expected), "."]


@pytest.mark.slow
def test_own_task_runs_from_the_command_line(own_task: Path) -> None:
    commands = block("bash", "my_task:RunningSum").replace("--preset demo", "--preset smoke")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=own_task,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10^" not in done.stdout  # this task does not know how many problems it has
    assert set(read_table(own_task / "runs" / "mine")["task"]) == {"my_task:RunningSum"}
