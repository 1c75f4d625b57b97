"""The gallery: what it says of a task, where its accuracies come from, its look in a browser."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from experiments.analysis import families, optimum
from experiments.pages import gallery
from experiments.pages.gallery import Level, Recorded
from experiments.storage.results import ResultsError
from synth.tasks import TASKS, make_task
from tests.experiments.pages.test_report import Page
from tests.experiments.worlds import CONFIG, MOVING, synthetic_table, write_run


@pytest.fixture(scope="module")
def table():
    return synthetic_table(MOVING, num_bases=2, num_seeds=2).assign(task="chain-running")


@pytest.fixture(scope="module")
def runs(table, tmp_path_factory) -> tuple[Path, Path]:
    """A run, and a table of several families, one of them of the same task."""
    directory = tmp_path_factory.mktemp("runs")
    config = dataclasses.replace(CONFIG, task_options={"modulus": 7, "num_symbols": 30})
    run = write_run(directory / "study", table, config)
    other = write_run(directory / "elsewhere", table.assign(task="other"))
    families.write_families([run, other], directory / "both")
    return run, directory / "both"


@pytest.fixture(scope="module")
def page_path(runs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "gallery.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "DRAWS", 8)
        return gallery.write_gallery(path, ["chain-running", "igsm-terse"], runs)


def test_page_is_whole_and_self_contained(page_path):
    text = page_path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert "http://" not in text
    assert "https://" not in text
    assert [link["href"] for link in page.attributes("link")] == ["data:,"]
    assert not page.attributes("script")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert ids == ["chain-running", "igsm-terse"]
    assert [(a["href"] or "").removeprefix("#") for a in page.attributes("a")] == ids


def test_page_shows_examples_and_numbers(page_path):
    text = page_path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.text.count("Difficulty 1\n") + page.text.count("Difficulty 4\n") >= 4
    # Five start values and fifteen pairs of operator and constant.
    assert ">75</td>" in text
    assert ">1,125</td>" in text
    assert text.count(">unknown <small>(8 in 8 draws)</small></td>") > 8
    assert "accuracy of the bases" in page.text
    assert page.text.count("run study (modulus 7, num symbols 30)") == 2
    assert "run study: trained on 1..d, d = 10, n = 1,024" in page.text
    assert page.text.count("No recorded run of this task was given.") == 1


def test_accuracies_are_those_of_the_table(table):
    run = gallery.accuracies("study", "", table, "chain-running")
    (study,) = optimum.studies(table)
    for level in (1, 7, 20):
        best = optimum.cube(table, study, "risk", test_slice=level).mean
        position = (list(range(4, 13, 2)).index(10), 3)
        assert run.best[level] == pytest.approx(1 - best[position])
        base = optimum.cube(table, study.untrained, "risk", test_slice=level).mean
        assert run.base[level] == pytest.approx(1 - base.item())


def test_families_are_found_beside_runs(runs):
    names = [name for run in runs for name, _, _ in gallery.recorded_tables(run)]
    assert names == ["study", "study", "elsewhere"]


def test_levels_beyond_the_default_range_are_kept():
    level = Level(1, 3.0, 4, gallery.number(0.0, 1))
    run = Recorded("run", "", {1: 1.0, 2: 0.5}, {3: 0.1}, "cell")
    shown = gallery.Exhibit("task", 1, 5, [], [level], [run])
    assert shown.rows == [(1, level), (2, None), (3, None)]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "unknown <small>(9 in 64 draws)</small>"),
        (math.log(75), "75"),
        (math.log(1e6), "1,000,000"),
        (100.0, "10<sup>43.4</sup>"),
    ],
)
def test_number_of_problems(size, text):
    assert gallery.number(size, 9) == text


def test_prose_of_a_docstring():
    title, text = gallery.prose(
        """What it is. Knob: how many; `length` grows.

        Two <layouts>:

        - ``one``: with
          :math:`x_0`;
        - two.

        Worked example::

            a  <  b
              c

        What is known: nothing.
        """
    )
    assert title == "What it is"
    assert text.split("\n", 4) == [
        "<p><strong>Knob</strong>: how many; <code>length</code> grows.</p>",
        "<p>Two &lt;layouts&gt;:</p>",
        "<ul><li><code>one</code>: with <var>x<sub>0</sub></var>;</li><li>two.</li></ul>",
        "<p><strong>Worked example</strong>:</p>",
        "<pre>a  &lt;  b\n  c</pre>\n<p><strong>What is known</strong>: nothing.</p>",
    ]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_says_what_its_knob_is(name):
    title, text = gallery.description(make_task(name))
    assert title
    assert "<strong>Knob</strong>:" in text
    assert "``" not in text


def test_errors(table, tmp_path):
    with pytest.raises(ValueError, match="names must be distinct tasks"):
        gallery.write_gallery(tmp_path / "page.html", ["chain", "chain"])
    with pytest.raises(ValueError, match="task must be one of"):
        gallery.write_gallery(tmp_path / "page.html", ["sums"])
    table.to_parquet(tmp_path / "regret.parquet")
    with pytest.raises(ResultsError, match=r"has neither table.parquet nor families.parquet"):
        gallery.write_gallery(tmp_path / "page.html", ["chain"], [tmp_path])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_page_of_all_tasks_in_a_browser(runs, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("needs /usr/bin/chromium")
    path = gallery.write_gallery(tmp_path / "gallery.html", directories=runs)
    problems: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(offline=True)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(path.as_uri())
        assert page.locator("article").count() == len(TASKS)
        assert page.locator("article").first.locator(".example").count() == 3
        # Narrow: only tables and literal blocks scroll sideways, the page does not.
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for box in page.locator(".text").all():
                assert box.evaluate("text => text.scrollWidth <= text.clientWidth + 1")
            bar = page.locator("td.bar span").first.bounding_box()
            assert bar is not None
            assert bar["width"] > 50
        browser.close()
    assert problems == []
