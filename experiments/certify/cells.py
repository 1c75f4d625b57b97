"""Cells of a sweep that one program certifies together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pandas as pd

from experiments.certify.config import BLOCK_SETTINGS, POINT_METHODS, MembersConfig
from experiments.storage.results import ResultsError
from experiments.sweep.grid import Member, SweepConfig


@dataclass(frozen=True)
class CellGroup:
    """Cells of one difficulty that one program certifies together: one part of the study."""

    methods: tuple[str, ...]
    members: tuple[Member, ...]


Rates = dict[tuple[int, int], float]
"""Learning rate of each cell, by difficulty and data size."""


def tuned_rates(config: MembersConfig, sweep: SweepConfig, table: pd.DataFrame) -> Rates:
    """The learning rate that a sweep chose for each cell of a mixture.

    Raises:
      ResultsError: if a cell has no finished member.
    """
    mine = (table["train_mixture"] == config.mixture) & (table["loss"] == sweep.losses[0])
    kept = table.loc[mine & (table["status"] == "ok")]
    rates = kept.groupby(["difficulty", "data_size"])["learning_rate"].first().to_dict()
    cells = itertools.product(config.difficulties or (), config.data_sizes or ())
    if missing := [cell for cell in cells if cell not in rates]:
        d, n = missing[0]
        raise ResultsError(f"the table has no finished member with difficulty {d}, data size {n}")
    return {(int(d), int(n)): float(rate) for (d, n), rate in rates.items()}  # type: ignore[misc]


def plan(config: MembersConfig, sweep: SweepConfig, rates: Rates) -> dict[str, CellGroup]:
    """Groups of cells by name: for each difficulty, point predictors and then each block."""
    points = tuple(method for method in POINT_METHODS if method in config.methods)
    blocks = [method for method in BLOCK_SETTINGS if method in config.methods]
    groups = {}
    for difficulty in config.difficulties or ():
        grid = itertools.product(config.base_seeds, config.seeds, config.data_sizes or ())
        members = tuple(
            Member(
                base_seed,
                seed,
                config.mixture,
                difficulty,
                data_size,
                sweep.losses[0],
                rates[difficulty, data_size],
            )
            for base_seed, seed, data_size in grid
        )
        if points:
            groups[f"points_{difficulty}"] = CellGroup(points, members)
        if difficulty in (config.trained_difficulties or ()):
            groups |= {f"{block}_{difficulty}": CellGroup((block,), members) for block in blocks}
    return groups
