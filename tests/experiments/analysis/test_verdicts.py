"""The rule by which claim 1 is judged, and its words."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis.optimum import Shift
from experiments.analysis.statistics import SignTest, sign_test
from experiments.analysis.verdicts import FAILS, HOLDS, UNDECIDED, judge, verdict
from experiments.analysis.vertex import Move, Optimum

EIGHT = sign_test(np.ones(8))
SEVEN = sign_test(np.array([1] * 7 + [-1]))
SIX = sign_test(np.array([1] * 6 + [-1] * 2))


def move(low: float, high: float, signs: SignTest = EIGHT) -> Move:
    return Move((low + high) / 2, low, high, signs, signs)


def best(position: float = 6.0, edge: str = "", *, tied: bool = False) -> Optimum:
    low = -np.inf if edge == "easiest" else position - 1
    high = np.inf if edge == "hardest" else position + 1
    return Optimum(position, position, low, high, edge, (position,), tied, np.zeros(8))


INSIDE, HARDER = best(), best(8)


def shift(moved: Move, *, smallest=INSIDE, largest=HARDER, unit="base", number=8) -> Shift:
    return Shift(16, 1024, smallest, largest, moved, unit, number, 2.0)


@pytest.mark.parametrize(
    ("moved", "word"),
    [
        (move(0.1, 3), HOLDS),
        (move(0.1, np.inf), HOLDS),
        (move(0.1, 0.5), HOLDS),
        (move(0.0, 3), UNDECIDED),
        (move(0.1, 3, SEVEN), HOLDS),
        (move(1, 3, SIX), UNDECIDED),
        (move(-3, 0.99), FAILS),
        (move(-3, 1.0), UNDECIDED),
        (move(-np.inf, -0.1), FAILS),
        (move(-np.inf, np.inf), UNDECIDED),
        (move(np.nan, np.nan), UNDECIDED),
    ],
)
def test_rule(moved, word):
    assert judge(moved, 2.0) == word


@pytest.mark.parametrize(
    ("shifted", "word", "said"),
    [
        (shift(move(1, 3)), HOLDS, "moves to harder data as n grows: d* is 6.0 [5.0, 7.0] at n"),
        (shift(move(1, 3)), HOLDS, "a move of 2.0 [1.0, 3.0] levels; harder in 8 of 8, p = 0.0039"),
        (shift(move(-1, 0)), FAILS, "does not move to harder data"),
        (shift(move(-1, 3)), UNDECIDED, "is undecided: d* is"),
        (shift(move(1, np.inf), largest=best(9, "hardest")), HOLDS, "8.0 at n = 1024, a move of"),
        (shift(move(1, np.inf), largest=best(9, "hardest")), HOLDS, "hardest level tested or"),
        (shift(move(-9, 9), smallest=best(tied=True)), UNDECIDED, "n = 16 no level can be told"),
        (shift(move(1, 3, sign_test(np.ones(3))), number=3), UNDECIDED, "3 bases are too few"),
        (shift(move(1, 3), unit="seed"), HOLDS, "variation between bases is not in it"),
        (shift(move(np.nan, np.nan)), UNDECIDED, "one member a cell tells nothing"),
        (Shift(16, 16, best(), best(), move(0, 0), "base", 8, 2), UNDECIDED, "Only n = 16"),
    ],
)
def test_words_say_no_more_than_was_seen(shifted, word, said):
    found, sentences = verdict(shifted)
    assert found == word
    assert said in sentences
    assert sentences.endswith(".")
