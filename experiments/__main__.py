"""The command line: ``sweetspot list | run | bound | compare | tasks | report | …``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from experiments.devices import configure_host_devices

configure_host_devices()

import pandas as pd  # noqa: E402  (after the flags above, like all that may load JAX)
import tyro  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markup import escape  # noqa: E402
from rich.table import Table  # noqa: E402

from experiments import figures  # noqa: E402
from experiments.analysis import families, optimum  # noqa: E402
from experiments.analysis.average import average_regret  # noqa: E402
from experiments.analysis.pilot import Mixtures, read_pilot, read_scan  # noqa: E402
from experiments.analysis.recommend import Recommendation, recommend  # noqa: E402
from experiments.analysis.regret import write_regret  # noqa: E402
from experiments.certify.config import DEFAULT_CERTIFICATES, MembersConfig  # noqa: E402
from experiments.certify.members import certify  # noqa: E402
from experiments.cli import llm as commands  # noqa: E402
from experiments.cli import tasks  # noqa: E402
from experiments.cli.presets import asked_for  # noqa: E402
from experiments.llm.recipes import RECIPES as SCANS  # noqa: E402
from experiments.llm.scan.grid import ScanConfig  # noqa: E402
from experiments.llm.training.distributed import FirstProcessError  # noqa: E402
from experiments.llm.training.meter import DivergedError  # noqa: E402
from experiments.pages import report  # noqa: E402
from experiments.recipes import RECIPES  # noqa: E402
from experiments.storage.results import ResultsError, read_manifest, read_tables  # noqa: E402
from experiments.sweep.grid import SweepConfig  # noqa: E402
from experiments.sweep.study import run_sweep  # noqa: E402
from theory.certificate import Ledger  # noqa: E402

console = Console()
Positional = tyro.conf.Positional
EXPECTED = (ValueError, OSError, ImportError, ResultsError, DivergedError, FirstProcessError)
"""Errors that say what is wrong: one line, and no traceback."""


def list_recipes() -> None:
    """List recipes and their presets."""
    for command, recipes in (("run", RECIPES), ("llm scan", SCANS)):
        table = Table(title=f"sweetspot {command}", title_justify="left")
        for column in ("recipe", "preset", "members"):
            table.add_column(column, no_wrap=True)
        for column in ("difficulties", "data sizes"):
            table.add_column(column)
        for name, recipe in recipes.items():
            for preset, config in recipe.PRESETS.items():
                table.add_row(
                    name,
                    preset,
                    str(config.num_members),
                    " ".join(map(str, config.difficulties)),
                    " ".join(map(str, config.data_sizes)),
                )
        console.print(table)
        for name, recipe in recipes.items():
            headline = (recipe.__doc__ or "").splitlines()[0]
            console.print(f"[bold]{name}[/bold]: {headline}", highlight=False)
        console.print()


def run_command(defaults: SweepConfig) -> Callable[..., None]:
    """The command ``run``, whose flags change `defaults`."""

    def run(
        recipe: Positional[str],
        preset: str = "demo",
        out: Path | None = None,
        # Parts of the decoder that a sweep leaves at None would otherwise be commands of their own.
        config: Annotated[
            SweepConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
        ] = defaults,
    ) -> None:
        """Run a recipe, or carry on with an interrupted run.

        Args:
          recipe: a name that `sweetspot list` shows, or "custom" with the fields given as flags.
          preset: size of the run.
          out: run directory; default runs/RECIPE-PRESET.
          config: fields to change.
        """
        preset = "custom" if recipe == "custom" else preset
        out = out or Path("runs") / f"{recipe}-{preset}"
        table = run_sweep(config, out, recipe=recipe, preset=preset)
        print_headline(table)
        console.print(f"Table: {out / 'table.parquet'}")

    return run


def certify_cells(
    results: Path,
    config: Annotated[MembersConfig, tyro.conf.arg(name="")] = DEFAULT_CERTIFICATES,
) -> None:
    """Certify the cells of a finished sweep and write RESULTS/certificates.parquet.

    Args:
      results: a run directory.
      config: what to certify.
    """
    print_certificates(certify(results, config))
    console.print(f"Table: {results / 'certificates.parquet'}")


def print_certificates(certificates: pd.DataFrame) -> None:
    """For each difficulty and n: the plain risk, and each method's bound and own risk."""
    methods = certificates["method"].unique()
    shown = Table("d", "n", "plain", *methods, box=box.SIMPLE)
    for cell, rows in certificates.groupby(["difficulty", "data_size"]):
        level, size = cell  # type: ignore[misc]
        means = rows.pivot_table(["risk_bound", "gibbs_risk"], "method").to_dict("index")
        columns = [
            f"{means[method]['risk_bound']:.2f} ({means[method]['gibbs_risk']:.2f})"
            if method in means
            else "–"
            for method in methods
        ]
        shown.add_row(str(level), str(size), f"{rows['plain_risk'].mean():.3f}", *columns)
    console.print(shown)
    console.print("Risk bounds, in brackets the measured risk of the predictor they are about.")
    console.print(str(Ledger.from_json(certificates["ledger"].iloc[0])), highlight=False)


def recommend_difficulty(
    data_size: int,
    results: Path | None = None,
    pilot: str | None = None,
    recipe: str = "tradeoff",
    out: Path | None = None,
) -> None:
    """Predict the best training difficulty for a data budget, or say that the pilot cannot tell.

    Args:
      data_size: the budget, at least the largest data size of the pilot and in its unit.
      results: a finished run to predict from; or
      pilot: a preset of `recipe` to run first (or carry on with) and predict from.
      recipe: a name that `sweetspot list` shows.
      out: directory of that run; default runs/RECIPE-PILOT.
    """
    if (results is None) == (pilot is None):
        raise ValueError(
            f"either results (a run directory) or pilot (a preset) must be given, "
            f"got results = {results} and pilot = {pilot}"
        )
    if results is None:
        results = out or Path("runs") / f"{recipe}-{pilot}"
        config = asked_for([recipe], RECIPES, custom=SweepConfig(), preset=str(pilot))
        run_sweep(config, results, recipe=recipe, preset=str(pilot))
    print_recommendations(*read_pilot(results), data_size)


def recommend_for_checkpoint(results: Path, data_size: int) -> None:
    """Predict the best training difficulty for a data budget from a scan of a checkpoint.

    Args:
      results: directory of a finished scan.
      data_size: the budget, at least the largest data size of the scan and in its unit.
    """
    print_recommendations(*read_scan(results), data_size)


def print_recommendations(table: pd.DataFrame, mixtures: Mixtures, data_size: int) -> None:
    """The answer for each study of a run."""
    for study in optimum.studies(table):
        print_recommendation(recommend(table, study, mixtures, data_size))
    console.print(
        "Predictions with 90% bootstrap intervals; no certificate, and none would certify "
        "which difficulty is best."
    )


def print_recommendation(found: Recommendation) -> None:
    """The answer, what it rests on, and what other rules would choose."""
    console.print(f"\n[bold]{found.study.title}[/bold]: {found.verdict}", highlight=False)
    shown = Table("d", "predicted test risk", "above the least", box=box.SIMPLE)
    for level, risk in found.predicted.items():
        above = found.excess.get(level)
        shown.add_row(str(level), str(risk), "–" if above is None else str(above))
    console.print(shown)
    rules = ", ".join(f"{rule} {level}" for rule, level in found.choices.items())
    sizes = ", ".join(map(str, found.pilot_sizes))
    console.print(f"Fitted to n = {sizes}. Choices of all rules: {rules}.", highlight=False)


def judge_rules(results: list[Path], out: Path = Path("runs/regret")) -> None:
    """Judge every rule that picks a difficulty by its regret on held-out data sizes.

    Writes OUT/regret.parquet and OUT/prediction.parquet, and draws their figures.

    Args:
      results: finished runs to average over.
      out: directory of the tables.
    """
    tables = write_regret(results, out)
    shown = Table("rule", "regret", "above the predictor", "rank corr.", box=box.SIMPLE)
    for row in average_regret(tables["regret"]).to_dict("records"):
        regret = optimum.Interval(row["regret"], row["low"], row["high"])
        more = optimum.Interval(row["more"], row["more_low"], row["more_high"])
        shown.add_row(row["rule"], str(regret), str(more), f"{row['rank_correlation']:.2f}")
    console.print(shown)
    console.print("Means over all held-out cases with 90% intervals over bases.")
    for path in [
        *(out / f"{name}.parquet" for name in tables),
        *figures.draw(tables, out / "figures"),
    ]:
        console.print(str(path))


def draw_figures(
    results: Path, out: Path | None = None, names: tuple[str, ...] | None = None
) -> None:
    """Draw the figures of a run as PNG and SVG.

    Args:
      results: a run directory, or one with the tables of `sweetspot regret`.
      out: where the pictures go; default RESULTS/figures.
      names: which figures; default all whose tables are there.
    """
    for path in figures.draw(read_tables(results), out or results / "figures", names):
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


def compare_families(results: list[Path], out: Path = Path("runs/families")) -> None:
    """Compare task families: does the best difficulty move to harder data in each?

    Writes OUT/families.parquet and OUT/manifest.json, and draws their figures.

    Args:
      results: a finished run of each family.
      out: directory of the table.
    """
    table = families.write_families(results, out)
    found = families.shown(families.verdicts(table))
    numbers = found.drop(columns="in words")
    shown = Table(*numbers.columns, box=box.SIMPLE)
    for row in numbers.itertuples(index=False):
        shown.add_row(*row)
    console.print(shown)
    for family, sentence in zip(found["family"], found["in words"], strict=True):
        console.print(f"[bold]{family}[/bold]: {sentence}", highlight=False)
    console.print(families.RULE, highlight=False)
    for path in [out / "families.parquet", *figures.draw({"families": table}, out / "figures")]:
        console.print(str(path))


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
            best = "none" if row["tied"] else limits[row["censored"]] + best
            gaps = [interval(row, name) for name in ("test_risk", *optimum.GAPS)]
            shown.add_row(str(row["data_size"]), best, *gaps)
        console.print(shown)
    console.print("Means with 90% bootstrap intervals; ≥ or ≤: at the edge of the grid.")


def _joined(arguments: list[str]) -> list[str]:
    """The arguments, with the words of a command of two words as one."""
    if arguments[:1] == ["llm"] and (len(arguments) == 1 or arguments[1].startswith("-")):
        return ["--help"]
    is_two = arguments[:1] == ["llm"] or arguments[:2] in (
        ["tasks", "export"],
        ["tasks", "gallery"],
    )
    return [" ".join(arguments[:2]), *arguments[2:]] if is_two else arguments


def main() -> None:
    """Entry point of the command ``sweetspot``."""
    arguments = sys.argv[1:]
    try:
        asked = arguments[1:] if arguments[:1] == ["run"] else []
        scanned = arguments[2:] if arguments[:2] == ["llm", "scan"] else []
        tyro.extras.subcommand_cli_from_dict(
            {
                "list": list_recipes,
                "run": run_command(asked_for(asked, RECIPES, custom=SweepConfig(), preset="demo")),
                "bound": certify_cells,
                "recommend": recommend_difficulty,
                "regret": judge_rules,
                "compare": compare_families,
                "figures": draw_figures,
                "report": write_report,
                "tasks": tasks.list_tasks,
                "tasks export": tasks.export_task,
                "tasks gallery": tasks.show_gallery,
                "llm prepare": commands.prepare,
                "llm difficulty": commands.measure_difficulty,
                "llm finetune": commands.finetune_checkpoint,
                "llm evaluate": commands.evaluate_checkpoint,
                "llm scan": commands.scan_command(
                    asked_for(scanned, SCANS, custom=ScanConfig()), print_headline
                ),
                "llm recommend": recommend_for_checkpoint,
                "llm bound": commands.certify_problems,
            },
            prog="sweetspot",
            args=_joined(arguments),
        )
    except EXPECTED as error:
        # Escaped, or "sweetspot[llm]" would lose its brackets.
        console.print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Interrupted; what keeps a run directory carries on with the same command.")
        sys.exit(130)


if __name__ == "__main__":
    main()
