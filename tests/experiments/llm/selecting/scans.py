"""A folder that looks like a finished scan, with an invented table of known answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.llm.problems.config import Source
from experiments.llm.problems.data import read
from experiments.llm.scan.grid import ScanConfig
from tests.experiments.llm.rows import write_sums
from tests.experiments.worlds import CONFIG, world, write_run

LEVELS = tuple(range(1, 13))
WORLD = dataclasses.replace(CONFIG, data_sizes=(16, 64))
"""Recommends level 9 for 256 examples: see tests/experiments/analysis/test_recommend.py."""


def write_scan(folder: Path, checkpoint: Path, *, is_flat: bool = False, **changes: Any) -> Path:
    """Write a scan of ``range`` selections of 480 sums of 12 levels.

    Args:
      folder: for the scan, ``scan``, and its data.
      checkpoint: of the scan.
      is_flat: make all levels equal but for noise, so that nothing is recommended.
      changes: fields of the configuration.
    """
    rows = write_sums(folder / "train.jsonl", 480, levels=LEVELS)
    config = ScanConfig(
        checkpoint=str(checkpoint),
        train=Source(str(rows)),
        test=Source(str(rows)),
        selections=("range",),
        difficulties=WORLD.difficulties,
        data_sizes=WORLD.data_sizes,
        losses=("sft",),
        learning_rates=(1e-3,),
        max_length=1024,
        risk_examples=4,
    )
    table = world(config=WORLD, is_flat=is_flat, noise=0.1 if is_flat else 0.02)
    counts = {"train": dict.fromkeys(map(str, LEVELS), 40)}
    counts["test"] = {str(level): 10 for level in range(1, WORLD.test_hardest + 1)}
    return write_run(
        folder / "scan",
        table,
        dataclasses.asdict(dataclasses.replace(config, **changes)),
        kind="llm",
        levels=counts,
        data={"train": read(rows).digest()},
    )
