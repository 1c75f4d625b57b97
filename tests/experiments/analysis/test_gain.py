"""What fine-tuning gains on the untouched base."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis import gain, optimum
from experiments.analysis.statistics import Interval
from tests.experiments.worlds import RISING


def test_the_gain_is_that_of_a_level_chosen_on_the_other_bases():
    """The best level is .05 below its base, whose height varies by twice as much."""
    (study,) = optimum.studies(RISING)
    found = gain.gains(RISING, study)
    assert list(found) == [64, 512, 4096]
    for each in found.values():
        assert each.mean == pytest.approx(0.05, abs=0.003)
        assert 0 < each.high - each.low < 0.005


def test_the_accuracy_of_the_bases_is_over_bases():
    (study,) = optimum.studies(RISING)
    accuracy = gain.base_accuracy(RISING, study)
    untrained = RISING["train_mixture"] == "none"
    risks = RISING.loc[untrained & (RISING["metric"] == "test_risk"), "value"]
    assert accuracy.mean == pytest.approx(1 - risks.mean())
    assert accuracy.high - accuracy.low > 0.005


def test_one_base_has_no_interval():
    table = RISING.loc[RISING["base_seed"] == 0]
    (study,) = optimum.studies(table)
    assert all(np.isnan(each.mean) for each in gain.gains(table, study).values())


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {16: (-0.1, 0.1), 64: (0.1, 0.2)},
            "is better than the untouched base at n = 64, and cannot be told from it at n = 16, "
            "where one may as well not fine-tune.",
        ),
        ({16: (0.1, 0.2), 64: (0.2, 0.3)}, "is better than the untouched base at n = 16, 64."),
        (
            {16: (-0.2, -0.1), 64: (-0.1, 0.1), 256: (0.1, 0.2)},
            "is better than the untouched base at n = 256, and cannot be told from it at n = 64, "
            "and is worse at n = 16, where one should not fine-tune at all.",
        ),
    ],
)
def test_it_is_said_where_fine_tuning_is_worth_it(found, said):
    gains = {n: Interval(sum(ends) / 2, *ends) for n, ends in found.items()}
    assert gain.worth_it(gains) == f"Fine-tuning at the best difficulty {said}"


def test_sizes_without_an_interval_are_passed_over():
    unknown, same = Interval(0.1, np.nan, np.nan), Interval(0.0, -0.1, 0.1)
    assert gain.worth_it({16: unknown}) == ""
    said = gain.worth_it({16: unknown, 64: same})
    assert said.startswith(
        "Fine-tuning at the best difficulty cannot be told from the untouched base at n = 64,"
    )
