"""Bounds over many cells at once: how many cells a second each of `theory.BOUNDS` does.

Ten thousand cells with five data sizes, so that ξ(n) comes from its cache, in one call.

Commands and cost (two CPU cores)::

    python -m experiments.benchmarks.bounds --quick    # seconds: checks that it works
    python -m experiments.benchmarks.bounds --record   # seconds: the table in the README

Expect: every bound does 10,000 cells in less than 100 ms.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import tyro

from experiments.benchmarks import (
    Verdict,
    caption,
    environment,
    report,
    spread,
    table_lines,
    verdict_lines,
)
from experiments.devices import configure_host_devices
from theory import BOUNDS

TEST_SET = ("chernoff", "clopper_pearson")
SIZES = (64, 256, 1024, 4096, 16384)
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
    sizes = generator.choice(SIZES, cells)
    risks = generator.integers(0, sizes + 1) / sizes
    measured = []
    for repeat in range(-1, repeats):
        for name, bound in BOUNDS.items():
            kl = 0.0 if name in TEST_SET else generator.gamma(2.0, 20.0, cells)
            start = time.perf_counter()
            bound(risks, kl, num_examples=sizes, delta=0.05)
            seconds = time.perf_counter() - start
            # The first round compiles.
            if repeat >= 0:
                row = {"bound": name, "repeat": repeat, "seconds": seconds, "cells": cells}
                measured.append(row)
    table = pd.DataFrame(measured)
    manifest = environment() | {
        "repeats": repeats,
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts(table)],
    }
    return table, manifest


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
    lines = table_lines(("bound", f"ms for {cells:,} cells"), rows)
    return "\n".join([*lines, "", *verdict_lines(manifest, 0), "", caption(manifest)]) + "\n"


def run(quick: bool = False, record: bool = False) -> None:
    """Measure, and print the table and the bar.

    Args:
      quick: only check that everything works; the numbers mean nothing.
      record: keep table and manifest under experiments/results/benchmarks.

    Raises:
      ValueError: if a quick run is to be recorded.
    """
    report(
        "bounds",
        lambda: measure(*((100, 2) if quick else (10_000, 9))),
        markdown,
        quick=quick,
        record=record,
    )


def main() -> None:
    """Entry point of ``python -m experiments.benchmarks.bounds``."""
    configure_host_devices()
    tyro.cli(run)


if __name__ == "__main__":
    main()
