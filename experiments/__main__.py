"""The command line: ``sweetspot list | run | figures | report | tasks``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from experiments.devices import configure_host_devices

configure_host_devices()

import jax  # noqa: E402  (after the flags above)
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import tyro  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from experiments import figures, optimum, report  # noqa: E402
from experiments.grid import SweepConfig  # noqa: E402
from experiments.recipes import RECIPES  # noqa: E402
from experiments.results import ResultsError, read_manifest, read_tables  # noqa: E402
from experiments.run import run_sweep  # noqa: E402
from synth.task import Mixture, pool  # noqa: E402
from synth.tasks import TASKS, make_task  # noqa: E402

console = Console()
Positional = tyro.conf.Positional


def list_recipes() -> None:
    """List recipes and their presets."""
    table = Table("recipe", "preset", "members", "difficulties", "data sizes", "what it shows")
    for name, recipe in RECIPES.items():
        for preset, config in recipe.PRESETS.items():
            table.add_row(
                name,
                preset,
                str(config.num_members),
                " ".join(map(str, config.difficulties)),
                " ".join(map(str, config.data_sizes)),
                (recipe.__doc__ or "").splitlines()[0],
            )
    console.print(table)


def run_command(defaults: SweepConfig) -> Callable[..., None]:
    """The command ``run``, whose flags change `defaults`."""

    def run(
        recipe: Positional[str],
        preset: str = "demo",
        out: Path | None = None,
        config: Annotated[SweepConfig, tyro.conf.arg(name="")] = defaults,
    ) -> None:
        """Run a recipe, or carry on with an interrupted run.

        Args:
          recipe: a name that `sweetspot list` shows.
          preset: size of the run.
          out: run directory; default runs/RECIPE-PRESET.
          config: fields to change.
        """
        out = out or Path("runs") / f"{recipe}-{preset}"
        table = run_sweep(config, out, recipe=recipe, preset=preset)
        print_headline(table)
        console.print(f"Table: {out / 'table.parquet'}")

    return run


def draw_figures(results: Path, out: Path | None = None) -> None:
    """Draw every figure of a run as PNG and SVG.

    Args:
      results: a run directory.
      out: where the pictures go; default RESULTS/figures.
    """
    for path in figures.draw(read_tables(results), out or results / "figures"):
        console.print(str(path))


def write_report(results: Path) -> None:
    """Draw the figures of a run and write RESULTS/report.html, one self-contained page.

    Args:
      results: a run directory.
    """
    tables = read_tables(results)
    drawn = figures.draw(tables, results / "figures")
    path = report.write_report(results, tables, read_manifest(results), drawn)
    console.print(str(path))


def list_tasks(name: Positional[str | None] = None, difficulty: int = 3, examples: int = 2) -> None:
    """List tasks, with examples as text and the number of distinct problems.

    Args:
      name: one task (or module:attribute); default all.
      difficulty: level of the examples.
      examples: how many to show.
    """
    for each in [name] if name else list(TASKS):
        task = make_task(each)
        drawn = pool(task, jax.random.key(0), Mixture.exact(difficulty), examples)
        size = task.log_num_problems(difficulty)
        problems = "unknown" if size is None else f"10^{size / np.log(10):.1f}"
        console.print(
            f"[bold]{each}[/bold]: difficulty 1 to {task.hardest}, {len(task.vocabulary)} token "
            f"ids; at difficulty {difficulty} up to {task.max_length(difficulty)} tokens, "
            f"{problems} distinct problems"
        )
        for tokens in np.asarray(drawn.tokens):
            console.print(f"  {task.decode(tokens)}", highlight=False, markup=False)


def print_headline(table: pd.DataFrame) -> None:
    """For each study and n: the best difficulty with its interval, and the two gaps there."""
    limits = {"hardest": "≥ ", "easiest": "≤ ", "": ""}

    def interval(row: dict[str, Any], name: str) -> str:
        return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"

    for study in optimum.studies(table):
        said = report.verdict(optimum.shift(table, study))
        console.print(f"\n[bold]{study.title}[/bold]: {said}", highlight=False)
        shown = Table("n", "best d", "test risk", "generalization gap", "extrapolation gap")
        shown.box = box.SIMPLE
        for row in optimum.optimum(table, study).to_dict("records"):
            best = f"{row['best_difficulty']} [{row['low']}, {row['high']}]"
            gaps = [interval(row, name) for name in ("test_risk", *optimum.GAPS)]
            shown.add_row(str(row["data_size"]), limits[row["censored"]] + best, *gaps)
        console.print(shown)
    console.print("Means with 90% bootstrap intervals; ≥ or ≤: at the edge of the grid.")


def _run_defaults(arguments: list[str]) -> SweepConfig:
    """Configuration that the flags of ``run`` change: that of the recipe and preset asked for."""
    recipe = next((text for text in arguments if not text.startswith("-")), None)
    if recipe is None:
        return SweepConfig()
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {sorted(RECIPES)}, got {recipe!r}")
    preset = "demo"
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag.startswith("--preset"):
            preset = flag.partition("=")[2] or value
    presets = RECIPES[recipe].PRESETS
    if preset not in presets:
        raise ValueError(f"preset of {recipe} must be one of {sorted(presets)}, got {preset!r}")
    return presets[preset]


def main() -> None:
    """Entry point of the command ``sweetspot``."""
    arguments = sys.argv[1:]
    try:
        asked = arguments[1:] if arguments[:1] == ["run"] else []
        tyro.extras.subcommand_cli_from_dict(
            {
                "list": list_recipes,
                "run": run_command(_run_defaults(asked)),
                "figures": draw_figures,
                "report": write_report,
                "tasks": list_tasks,
            },
            prog="sweetspot",
            args=arguments,
        )
    except (ValueError, OSError, ResultsError) as error:
        console.print(f"[bold red]error:[/bold red] {error}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Interrupted; run the same command again to carry on.")
        sys.exit(130)


if __name__ == "__main__":
    main()
