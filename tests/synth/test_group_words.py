"""The multiplication tables of group words, against the groups that they are named after."""

import itertools

import numpy as np
import pytest

from synth.tasks.group_words import GroupWords, elements, products
from tests.reference import GROUP_LETTERS

SIZES = {"S3": 6, "S5": 120, "A5": 60, "Z60": 60}


@pytest.mark.parametrize("group", SIZES)
def test_elements_are_distinct_and_start_with_the_identity(group):
    names = elements(group)
    assert len(set(names)) == len(names) == SIZES[group]
    assert names[0] in ("123", "12345", "0")
    assert set(GROUP_LETTERS[group].values()) <= set(names)


@pytest.mark.parametrize("group", SIZES)
@pytest.mark.parametrize("num_generators", [2, 3, 4])
def test_each_letter_matters_wherever_it_stands(group, num_generators):
    """Exchanging one letter of a word changes every product from there on.

    This is so because a letter permutes the elements, and no two letters map an element to the same
    one.
    """
    table = products(group, num_generators)
    assert table.shape == (SIZES[group], num_generators)
    for column in table.T:
        assert sorted(column) == list(range(SIZES[group]))
    for row in table:
        assert len(set(row)) == num_generators


@pytest.mark.parametrize("group", SIZES)
def test_two_letters_reach_every_element(group):
    table = products(group, 2)
    reached, waiting = {0}, [0]
    while waiting:
        new = {int(each) for each in table[waiting.pop()]} - reached
        reached |= new
        waiting += new
    assert len(reached) == SIZES[group]


@pytest.mark.parametrize(("group", "commutes"), [("S3", 0), ("S5", 0), ("A5", 0), ("Z60", 1)])
def test_only_the_cyclic_group_commutes(group, commutes):
    table = products(group, 2)
    first, second = (table[table[:, i], j] for i, j in itertools.permutations(range(2)))
    assert np.array_equal(first, second) == bool(commutes)


def test_the_vocabulary_holds_the_letters_in_use():
    task = GroupWords(group="S3", num_generators=3)
    assert task.vocabulary[:8] == ("<pad>", "|", ":", ".", "a", "b", "c", "123")
    assert len(task.vocabulary) == 4 + 3 + 6
