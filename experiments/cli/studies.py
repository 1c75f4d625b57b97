"""Commands of the simulator's study: ``sweetspot list | run | bound | recommend | regret | …``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.certify.config import DEFAULT_CERTIFICATES, MembersConfig
from experiments.cli.arguments import (
    Directory,
    NewDirectory,
    Preset,
    Recipe,
    ResultsFlag,
    ResultsFlags,
    RunDirectories,
    RunDirectory,
    one_directory,
    several_directories,
)
from experiments.cli.plan import NO_PLAN, Planning
from experiments.cli.presets import Asked, preset_of
from experiments.cli.recommending import AsJson, FiguresFolder, tell
from experiments.cli.terminal import (
    print_headline,
    print_named,
    print_paths,
    print_rows,
    print_sentences,
)
from experiments.engine.progress import console
from experiments.engine.workers import IN_THIS_PROCESS, Workers
from experiments.errors import refusing
from experiments.llm.recipes import RECIPES as SCANS
from experiments.recipes import RECIPES
from experiments.sweep.grid import SweepConfig

if TYPE_CHECKING:
    import pandas as pd


def list_recipes() -> None:
    """List recipes and their presets, with the hours that they take."""
    for command, recipes in (("run", RECIPES), ("llm scan", SCANS)):
        console.print(f"sweetspot {command}", style="italic")
        print_rows(
            ("recipe", "preset", "members", "levels", "data sizes", "hours"),
            (
                (
                    name,
                    preset,
                    config.num_members,
                    " ".join(map(str, config.difficulties)),
                    " ".join(map(str, config.data_sizes)),
                    _hours(recipe, preset),
                )
                for name, recipe in recipes.items()
                for preset, config in recipe.PRESETS.items()
            ),
        )
        for name, recipe in recipes.items():
            headline = (recipe.__doc__ or "").splitlines()[0]
            print_named(name, f"{headline} Hours are of {recipe.DEVICE}.")
        console.print()


def _hours(recipe: ModuleType, preset: str) -> str:
    """Hours of a preset on its recipe's device; a dash where none are known."""
    hours = recipe.HOURS.get(preset)
    return "–" if hours is None else f"{hours:g}"


def run_command(asked: Asked) -> Callable[..., None]:
    """The command ``run``, whose flags change the preset that was asked for."""

    def run(
        recipe: Recipe,
        size: Preset = None,
        preset: Annotated[str, tyro.conf.arg(metavar="PRESET")] = asked.preset,
        out: NewDirectory = None,
        bases: Annotated[Path | None, tyro.conf.arg(metavar="DIRECTORY")] = None,
        # tyro would make subcommands of the decoder's optional parts.
        config: Annotated[
            SweepConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
        ] = asked.config,
        workers: Annotated[Workers, tyro.conf.arg(name="")] = IN_THIS_PROCESS,
        planning: Planning = NO_PLAN,
    ) -> None:
        """Run a recipe, or carry on with an interrupted run.

        Args:
          recipe: a name that `sweetspot list` shows, or "custom" with the fields given as flags.
          size: preset, which is the size of the run; by default demo, or else the recipe's first.
          preset: the same, as a flag.
          out: run directory; default runs/RECIPE-PRESET.
          bases: run whose bases are used, trained in the same way; default: new ones are trained.
          config: fields to change.
          workers: where the parts are made.
          planning: print what it takes instead.
        """
        from experiments.sweep.bases import read_bases
        from experiments.sweep.study import SweepStudy, run_sweep

        asked.check(recipe, size)
        preset = asked.preset
        out = out or Path("runs") / f"{recipe}-{preset}"
        if planning.is_asked:
            given = None if bases is None else read_bases(bases, config)
            planning.show(SweepStudy(config, out, recipe=recipe, preset=preset, given=given))
            return
        with workers.start(out) as executor:
            table = run_sweep(
                config, out, recipe=recipe, preset=preset, bases=bases, executor=executor
            )
        print_headline(table)
        console.print(f"Table: {out / 'table.parquet'}")

    return run


def certify_cells(
    directory: RunDirectory = None,
    results: ResultsFlag = None,
    config: Annotated[MembersConfig, tyro.conf.arg(name="")] = DEFAULT_CERTIFICATES,
    task: str | None = None,
    workers: Annotated[Workers, tyro.conf.arg(name="")] = IN_THIS_PROCESS,
    planning: Planning = NO_PLAN,
) -> None:
    """Certify the cells of a finished sweep and write RESULTS/certificates.parquet.

    Args:
      directory: a run directory.
      results: the same, as a flag.
      config: what to certify.
      task: the sweep's task, if it is your own (module:attribute): it is imported only if you name
        it here.
      workers: where the parts are made.
      planning: print what it takes instead.
    """
    from experiments.certify.members import certification, certify

    results = one_directory(directory, results)
    if planning.is_asked:
        planning.show(certification(results, config, task=task))
        return
    with workers.start(results) as executor:
        certificates = certify(results, config, task=task, executor=executor)
    print_certificates(certificates)
    console.print(f"Table: {results / 'certificates.parquet'}")


def print_certificates(certificates: pd.DataFrame) -> None:
    """Print, for each difficulty and n, the plain risk and each method's bound and own risk."""
    from theory.certificate import Ledger

    methods = list(certificates["method"].unique())
    rows = []
    for cell, members in certificates.groupby(["difficulty", "data_size"]):
        means = members.pivot_table(["risk_bound", "gibbs_risk"], "method").to_dict("index")
        bounds = [
            f"{means[method]['risk_bound']:.2f} ({means[method]['gibbs_risk']:.2f})"
            if method in means
            else "–"
            for method in methods
        ]
        rows.append([*cell, f"{members['plain_risk'].mean():.3f}", *bounds])  # type: ignore[misc]
    print_rows(("d", "n", "plain", *methods), rows)
    console.print("Risk bounds, in brackets the measured risk of the predictor they are about.")
    console.print(str(Ledger.from_json(certificates["ledger"].iloc[0])))


def recommend_difficulty(
    data_size: int,
    directory: RunDirectory = None,
    results: ResultsFlag = None,
    pilot: Annotated[str | None, tyro.conf.arg(metavar="PRESET")] = None,
    recipe: Annotated[str, tyro.conf.arg(metavar="RECIPE")] = "tradeoff",
    out: NewDirectory = None,
    as_json: AsJson = False,
    figures: FiguresFolder = None,
) -> None:
    """Predict the best training difficulty for a data budget, or say that the pilot cannot tell.

    Args:
      data_size: the budget, at least the largest data size of the pilot and in its unit.
      directory: a finished run to predict from; or
      results: the same, as a flag; or
      pilot: a preset of `recipe` to run first (or carry on with) and predict from.
      recipe: a name that `sweetspot list` shows.
      out: directory of that run; default runs/RECIPE-PILOT.
      as_json: print one JSON document instead.
      figures: folder to draw the learning curve of each level into.
    """
    from experiments.analysis.pilot import read_pilot
    from experiments.storage.results import read_finished
    from experiments.sweep.study import run_sweep

    if directory is not None and results is not None:
        raise ValueError(f"results must be one directory, got {directory} and {results}")
    results = results or directory
    if (results is None) == (pilot is None):
        raise ValueError(
            f"either results (a run directory) or pilot (a preset) must be given, "
            f"got results = {results} and pilot = {pilot}"
        )
    if results is None:
        results = out or Path("runs") / f"{recipe}-{pilot}"
        config = preset_of(RECIPES, recipe, str(pilot))
        run_sweep(config, results, recipe=recipe, preset=str(pilot))
    with refusing(results):
        table, mixtures = read_pilot(results)
        manifest = read_finished(results)
        tell(table, mixtures, data_size, manifest=manifest, as_json=as_json, figures=figures)


def judge_rules(
    directories: RunDirectories = (),
    results: ResultsFlags = (),
    out: Directory = Path("runs/regret"),
) -> None:
    """Judge every rule that picks a difficulty by its regret on held-out data sizes.

    Writes OUT/regret.parquet and OUT/prediction.parquet, and draws their figures.

    Args:
      directories: finished runs to average over.
      results: the same, as a flag.
      out: directory of the tables.
    """
    import numpy as np

    from experiments import figures
    from experiments.analysis import regret
    from experiments.analysis.regret_means import average_regret
    from experiments.analysis.statistics import Interval

    tables = regret.write_regret(several_directories(directories, results), out)
    print_rows(
        ("rule", "regret", "skill", "moved", "unmoved", "rank corr."),
        (
            (
                row["rule"],
                Interval(row["regret"], row["low"], row["high"]),
                Interval(row["skill"], row["skill_low"], row["skill_high"]),
                Interval(row["moved"], np.nan, np.nan),
                Interval(row["unmoved"], np.nan, np.nan),
                Interval(row["rank_correlation"], np.nan, np.nan),
            )
            for row in average_regret(tables["regret"]).to_dict("records")
        ),
    )
    print_sentences(regret.left_out(results))
    console.print(
        "Means over tasks with 90% intervals over tasks and bases. Skill: one minus the regret "
        "over that of the best constant of other tasks."
    )
    found = regret.coverage(tables["prediction"])
    console.print(
        f"Of {found['predictions']} predictions {found['abstained']} abstain; the interval of the "
        f"others holds the measured best level in {found['told_covered']} of {found['told']}."
    )
    print_paths(out / f"{name}.parquet" for name in tables)
    print_paths(figures.draw(tables, out / "figures"))


def compare_families(
    directories: RunDirectories = (),
    results: ResultsFlags = (),
    out: Directory = Path("runs/families"),
) -> None:
    """Compare task families: does the best difficulty move to harder data in each?

    Writes OUT/families.parquet and OUT/manifest.json, and draws their figures.

    Args:
      directories: a finished run of each family.
      results: the same, as a flag.
      out: directory of the table.
    """
    from experiments import figures
    from experiments.analysis import families
    from experiments.analysis.verdicts import RULE

    runs = several_directories(directories, results)
    with refusing(" ".join(map(str, runs))):
        table = families.write_families(runs, out)
        judged = families.verdicts(table)
        verdicts = families.shown(judged)
        sentences = families.left_out(table)
        drawn = figures.draw({"families": table}, out / "figures")
    numbers = verdicts.drop(columns="in words")
    print_rows(numbers.columns, numbers.itertuples(index=False))
    for family, sentence in zip(verdicts["family"], verdicts["in words"], strict=True):
        print_named(family, sentence)
    print_sentences(sentences)
    print_sentences([families.pooled(judged), RULE])
    print_paths([out / "families.parquet", *drawn])
