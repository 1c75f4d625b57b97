"""Plans against runs: the hours that `--plan` tells, and those that the same study takes.

Each plan and each run has a process of its own, so that nothing is compiled already. `tiny-igsm`
is run on part of its grid; its whole grid is planned, and compared with the recorded run where that
was made on this kind of processor.

Commands and cost (two quiet CPU cores)::

    python -m experiments.benchmarks.plan --quick    # two minutes: smoke presets
    python -m experiments.benchmarks.plan --record   # about 15 minutes

Expect: ratios of run and plan between 1/1.5 and 1.5.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.benchmarks import Verdict, command, describe, main, page
from experiments.benchmarks.apart import apart
from experiments.engine.lines import duration
from experiments.storage import provenance
from experiments.storage.results import read_manifest

RECORDED = Path(__file__).parents[1] / "results" / "tiny-igsm"


def cases(quick: bool) -> dict[str, Any]:
    """Configuration of each study that is planned and run, by name."""
    from experiments.llm.recipes.tiny_igsm import CPU, SMOKE
    from experiments.recipes.families import PRESETS as FAMILIES
    from experiments.recipes.paper_protocol import PRESETS as PROTOCOL
    from experiments.recipes.tradeoff import PRESETS as TRADEOFF

    if quick:
        return {"tradeoff smoke": TRADEOFF["smoke"], "tiny-igsm smoke": SMOKE}
    base = dataclasses.replace(CPU.base.training, compute=500)  # type: ignore[type-var]
    return {
        "paper-protocol demo": PROTOCOL["demo"],
        "families group-words, part": dataclasses.replace(
            FAMILIES["group-words"], data_sizes=(64, 1024), base_seeds=2
        ),
        "tiny-igsm, part": dataclasses.replace(
            CPU,
            base=dataclasses.replace(CPU.base, training=base, least_accuracy=0.0),
            data_sizes=(64, 512),
            losses=("sft",),
            learning_rates=(1e-3,),
            seeds=1,
        ),
    }


def _study(config: Any, out: Path) -> Any:
    from experiments.llm.scan.grid import ScanConfig
    from experiments.llm.scan.study import ScanStudy
    from experiments.sweep.study import SweepStudy

    kind: Any = ScanStudy if isinstance(config, ScanConfig) else SweepStudy
    return kind(config, out, recipe="custom", preset="custom")


def planned(config: Any, out: Path) -> dict[str, Any]:
    """Seconds that a plan tells, and those that it takes; called in a fresh process."""
    from experiments.engine.forecast import forecast

    told = forecast(_study(config, out))
    return {
        "planned_seconds": told.whole.seconds,
        "calibration_seconds": told.calibration,
        "planned_disk": told.whole.disk,
        "planned_memory": told.memory,
    }


def run_once(config: Any, out: Path) -> dict[str, Any]:
    """Seconds that the run takes; called in a fresh process."""
    from experiments.engine.run import run_study
    from experiments.storage.memory import peak_memory

    run_study(_study(config, out))
    (session,) = read_manifest(out)["sessions"]
    disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "seconds": session["wall_time_seconds"],
        "disk": float(disk),
        "memory": float(peak_memory() or 0),
    }


def measure(quick: bool) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Plan and run each study.

    Args:
      quick: take the smoke presets.

    Returns:
      The table, one row a study: seconds, bytes of disk and of peak memory, each as planned and as
      measured, and seconds of the plan itself; and the manifest.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, config) in enumerate(cases(quick).items()):
            out = Path(folder) / str(number)
            told = apart(planned, config, out)
            print(f"{name}: planned {duration(told['planned_seconds'])}", flush=True)
            rows.append({"study": name, **told, **apart(run_once, config, out)})
            print(f"{name}: took {duration(rows[-1]['seconds'])}", flush=True)
        if not quick and (recorded := _recorded_seconds()) is not None:
            from experiments.llm.recipes.tiny_igsm import CPU

            told = apart(planned, CPU, Path(folder) / "whole")
            rows.append({"study": "tiny-igsm, as recorded", **told, "seconds": recorded})
    table = pd.DataFrame(rows)
    return table, describe(verdicts(table), repeats=1)


def _recorded_seconds() -> float | None:
    """Seconds of the recorded run of tiny-igsm; None if another kind of processor made it."""
    (session,) = json.loads((RECORDED / "manifest.json").read_text())["sessions"]
    is_same = session["device"] == provenance.device_name()
    return session["wall_time_seconds"] if is_same else None


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bar: plan and run within a factor of 1.5 of each other."""
    ratios = table["seconds"] / table["planned_seconds"]
    agreement = [min(ratio, 1 / ratio) for ratio in ratios]
    return [
        Verdict.of(f"agreement of hours, {name}", 1 / 1.5, [value])
        for name, value in zip(table["study"], agreement, strict=True)
    ]


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of studies, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    cells = [
        (
            str(row["study"]),
            duration(row["planned_seconds"]),
            duration(row["seconds"]),
            f"{row['seconds'] / row['planned_seconds']:.2f}",
            _ratio(row, "disk"),
            _ratio(row, "memory"),
            f"{row['calibration_seconds']:.0f} s",
        )
        for row in table.to_dict("records")
    ]
    header = ("study", "planned", "took", "ratio", "disk, ratio", "memory, ratio", "calibration")
    note = "Agreement is the smaller of plan and run divided by the larger."
    return page(header, cells, manifest, digits=2, note=note)


def _ratio(row: Mapping[Any, Any], name: str) -> str:
    measured = row.get(name)
    known = measured is not None and measured == measured
    return f"{measured / row[f'planned_{name}']:.2f}" if known else "–"


run = command("plan", measure, markdown)


if __name__ == "__main__":
    main(run)
