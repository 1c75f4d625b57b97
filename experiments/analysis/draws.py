"""Replicates of risks by level, over the members that were trained and the problems of the test.

The two sources of noise are independent, so that their variances add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.analysis import bootstrap
from experiments.analysis.statistics import Interval


@dataclass(frozen=True)
class Draws:
    """Replicates of one risk a level.

    Attributes:
      levels: of the grid [level].
      mean: the risk as measured or predicted [level].
      of_members: with members drawn anew by the bootstrap [replicate, level].
      of_problems: with the answers of other problems [replicate, level]; None where members have
        problems of their own.
      num_members: members of a cell.
    """

    levels: np.ndarray
    mean: np.ndarray
    of_members: np.ndarray
    of_problems: np.ndarray | None
    num_members: int

    @property
    def replicates(self) -> np.ndarray:
        """Risks with both kinds of noise [replicate, level]."""
        if self.of_problems is None:
            return self.of_members
        return self.of_members + self.of_problems - self.of_problems.mean(axis=0)

    def variances(self, than: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Variance from members and from problems [level], of differences to position `than`.

        That of the bootstrap over m members is corrected by m / (m − 1). With one member nothing is
        known of it, and it is 0.
        """

        def variance(draws: np.ndarray) -> np.ndarray:
            apart = draws if than is None else draws - draws[:, [than]]
            return apart.var(axis=0)

        m = self.num_members
        members = variance(self.of_members) * m / (m - 1) if m > 1 else np.zeros(len(self.mean))
        if self.of_problems is None:
            return members, np.zeros(len(self.mean))
        return members, variance(self.of_problems)

    def widths(self, than: int | None = None) -> np.ndarray:
        """Half of the width of 90% intervals [level]: Student's, at Satterthwaite's freedom.

        Infinite where nothing is known of any noise.

        References:
          Satterthwaite (1946), An approximate distribution of estimates of variance components.
        """
        from scipy import stats  # here, because its import takes most of a second

        members, problems = self.variances(than)
        total = members + problems
        if self.num_members == 1 and self.of_problems is None:
            return np.full(len(total), np.inf)
        freedom = np.full(len(total), np.inf)
        if self.num_members > 1:
            share = np.divide(members, total, out=np.ones_like(total), where=total > 0)
            freedom = (self.num_members - 1) / np.maximum(share, 1e-6) ** 2
        return stats.t.ppf(bootstrap.TAILS[1], freedom) * np.sqrt(total)

    def excess(self, than: int) -> dict[int, Interval]:
        """Risk of each level minus that at position `than`, with its 90% interval."""
        means, widths = self.mean - self.mean[than], self.widths(than)
        return {
            int(level): Interval(float(mean), float(mean - width), float(mean + width))
            for position, (level, mean, width) in enumerate(
                zip(self.levels, means, widths, strict=True)
            )
            if position != than
        }
