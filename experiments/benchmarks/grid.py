"""Fine-tuning many small decoders: sweetspot's grid against what a user would write instead.

Every row does the same work (the same members, data sizes and steps) by an engine of its own, in
processes of its own. The processes of all rows stay up, idle, and take turns: each round measures
every row once, so that drift of the machine hits all alike. Compilation comes before, and is timed
apart.

The last row is no engine but a limit, see `experiments.benchmarks.roofline`.

Commands and cost (two CPU cores; needs the extra ``bench`` for the PyTorch rows)::

    python -m experiments.benchmarks.grid --quick    # a minute: one shape, checks that it works
    python -m experiments.benchmarks.grid --record   # 10 minutes: the table of docs/performance.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from experiments.benchmarks import QUICK_FLAGS, Verdict, command, describe, main, page, spread
from experiments.benchmarks.engines import (
    DECODER,
    MATMUL,
    MATMUL_SIZE,
    PLANS,
    SHAPES,
    Engine,
    Plan,
)
from experiments.devices import num_cores
from experiments.engine.cost import training_flops
from synth.decoder import initialise, num_parameters


@dataclass(frozen=True)
class Row:
    """One way to do the work.

    Attributes:
      name: short identifier, used in the table.
      label: its name in docs/performance.md.
      engine: the code that a process of the row runs.
      pinned: one process for each core, pinned to it and single-threaded, all busy at once, each
        with its share of the members; or one process with the whole machine.
    """

    name: str
    label: str
    engine: Engine
    pinned: bool = False


PEAK = Row("peak", "float32 matrix product, one process per core", "matmul", pinned=True)
ROWS = (
    Row("ours", "**sweetspot**: `shard_map` over host devices, `lax.map` inside", "map"),
    Row("ours_vmap", "the same, `vmap` inside", "vmap"),
    Row("jax", "JAX, run after run, XLA's own threads", "jax"),
    Row("jax_pinned", "JAX, run after run, one pinned process per core", "jax", pinned=True),
    Row("torch", "PyTorch eager loop, a thread per core", "torch"),
    Row("torch_pinned", "PyTorch eager loop, one pinned process per core", "torch", pinned=True),
    Row(
        "compile_pinned",
        "PyTorch loop under `torch.compile`, the same way",
        "torch_compile",
        pinned=True,
    ),
    Row(
        "vmap_pinned",
        "PyTorch, members together: `torch.compile` of `torch.func.vmap`, one pinned process per "
        "core",
        "torch_vmap",
        pinned=True,
    ),
    Row(
        "roofline",
        "roofline: a step's products at the speed of their own shapes, and its bytes, one pinned "
        "process per core",
        "roofline",
        pinned=True,
    ),
    PEAK,
)
BARS = (
    *(("torch_pinned", 2.2), ("compile_pinned", 1.2), ("vmap_pinned", 1.2)),
    *(("jax_pinned", 1.3), ("torch", 2.0)),
)
"""Rows that ours is compared with at the first shape, and the speedup that ours must reach."""
PEAK_BAR, ROOFLINE_BAR = 0.35, 0.7
"""Shares of the peak and of the roofline that ours must reach there."""


def choose_rows(
    platform: str, *, has_torch: bool, compiles_torch: bool = True
) -> tuple[tuple[Row, ...], list[str]]:
    """Rows that make sense on a platform, and a sentence on each kind that is left out."""
    rows, notes = ROWS, []
    if platform != "cpu":
        rows = tuple(row for row in ROWS if row.engine in ("vmap", "jax") and not row.pinned)
        rows += (dataclasses.replace(PEAK, label="float32 matrix product", pinned=False),)
        notes.append(
            f"On {platform} members are mapped by `vmap`; the rows with `lax.map`, with pinned "
            f"processes and with PyTorch are for CPUs and left out."
        )
    elif not has_torch:
        rows = tuple(row for row in ROWS if not row.engine.startswith("torch"))
        notes.append("The PyTorch rows are left out: torch is not installed (extra `bench`).")
    elif not compiles_torch:
        rows = tuple(row for row in ROWS if row.engine not in ("torch_compile", "torch_vmap"))
        notes.append("The rows of `torch.compile` are left out, as they compile for minutes.")
    return rows, notes


class Team:
    """The processes of one row, up and idle until asked; a context manager.

    Attributes:
      ready: what each process said when it was prepared.
      work: ``member_steps`` and ``flops`` of a repeat, by the name of the shape.

    Raises:
      RuntimeError: if a process ends before its time.
    """

    def __init__(self, row: Row, plan_name: str, places: int):
        self.row = row
        # A user's flags would change some rows and not others; a cache would hide compilation.
        dropped = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "OMP_NUM_THREADS")
        variables = {name: value for name, value in os.environ.items() if name not in dropped}
        if plan_name == "quick":
            variables["XLA_FLAGS"] = QUICK_FLAGS
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"from experiments.benchmarks.engines import serve; "
                    f"serve({row.engine!r}, {plan_name!r}, {places}, {core})",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=variables,
                cwd=Path(__file__).parents[2],
            )
            for core in (range(places) if row.pinned else [None])
        ]
        try:
            self.ready = [self._read(process) for process in self.processes]
        except BaseException:
            self.__exit__()
            raise
        self.work = _work(PLANS[plan_name], row, places)

    def _read(self, process: subprocess.Popen) -> Any:
        """The next JSON value from a process."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"a process of row {self.row.name!r} ended early, exit status {process.wait()}"
            )
        return json.loads(line)

    def run(self, name: str) -> float:
        """Have all processes work on a shape; returns the seconds until the last one is done."""
        start = time.perf_counter()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(name) + "\n")
            process.stdin.flush()
        for process in self.processes:
            self._read(process)
        return time.perf_counter() - start

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            # Closing its input ends an idle process; one that still prepares is killed after 5 s.
            with contextlib.suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _work(plan: Plan, row: Row, places: int) -> dict[str, dict[str, float]]:
    """Work of a row in one repeat: ``member_steps`` and ``flops`` by the name of the shape.

    The last token of an example is only a label: one less than its length is read.
    """
    if row.engine == "matmul":
        products = plan.products * (places if row.pinned else 1)
        return {MATMUL: {"member_steps": 0, "flops": products * 2 * MATMUL_SIZE**3}}
    steps = plan.members_per_place * places * plan.steps
    work = {}
    for shape in plan.shapes:
        read = shape.length - 1
        flops = training_flops(DECODER, shape.batch_size * read, read)
        work[shape.name] = {"member_steps": steps, "flops": steps * flops}
    return work


def measure(plan_name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      plan_name: a key of `PLANS`.

    Returns:
      The tidy table, one row per row, shape and repeat: ``seconds`` of wall time for
      ``member_steps`` with ``flops`` in matrix products, and ``compile_seconds`` (missing where
      nothing is compiled); and the manifest.

    Raises:
      RuntimeError: if a process fails, or a baseline's model is not the same as ours.
    """
    # The rows, with their processes up and prepared.
    plan, platform = PLANS[plan_name], jax.default_backend()
    places = jax.local_device_count() if platform != "cpu" else num_cores()
    rows, notes = choose_rows(
        platform,
        has_torch=importlib.util.find_spec("torch") is not None,
        compiles_torch=plan.compiles_torch,
    )
    measured = []
    with contextlib.ExitStack() as stack:
        teams = []
        for row in rows:
            print(f"preparing {row.name} …", flush=True)
            teams.append(stack.enter_context(Team(row, plan_name, places)))
        parity = [ready["parity"] for team in teams for ready in team.ready if ready["parity"]]
        _check_parity(parity)
        # The rounds.
        for repeat in range(plan.repeats):
            print(f"repeat {repeat + 1} of {plan.repeats}", flush=True)
            # Every other round in reverse, so that no row always follows the same one.
            for team in teams if repeat % 2 == 0 else teams[::-1]:
                measured += [
                    {
                        "row": team.row.name,
                        "shape": name,
                        "repeat": repeat,
                        "seconds": team.run(name),
                        **work,
                        "compile_seconds": max(
                            ready["compile_seconds"][name] for ready in team.ready
                        ),
                    }
                    for name, work in team.work.items()
                ]
    table = pd.DataFrame(measured)
    shapes = jax.eval_shape(lambda: initialise(DECODER, jax.random.key(0)))
    return table, describe(
        verdicts(table),
        plan=plan_name,
        repeats=plan.repeats,
        steps=plan.steps,
        members=plan.members_per_place * places,
        platform=platform,
        decoder=dataclasses.asdict(DECODER),
        num_parameters=num_parameters(shapes),
        rows={row.name: row.label for row in rows},
        parity=_largest(parity),
        notes=notes,
    )


def _check_parity(parity: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Raise RuntimeError unless losses agree within 1e-5 nats and gradients within 1e-4."""
    for shapes in parity:
        for name, difference in shapes.items():
            if not (difference["loss"] <= 1e-5 and difference["gradient"] <= 1e-4):
                raise RuntimeError(
                    f"a baseline's model differs from ours at {name}: loss by "
                    f"{difference['loss']:.1e} nats, gradient by {difference['gradient']:.1e}"
                )


def _largest(parity: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The largest differences over baselines, by shape."""
    return {
        shape: {name: max(each[shape][name] for each in parity) for name in ("loss", "gradient")}
        for shape in (parity[0] if parity else ())
    }


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bars: speedups of ours over each baseline at the first shape, and shares.

    Ratios are taken within a round, which cancels drift of the machine. A bar whose rows were not
    measured is left out.
    """
    seconds = table[table["shape"] == SHAPES[0].name].pivot(
        index="repeat", columns="row", values="seconds"
    )
    labels = {row.name: row.label for row in ROWS}
    found = [
        Verdict.of(f"times as fast as: {labels[row]}", bar, list(seconds[row] / seconds["ours"]))
        for row, bar in BARS
        if {row, "ours"} <= set(seconds.columns)
    ]
    ours = table[(table["shape"] == SHAPES[0].name) & (table["row"] == "ours")]
    if ours.empty:
        return found
    shares = list(ours["flops"] / ours["seconds"] / peak_flops(table))
    found.append(Verdict.of("share of the matrix-product peak", PEAK_BAR, shares))
    if "roofline" in seconds.columns:
        shares = list(seconds["roofline"] / seconds["ours"])
        found.append(Verdict.of("share of the roofline", ROOFLINE_BAR, shares))
    return found


def peak_flops(table: pd.DataFrame) -> float:
    """Median floating-point operations per second of the row ``peak``, the cores together."""
    peak = table[table["row"] == PEAK.name]
    return float(np.median(peak["flops"] / peak["seconds"]))


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """The performance section: a table of rows by shape, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    peak = peak_flops(table)
    cells = []
    for shape in [name for name in table["shape"].unique() if name != MATMUL]:
        for row, label in manifest["rows"].items():
            part = table[(table["shape"] == shape) & (table["row"] == row)]
            if part.empty:
                continue
            milliseconds = 1e3 * part["seconds"] / part["member_steps"]
            flops = float(np.median(part["flops"] / part["seconds"]))
            compiling = float(np.max(part["compile_seconds"]))
            cells.append(
                (
                    label,
                    shape,
                    spread(milliseconds, 1),
                    f"{1e3 / np.median(milliseconds):,.0f}",
                    f"{flops / 1e9:.1f} ({flops / peak:.0%})",
                    "–" if math.isnan(compiling) else f"{compiling:.0f}",
                )
            )
    header = ("", "batch", "ms per member-step", "member-steps/s", "GFLOP/s (of peak)", "compile s")
    return page(header, cells, manifest, digits=2, note=_note(table, manifest))


def _note(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """Sentences on the work, the peak, the PyTorch model and rows that were left out."""
    sentences = [
        f"Decoder with {manifest['num_parameters']:,} parameters; {manifest['members']} members × "
        f"{manifest['steps']} steps a repeat, compilation apart.",
        f"GFLOP/s count matrix products only; peak {peak_flops(table) / 1e9:,.0f} GFLOP/s "
        f"(float32, {MATMUL_SIZE} × {MATMUL_SIZE}, all cores busy).",
    ]
    if manifest["parity"]:
        loss, gradient = (
            max(difference[name] for difference in manifest["parity"].values())
            for name in ("loss", "gradient")
        )
        sentences.append(
            f"With copied weights the loss of the PyTorch and the plain JAX model is within "
            f"{loss:.0e} nats of ours and the gradient within {gradient:.0e} relative."
        )
    return " ".join([*sentences, *manifest["notes"]])


run = command("grid", lambda quick: measure("quick" if quick else "full"), markdown)


if __name__ == "__main__":
    # Several processes share an accelerator here: none may take all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    main(run)
