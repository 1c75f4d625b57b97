"""The cells to run next, and how many members of each, to be surer which difficulty is best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.analysis.draws import Draws
from experiments.analysis.pilot import StudyRisks

FEWEST_SEEDS = 3
"""Seeds of a cell from which the noise of training is known at all."""


@dataclass(frozen=True)
class Surer:
    """More members and problems that halve the intervals, about.

    Attributes:
      difficulties: the recommended level, and those that are not clearly worse.
      data_sizes: of the pilot.
      more_seeds: members to add to each of these cells.
      test_examples: problems that they should be tested on in all; 0 if those of the pilot will do.
      num_members: how many members that is.
      unit: what a member of a cell is one of, "base" or "seed".
    """

    difficulties: tuple[int, ...]
    data_sizes: tuple[int, ...]
    more_seeds: int
    test_examples: int
    num_members: int
    unit: str

    def sentence(self, hours_each: float | None = None) -> str:
        """Say it in words; empty if every other level is clearly worse.

        Args:
          hours_each: of a member, as measured; None if that is not known.
        """
        if len(self.difficulties) < 2:
            return ""
        levels, sizes = (", ".join(map(str, each)) for each in (self.difficulties, self.data_sizes))
        cost = ""
        if hours_each is not None:
            cost = f", about {hours_each * self.num_members:.2g} hours on the same device"
        ways = []
        if self.more_seeds:
            members = f"{self.num_members} members{cost}"
            ways.append(f"run {self.more_seeds} more {self.unit}s of each ({members})")
        if self.test_examples:
            ways.append(f"test on {self.test_examples} problems")
        return (
            f"To halve the intervals between the levels that may be best, d = {levels} at "
            f"n = {sizes}: {' and '.join(ways)}."
        )


def surer(predicted: Draws, best: int, risks: StudyRisks) -> Surer:
    """Return what would halve the intervals of the levels that may be best.

    An interval halves with four times as many members where it is the noise of training that makes
    it wide, and with four times as many problems where it is that of the test. Each is asked for
    where it is at least a third of the variance.

    Args:
      predicted: replicates of the predicted risk.
      best: position of the recommended level.
      risks: of the pilot.
    """
    excess = predicted.excess(best)
    rivals = [level for level, interval in excess.items() if interval.low <= 0]
    levels = sorted([int(predicted.levels[best]), *rivals])
    members, problems = (float(np.sum(each)) for each in predicted.variances(best))
    num_members, asked = predicted.num_members, int(risks.num_asked[0].sum())
    total = members + problems
    more = 3 * num_members if 3 * members >= total > 0 else 0
    if num_members < FEWEST_SEEDS:
        more = max(more, FEWEST_SEEDS - num_members)
    sizes = tuple(int(size) for size in risks.test_risk.data_sizes)
    return Surer(
        difficulties=tuple(levels),
        data_sizes=sizes,
        more_seeds=more,
        test_examples=4 * asked if 3 * problems >= total > 0 else 0,
        num_members=more * len(levels) * len(sizes),
        unit=risks.test_risk.unit,
    )
