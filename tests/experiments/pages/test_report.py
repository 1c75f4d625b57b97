"""The report: its structure by an HTML parser, its look and its sorter in a browser (slow)."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import figures
from experiments.analysis import optimum
from experiments.analysis.contrasts import Contrast, Term
from experiments.analysis.optimum import Study
from experiments.analysis.statistics import Interval
from experiments.pages import report
from experiments.pages.tables import csv_address
from experiments.pages.task_words import task_words
from experiments.recipes import RECIPES
from tests.experiments.certificate_tables import certificate_table

MANIFEST = {
    "recipe": "tradeoff",
    "preset": "smoke <b>not bold</b>",
    "config": {"difficulties": [4, 6, 8], "decoder": {"width": 32, "num_layers": 2}},
    "master_seed": 0,
    "sessions": [
        {
            "versions": {"jax": "0.10.2"},
            "device": "cpu",
            "commit": "abc123",
            "wall_time_seconds": 61.5,
        }
    ],
    "status": "complete",
}
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="session")
def page_path(two_studies, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    paths = figures.draw({"table": two_studies}, directory / "figures")
    return report.write_report(directory, {"table": two_studies}, MANIFEST, paths)


def test_page_is_whole_and_self_contained(page_path):
    text = page_path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    drawings = page.attributes("svg")
    assert len(drawings) == 8
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    assert "http://" not in text
    assert "https://" not in text
    assert [link["href"] for link in page.attributes("link")] == ["data:,"]
    assert not any("src" in script for script in page.attributes("script"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert set(used) <= set(ids)
    files = [a for a in page.attributes("a") if not (a["href"] or "").startswith("#")]
    assert [a["download"] for a in files] == ["advice.csv", "headline.csv", "cells.csv"]
    assert all((a["href"] or "").startswith("data:text/csv;base64,") for a in files)


def test_the_answer_stands_before_the_figures_and_these_in_the_order_of_the_argument(page_path):
    text = page_path.read_text(encoding="utf-8")
    places = [
        text.index(mark)
        for mark in (
            'id="verdict"',
            'id="advice"',
            "What was asked",
            'id="figure-map"',
            'id="figure-optimum_over_size"',
            'id="headline"',
            'id="figure-gaps"',
            'id="cells"',
            'id="provenance"',
        )
    ]
    assert places == sorted(places)
    page = Page(text)
    assert "Test accuracy over difficulty and amount of data" in page.text
    assert "sweetspot run tradeoff --preset smoke" in page.text
    assert "In this run: trained on 1..d, the most accurate cell is d = " in page.text
    assert "<title>trained on" in text


def test_advice_names_levels_and_the_gain(make_table):
    found = report.advice(make_table({16: 6, 64: 8}))
    assert found["n"].tolist() == [16, 64]
    assert "6" in found["train on d ="][0]
    assert found["points above the base"].str.match(r"[+-]\d+\.\d \[|–").all()


def test_the_task_is_told_with_an_example():
    told = task_words({"task": "chain-running", "task_options": {}, "test_hardest": 9})
    assert told is not None
    assert told["difficulty"] == 3
    assert told["problem"].startswith("|")
    assert told["solution"].endswith(".")
    assert "difficulty" in told["text"]
    # A name that would import code, and options that do not fit.
    assert task_words({"task": "os:system"}) is None
    assert task_words({"task": "chain-running", "task_options": {"wrong": 1}}) is None
    assert task_words({}) is None
    # A damaged manifest.
    for config in (None, ["task"], "task", {"task": ["chain-running"]}):
        assert task_words(config) is None


def test_csv_has_the_ends_of_intervals_as_numbers():
    frame = pd.DataFrame({"d": [4, 6], "risk": [Interval(0.5, 0.4, 0.6), Interval(0.2, 0.1, 0.3)]})
    address = csv_address(frame)
    read = pd.read_csv(io.BytesIO(base64.b64decode(address.split(",", 1)[1])))
    assert read.columns.tolist() == ["d", "risk mean", "risk low", "risk high"]
    assert read.to_numpy().tolist() == [[4, 0.5, 0.4, 0.6], [6, 0.2, 0.1, 0.3]]


def test_page_says_what_is_in_the_data_and_the_manifest(page_path):
    page = Page(page_path.read_text(encoding="utf-8"))
    assert "Whether the best difficulty moves to harder data is undecided" in page.text
    assert "6.0 [" in page.text
    for value in ("abc123", "0.10.2", "61.5", "num layers", "4, 6, 8"):
        assert value in page.text
    # Escaped: markup from a manifest is text, not an element.
    assert "smoke <b>not bold</b>" in page.text
    assert not page.attributes("b")
    assert "not complete" not in page.text


def test_partial_run_and_png_only(smoke_study, tmp_path):
    (path, _) = figures.draw({"table": smoke_study}, tmp_path, ["gaps"])
    written = report.write_report(tmp_path, {"table": smoke_study}, {"status": "running"}, [path])
    page = Page(written.read_text(encoding="utf-8"))
    assert "This run is not complete (status: running)" in page.text
    assert (page.attributes("img")[0]["src"] or "").startswith("data:image/png;base64,")


def test_errors(smoke_study, tmp_path):
    with pytest.raises(ValueError, match="'table' is needed, got \\['other'\\]"):
        report.write_report(tmp_path, {"other": smoke_study}, {}, [])
    with pytest.raises(ValueError, match=r"must end in one of \['.svg', '.png'\]"):
        report.write_report(tmp_path, {"table": smoke_study}, {}, [Path("figure.pdf")])


def test_verdict_follows_the_data(make_table):
    still = optimum.shift(make_table({16: 8, 64: 8}), Study("range"))
    assert "does not move" in report.verdict(still)[1]


def test_where_all_levels_fail_alike_none_is_best(make_table):
    table = make_table({16: 8, 64: 8})
    small = table["data_size"] == 16
    table.loc[small & (table["metric"] == "test_risk"), "value"] = 1.0
    moved = optimum.shift(table, Study("range"))
    assert moved.smallest.tied
    assert "At n = 16 no level can be told" in report.verdict(moved)[1]
    best = optimum.headline(table).set_index("data_size")["optimum"]
    assert (best[16], str(best[64]).split()[0]) == ("none", "8.0")


def test_cells_table_counts_the_missing(make_table):
    cells = report.cells(make_table(diverged=((6, 16, 0, 0),)))
    assert len(cells) == 20
    assert sum(cells["num_missing"]) == 1
    # From level 1 on there are no easier levels.
    assert {str(each) for each in cells["risk, levels easier than the mixture"]} == {"–"}


def test_predictions_of_the_recipe_have_a_section(smoke_study, page_path, tmp_path, monkeypatch):
    assert "predictions-title" not in page_path.read_text(encoding="utf-8")
    manifest = {"recipe": "paper-protocol", "preset": "smoke"}
    cell = smoke_study.loc[smoke_study["train_mixture"] == "range"].iloc[0]
    term = Term(1, int(cell["difficulty"]), int(cell["data_size"]), mixture="range")
    predicted = Contrast(1, "what is compared", (term,))
    monkeypatch.setattr(RECIPES["paper-protocol"], "PREREGISTERED", (predicted,))
    written = report.write_report(tmp_path, {"table": smoke_study}, manifest, [])
    text = Page(written.read_text(encoding="utf-8")).text
    assert "Predictions written down before the run" in text
    assert "what is compared" in text


def test_certificates_have_a_section_where_there_are_any(smoke_study, page_path, tmp_path):
    certificates = certificate_table(levels=(4, 6), sizes=(64,), methods=("base", "gains"))
    tables = {"table": smoke_study, "certificates": certificates}
    text = report.write_report(tmp_path, tables, {}, []).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert "all bounds hold at once with probability 0.95: δ = 0.05 = 6 claims" in page.text
    assert "certificates-title" in text
    assert "certificates-title" not in page_path.read_text(encoding="utf-8")
    rows = report.certificates(certificates)
    # No posterior is trained at level 4.
    assert rows[["difficulty", "method"]].to_numpy().tolist() == [
        [4, "base"],
        [6, "base"],
        [6, "gains"],
    ]
    means = certificates.loc[certificates["difficulty"] == 4, ["risk_bound", "test_risk"]].mean()
    assert rows["risk bound"][0] == round(means["risk_bound"], 3)
    assert rows["measured test risk"][0] == round(means["test_risk"], 3)


def serious(page: Any) -> list[str]:
    """Rules of axe that a page breaks, of those that it calls serious or critical."""
    axe = Path(pytest.importorskip("axe_playwright_python").__file__).parent / "axe.min.js"
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.slow
def test_page_in_a_browser(page_path):
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("needs /usr/bin/chromium")
    problems: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900}, offline=True)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_path.as_uri())
        heading = page.get_by_role("heading", level=1).inner_text()
        assert heading == "How hard should the training data be?"
        verdict = page.locator("#verdict")
        assert verdict.get_by_text("moves to harder data is undecided").first.is_visible()
        images = page.locator("figure svg[role=img]")
        assert images.count() == 8
        for index in range(6):
            box = images.nth(index).bounding_box()
            assert box is not None
            assert box["width"] > 300
            assert box["height"] > 150

        def column(position: int) -> list[float]:
            cells = page.locator(f"#cells tbody td:nth-child({position + 1})")
            return [float(text.split()[0]) for text in cells.all_inner_texts()]

        headers = [text.strip(" ↕↑↓") for text in page.locator("#cells th").all_inner_texts()]
        position = headers.index("test risk")
        button = page.locator("#cells th button").nth(position)
        button.click()
        assert column(position) == sorted(column(position))
        button.click()
        assert column(position) == sorted(column(position), reverse=True)
        # Narrow: only tables and figures scroll sideways, the page does not.
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            first = verdict.locator("p").first.bounding_box()
            assert first is not None
            assert first["y"] + first["height"] < 900
            assert serious(page) == []
            shot = page_path.parent / f"report_{scheme}_{width}.png"
            page.screenshot(path=shot, full_page=True)
            assert shot.stat().st_size > 50_000
        # Printed, on the width of A4 across less margins: every table fits.
        page.set_viewport_size({"width": 1047, "height": 700})
        page.emulate_media(media="print", color_scheme="light")
        widths = page.eval_on_selector_all(
            "table", "tables => tables.map(t => [t.scrollWidth, t.parentElement.clientWidth])"
        )
        assert len(widths) == 3
        assert all(table <= place + 1 for table, place in widths)
        assert asked == [page_path.as_uri()]
        browser.close()
    assert problems == []
