"""How often the intervals and tests of `experiments.analysis.statistics` are right, by simulation.

Studies with a known truth are drawn many times; each row of the table counts in how many of them a
statement was true. The sizes of the noise are those measured on the simulator (running evaluation,
exact levels, the learning rate tuned per cell): a base moves the risk by a standard deviation of
.0145, a member's seed by .011 and its test draws by .004::

    python -m experiments.analysis.coverage --record

One core, a minute. Expect the shares within their bars, but for intervals with open ends, which
hold too often (see docs/statistics.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis import statistics, vertex
from experiments.analysis.verdicts import HOLDS, judge
from experiments.storage.writing import write_parquet

RESULTS = Path(__file__).parents[1] / "results" / "statistics"
BASE, SEED, TEST = 0.0145, 0.011, 0.004
SIZES = (16, 64, 256, 1024, 4096, 16384)
STUDIES = 1000
"""Simulated studies behind each row: a coverage of 90% is then known to about one point."""


@dataclass(frozen=True)
class World:
    """A family of simulated studies, whose mean curves are known.

    Attributes:
      name: words for the table.
      levels: the grid [level].
      optima: true best level at each of `SIZES`.
      bends: second derivative of the mean risk at the optimum, at each of `SIZES`.
      skew: relative slope of the bend: at `skew` = .2 the curve is 20% higher half a grid above its
        optimum than a parabola, and 20% lower half a grid below.
      spread: standard deviation of the members' seeds at the easiest and the hardest level,
        relative to `SEED`.
    """

    name: str
    levels: tuple[float, ...]
    optima: tuple[float, ...]
    bends: tuple[float, ...]
    skew: float = 0.0
    spread: tuple[float, float] = (1.0, 1.0)

    @property
    def curves(self) -> np.ndarray:
        """Mean risk [level, size]."""
        levels = np.array(self.levels)
        distance = levels[:, None] - np.array(self.optima)
        skewed = 1 + self.skew * distance / (np.ptp(levels) / 2)
        return 0.5 + np.array(self.bends) / 2 * distance**2 * skewed

    def draw(self, bases: int, generator: np.random.Generator) -> np.ndarray:
        """Measured risk of one study with one seed a base [level, size, base].

        A base shifts all its levels alike (half of the variance) and bends its curve smoothly over
        levels (the other half), the same at every n. A member's seed draws a pool of examples that
        all n of a level share (three tenths of the variance), and the rest anew. Half of the
        variance of test draws is shared by all members of a base.
        """
        levels, size = np.array(self.levels), len(SIZES)
        shape = (len(levels), size, bases)
        distance = (levels[:, None] - levels) / (np.ptp(levels) / 3)
        smooth = np.linalg.cholesky(
            0.5 + 0.5 * np.exp(-(distance**2) / 2) + 1e-9 * np.eye(len(levels))
        )
        of_base = BASE * (smooth @ generator.standard_normal((len(levels), bases)))[:, None]
        pool = np.sqrt(0.3) * generator.standard_normal((len(levels), 1, bases))
        of_seed = SEED * (pool + np.sqrt(0.7) * generator.standard_normal(shape))
        of_seed *= np.linspace(*self.spread, len(levels))[:, None, None]
        shared = generator.standard_normal((1, 1, bases))
        of_test = TEST * np.sqrt(0.5) * (shared + generator.standard_normal(shape))
        return self.curves[:, :, None] + of_base + of_seed + of_test


TEN = tuple(range(7, 17))
RISING = (9.5, 10.0, 10.5, 11.0, 11.5, 12.0)
SHARP = (0.002, 0.003, 0.004, 0.004, 0.005, 0.005)
WORLDS = (
    World("moving", TEN, RISING, SHARP),
    World("still", TEN, (11.0,) * 6, SHARP),
    World("moving, five levels", (4, 6, 9, 12, 16), (6.5, 8, 9.5, 11, 12, 12.5), (0.006,) * 6),
    World("still, flat at small n", TEN, (11.0,) * 6, (0.0004, 0.001, 0.002, 0.003, 0.004, 0.005)),
    World("moving, skewed", TEN, RISING, SHARP, skew=0.2),
    World("moving, hard levels noisier", TEN, RISING, SHARP, spread=(0.5, 2.0)),
)
DESIGNS = (8, 6)
"""Numbers of bases, each with one seed."""
COUNT = "levels in the set"
BARS = {"interval": (0.87, 0.93), "set": (0.9, 1.0), "test": (0.0, 0.055)}
"""Lowest and highest share of studies that is wanted, by the kind of statement."""


def statements(world: World, risk: np.ndarray) -> dict[tuple[str, str], float]:
    """What one study says, as 1 for true, 0 for false, NaN where nothing is claimed.

    Args:
      world: with the truth.
      risk: one study of it [level, size, base].

    Returns:
      By kind ("interval", "set", "test", "share") and name.
    """
    levels, curves, optima = np.array(world.levels), world.curves, world.optima
    found = [vertex.optimum(levels, each) for each in risk.swapaxes(0, 1)]
    moved = vertex.move(found)

    def covers(interval: Any, truth: float) -> float:
        return float(interval.low <= truth <= interval.high)

    middle = len(levels) // 2
    said = {
        ("interval", "mean risk"): covers(statistics.estimate(risk[middle, 0]), curves[middle, 0]),
        ("interval", "paired contrast of two levels"): covers(
            statistics.estimate(risk[0, 0] - risk[middle, 0]), curves[0, 0] - curves[middle, 0]
        ),
        ("interval", "interaction of level and n"): covers(
            statistics.interaction(risk, 0, -1),
            (curves[-1, 0] - curves[0, 0]) - (curves[-1, -1] - curves[0, -1]),
        ),
        ("interval", "optimum d*"): float(
            np.mean([covers(each, truth) for each, truth in zip(found, optima, strict=True)])
        ),
        ("interval", "move of d*"): covers(moved, optima[-1] - optima[0]),
        ("set", "best level in the set"): float(
            np.mean(
                [
                    levels[curve.argmin()] in each.best
                    for each, curve in zip(found, curves.T, strict=True)
                ]
            )
        ),
        ("share", "intervals of d* with an open end"): float(
            np.mean([np.isinf([each.low, each.high]).any() for each in found])
        ),
        ("share", COUNT): float(np.mean([len(each.best) for each in found])),
    }
    if optima[0] == optima[-1]:
        said |= {
            ("test", "sign test of the move"): float(moved.signs.p < 0.05),
            ("test", "trend test of the move"): float(moved.trend.p < 0.05),
        }
    holds = float(judge(moved, float(np.diff(levels).min())) == HOLDS)
    said["share" if optima[0] != optima[-1] else "test", "claim 1 judged to hold"] = holds
    return said


def coverage(
    studies: int = STUDIES,
    seed: int = 0,
    *,
    worlds: Sequence[World] = WORLDS,
    designs: Sequence[int] = DESIGNS,
) -> pd.DataFrame:
    """Simulate every world and design.

    Args:
      studies: number of studies of each.
      seed: of the draws.
      worlds, designs: what is simulated: families of studies, and numbers of bases.

    Returns:
      One row per world, number of bases and statement: world, bases, kind, name, share, studies.
    """
    rows = []
    for place, (world, bases) in enumerate((w, b) for w in worlds for b in designs):
        generator = np.random.default_rng([seed, place])
        said = [statements(world, world.draw(bases, generator)) for _ in range(studies)]
        for kind, name in said[0]:
            share = float(np.mean([each[kind, name] for each in said]))
            rows.append((world.name, bases, kind, name, share, studies))
    return pd.DataFrame(rows, columns=["world", "bases", "kind", "name", "share", "studies"])


def is_within_bar(kind: str, share: float) -> bool:
    """Whether a share of `coverage` is within the bar of its kind, if that has one."""
    low, high = BARS.get(kind, (-np.inf, np.inf))
    return low <= share <= high


def markdown(table: pd.DataFrame) -> str:
    """The table of `coverage` as Markdown: a row per world and design, a column per statement."""
    names = list(dict.fromkeys(table["name"]))
    lines = [["simulated studies", "bases", *names], ["---"] * (2 + len(names))]
    met = []
    for design, rows in table.groupby(["world", "bases"], sort=False):
        cells = dict.fromkeys(names, "–")
        for row in rows.to_dict("records"):
            is_met = is_within_bar(row["kind"], row["share"])
            met += [is_met] * (row["kind"] in BARS)
            text = f"{row['share']:.1%}" if row["name"] != COUNT else f"{row['share']:.1f}"
            cells[row["name"]] = text + ("" if is_met else " *")
        lines.append([*map(str, design), *cells.values()])  # type: ignore[call-overload]
    studies = int(table["studies"].iloc[0])
    bars = ", ".join(f"{kind} {low:.1%} to {high:.1%}" for kind, (low, high) in BARS.items())
    return "\n".join(
        [
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            f"{studies:,} simulated studies in each row: the standard error of 90% is "
            f"{np.sqrt(0.09 / studies):.1%}. Bars: {bars}; {sum(met)} of {len(met)} shares meet "
            "theirs, a star marks the others.",
        ]
    )


def main() -> None:
    """Simulate, print the table, and with --record keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=STUDIES)
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    table = coverage(asked.studies)
    print(markdown(table))
    if asked.record:
        write_parquet(RESULTS / "coverage.parquet", table)


if __name__ == "__main__":
    main()
