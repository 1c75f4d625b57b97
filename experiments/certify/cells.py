"""Cells of a sweep that one program certifies together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from experiments.certify.config import BLOCK_SETTINGS, POINT_METHODS, MembersConfig
from experiments.sweep.grid import Member, SweepConfig


@dataclass(frozen=True)
class CellGroup:
    """Cells of one difficulty that one program certifies together: one part of the study."""

    methods: tuple[str, ...]
    members: tuple[Member, ...]


def plan(config: MembersConfig, sweep: SweepConfig) -> dict[str, CellGroup]:
    """Groups of cells by name: for each difficulty, point predictors and then each block."""
    points = tuple(method for method in POINT_METHODS if method in config.methods)
    blocks = [method for method in BLOCK_SETTINGS if method in config.methods]
    loss, rate = sweep.losses[0], sweep.learning_rates[0]
    groups = {}
    for difficulty in config.difficulties or ():
        grid = itertools.product(config.base_seeds, config.seeds, config.data_sizes or ())
        members = tuple(
            Member(base_seed, seed, config.mixture, difficulty, data_size, loss, rate)
            for base_seed, seed, data_size in grid
        )
        if points:
            groups[f"points_{difficulty}"] = CellGroup(points, members)
        if difficulty in (config.trained_difficulties or ()):
            groups |= {f"{block}_{difficulty}": CellGroup((block,), members) for block in blocks}
    return groups
