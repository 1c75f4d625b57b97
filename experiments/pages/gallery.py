"""One self-contained HTML page that shows every task: description, examples, sizes, accuracies.

Everything on it comes from code: the words from the docstring of the task's module, examples and
lengths from draws, and accuracies from tables that recorded runs wrote. The template is
`gallery.html.jinja` beside this module.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from experiments.analysis import optimum
from experiments.pages.page import write_page
from experiments.storage.results import ResultsError, read_manifest, read_tables
from synth.task import PADDING, Mixture, Task, pool, prompt_keys
from synth.tasks import TASKS, make_task

DRAWS = 64
"""Examples at each level: for mean lengths, and distinct problems where their number is unknown."""


@dataclass(frozen=True)
class Recorded:
    """A recorded run of one task: accuracy by test level.

    Attributes:
      name: of the run, or of the family in a table of several.
      options: fields of the task that the run set, such as " (modulus 7)"; empty if none.
      base: mean accuracy of the bases by level; empty if they were not recorded.
      best: that of the members of the best cell.
      cell: the best cell, in words.
    """

    name: str
    options: str
    base: dict[int, float]
    best: dict[int, float]
    cell: str


@dataclass(frozen=True)
class Shown:
    """One example, as text."""

    difficulty: int
    problem: str
    solution: str


@dataclass(frozen=True)
class Level:
    """One row of a task's table: mean and longest length in tokens, and distinct problems."""

    difficulty: int
    mean_tokens: float
    most_tokens: int
    problems: Markup


@dataclass(frozen=True)
class Exhibit:
    """One task on the page."""

    name: str
    hardest: int
    num_tokens: int
    examples: list[Shown]
    levels: list[Level]
    recorded: list[Recorded]

    @property
    def rows(self) -> list[tuple[int, Level | None]]:
        """Every difficulty that was drawn or tested; None beyond the task's default range."""
        levels: dict[int, Level] = {level.difficulty: level for level in self.levels}
        tested = {level for run in self.recorded for level in (*run.base, *run.best)}
        return [(level, levels.get(level)) for level in sorted(levels.keys() | tested)]


@dataclass(frozen=True)
class Section:
    """A module's docstring, and the tasks that are made from it."""

    title: str
    text: Markup
    exhibits: list[Exhibit]


def write_gallery(
    path: Path,
    names: Sequence[str] = tuple(TASKS),
    directories: Sequence[Path] = (),
    *,
    report: Callable[[str], object] = lambda name: None,
) -> Path:
    """Write the page.

    Args:
      path: the HTML file.
      names: tasks to show, as in `synth.tasks.make_task`.
      directories: recorded runs, and tables of several runs as `experiments.analysis.families`
        writes them.
      report: called with each task's name before work on it starts.

    Returns:
      The path.

    Raises:
      ResultsError: if a directory has neither kind of table.
      ValueError: if a name is not a task, or given twice.
    """
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"names must be distinct tasks, got {list(names)}")
    tasks = {name: make_task(name) for name in names}
    tables = [table for directory in directories for table in recorded_tables(directory)]
    sections: dict[str, Section] = {}
    for name, task in tasks.items():
        report(name)
        recorded = [
            accuracies(run, options, table, name)
            for run, options, table in tables
            if optimum.studies(table.loc[table["task"] == name])
        ]
        shown = exhibit(name, task, recorded)
        module = type(task).__module__
        title, text = description(task)
        sections.setdefault(module, Section(title, text, [])).exhibits.append(shown)
    content = {"sections": list(sections.values()), "draws": DRAWS}
    return write_page(Path(path), "gallery.html.jinja", **content)


def exhibit(name: str, task: Task, recorded: list[Recorded]) -> Exhibit:
    """Draw a task's examples, its lengths and its numbers of problems."""
    levels = []
    for difficulty in range(1, task.hardest + 1):
        drawn = pool(task, jax.random.key(0), Mixture.exact(difficulty), DRAWS)
        mean = float(np.asarray(drawn.num_tokens).mean())
        problems = number(task.log_num_problems(difficulty), len(set(prompt_keys(drawn))))
        levels.append(Level(difficulty, mean, task.max_length(difficulty), problems))
    three = sorted({1, math.ceil(task.hardest / 3), math.ceil(2 * task.hardest / 3)})
    examples = [example(task, difficulty) for difficulty in three]
    return Exhibit(name, task.hardest, len(task.vocabulary), examples, levels, recorded)


def example(task: Task, difficulty: int) -> Shown:
    """The first draw at a difficulty."""
    drawn = pool(task, jax.random.key(0), Mixture.exact(difficulty), DRAWS)
    tokens, is_solution = np.asarray(drawn.tokens[0]), np.asarray(drawn.loss_mask[0])
    problem = task.decode(np.where(is_solution, PADDING, tokens).tolist())
    return Shown(difficulty, problem, task.decode(tokens[is_solution].tolist()))


def number(log_size: float | None, distinct: int) -> Markup:
    """Number of distinct problems in words: in digits up to a million, then as a power of ten.

    Args:
      log_size: its natural logarithm; None if it is unknown.
      distinct: distinct problems among the draws, which are told instead of an unknown number.
    """
    if log_size is None:
        return Markup("unknown <small>({} in {} draws)</small>").format(distinct, DRAWS)
    if log_size <= math.log(1e6):
        return Markup(f"{math.exp(log_size):,.0f}")
    return Markup(f"10<sup>{log_size / math.log(10):.1f}</sup>")


def recorded_tables(directory: Path) -> list[tuple[str, str, pd.DataFrame]]:
    """The result tables in a directory: that of a run, or one for each of its families.

    Returns:
      Name, task options in words (see `Recorded`) and rows of each.

    Raises:
      ResultsError: if there is none, or no manifest beside it.
    """
    tables = read_tables(Path(directory))
    parts: dict[str, pd.DataFrame] = {}
    manifests: dict[str, Any] = {}
    if "table" in tables:
        name = Path(directory).resolve().name
        parts, manifests = {name: tables["table"]}, {name: read_manifest(Path(directory))}
    elif "families" in tables:
        families = tables["families"].groupby("family", sort=False)
        parts = {str(family): rows for family, rows in families}
        manifests = read_manifest(Path(directory))["families"]
    if not parts:
        raise ResultsError(f"{directory} has neither table.parquet nor families.parquet")
    return [
        (name, _options(manifests[name]["config"].get("task_options", {})), rows)
        for name, rows in parts.items()
    ]


def _options(options: Mapping[str, Any]) -> str:
    """Options of a task in brackets."""
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in options.items())
    return f" ({words})" if words else ""


def accuracies(run: str, options: str, table: pd.DataFrame, task: str) -> Recorded:
    """Accuracy by test level of a task's bases, and of the cell with the least mean test risk."""
    # The cell of least mean test risk over all studies.
    rows = table.loc[table["task"] == task]
    cells = []
    for study in optimum.studies(rows):
        risk = optimum.cube(rows, study, "test_risk")
        level, size = np.unravel_index(np.nanargmin(risk.mean), risk.mean.shape)
        best = (int(risk.difficulties[level]), int(risk.data_sizes[size]))
        cells.append((float(risk.mean[level, size]), study, *best))
    _, study, difficulty, data_size = min(cells, key=lambda cell: cell[0])
    # Its members, and the bases.
    members = optimum.study_rows(rows, study)
    is_best = (members["difficulty"] == difficulty) & (members["data_size"] == data_size)
    is_base = rows["train_mixture"] == optimum.UNTRAINED
    return Recorded(
        run,
        options,
        _by_slice(rows.loc[is_base]),
        _by_slice(members.loc[is_best]),
        f"{study.title}, d = {difficulty}, n = {data_size:,}",
    )


def _by_slice(rows: pd.DataFrame) -> dict[int, float]:
    """Mean accuracy by test level."""
    risks = rows.loc[(rows["metric"] == "risk") & (rows["status"] == "ok")]
    means = risks.groupby("slice")["value"].mean()
    return {int(level): 1 - risk for level, risk in means.to_dict().items()}


def description(task: Task) -> tuple[str, Markup]:
    """Title and text from the docstring of a task's module, or of its class if that has none."""
    module = inspect.getmodule(type(task))
    return prose(inspect.getdoc(module) or inspect.getdoc(type(task)) or type(task).__name__)


def prose(text: str) -> tuple[str, Markup]:
    """A docstring's first line, and the rest as HTML: paragraphs, lists and literal blocks."""
    first, *blocks = re.split(r"\n\s*\n", inspect.cleandoc(text))
    title, _, rest = first.partition("\n")
    # A first line may go on with the knob: "What it is. Knob: …".
    title, dot, knob = title.partition(". Knob: ")
    if dot:
        rest = f"Knob: {knob}\n{rest}"
    made = []
    for block in [rest, *blocks] if rest.strip() else blocks:
        lines = block.splitlines()
        if all(line.startswith("    ") for line in lines):
            literal = escape("\n".join(line[4:] for line in lines))
            made.append(Markup("<pre>{}</pre>").format(literal))
        elif lines[0].startswith("- "):
            items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
            made.append(
                Markup("<ul>{}</ul>").format(
                    Markup("").join(Markup("<li>{}</li>").format(_inline(item)) for item in items)
                )
            )
        else:
            made.append(Markup("<p>{}</p>").format(_inline(block)))
    return title.rstrip("."), Markup("\n").join(made)


def _inline(text: str) -> Markup:
    """One paragraph: names in code type, mathematics in italics, a heading word in bold."""
    text = str(escape(" ".join(text.split())))
    text = re.sub(r":math:`(\w)_(\w)`", r"<var>\1<sub>\2</sub></var>", text)
    text = re.sub(r"``(.+?)``|`(.+?)`", lambda name: f"<code>{name[1] or name[2]}</code>", text)
    text = re.sub(r"^(Knob|What is known|Worked examples?)\b", r"<strong>\1</strong>", text)
    return Markup(re.sub(r"::$", ":", text))
