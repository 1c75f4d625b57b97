"""The generated parts on the main run, from a table with known numbers."""

from __future__ import annotations

import pytest

from experiments.pages import headline
from experiments.storage.results import write_json, write_parquet
from tests.experiments.worlds import RISING


@pytest.fixture
def results(tmp_path):
    write_parquet(tmp_path / "table.parquet", RISING)
    session = {"commit": "abc", "num_devices": 2, "device": "a CPU", "wall_time_seconds": 120}
    config = {"base_seeds": 8, "seeds": 2, "learning_rates": [1e-3, 1e-4], "test_examples": 96}
    write_json(tmp_path / "manifest.json", {"config": config, "sessions": [session]})
    return tmp_path


def test_the_headline_has_the_best_level_its_accuracy_and_the_gain(results, monkeypatch):
    # The parabolas have no gaps.
    monkeypatch.setattr(headline.optimum, "AT_OPTIMUM", ("test_risk",))
    kept = results / "kept"
    as_range = RISING.assign(train_mixture=RISING["train_mixture"].replace("exact", "range"))
    write_parquet(kept / "table.parquet", as_range)
    told = headline.headline(results, kept)
    header, _, best, accuracy, gain, *rest = told.splitlines()
    assert header == "|  | n = 64 | n = 512 | n = 4096 |"
    assert best.startswith("| best difficulty d\\* | 8.")
    assert [float(word) for word in accuracy.split("|")[2:5]] == pytest.approx([55] * 3, abs=1)
    assert gain.count("+5.") + gain.count("+4.") >= 3
    words = "\n".join(rest)
    for study in ("exactly d", "1..d"):
        assert f"- **Trained on {study}.** The best difficulty moves to harder data" in words
    assert (
        "Fine-tuning at the best difficulty is better than the untouched base at n = 64, 512"
        in words
    )
    assert "240 members (fine-tuned models) from 8 bases, each at the best of 2" in words
    assert "Recorded in 2 minutes on 2 cores of a CPU at commit `abc`." in words


def test_a_run_with_one_cell_tells_the_gain_on_its_bases(tmp_path):
    table = RISING.loc[RISING["difficulty"].isin([0, 8]) & RISING["data_size"].isin([0, 4096])]
    folder = tmp_path / "single"
    write_parquet(folder / "table.parquet", table)
    write_json(folder / "manifest.json", {"config": {"base_seeds": 8, "difficulties": [8]}})
    told = headline.one_cell(folder)
    risk = table.loc[table["metric"] == "test_risk"].groupby("difficulty")["value"].mean()
    gain = f"{100 * (risk[0] - risk[8]):+.1f}"
    assert f"With 4,096 examples of the levels 1 to 8 (`single`), fine-tuning adds {gain} [" in told
    assert "points to the test accuracy of the 8 untouched bases" in told
    # Two levels leave open of which one it speaks.
    write_parquet(folder / "table.parquet", RISING)
    with pytest.raises(ValueError, match="unpack"):
        headline.one_cell(folder)
