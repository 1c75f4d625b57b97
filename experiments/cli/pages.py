"""Commands that show a finished run: ``sweetspot figures`` and ``sweetspot report``."""

from __future__ import annotations

from pathlib import Path

from experiments.cli.terminal import print_paths
from experiments.engine.progress import console


def draw_figures(
    results: Path, out: Path | None = None, names: tuple[str, ...] | None = None
) -> None:
    """Draw the figures of a run as PNG and SVG.

    Args:
      results: a run directory, or any other with tables, such as those of `regret` or `compare`.
      out: where the pictures go; default RESULTS/figures.
      names: which figures; default all whose tables are there.
    """
    from experiments import figures
    from experiments.storage.results import read_tables

    print_paths(figures.draw(read_tables(results), out or results / "figures", names))


def write_report(results: Path) -> None:
    """Draw the figures of a run and write RESULTS/report.html, one self-contained page.

    Args:
      results: a run directory.
    """
    from experiments import figures
    from experiments.pages import report
    from experiments.storage.results import read_manifest, read_tables

    tables = read_tables(results)
    drawn = figures.draw(tables, results / "figures")
    console.print(str(report.write_report(results, tables, read_manifest(results), drawn)))
