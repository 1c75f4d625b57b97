"""The benchmark of workers: its rates, its bar, its text."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from experiments.benchmarks import cluster


def test_two_workers_are_compared_within_a_repeat():
    seconds = {"one": 4.0, "two": 2.0, "process": 1.0}
    table = pd.DataFrame(
        [
            # The machine drifts: ratios within a repeat do not.
            {"row": row, "repeat": repeat, "seconds": value * (1 + repeat), "members": 8}
            for repeat in range(3)
            for row, value in seconds.items()
        ]
    )
    (verdict,) = cluster.verdicts(table)
    assert (verdict.value, verdict.lowest, verdict.highest) == pytest.approx((2.0, 2.0, 2.0))
    assert verdict.passed
    manifest = {
        **{"device": "Abacus", "cores": 2, "python": "3.11", "versions": {}, "commit": "abc"},
        **{"date": "2026-01-02", "repeats": 3, "chunks": 4, "steps": 5},
        "rows": {row.name: row.label for row in cluster.ROWS},
        "verdicts": [dataclasses.asdict(verdict)],
    }
    text = cluster.markdown(table, manifest)
    assert "| **two Ray workers** | 2.000 (1.333–4.000) | 2.00 (2.00–2.00) |" in text
    assert "| two Ray workers: times as fast as one | 1.70 | 2.00 (2.00–2.00) | pass |" in text


def test_all_chunks_have_one_shape():
    config = cluster.sweep(6, 10)
    assert config.num_members == 6 * cluster.CHUNK
    assert len(config.difficulties) == len(config.data_sizes) == 1
