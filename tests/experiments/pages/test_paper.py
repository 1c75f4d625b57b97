"""The paper's items and the ledger of its claims, from recorded runs."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from experiments import figures
from experiments.analysis.claims import Finding, covered
from experiments.analysis.contrasts import Covered, Move
from experiments.analysis.statistics import Interval
from experiments.cli import paper as commands
from experiments.pages import paper
from experiments.recipes import RECIPES
from experiments.storage.results import write_json, write_parquet
from tests.experiments.worlds import FALLING, RISING


def test_every_item_names_a_figure_and_a_command_of_a_recipe():
    for name, item in paper.ITEMS.items():
        assert item.figure in figures.FIGURES, name
        words = item.command.replace(",", "").split()
        if words[1] == "run":
            assert words[3] in RECIPES[words[2]].PRESETS, name


@pytest.fixture
def results(tmp_path):
    """Two recorded runs of one recipe, and one of a recipe that predicted nothing."""
    for name, recipe, preset, table in (
        ("protocol", "paper-protocol", "cpu", RISING),
        ("weak", "base-strength", "ratio-40", FALLING),
        ("old", "tradeoff", "cpu", RISING),
    ):
        write_parquet(tmp_path / name / "table.parquet", table)
        write_json(tmp_path / name / "manifest.json", {"recipe": recipe, "preset": preset})
    return tmp_path


def test_the_ledger_tells_what_predictions_came_to(results, monkeypatch):
    module = RECIPES["paper-protocol"]
    moved = Move(1, "the best level", 64, 4096)
    monkeypatch.setattr(module, "PREREGISTERED", (moved, dataclasses.replace(moved, loss="dft")))
    (found,) = paper.ledger(results)
    assert (found.run, found.prediction, found.verdict) == ("protocol", moved, "holds")
    (row,) = paper.ledger_rows([found])
    assert len(row) == len(paper.LEDGER_COLUMNS)
    assert row[:3] == ("1", "protocol", "the best level")
    assert row[3].startswith("+4.0 levels [+3.") or row[3].startswith("+3.9 levels [+3.")
    assert row[-2:] == ("8", "holds")


def test_runs_of_a_recipe_are_compared_once_all_are_there(results):
    assert not [each for each in paper.ledger(results) if each.prediction.claim == 6]
    for ratio, table in (
        ("50", FALLING),
        ("60", RISING),
        ("70", RISING),
    ):
        folder = results / f"ratio-{ratio}"
        write_parquet(folder / "table.parquet", table)
        write_json(
            folder / "manifest.json", {"recipe": "base-strength", "preset": f"ratio-{ratio}"}
        )
    rises = [each for each in paper.ledger(results) if each.prediction.claim == 6]
    # At n = 512 all have the same optimum.
    assert [each.verdict for each in rises] == ["fails", "holds"]


def test_the_short_ledger_tells_the_main_runs_from_others():
    move = Move(1, "the best level", 64, 4096)
    effect = Interval(1.0, 0.5, 1.5)

    def of(run, word, number=8):
        return Finding(run, move, effect, 0.01, number, word)

    found = [
        of("paper-protocol", "fails"),
        of("controls-window", "holds"),
        of("controls-range", "undecided", number=6),
        of("families-igsm", "holds"),
        of("prediction-dyck-uniform", "fails"),
    ]
    first, second, *_ = paper.in_short(found)
    assert first[1:] == ("fails (paper-protocol)", "holds in 2, fails in 1, undecided in 1", "8")
    assert second[1:] == ("not tested this way yet", "–", "–")
    # A claim that controls alone test has their verdict.
    (alone, *_) = paper.in_short(found[1:2])
    assert alone[1:] == ("holds (controls-window)", "–", "8")


def test_the_ledger_tells_whether_certificates_cover(results, monkeypatch):
    """Bounds .1 and .3 above the risk, and below it at one base of four."""
    predicted = Covered(8, "the bound", "base")
    monkeypatch.setattr(RECIPES["paper-protocol"], "PREREGISTERED", (predicted,))
    assert paper.ledger(results) == []
    rows = pd.DataFrame(
        {
            "method": "base",
            "base_seed": base,
            "test_risk": 0.5,
            "test_bound_unconditional": 0.5 + above,
        }
        for base in range(4)
        for above in (0.1 + 0.01 * base, 0.3)
    )
    write_parquet(results / "protocol" / "certificates.parquet", rows)
    (found,) = paper.ledger(results)
    assert (found.prediction, found.number, found.verdict) == (predicted, 4, "holds")
    assert found.effect.mean == pytest.approx(0.115)
    assert paper.ledger_rows([found])[0][3].startswith("+11.5 points [")
    with pytest.raises(ValueError, match="certificates: none by 'gains'"):
        covered("run", rows, dataclasses.replace(predicted, method="gains"))


def test_the_commands_list_redraw_and_refuse(capsys, monkeypatch):
    commands.show_paper()
    listed = capsys.readouterr().out
    assert all(name in listed for name in paper.ITEMS)
    with pytest.raises(
        ValueError, match=r"item must be one of .* got 'fig22'; did you mean 'fig2'"
    ):
        commands.show_paper("fig22")
    missing = dataclasses.replace(paper.ITEMS["fig3"], run="nowhere")
    monkeypatch.setitem(paper.ITEMS, "fig3", missing)
    with pytest.raises(ValueError, match="not recorded yet; record it with: sweetspot run paper-"):
        commands.show_paper("fig3")
    commands.show_claims()
    told = capsys.readouterr().out
    assert all(f"Claim {number}:" in told for number in paper.CLAIMS)


def test_an_item_is_drawn_again(two_studies, tmp_path, capsys, monkeypatch):
    write_parquet(tmp_path / "table.parquet", two_studies)
    write_json(tmp_path / "manifest.json", {"status": "complete"})
    again = dataclasses.replace(paper.ITEMS["fig3"], run=str(tmp_path))
    monkeypatch.setitem(paper.ITEMS, "fig3", again)
    commands.show_paper("fig3")
    assert (tmp_path / "figures" / "map.png").is_file()
    assert "map.png" in capsys.readouterr().out
