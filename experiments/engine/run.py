"""Run a study in its directory, or carry on with an interrupted run.

The steps are the same for every study:

1. open and lock the directory, and compare the study's identity with the manifest's;
2. read the rows of finished parts, and stop here if nothing is left;
3. stage by stage, make the missing parts. Each is written as soon as it is made, by one rename for
   each file, and the tables are put together anew, so that figures can be drawn meanwhile;
4. mark the end in the manifest.

An `Executor` decides where a part runs: in this process by default, or by workers elsewhere (see
`experiments.engine.workers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from rich.console import Console

from experiments.engine.display import Display
from experiments.engine.finished import FinishedParts, Tables
from experiments.engine.progress import console
from experiments.engine.session import Session, check_precision
from experiments.engine.study import Output, Part, Study
from experiments.storage.results import open_run

Executor: TypeAlias = Callable[
    [Study, Sequence[Part], Callable[[Part], None]], Iterator[tuple[Part, Output]]
]
"""Makes the parts of one stage. Called with the study, the parts, and a function to call as each
part starts; yields each part with its output as it ends."""


def in_this_process(
    study: Study, parts: Sequence[Part], started: Callable[[Part], None]
) -> Iterator[tuple[Part, Output]]:
    """Make parts one after the other, in this process."""
    for part in parts:
        started(part)
        yield part, study.make(part)


def run_study(
    study: Study,
    *,
    executor: Executor = in_this_process,
    max_parts: int | None = None,
    on: Console = console,
) -> Tables:
    """Run a study, or carry on with the one that is in its directory.

    Args:
      study: the study to run.
      executor: runs its parts.
      max_parts: parts of the last stage to make at most; the rest is left to a later call.
      on: the console that shows progress.

    Returns:
      Its tables by name, of the finished parts.

    Raises:
      ResultsError: if the directory cannot be used (see `experiments.storage.results.open_run`), or
        a finished part cannot be read.
      ValueError: if JAX computes in double precision; and see the study's `make`.
    """
    check_precision()
    # Before the directory is made: some studies read their data for this.
    stages = [list(stage) for stage in study.stages()]
    with (
        study.phases.running(),
        open_run(study.directory, study.identity, adopts=study.adopts) as run,
    ):
        finished = FinishedParts(study, run, stages)
        for notice in (*run.notices, *finished.notices):
            on.print(notice, style="yellow", markup=False, highlight=False)
        if finished.is_complete():
            on.print(f"{run.directory} is complete: nothing left to run.", markup=False)
            return finished.read_tables()
        run.update_manifest(status="running")
        session = Session(run, on, phases=study.phases)
        with Display(study, stages, finished, on) as display:
            for stage in stages:
                missing = [part for part in stage if not finished.has(part)]
                missing = missing[: max_parts if stage is stages[-1] else None]
                display.begin(stage)
                for part, output in executor(study, missing, display.started):
                    told = session.fields(**(output.session or study.session_fields()))
                    with study.phases("write"):
                        finished.keep(part, output, told)
                    study.kept(part)
                    display.finished(part)
        if finished.has_all():
            with study.phases("write"):
                tables = {"tables": finished.write_tables()} if finished.tables else {}
            run.update_manifest(status="complete", **tables, **study.record, **session.fields())
        return finished.tables
