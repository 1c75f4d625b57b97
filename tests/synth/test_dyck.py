"""Dyck words: counts against an enumeration, the shortest length, and the balance of kinds."""

import jax
import numpy as np
import pytest

from synth.task import Mixture, pool
from synth.tasks.dyck import Dyck, num_words, shortest_length
from tests.reference import dyck_words


@pytest.mark.parametrize("num_kinds", [1, 2, 3])
def test_counts_equal_an_enumeration(num_kinds):
    counts = num_words(3, 7, num_kinds)
    for length in range(8):
        for depth in range(4):
            expected = len(dyck_words(length, depth, "([{"[:num_kinds]))
            assert counts[length][depth][0] == expected


@pytest.mark.parametrize("num_kinds", [1, 2, 4])
@pytest.mark.parametrize("hardest", [1, 2, 5, 9])
def test_shortest_length_is_the_first_at_which_harder_levels_have_more_problems(hardest, num_kinds):
    shortest = shortest_length(hardest, num_kinds)

    def grows(length):
        by_level = [ends[0] for ends in num_words(hardest, length, num_kinds)[length][1:]]
        return by_level == sorted(by_level) and by_level[-1] > 0

    assert [grows(length) for length in range(shortest + 8)] == [False] * shortest + [True] * 8
    Dyck(hardest=hardest, length=shortest, num_kinds=num_kinds)
    with pytest.raises(ValueError, match=f"length must be at least {shortest} for"):
        Dyck(hardest=hardest, length=shortest - 1, num_kinds=num_kinds)


def test_length_is_four_times_the_hardest_level_where_it_is_not_given():
    assert Dyck(hardest=18).max_length(18) == 4 * 18 + 18 + 3
    assert Dyck(hardest=18, length=60).max_length(1) == 60 + 1 + 3


def test_every_kind_stays_open_at_every_depth_equally_often():
    """A bracket to be closed cannot be guessed from the others."""
    task = Dyck(hardest=2, length=9)
    drawn = pool(task, jax.random.key(0), Mixture.exact(2), 2000)
    solutions = np.asarray(drawn.tokens)[np.asarray(drawn.loss_mask)].reshape(2000, 3)[:, :2]
    _, counts = np.unique(solutions, axis=0, return_counts=True)
    # Four pairs of kinds; five standard deviations of a count are 97.
    assert len(counts) == 4
    assert np.abs(counts - 500).max() < 97
