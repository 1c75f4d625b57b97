"""What a scan says before it starts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments.llm.scan.foresight import least_difference, warnings_before
from experiments.llm.scan.grid import ScanConfig

ENOUGH = ScanConfig(seeds=3, difficulties=(1, 2), data_sizes=(10, 20))


def test_a_scan_that_can_be_recommended_from_is_not_warned_of():
    assert warnings_before(ENOUGH, 500) == []


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        ({"data_sizes": (10,)}, 500, "at least two data_sizes, got (10,)"),
        ({"difficulties": (2,)}, 500, "at least two difficulties, got (2,)"),
        ({"seeds": 1}, 500, "With seeds = 1 intervals will hold the noise of the test problems"),
        ({}, 96, "The test has 96 problems: differences between levels of less than about 12"),
    ],
)
def test_each_reason_is_one_sentence(change, number, words):
    (sentence,) = warnings_before(dataclasses.replace(ENOUGH, **change), number)
    assert words in sentence


def test_least_difference_is_where_an_interval_leaves_zero():
    generator = np.random.default_rng(0)
    shares = generator.binomial(96, 0.5, size=(100_000, 2)) / 96
    noise = shares[:, 0] - shares[:, 1]
    assert np.quantile(noise, 0.95) == pytest.approx(least_difference(96), abs=0.01)
