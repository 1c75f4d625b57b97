"""Trends counted by hand on tables of a few cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.premise import (
    Trend,
    generalization_terms,
    grows_with_difficulty,
    harder_costs_more,
    nats_at_risk,
    risk_bounds,
    shrinks_with_size,
)
from tests.experiments.certificate_tables import complexity_table


def terms(*rows: list[float]) -> pd.DataFrame:
    """Difficulties 2, 4, … down and sizes 10, 100, … across."""
    levels = [2 * (number + 1) for number in range(len(rows))]
    sizes = [10 ** (number + 1) for number in range(len(rows[0]))]
    return pd.DataFrame(rows, index=levels, columns=sizes)


def path(kl: list[float], risk: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"kl": kl, "risk": risk})


def test_a_trend_reads_as_a_count():
    assert str(Trend(3, 4)) == "3 of 4"


def test_terms_are_mean_bounds_less_mean_risks_of_one_method():
    certificates = pd.DataFrame(
        {
            "method": ["gains", "gains", "gains", "base"],
            "difficulty": [2, 2, 4, 2],
            "data_size": [10, 10, 100, 10],
            "risk_bound": [0.5, 0.7, 0.9, 1.0],
            "empirical_risk": [0.1, 0.2, 0.25, 0.0],
        }
    )
    bounds = risk_bounds(certificates, "gains")
    np.testing.assert_allclose(bounds, [[0.6, np.nan], [np.nan, 0.9]])
    means = generalization_terms(certificates, "gains")
    assert (list(means.index), list(means.columns)) == ([2, 4], [10, 100])
    np.testing.assert_allclose(means, [[0.45, np.nan], [np.nan, 0.65]])


@pytest.mark.parametrize(
    ("rows", "with_difficulty", "with_size"),
    [
        (([0.5, 0.3], [0.6, 0.4]), Trend(2, 2), Trend(2, 2)),
        (([0.6, 0.4], [0.5, 0.5]), Trend(1, 2), Trend(1, 2)),
        (([0.3, 0.5], [0.2, 0.2]), Trend(0, 2), Trend(0, 2)),
        # What is missing is not compared, and its neighbours on both sides are no neighbours.
        (([0.3, 0.2], [np.nan, 0.3], [0.5, 0.4]), Trend(2, 2), Trend(2, 2)),
        # A term that stays neither grows nor shrinks.
        (([0.3, 0.3], [0.3, 0.3]), Trend(0, 2), Trend(0, 2)),
        (([0.3],), Trend(0, 0), Trend(0, 0)),
    ],
)
def test_steps_to_neighbouring_cells_are_counted(rows, with_difficulty, with_size):
    assert grows_with_difficulty(terms(*rows)) == with_difficulty
    assert shrinks_with_size(terms(*rows)) == with_size


def test_paths_are_means_over_members_step_by_step():
    table = complexity_table(levels=(6, 9), sizes=(64, 256))
    assert list(table["base_seed"].unique()) == [0, 1]
    table.loc[table["base_seed"] == 1, "kl"] *= 3
    # What is not asked for would be seen in the means.
    table.loc[(table["method"] == "lora") | (table["data_size"] == 64), "risk"] = 1.0
    paths = nats_at_risk(table, "gains", 256)
    assert list(paths) == [6, 9]
    for level, steps in paths.items():
        np.testing.assert_allclose(steps["kl"], np.linspace(0.0, 40.0, 5))
        np.testing.assert_allclose(steps["risk"], 0.9 * np.exp(-np.linspace(0, 20, 5) / level))


EASY = path([0.0, 5.0, 10.0], [0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    ("harder", "agrees"),
    [
        # Both get to 0.1: for 10 nats and for 30.
        (path([0.0, 15.0, 30.0], [0.6, 0.3, 0.1]), True),
        # The harder one stops at 0.2, which costs the easier one 5 nats.
        (path([0.0, 20.0], [0.6, 0.2]), True),
        (path([0.0, 4.0], [0.6, 0.2]), False),
        # It stops between two steps of the easier one, the second of which costs 5 nats.
        (path([0.0, 4.0], [0.6, 0.3]), False),
        # It never gets down to 0.4, where the easier one starts.
        (path([0.0, 30.0], [0.8, 0.5]), True),
        (path([0.0, 30.0], [0.8, 0.8]), True),
        # It starts below all that the easier one reaches.
        (path([0.0, 30.0], [0.1, 0.05]), False),
        (EASY, False),
    ],
)
def test_nats_are_compared_at_the_lowest_risk_of_both(harder, agrees):
    assert harder_costs_more({3: harder, 2: EASY}) == Trend(int(agrees), 1)


def test_every_pair_of_levels_is_compared():
    paths = nats_at_risk(complexity_table(levels=(6, 9, 12)), "gains", 1024)
    assert harder_costs_more(paths) == Trend(3, 3)
    backwards = {-level: steps for level, steps in paths.items()}
    assert harder_costs_more(backwards) == Trend(0, 3)
    assert harder_costs_more({6: paths[6]}) == Trend(0, 0)
