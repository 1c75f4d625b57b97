"""Whether the best difficulty moves to harder data: one rule, and its words.

Claim 1 of the paper: at each n one difficulty is best, and it is harder the larger n. Families,
report, README and the ledger of claims all judge it by `RULE`.
"""

from __future__ import annotations

import numpy as np

from experiments.analysis.optimum import Shift
from experiments.analysis.vertex import Move

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
SIGNIFICANT = 0.05
RULE = (
    f"“{HOLDS.capitalize()}”: the 90% interval of the move of d*, from the smallest to the largest "
    f"n, lies above 0, and the sign test over bases agrees (one-sided p < {SIGNIFICANT}, which "
    f"takes at least five bases). “{FAILS.capitalize()}”: the interval ends below half a step of "
    f"the grid. “{UNDECIDED.capitalize()}”: neither."
)


def judge(move: Move, step: float) -> str:
    """Judge a move by `RULE`.

    Args:
      move: from the smallest to the largest n.
      step: least distance between neighbouring levels of the grid.

    Returns:
      `HOLDS`, `FAILS` or `UNDECIDED`; the last where there is no interval.
    """
    if move.low > 0 and move.signs.p < SIGNIFICANT:
        return HOLDS
    return FAILS if move.high < step / 2 else UNDECIDED


def verdict(shift: Shift) -> tuple[str, str]:
    """Judge the move of a study's optimum, and say why in a sentence or two.

    Returns:
      The word of `judge`, and sentences that name the move, the edges of the grid and ties.
    """
    small, large, move = shift.smallest_size, shift.largest_size, shift.move
    at = f"d* is {shift.smallest} at n = {small} and {shift.largest} at n = {large}"
    if small == large:
        return UNDECIDED, f"Only n = {small} was run: nothing can be said about a move."
    if np.isnan(move.low):
        return UNDECIDED, (f"Undecided: {at}, but one member a cell tells nothing about the noise.")
    word = judge(move, shift.step)
    answer = {
        HOLDS: "The best difficulty moves to harder data as n grows",
        FAILS: "The best difficulty does not move to harder data as n grows",
        UNDECIDED: "Whether the best difficulty moves to harder data is undecided",
    }[word]
    units = f"{shift.unit}s"
    signs = f"; harder in {move.signs} over {units}" if move.signs.number else ""
    is_known = np.isfinite([move.low, move.high]).any()
    distance = f"a move of {move} levels" if is_known else "a move of unknown length"
    said = [f"{answer}: {at}, {distance}{signs}."]
    for found, size in ((shift.smallest, small), (shift.largest, large)):
        if found.tied:
            said.append(f"At n = {size} no level can be told from the best.")
        elif found.censored:
            said.append(f"At n = {size} it lies at the {found.censored} level tested or beyond.")
    if word == UNDECIDED and move.low > 0 and 0.5**shift.number >= SIGNIFICANT:
        said.append(f"{shift.number} {units} are too few for the sign test.")
    if shift.unit == "seed":
        said.append("Over seeds of one base; the variation between bases is not in it.")
    return word, " ".join(said)
