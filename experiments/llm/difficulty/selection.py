"""Selection of the levels that a cell of a scan trains on, and their proportions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from synth.task import Mixture

Selection = Literal["exact", "range", "above"]
"""``exact`` selects level d, ``range`` d and all easier ones, ``above`` d and all harder ones."""


def selected(selection: Selection, difficulty: int, levels: Iterable[int]) -> list[int]:
    """Levels that a cell trains on, increasing.

    Args:
      selection, difficulty: of the cell.
      levels: levels that have problems.

    Raises:
      ValueError: if the selection is unknown.
    """
    rules = {
        "exact": lambda level: level == difficulty,
        "range": lambda level: level <= difficulty,
        "above": lambda level: level >= difficulty,
    }
    if selection not in rules:
        raise ValueError(f"selection must be one of {get_args(Selection)}, got {selection!r}")
    return sorted(filter(rules[selection], levels))


@dataclass(frozen=True)
class Levels:
    """Numbers of a scan's problems by level, in the form that `experiments.analysis.pilot` reads.

    Attributes:
      train: number of training problems at each level.
      test: number of test problems at each level.
    """

    train: Mapping[int, int]
    test: Mapping[int, int]

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Levels:
        """Read the numbers that a scan wrote into its manifest."""
        counts = (
            {int(k): n for k, n in manifest["levels"][part].items()} for part in ("train", "test")
        )
        return cls(*counts)

    @property
    def test_levels(self) -> list[int]:
        """Level of each test slice."""
        return sorted(self.test)

    def mixture(self, kind: Any, difficulty: int) -> Mixture:
        """Training mixture of a cell: each level's share is that of its problems.

        Raises:
          ValueError: if the selection is unknown or has no problems.
        """
        from synth.task import Mixture

        levels = selected(kind, difficulty, self.train)
        total = sum(self.train[level] for level in levels)
        return Mixture(tuple(levels), tuple(self.train[level] / total for level in levels))
