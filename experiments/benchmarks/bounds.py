"""Bounds over many cells at once: cells a second of each of `theory.BOUNDS` and of total bounds.

One call bounds ten thousand cells of five data sizes; ξ(n) is cached for each size.

Commands and cost (two CPU cores)::

    python -m experiments.benchmarks.bounds --quick    # seconds: checks that it works
    python -m experiments.benchmarks.bounds --record   # seconds: the table of docs/performance.md

Expect: every bound does 10,000 cells in less than 100 ms.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks import Verdict, command, describe, main, page, spread
from theory import BOUNDS
from theory.total import VARIANTS, total_bound

TEST_SET = ("chernoff", "clopper_pearson")
"""Bounds on a fixed predictor, which take a complexity of zero."""
SIZES = (64, 256, 1024, 4096, 16384)
LEVELS = 24
BAR = 100_000


def measure(cells: int, repeats: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      cells: risks, complexities and data sizes in one call.
      repeats: rounds; the bounds take turns in each.

    Returns:
      The tidy table, one row per bound and repeat: ``seconds`` for ``cells``; and the manifest.
    """
    generator = np.random.default_rng(0)
    # Each cell of a total bound has a training mixture of its own: levels 1 to d of 24.
    hardest = generator.integers(1, LEVELS + 1, cells)
    train = (np.arange(LEVELS) < hardest[:, None]) / hardest[:, None]
    totals = {
        f"total, {variant}": functools.partial(
            total_bound, test=np.full(LEVELS, 1 / LEVELS), train=train, variant=variant
        )
        for variant in VARIANTS
    }
    sizes = generator.choice(SIZES, cells)
    risks = generator.integers(0, sizes + 1) / sizes
    measured = []
    for repeat in range(-1, repeats):
        for name, bound in (BOUNDS | totals).items():
            kl = 0.0 if name in TEST_SET else generator.gamma(2.0, 20.0, cells)
            start = time.perf_counter()
            bound(risks, kl, num_examples=sizes, delta=0.05)
            seconds = time.perf_counter() - start
            # Round -1 compiles and is not counted.
            if repeat >= 0:
                row = {"bound": name, "repeat": repeat, "seconds": seconds, "cells": cells}
                measured.append(row)
    table = pd.DataFrame(measured)
    return table, describe(verdicts(table), repeats=repeats)


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bar: cells per second of the slowest bound."""
    medians = table.groupby("bound")["seconds"].median()
    slowest = table[table["bound"] == medians.idxmax()]
    rates = list(slowest["cells"] / slowest["seconds"])
    return [Verdict.of(f"cells per second, slowest bound (`{medians.idxmax()}`)", BAR, rates)]


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of bounds, the bar, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    cells = int(table["cells"].iloc[0])
    rows = [
        (f"`{name}`", spread(1000 * part["seconds"], 1))
        for name, part in table.groupby("bound", sort=False)
    ]
    return page(("bound", f"ms for {cells:,} cells"), rows, manifest, digits=0)


run = command("bounds", lambda quick: measure(*((100, 2) if quick else (10_000, 9))), markdown)


if __name__ == "__main__":
    main(run)
