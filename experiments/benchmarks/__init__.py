"""Benchmarks: against peers and against the machine's limit, side by side in one run.

Each benchmark is one file with ``main()``: ``python -m experiments.benchmarks.NAME [--quick]
[--record]``. Recorded, its tidy table and manifest go to ``experiments/results/benchmarks``;
``markdown(table, manifest)`` makes from them what the README shows.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.devices import num_cores
from experiments.storage import provenance
from experiments.storage.results import read_parquet, write_atomically

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


@dataclass(frozen=True)
class Verdict:
    """A bar of the project and what was measured.

    Attributes:
      name: what is measured, in words, unit included.
      bar: the least value that passes.
      value: median over repeats.
      lowest, highest: over repeats.
    """

    name: str
    bar: float
    value: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, name: str, bar: float, values: Sequence[float]) -> Verdict:
        """Verdict on the values of all repeats."""
        return cls(name, bar, float(np.median(values)), float(min(values)), float(max(values)))

    @property
    def passed(self) -> bool:
        """Whether the median reaches the bar."""
        return self.value >= self.bar


def spread(values: Iterable[float], digits: int) -> str:
    """``median (lowest–highest)``, with thousands separated."""
    values = list(values)
    median, low, high = (
        f"{value:,.{digits}f}" for value in (np.median(values), min(values), max(values))
    )
    return f"{median} ({low}–{high})"


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; every column but the first is aligned to the right."""
    ruler = ["---", *["--:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in [header, ruler, *rows]]


def verdict_lines(manifest: Mapping[str, Any], digits: int) -> list[str]:
    """Lines of the table of bars."""
    verdicts = [Verdict(**fields) for fields in manifest["verdicts"]]
    return table_lines(
        ("bar", "at least", "measured", ""),
        [
            (
                verdict.name,
                f"{verdict.bar:,.{digits}f}",
                spread((verdict.lowest, verdict.value, verdict.highest), digits),
                "pass" if verdict.passed else "**fail**",
            )
            for verdict in verdicts
        ],
    )


def caption(manifest: Mapping[str, Any]) -> str:
    """One sentence: machine, versions, commit and date."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return (
        f"{manifest['device']}, {manifest['cores']} cores; Python {manifest['python']}, "
        f"{versions}; commit `{manifest['commit']}`, {manifest['date']}. "
        f"Median (lowest–highest) of {manifest['repeats']} interleaved repeats."
    )


def environment() -> dict[str, Any]:
    """What a manifest says of machine, versions and time. Starts JAX if it has not started."""
    return {
        "device": provenance.device_name(),
        "cores": num_cores(),
        "python": platform.python_version(),
        "versions": provenance.versions(PACKAGES),
        "commit": provenance.commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write_record(
    name: str, table: pd.DataFrame, manifest: Mapping[str, Any], directory: Path = RESULTS
) -> list[Path]:
    """Write ``NAME.parquet`` and ``NAME.json``, in place of those of an earlier recording."""
    parquet, manifest_path = directory / f"{name}.parquet", directory / f"{name}.json"
    write_atomically(parquet, lambda path: table.to_parquet(path, index=False))

    def write_manifest(path: Path) -> None:
        path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")

    write_atomically(manifest_path, write_manifest)
    return [parquet, manifest_path]


def report(
    name: str,
    measured: Callable[[], tuple[pd.DataFrame, dict[str, Any]]],
    markdown: Callable[[pd.DataFrame, Mapping[str, Any]], str],
    *,
    quick: bool,
    record: bool,
) -> None:
    """Measure, print the tables and bars, and keep them where that is asked for.

    Args:
      name: of the record.
      measured: gives table and manifest.
      markdown: makes text of them.
      quick: whether the plan only checks that everything works.
      record: keep table and manifest under experiments/results/benchmarks.

    Raises:
      ValueError: if a quick run is to be recorded, before anything is measured.
    """
    if quick and record:
        raise ValueError("record needs the full plan, got quick as well")
    table, manifest = measured()
    print(markdown(table, manifest))
    if record:
        for path in write_record(name, table, manifest):
            print(path)


def read_record(name: str, directory: Path = RESULTS) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and manifest that `write_record` wrote."""
    manifest = json.loads((directory / f"{name}.json").read_text())
    return read_parquet(directory / f"{name}.parquet"), manifest
