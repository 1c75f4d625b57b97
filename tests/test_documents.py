"""README and docs/ as a new user reads them: code runs, links lead somewhere, tables are fresh."""

import doctest
import functools
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments.analysis.families import write_families
from experiments.cli import main as cli
from experiments.pages import documents
from experiments.storage.results import read_table
from synth.task import Mixture, pool
from synth.tasks import make_task
from tests.experiments.worlds import MOVING, synthetic_table, write_run
from tests.test_imports import FLOORS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXTS = {path: path.read_text(encoding="utf-8") for path in documents.documents()}
PAGES = [path for path in TEXTS if path != README]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
LINKED = {**TEXTS, CONTRIBUTING: CONTRIBUTING.read_text(encoding="utf-8")}
"""Documents whose links are followed."""


def blocks(language: str, text: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for name, code in fenced if name == language]


def block(language: str, containing: str) -> str:
    """The one fenced block of a language, in any document, that contains a text."""
    (only,) = [
        code for text in TEXTS.values() for code in blocks(language, text) if containing in code
    ]
    return only


def anchors(text: str) -> set[str]:
    """Names by which the headings of a document can be linked to."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sweetspot_commands() -> list[str]:
    """Every command line of sweetspot in the documents, comments and environment left out."""
    scripts = [code for text in TEXTS.values() for code in blocks("bash", text)]
    lines = [line for code in scripts for line in code.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if "sweetspot " in line]
    return sorted(shlex.join(words[words.index("sweetspot") + 1 :]) for words in commands)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the documents' own task in it, importable."""
    (tmp_path / "my_task.py").write_text(block("python", "my_task.py"))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_task", None)


@pytest.mark.parametrize(
    "path", [path for path in TEXTS if blocks("pycon", TEXTS[path])], ids=name_of
)
def test_python_session(path: Path) -> None:
    """All sessions of a document are one: a later block uses what an earlier one defines."""
    session = "\n".join(blocks("pycon", TEXTS[path]))
    parsed = doctest.DocTestParser().get_doctest(session, {}, path.stem, str(path), 0)
    runner = doctest.DocTestRunner()
    runner.run(parsed)
    assert runner.summarize().attempted >= 5
    assert runner.summarize().failed == 0


def test_known_sessions_are_run() -> None:
    sessions = {path.name for path in TEXTS if blocks("pycon", TEXTS[path])}
    assert sessions == {"python.md", "tasks.md"}


def test_a_sweep_takes_forty_lines() -> None:
    (sweep,) = re.findall(
        r"## A sweep in forty lines.*?(?=^## )", TEXTS[ROOT / "docs/python.md"], re.S | re.M
    )
    lines = [line for code in blocks("pycon", sweep) for line in code.splitlines()]
    code = [line for line in lines if line.startswith((">>> ", "... ")) and "import" not in line]
    assert 30 < len(code) <= 40


@pytest.fixture(scope="module")
def filled() -> dict[Path, str]:
    return documents.filled(TEXTS)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_generated_parts_are_up_to_date(path: Path, filled: dict[Path, str]) -> None:
    assert filled[path] == TEXTS[path]


@pytest.mark.parametrize("name", documents.PARTS)
def test_each_part_has_one_place(name: str) -> None:
    places = [path for path, text in TEXTS.items() if f"<!-- begin:{name} -->" in text]
    assert len(places) == 1


def test_task_without_a_word_on_its_length_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = inspect.getmodule(make_task("chain").__class__)
    monkeypatch.setattr(chain, "__doc__", "A chain.\n\nKnob: operations. It grows.\n")
    with pytest.raises(ValueError, match=r"synth\.tasks\.chain must say 'Knob: what it is"):
        documents.tasks()


def test_families_wait_for_their_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "FAMILIES", tmp_path / "families")
    assert documents.family_verdicts() == ""
    run = write_run(tmp_path / "ours", synthetic_table(MOVING, num_bases=2, num_seeds=2))
    write_families([run], tmp_path / "families")
    text = documents.family_verdicts()
    assert "| ours | " in text
    assert "- **ours**: Whether the best difficulty moves to harder data is undecided: " in text
    assert "](families/figures/families_map.png)" in text


def test_missing_part_is_named() -> None:
    with pytest.raises(ValueError, match="begin:headline"):
        documents.filled({README: "no parts here"})


def a_place(name: str) -> str:
    return f"Before.\n<!-- begin:{name} -->\nold\n<!-- end:{name} -->\nAfter.\n"


def test_a_part_in_two_places_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PARTS", {"one": lambda: "new"})
    with pytest.raises(ValueError, match=r"begin:one to end:one.* got 2"):
        documents.filled({README: a_place("one"), ROOT / "docs" / "a.md": a_place("one")})


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PARTS", {"one": lambda: "new"})
    with pytest.raises(ValueError, match=r"places for \['two'\], the parts are \['one'\]"):
        documents.filled({README: a_place("one") + a_place("two")})


def test_paths_in_a_part_are_relative_to_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    part = "![A picture](experiments/a.png), [a page](https://b.c/d), [a section](#e)\n"
    monkeypatch.setattr(documents, "PARTS", {"one": lambda: part, "two": lambda: part})
    page = ROOT / "docs" / "a.md"
    texts = documents.filled({README: a_place("one"), page: a_place("two")})
    assert texts[README] == a_place("one").replace("old\n", part)
    moved = part.replace("(experiments/", "(../experiments/")
    assert texts[page] == a_place("two").replace("old\n", moved)


@pytest.mark.parametrize("path", LINKED, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", LINKED[path]):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), link


def test_pictures_are_shown() -> None:
    pictures = [
        picture for text in TEXTS.values() for picture in re.findall(r"!\[[^]]+\]\((.+)\)", text)
    ]
    assert len(pictures) >= 5
    assert len(set(map(os.path.basename, pictures))) >= 15


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the commands that a command line asks for; none of them does anything."""
    names = []

    def idle(command: Any) -> Any:
        @functools.wraps(command)
        def note(*arguments: Any, **named: Any) -> None:
            names.append(command.__name__)

        return note

    def all_idle(tree: Any) -> Any:
        return {
            name: all_idle(each) if isinstance(each, dict) else idle(each)
            for name, each in tree.items()
        }

    commands = cli.commands
    monkeypatch.setattr(cli, "commands", lambda arguments: all_idle(commands(arguments)))
    # tyro calls these two for their value while it parses.
    monkeypatch.setattr("experiments.igsm.export.export_igsm", lambda *_, **__: {"files": {}})
    monkeypatch.setattr("experiments.pages.gallery.write_gallery", lambda *_, **__: "gallery.html")
    return names


@pytest.mark.parametrize("line", sweetspot_commands())
def test_a_command_of_the_documents_is_accepted(line: str, called: list[str]) -> None:
    arguments = shlex.split(line)
    cli.run(arguments)
    assert len(called) == 1


def test_a_wrong_flag_would_be_found(called: list[str]) -> None:
    arguments = ["report", "--result", "runs/x"]
    with pytest.raises(SystemExit):
        cli.run(arguments)
    assert called == []


def test_readme_is_short() -> None:
    assert len(TEXTS[README].splitlines()) <= 190


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_page_begins_with_its_contents_and_the_way_back(path: Path) -> None:
    title, first, *_ = TEXTS[path].split("\n\n")
    assert re.fullmatch(r"# .+", title)
    assert first.startswith("This page ")
    assert "](../README.md)" in first
    assert f"](docs/{path.name})" in TEXTS[README]


def test_the_tree_of_the_house_is_the_one_that_stands() -> None:
    (tree,) = [text for text in blocks("", TEXTS[README]) if text.startswith("synth/")]
    folders: list[str] = []
    paths = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], line.split()[0]]
        paths.append("".join(folders))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    packages = {
        f"{path.parent.relative_to(ROOT)}/" for path in ROOT.glob("experiments/*/__init__.py")
    }
    assert packages <= set(paths)


def test_contributing_states_the_floors() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", LINKED[CONTRIBUTING], re.M)
    stated = {int(floor): tuple(re.findall(r"`([\w/]+)`", folders)) for floor, folders in rows}
    names = [tuple(name.replace(".", "/") for name in folders) for folders in FLOORS]
    assert stated == dict(enumerate(names, start=1))


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
