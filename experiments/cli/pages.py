"""Commands that show a finished run: ``sweetspot figures`` and ``sweetspot report``."""

from __future__ import annotations

from experiments.cli.arguments import NewDirectory, ResultsFlag, RunDirectory, one_directory
from experiments.cli.terminal import print_paths
from experiments.engine.progress import console
from experiments.errors import refusing
from synth.arguments import closest


def draw_figures(
    directory: RunDirectory = None,
    results: ResultsFlag = None,
    out: NewDirectory = None,
    names: tuple[str, ...] | None = None,
) -> None:
    """Draw the figures of a run as PNG and SVG.

    Args:
      directory: a run directory, or any other with tables, such as those of `regret` or `compare`.
      results: the same, as a flag.
      out: where the pictures go; default RESULTS/figures.
      names: which figures; default all whose tables are there.
    """
    from experiments import figures
    from experiments.storage.results import read_tables

    results = one_directory(directory, results)
    for name in names or ():
        if name not in figures.FIGURES:
            known = list(figures.FIGURES)
            raise ValueError(f"names must be some of {known}, got {name!r}{closest(name, known)}")
    with refusing(results):
        paths = figures.draw(read_tables(results), out or results / "figures", names)
    print_paths(paths)


def write_report(directory: RunDirectory = None, results: ResultsFlag = None) -> None:
    """Draw the figures of a run and write RESULTS/report.html, one self-contained page.

    Args:
      directory: a run directory.
      results: the same, as a flag.
    """
    from experiments import figures
    from experiments.pages import report
    from experiments.storage.results import read_manifest, read_tables

    results = one_directory(directory, results)
    with refusing(results):
        tables = read_tables(results)
        drawn = figures.draw(tables, results / "figures")
        page = report.write_report(results, tables, read_manifest(results), drawn)
    console.print(str(page))
