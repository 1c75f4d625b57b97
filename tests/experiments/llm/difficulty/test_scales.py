"""Names of measures, and what is refused before anything is read."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from experiments.llm.difficulty.buckets import Buckets, Cut, window
from experiments.llm.difficulty.scales import (
    MEASURES,
    OfColumns,
    hard_is_high,
    is_measure,
    needed_columns,
    of_columns,
    scale,
)
from experiments.llm.scan.grid import ScanConfig


@pytest.mark.parametrize(
    ("measure", "made"),
    [
        ("column:solve_rate", OfColumns("column", ("solve_rate",))),
        ("column:a/b,c:d", OfColumns("column", ("a/b,c:d",))),
        ("passes:correct/attempts", OfColumns("passes", ("correct",), "attempts")),
        ("passes:correct/8", OfColumns("passes", ("correct",), 8)),
        ("rasch:a,b,c", OfColumns("rasch", ("a", "b", "c"), 1)),
        ("rasch:org/a,org/b/64", OfColumns("rasch", ("org/a", "org/b"), 64)),
        ("rasch:org/a,org/b", OfColumns("rasch", ("org/a", "org/b"), 1)),
        ("cot_tokens", None),
    ],
)
def test_a_measure_names_its_columns(measure, made):
    assert of_columns(measure) == made
    assert is_measure(measure)
    assert scale(measure).label
    assert needed_columns(measure) == ([] if made is None else list(made.needed))


def test_columns_of_several_measures_are_read_once():
    assert needed_columns("rasch:a,b", "op", "passes:a/n") == ["a", "b", "n"]
    assert not is_measure("samples")


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("length", "measure must be one of ['op', 'cot_tokens', 'pass_rate', 'perplexity', "),
        ("length", "got 'length'; a column of the data is column:length"),
        ("cot_token", "got 'cot_token'; did you mean 'cot_tokens'?"),
        ("column:", "measure must be written as column:NAME, got 'column:'"),
        ("passes:correct", "written as passes:NAME/TRIALS, got 'passes:correct'"),
        ("passes:correct/", "written as passes:NAME/TRIALS"),
        ("passes:correct/0", "written as passes:NAME/TRIALS"),
        ("rasch:a", "written as rasch:A,B, got 'rasch:a'"),
        ("rasch:a,a", "written as rasch:A,B"),
        ("rasch:a,,b", "written as rasch:A,B"),
    ],
)
def test_what_is_no_measure_is_told(measure, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        of_columns(measure)
    with pytest.raises(ValueError, match=re.escape(message)):
        ScanConfig(measure=measure)


def test_the_harder_side_is_stated_for_columns_and_known_for_others():
    assert hard_is_high("column:rating", "higher")
    assert not hard_is_high("column:solve_rate", "lower")
    for measure, known in [("passes:a/8", False), ("rasch:a,b", True), ("pass_rate", False)]:
        assert hard_is_high(measure) is known
        assert hard_is_high(measure, "higher" if known else "lower") is known
    for make in (
        lambda: hard_is_high("column:x"),
        lambda: ScanConfig(measure="column:x"),
        lambda: Cut("column:x"),
        lambda: Buckets("column:x", (1.0,)),
    ):
        with pytest.raises(ValueError, match=r"harder must say which values of 'column:x' .* None"):
            make()
    with pytest.raises(ValueError, match="harder must be 'lower' or none for 'pass_rate', got 'hi"):
        ScanConfig(measure="pass_rate", harder="higher")
    with pytest.raises(ValueError, match=r"harder must be one of \('higher', 'lower'\), got 'up'"):
        Cut("column:x", harder="up")  # type: ignore[arg-type]
    assert all(scale(name) == known for name, known in MEASURES.items())


def test_buckets_of_a_column_know_their_direction():
    rates = np.array([0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
    buckets = Buckets.quantiles("column:solve_rate", rates, 3, "lower")
    assert buckets.edges == (0.75, 0.25)
    assert buckets.assign(rates).tolist() == [3, 3, 2, 2, 1, 1]
    assert buckets.describe()[0] == "column:solve_rate ≥ 0.75"
    assert Buckets(**dataclasses.asdict(buckets)) == buckets
    # The same numbers, as a rating.
    assert Buckets.quantiles("column:rating", rates, 3, "higher").assign(rates)[0] == 1
    assert Buckets.fixed("column:solve_rate", [0.2, 0.8], "lower").edges == (0.8, 0.2)
    kept = window("column:solve_rate", rates, drop_hardest=0.5, harder="lower")
    assert kept.tolist() == [False] * 3 + [True] * 3


def test_a_cut_refuses_or_drops_problems_without_a_value():
    values = [0.5, None, 0.25, np.nan, 0.75, 0.1]
    with pytest.raises(
        ValueError,
        match=r"column:x must be .* missing for 2 of 6, the first in row 1 \(--missing drop",
    ):
        Cut("column:x", 2, harder="lower").apply(values)
    remains, buckets = Cut("column:x", 2, harder="lower", missing="drop").apply(values)
    assert remains.tolist() == [True, False, True, False, True, True]
    assert buckets == Buckets("column:x", (0.5,), "lower")
