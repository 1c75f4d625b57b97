"""Buckets and windows against plain counting, and refused arguments."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.llm.difficulty.buckets import Buckets, Cut, levels, window
from experiments.llm.difficulty.scales import MEASURES

HARDER = {"op": 1, "cot_tokens": 1, "pass_rate": -1, "perplexity": 1}
measures = st.sampled_from(sorted(MEASURES))
number_lists = st.lists(st.integers(0, 12).map(lambda count: count / 8), min_size=4, max_size=60)


def bucket_of(measure: str, edges, value: float) -> int:
    """Bucket of a value: one more than the number of edges that it is harder than."""
    return 1 + sum(HARDER[measure] * value > HARDER[measure] * edge for edge in edges)


def test_every_measure_has_a_direction_and_a_label():
    assert {name: 1 if scale.hard_is_high else -1 for name, scale in MEASURES.items()} == HARDER
    assert all(scale.label for scale in MEASURES.values())


def test_thirds_of_different_values_are_equal():
    values = np.random.default_rng(0).permutation(np.arange(300) + 20)
    buckets = Buckets.quantiles("cot_tokens", values, 3)
    assert buckets.edges == (119.0, 219.0)
    assert buckets.number == 3
    assigned = buckets.assign(values)
    assert np.bincount(assigned).tolist() == [0, 100, 100, 100]
    assert [values[assigned == level].min() for level in (1, 2, 3)] == [20, 120, 220]
    assert buckets.describe() == [
        "cot_tokens ≤ 119",
        "119 < cot_tokens ≤ 219",
        "cot_tokens > 219",
    ]


def test_a_high_pass_rate_is_easy():
    values = [0.0, 0.125, 0.25, 0.5, 0.75, 1.0]
    buckets = Buckets.quantiles("pass_rate", values, 3)
    assert buckets.edges == (0.75, 0.25)
    assert buckets.assign(values).tolist() == [3, 3, 2, 2, 1, 1]
    assert buckets.describe() == ["pass_rate ≥ 0.75", "0.25 ≤ pass_rate < 0.75", "pass_rate < 0.25"]


@given(measures, number_lists, st.integers(2, 4))
def test_edges_are_the_values_nearest_to_the_quantiles(measure, values, number):
    hardness = sorted(HARDER[measure] * value for value in values)

    def distance(edge: float, place: int) -> int:
        return abs(number * sum(value <= edge for value in hardness) - place * len(values))

    candidates = [edge for edge in sorted(set(hardness)) if edge < hardness[-1]]
    wanted = [
        min(candidates, key=lambda edge, place=place: (distance(edge, place), edge), default=None)
        for place in range(1, number)
    ]
    if None in wanted or len(set(wanted)) < len(wanted):
        with pytest.raises(ValueError, match=rf"bucket \d of {number} would be empty"):
            Buckets.quantiles(measure, values, number)
        return
    buckets = Buckets.quantiles(measure, values, number)
    assert [HARDER[measure] * edge for edge in buckets.edges] == wanted
    assigned = buckets.assign(values)
    assert assigned.tolist() == [bucket_of(measure, buckets.edges, value) for value in values]
    assert set(assigned) == set(range(1, number + 1))


def test_edges_of_the_training_set_serve_the_test_set():
    train, test = np.arange(90), np.array([0, 29, 30, 500])
    buckets = Buckets.quantiles("cot_tokens", train, 3)
    assert buckets.assign(test).tolist() == [1, 1, 2, 3]
    assert buckets.assign([10], least=0).tolist() == [1]


def test_fixed_edges_come_in_any_order_and_an_edge_is_easy():
    assert Buckets.fixed("pass_rate", [0.2, 0.8]) == Buckets("pass_rate", (0.8, 0.2))
    buckets = Buckets.fixed("cot_tokens", [400, 200])
    assert buckets.edges == (200.0, 400.0)
    assert buckets.assign([200, 201, 400, 401]).tolist() == [1, 2, 2, 3]


def test_buckets_survive_a_manifest():
    buckets = Buckets.quantiles("perplexity", np.random.default_rng(0).random(50) + 1, 4)
    record = json.loads(json.dumps(dataclasses.asdict(buckets)))
    assert Buckets(**record) == buckets


def test_levels_are_the_stated_difficulty_or_the_buckets():
    table = pd.DataFrame({"op": pd.array([4, 2, 9], "Int64"), "pass_rate": [0.5, 1.0, 0.0]})
    assert levels(table).tolist() == [4, 2, 9]
    assert levels(table).dtype == int
    assert levels(table, Buckets("pass_rate", (0.25,))).tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match=r"'cot_tokens' is not in the table, which has \['op', "):
        levels(table, Buckets("cot_tokens", (3,)))
    with pytest.raises(ValueError, match=r"measure 'op' is not in the table"):
        levels(table.drop(columns="op"))
    table.loc[1, "op"] = pd.NA
    with pytest.raises(ValueError, match=r"op .* missing for 1 of 3, the first in row 1"):
        levels(table)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Buckets("length", (1,)), "measure must be one of ['op', 'cot_tokens'"),  # type: ignore[arg-type]
        (lambda: Buckets("op", ()), "edges of op must be one or more numbers that rise"),
        (lambda: Buckets("op", (3, 3)), "got (3.0, 3.0)"),
        (lambda: Buckets("pass_rate", (0.2, 0.5)), "that fall (from easy to hard)"),
        (lambda: Buckets("op", (3, np.nan)), "op must be a finite number"),
        (lambda: Buckets.quantiles("op", range(9), 1), "buckets must be at least 2, got 1"),
        (lambda: Buckets.quantiles("op", [1, 2], 3), "3 buckets need at least as many problems"),
        (
            lambda: Buckets.quantiles("op", [3] * 9 + [4], 3),
            "bucket 2 of 3 would be empty: op has so many equal values (2 different ones in 10 "
            "problems) that the edges would be [3.0, 3.0], with [9, 0, 1] problems",
        ),
        (
            lambda: Buckets.fixed("op", [3, 5]).assign([1, 2, 4]),
            "buckets [3] of op are empty: edges [3.0, 5.0] give [2, 1, 0] problems",
        ),
        (
            lambda: Buckets.fixed("op", [3]).assign([1, 2, 4], least=2),
            "buckets [2] of op have fewer than 2 problems: edges [3.0] give [2, 1] problems",
        ),
        (
            lambda: Buckets.fixed("op", [3]).assign([1, None, 4]),
            "missing for 1 of 3, the first in row 1",
        ),
        (lambda: window("op", [1, 2], drop_easiest=1.0), "drop_easiest must be a share in [0, 1)"),
        (lambda: window("op", [1, 2], drop_hardest=-0.1), "drop_hardest must be a share"),
        (
            lambda: window("op", [1, 2], drop_easiest=0.5, drop_hardest=0.5),
            "leave nothing of 2 problems",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_windows_drop_the_ends_in_the_direction_of_the_measure():
    values = [0.1, 0.9, 0.5, 0.7, 0.3]
    assert window("perplexity", values, drop_hardest=0.4).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert window("pass_rate", values, drop_hardest=0.4).tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert window("pass_rate", values, drop_easiest=0.2).tolist() == [True, False, True, True, True]
    both = window("perplexity", values, drop_easiest=0.2, drop_hardest=0.2)
    assert both.tolist() == [False, False, True, True, True]
    assert window("op", values).all()


@given(measures, number_lists, st.floats(0, 0.99), st.floats(0, 0.99))
def test_windows_keep_the_share_are_nested_and_keep_no_harder_problem(measure, values, one, other):
    small, large = sorted((one, other))
    if round(large * len(values)) == len(values):
        return
    kept, fewer = (window(measure, values, drop_hardest=share) for share in (small, large))
    assert (~kept).sum() == round(small * len(values))
    assert not (fewer & ~kept).any()
    hardness = HARDER[measure] * np.array(values)
    if not kept.all():
        assert hardness[kept].max() <= hardness[~kept].min()


def test_equal_values_are_dropped_all_over_the_data_set():
    kept = window("op", np.full(1000, 5), drop_hardest=0.5)
    assert kept.sum() == 500
    assert 200 < kept[:500].sum() < 300


def test_a_cut_is_a_window_and_the_buckets_of_what_it_leaves():
    values = np.arange(1, 21)
    remains, buckets = Cut("cot_tokens", 3, drop_hardest=0.25).apply(values)
    assert remains.tolist() == [True] * 15 + [False] * 5
    assert buckets == Buckets.quantiles("cot_tokens", values[:15], 3)
    assert Cut("cot_tokens", edges=(9.0, 4.0)).apply(values)[1] == Buckets("cot_tokens", (4.0, 9.0))
    # Stated levels are buckets as they are.
    remains, buckets = Cut("op", drop_easiest=0.1).apply(values)
    assert (remains.sum(), buckets) == (18, None)
