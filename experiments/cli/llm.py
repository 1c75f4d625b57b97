"""Commands of the study on real checkpoints: ``sweetspot llm …``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from experiments.certify.config import CheckpointConfig
from experiments.cli.arguments import (
    Directory,
    Model,
    NewDirectory,
    Preset,
    Recipe,
    ResultsFlag,
    RunDirectory,
    one_directory,
)
from experiments.cli.plan import NO_PLAN, Planning
from experiments.cli.presets import Asked
from experiments.cli.recommending import AsJson, FiguresFolder, tell
from experiments.cli.terminal import (
    print_frame,
    print_headline,
    print_paths,
    print_rows,
)
from experiments.engine.progress import console
from experiments.engine.workers import IN_THIS_PROCESS, Workers
from experiments.errors import refusing
from experiments.llm.answering.config import SAMPLED, DecodingConfig
from experiments.llm.difficulty.buckets import Cut, Missing
from experiments.llm.difficulty.scales import Direction, Measure, needed_columns
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.scan.grid import ScanConfig
from experiments.llm.text.config import OnLong
from experiments.llm.training.config import Processes, TrainingConfig
from experiments.storage.config import Devices
from synth.config import Dtype

GRADER, DECODING, TRAINING = GraderConfig(), DecodingConfig(), TrainingConfig()
ONE_DEVICE, ONE_PROCESS, CERTIFICATES = Devices(), Processes(), CheckpointConfig()
OF_MEMBERS = {"loss": "losses", "learning_rate": "learning_rates", "seed": "seeds"}
"""Training fields that vary between members, and the field of a scan that lists their values."""


def prepare(
    model: Model,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Directory,
    max_length: int = 2048,
    on_long: OnLong = "error",
    keep: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[COLUMN ...]")] = (),
) -> None:
    """Check a data set against a checkpoint's tokenizer, say what is in it, and write it anew.

    Writes OUT/problems.parquet, which the other commands read, and OUT/report.json.

    Args:
      model: folder or hub id of the checkpoint.
      data: the problems.
      out: directory of the result.
      max_length: tokens of an example at most.
      on_long: what becomes of longer ones: an error, or drop, or truncate (when trained on).
      keep: further columns to keep, of numbers, which can be measures of difficulty.
    """
    from experiments.llm.text import examples

    report = examples.prepare(model, data, out, max_length=max_length, on_long=on_long, keep=keep)
    print_rows(
        ("tokens", "least", "median", "mean", "most"),
        (
            (part, *(f"{value:g}" for value in report[f"{part}_tokens"].values()))
            for part in ("prompt", "solution")
        ),
    )
    if counts := report["difficulties"]:
        told = ", ".join(f"{level}: {count}" for level, count in counts.items())
        console.print(f"Problems of difficulty {told}")
    console.print(f"Problems: {out / 'problems.parquet'}")


def measure_difficulty(
    model: Model,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Directory,
    measures: Annotated[tuple[Measure, ...], tyro.conf.arg(metavar="MEASURE [MEASURE ...]")] = (
        *("cot_tokens", "pass_rate", "perplexity"),
    ),
    bucket_by: Annotated[Measure | None, tyro.conf.arg(metavar="MEASURE")] = None,
    harder: Direction | None = None,
    missing: Missing | None = None,
    number: int = 3,
    edges: tuple[float, ...] = (),
    drop_easiest: float = 0.0,
    drop_hardest: float = 0.0,
    grader: GraderConfig = GRADER,
    decoding: DecodingConfig = SAMPLED,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
    dtype: Dtype = "bfloat16",
    planning: Planning = NO_PLAN,
) -> None:
    """Measure how difficult problems are for a checkpoint, and cut them into buckets.

    Writes OUT/measures.parquet, OUT/correlations.parquet and their figure; with `bucket_by` also
    OUT/problems.parquet, whose difficulty is the bucket, 1 the easiest. Responses are kept in
    OUT/decoded-*.jsonl as they end, for a run that carries on or cuts other buckets.

    Args:
      model: folder or hub id of the base.
      data: the problems.
      out: directory of the result.
      measures: measures of difficulty. `pass_rate` and `perplexity` run the model, `cot_tokens`
        needs its tokenizer; `column:NAME`, `passes:NAME/TRIALS` and `rasch:A,B` are made of columns
        of the data.
      bucket_by: the measure by which problems are cut into buckets.
      harder: which values of `bucket_by` are the harder ones, if it is `column:NAME`.
      missing: what becomes of problems without a value of `bucket_by`; by default an error.
      number: how many buckets of equal size; unused with `edges`.
      edges: inner edges of the buckets.
      drop_easiest, drop_hardest: shares of the problems, by `bucket_by`, to leave out.
      grader: how the responses behind a pass rate are graded.
      decoding: how the responses are made.
      devices: how many devices share the work, and how it is split over them.
      dtype: type of the parameters in memory.
      planning: print what it takes instead.
    """
    from experiments import figures
    from experiments.llm.difficulty.run import DifficultyStudy, run_measures

    if bucket_by is not None and bucket_by not in (*measures, "op"):
        raise ValueError(f"bucket_by must be one of measures {measures}, got {bucket_by!r}")
    if bucket_by is None and (edges or drop_easiest or drop_hardest or harder or missing):
        raise ValueError(
            "bucket_by must be given with edges, drop_easiest, drop_hardest, harder or missing"
        )
    needed_columns(*measures)
    windowed = (number, edges, drop_easiest, drop_hardest, harder, missing)
    cut = None if bucket_by is None else Cut(bucket_by, *windowed)
    study = DifficultyStudy(model, data, out, grader, decoding, devices, dtype, measures)
    if planning.is_asked:
        planning.show(study)
        return
    difficulty = run_measures(study, cut)
    if difficulty.buckets is not None:
        print_frame(difficulty.buckets)
        console.print(f"Problems: {out / 'problems.parquet'}")
    if difficulty.correlations is not None:
        print_frame(difficulty.correlations)
        if "pass_rate" in {*difficulty.correlations["first"], *difficulty.correlations["second"]}:
            print_paths(figures.draw({"measures": difficulty.measures}, out / "figures"))
    console.print(f"Table: {out / 'measures.parquet'}")


def evaluate_checkpoint(
    model: Model,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Directory,
    grader: GraderConfig = GRADER,
    decoding: DecodingConfig = DECODING,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
    dtype: Dtype = "bfloat16",
    planning: Planning = NO_PLAN,
) -> None:
    """Ask a checkpoint problems, and say how often it is right, by stated difficulty.

    Writes OUT/slices.parquet, OUT/responses.parquet and, to say how they came about,
    OUT/evaluation.json. Responses are kept in OUT/decoded-*.jsonl as they end: a run that was
    interrupted carries on from there, and another grader needs no new ones.

    Args:
      model: folder or hub id.
      data: the problems.
      out: directory of the result.
      grader: how responses are graded.
      decoding: how the responses are made.
      devices: how many devices share the work, and how it is split over them.
      dtype: type of the parameters in memory.
      planning: print what it takes instead.
    """
    from experiments.llm.answering.run import EvaluationStudy, run_evaluation

    study = EvaluationStudy(model, data, out, grader, decoding, devices, dtype)
    if planning.is_asked:
        planning.show(study)
        return
    print_frame(run_evaluation(study).table)
    console.print("pass_at_1 with 90% intervals of its value on the problems' distribution.")
    console.print(f"Tables: {out / 'slices.parquet'}, {out / 'responses.parquet'}")


def certify_problems(
    model: Model,
    data: Annotated[Source, tyro.conf.arg(name="")],
    out: Directory,
    trained_by: NewDirectory = None,
    max_length: int = 2048,
    config: Annotated[CheckpointConfig, tyro.conf.arg(name="")] = CERTIFICATES,
    devices: Annotated[Devices, tyro.conf.arg(name="")] = ONE_DEVICE,
    workers: Annotated[Workers, tyro.conf.arg(name="")] = IN_THIS_PROCESS,
    planning: Planning = NO_PLAN,
) -> None:
    """Certify a checkpoint, and posteriors over blocks of its weights, on problems it never saw.

    Writes OUT/certificates.parquet and OUT/complexity.parquet, and draws their figures. Each stated
    difficulty is a cell of its own.

    Args:
      model: folder or hub id.
      data: the problems.
      out: directory of the run.
      trained_by: directory of the ``sweetspot llm finetune`` that made the checkpoint from these
        problems; what it trained on is left out. Default: the folder that the checkpoint is in,
        where that is one.
      max_length: tokens of an example at most; longer ones are left out.
      config: what to certify.
      devices: how many devices share the work, and how it is split over them.
      workers: where the parts are made.
      planning: print what it takes instead.
    """
    from experiments import figures
    from experiments.certify.checkpoints import certification, certify_checkpoint
    from experiments.certify.samples import unseen_samples
    from experiments.llm.problems.data import read_source
    from experiments.storage.results import read_tables

    problems = read_source(data)
    samples, rows_trained_on = unseen_samples(
        model, data, problems, trained_by=trained_by, max_length=max_length
    )
    about = {
        "rows_trained_on": rows_trained_on,
        "task": problems.name,
        "devices": devices,
    }
    if planning.is_asked:
        planning.show(certification(model, samples, out, config, **about))
        return
    with workers.start(out) as executor:
        certificates = certify_checkpoint(model, samples, out, config, **about, executor=executor)
    print_frame(
        certificates.loc[:, ["difficulty", "data_size", "method", "risk_bound", "gibbs_risk"]]
    )
    print_paths(figures.draw(read_tables(out), out / "figures"))
    console.print(f"Table: {out / 'certificates.parquet'}")


def scan_command(asked: Asked) -> Callable[..., None]:
    """The command ``scan``, whose flags change the preset that was asked for."""

    def scan(
        recipe: Recipe,
        size: Preset = None,
        preset: Annotated[str, tyro.conf.arg(metavar="PRESET")] = asked.preset,
        out: NewDirectory = None,
        # tyro would make subcommands of the configuration's optional parts.
        config: Annotated[
            ScanConfig, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
        ] = asked.config,
        workers: Annotated[Workers, tyro.conf.arg(name="")] = IN_THIS_PROCESS,
        planning: Planning = NO_PLAN,
    ) -> None:
        """Run a scan over difficulty and data size, or carry on with an interrupted one.

        Args:
          recipe: a name that `sweetspot list` shows, or "custom" with the fields given as flags.
          size: preset, which is the size of the scan; by default demo, or else the recipe's first.
          preset: the same, as a flag.
          out: run directory; default runs/RECIPE-PRESET.
          config: fields to change.
          workers: where the parts are made.
          planning: print what it takes instead.

        Raises:
          ValueError: for the reasons of `run_scan`, or if loss, learning rate or seed is stated for
            the training: these vary between members.
        """
        from experiments.llm.scan.study import ScanStudy, run_scan

        asked.check(recipe, size)
        preset = asked.preset
        for name, plural in OF_MEMBERS.items():
            if (stated := getattr(config.training, name)) != getattr(asked.config.training, name):
                raise ValueError(f"training.{name} is the member's: state {plural}; got {stated!r}")
        out = out or Path("runs") / f"{recipe}-{preset}"
        if planning.is_asked:
            config.check_sources()
            planning.show(ScanStudy(config, out, recipe=recipe, preset=preset))
            return
        with workers.start(out) as executor:
            table = run_scan(config, out, recipe=recipe, preset=preset, executor=executor)
        print_headline(table)
        console.print(f"Table: {out / 'table.parquet'}")

    return scan


def recommend_for_checkpoint(
    data_size: int,
    directory: RunDirectory = None,
    results: ResultsFlag = None,
    as_json: AsJson = False,
    figures: FiguresFolder = None,
) -> None:
    """Predict the best training difficulty for a data budget from a scan of a checkpoint.

    Args:
      data_size: the budget, at least the largest data size of the scan and in its unit.
      directory: a finished scan.
      results: the same, as a flag.
      as_json: print one JSON document instead.
      figures: folder to draw the learning curve of each level into.
    """
    from experiments.analysis.pilot import read_answers, read_scan
    from experiments.storage.results import read_finished

    results = one_directory(directory, results)
    with refusing(results):
        table, mixtures = read_scan(results)
        manifest = read_finished(results)
        tell(
            table,
            mixtures,
            data_size,
            manifest=manifest,
            answers=read_answers(results),
            as_json=as_json,
            figures=figures,
        )
