"""Text of an attacker in every field that reaches a page or a figure stays text."""

from __future__ import annotations

import functools
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.text import Text

from experiments import figures
from experiments.analysis import optimum
from experiments.analysis.optimum import Study
from experiments.analysis.regret import compare, judge
from experiments.figures import style
from experiments.pages import gallery, report
from tests.experiments.certificate_tables import certificate_table, complexity_table
from tests.experiments.worlds import CONFIG, synthetic_table, world, write_run

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'
LONG = "a" * 100_000
BIDI = "abc\u202edcba\u2066"
TEXTS = {
    "script": SCRIPT,
    "image": IMAGE,
    "ampersand": "&lt;b&gt; & &#60;",
    "template": "{{7*7}}{% raw %}",
    "mathematics": "$x^2$ \\unknown{ $\\frac{1$",
    "markup": "[/b][bold]",
    "long": LONG,
    "bidi": BIDI,
    "control": "\0\x1b[31m\x9b",
}
VOID = {"meta", "link", "img", "br"}
OWN = (
    "bound_over_families",
    "difficulty_measures",
    "fidelity",
    "learning_curves",
    "moves",
    "scan_gains",
    "strengths",
)
"""Figures of tables without names that others choose."""

# A figure that only some tables have (`applies`) draws no names that others choose.
NAMES_OF_FIGURES = [
    name
    for name, figure in figures.FIGURES.items()
    if name not in OWN and not hasattr(figure, "applies")
]


class Elements(HTMLParser):
    """Tags of a page with their attributes; checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def assert_no_element_of_an_attack(path: Path, text: str, *, scripts: int) -> Elements:
    """The page has its own scripts and images alone, and shows the attack as text."""
    written = path.read_text(encoding="utf-8")
    assert not any(character in written for character in "\u202e\u2066\0\x1b")
    page = Elements(written)
    assert sum(tag == "script" for tag, _ in page.found) == scripts
    for tag, attributes in page.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/")
    shown = re.sub("[\u202e\u2066\0\x1b\x9b]", "\ufffd", text)
    assert shown in "".join(page.text)
    return page


def hostile_manifest(text: str) -> dict[str, Any]:
    """A manifest with a text in each field, as a value and as a name, at every depth."""
    session = {"commit": text, "device": text, "versions": {text: text, "jax": text}}
    return {
        "recipe": text,
        "preset": text,
        "status": text,
        "config": {text: {"deep": [{text: [text, text]}, text]}, "task": text, "list": [text]},
        "sessions": [session, text],
        text: text,
    }


def small_table() -> Any:
    return synthetic_table({8: 2, 32: 3}, difficulties=(2, 3), num_bases=1, num_seeds=2)


def renamed(table: Any, text: str) -> Any:
    """A table with a text in place of each name, but for the rows of bases."""
    trained = table["train_mixture"] != "none"
    attack = dict.fromkeys(("train_mixture", "loss", "compute"), text)
    shared = dict.fromkeys(("task", "base", "data_unit"), text)
    changed = table.assign(**shared)
    for name, value in attack.items():
        changed[name] = changed[name].mask(trained, value)
    return changed


@pytest.mark.parametrize("kind", TEXTS)
def test_report_shows_an_attack_as_text(kind, tmp_path):
    text = TEXTS[kind]
    table = renamed(small_table(), text)
    certificates = certificate_table(levels=(4,), sizes=(64,)).assign(method=text)
    # File names of figures reach the page as well; a name has no slash and at most 255 bytes.
    name = text.replace("/", "").replace("\0", "")[:200] or "x"
    picture = tmp_path / f"{name}.png"
    picture.write_bytes(b"\x89PNG")
    path = report.write_report(
        tmp_path, {"table": table, "certificates": certificates}, hostile_manifest(text), [picture]
    )
    page = assert_no_element_of_an_attack(path, text, scripts=1)
    assert sum(tag == "img" for tag, _ in page.found) == 1


@pytest.mark.parametrize("kind", TEXTS)
def test_gallery_shows_an_attack_as_text(kind, tmp_path, monkeypatch):
    text = TEXTS[kind]
    # A table of `sweetspot compare`: names of families and task options come from files.
    table = renamed(small_table(), text).assign(task="parity", family=text, base_hardest=2)
    table.to_parquet(tmp_path / "families.parquet", index=False)
    manifest = {"families": {text: {"config": {"task_options": {text: text}}}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    # What the page draws itself is not at stake, and costs seconds.
    examples = [gallery.Shown(1, text, text)]
    monkeypatch.setattr(
        gallery,
        "exhibit",
        lambda name, task, recorded: gallery.Exhibit(text, 1, 1, examples, [], recorded),
    )
    path = gallery.write_gallery(tmp_path / "gallery.html", ["parity"], [tmp_path])
    assert_no_element_of_an_attack(path, text, scripts=0)


def test_a_lone_surrogate_and_endless_nesting_in_a_manifest(tmp_path):
    table = {"table": small_table()}
    path = report.write_report(tmp_path, table, {"recipe": "\ud800", "preset": "p"}, [])
    assert "sweetspot report · \ufffd · p</p>" in path.read_text(encoding="utf-8")
    nested: dict[str, Any] = {}
    for _ in range(400):
        nested = {"a": nested}
    with pytest.raises(ValueError, match="nested too deeply"):
        report.write_report(tmp_path, table, {"config": nested}, [])


@functools.cache
def judged() -> dict[str, Any]:
    runs = {"first": (world(), CONFIG)}
    return {"regret": judge(runs), "prediction": compare(runs, replicates=50)}


def tables_with(name: str, text: str) -> dict[str, Any]:
    """Tables of a figure, with a text in place of each name in them."""
    table = renamed(small_table(), text)
    certificates, complexity = certificate_table(), complexity_table()
    one = complexity["method"] == complexity["method"].iloc[0]
    of_families = table.assign(family=text, base_hardest=2)
    known = {
        "table": table,
        "families": of_families,
        "certificates": certificates.loc[certificates["method"] == "gains"].assign(
            method=text, prior=text, train_mixture=text
        ),
        "complexity": complexity.loc[one].assign(method=text),
    }
    needed = figures.FIGURES[name].TABLES
    if name in ("regret", "predicted_optimum"):
        table = judged()[needed[0]]
        known[needed[0]] = table.assign(run=text, study=text)
        if "rule" in table:
            known[needed[0]]["rule"] = text + table["rule"]
    return {each: known[each] for each in needed}


@pytest.mark.parametrize("kind", ["mathematics", "long", "bidi"])
@pytest.mark.parametrize("name", NAMES_OF_FIGURES)
def test_figure_draws_an_attack_as_text(name, kind):
    figure = figures.FIGURES[name].plot(tables_with(name, TEXTS[kind]))
    with matplotlib.rc_context(style.settings()):
        figure.savefig(io.BytesIO(), format="svg")
    texts = [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]
    assert max(map(len, texts)) <= style.MOST_LINES * (style.MOST_CHARACTERS + 2)
    assert not any("\u202e" in text for text in texts)


@pytest.mark.parametrize(
    ("column", "nonsense", "said"),
    [
        ("difficulty", "<b>two</b>", "difficulty must hold whole numbers"),
        ("data_size", -1, "data_size must lie between 0 and 2"),
        ("value", "much", "value must hold numbers"),
        ("loss", 3, "loss must hold text"),
        ("seed", None, "seed has no value in"),
    ],
)
def test_a_table_that_is_nonsense_is_refused_with_one_line(
    column, nonsense, said, sweetspot, tmp_path
):
    run = write_run(tmp_path / "run", small_table().assign(**{column: nonsense}))
    for command in ("report", "figures", "compare", "recommend"):
        words = ["--data-size", "100", run] if command == "recommend" else [run]
        code, printed = sweetspot(
            command, *words, *(["--out", tmp_path / "x"] * (command == "compare"))
        )
        assert code == 2, printed
        assert said in printed
        assert "Traceback" not in printed
        assert len(printed.splitlines()) == 1


def test_nonsense_that_no_check_knows_is_one_line_as_well(sweetspot, tmp_path):
    certificate_table().drop(columns="method").to_parquet(tmp_path / "certificates.parquet")
    code, printed = sweetspot("figures", tmp_path)
    assert code == 2, printed
    assert "cannot be shown: its tables or its manifest are not as a run writes them" in printed
    assert len(printed.splitlines()) == 1


def test_errors_name_few_of_many_cells_and_no_text_is_endless(sweetspot, tmp_path):
    table = small_table()
    trained = table["train_mixture"] != "none"
    many = table.assign(data_size=table["data_size"].mask(trained, range(len(table))))
    code, printed = sweetspot("report", write_run(tmp_path / "run", many))
    assert code == 2, printed
    assert "and others" in printed
    assert len(printed) < 1000
    huge = table.assign(seed=range(len(table)), base_seed=range(len(table)))
    with pytest.raises(ValueError, match="a cell must have at most 20,000 members"):
        optimum.cube(huge, Study("range"), "test_risk")
    code, printed = sweetspot("report", tmp_path / ("\x1b[31m" + "a" * 100))
    assert code == 2, printed
    assert "\x1b" not in printed
