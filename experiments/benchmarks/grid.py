"""Fine-tuning many small decoders: sweetspot's grid against what a user would write instead.

Every row does the same work (the same members, data sizes and steps) in processes of its own,
because XLA's flags and a process's cores are fixed when it starts. The processes of all rows stay
up, idle, and take turns: each round measures every row once, so that drift of the machine hits all
alike. Compilation comes before, and is timed apart.

Commands and cost (two CPU cores; needs the extra ``bench`` for the PyTorch rows)::

    python -m experiments.benchmarks.grid --quick    # 2 minutes: one shape, checks that it works
    python -m experiments.benchmarks.grid --record   # 10 minutes: the table in the README

Expect (quiet cores): about 11 ms per member-step at 64 × 24 tokens, 24 at 32 × 64.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tyro
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.benchmarks import (
    Verdict,
    caption,
    environment,
    report,
    spread,
    table_lines,
    verdict_lines,
)
from experiments.devices import configure_host_devices, num_cores
from synth.config import DecoderConfig, FinetuneConfig, Optimiser
from synth.decoder import Parameters, initialise, num_parameters
from synth.finetune import TrainingData, finetune
from synth.task import Mixture, pool
from synth.tasks import make_task

TASK = make_task("chain-running", hardest=18)
DECODER = DecoderConfig(vocab_size=len(TASK.vocabulary), max_positions=TASK.max_length(18))
DATA_SIZE = 256
MATMUL_SIZE = 2048
MATMUL = "matmul"

Engine = Literal["map", "vmap", "jax", "torch", "matmul"]


@dataclass(frozen=True)
class Shape:
    """One batch: examples of the running task at difficulties up to `difficulty`."""

    batch_size: int
    difficulty: int

    @property
    def length(self) -> int:
        """Tokens of a padded example."""
        return TASK.max_length(self.difficulty)

    @property
    def name(self) -> str:
        return f"{self.batch_size} × {self.length} tokens"


SHAPES = (Shape(batch_size=64, difficulty=4), Shape(batch_size=32, difficulty=12))


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      shapes: batches to measure.
      members_per_place: members for each core (or each device, where that is not a CPU) in a
        repeat.
      steps: optimiser steps of each member.
      repeats: rounds.
      products: matrix products of each process in a repeat of the row ``peak``.
    """

    shapes: tuple[Shape, ...] = SHAPES
    members_per_place: int = 4
    steps: int = 40
    repeats: int = 5
    products: int = 8


PLANS = {
    "full": Plan(),
    "quick": Plan(shapes=SHAPES[:1], members_per_place=1, steps=2, repeats=2, products=1),
}


@dataclass(frozen=True)
class Row:
    """One way to do the work.

    Attributes:
      name: short identifier, used in the table.
      label: what the README calls it.
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
    PEAK,
)
BARS = (("torch_pinned", 1.5), ("jax_pinned", 1.0), ("torch", 2.0))
"""Rows that ours is held against at the first shape, and how many times as fast it must be."""


def choose_rows(platform: str, *, has_torch: bool) -> tuple[tuple[Row, ...], list[str]]:
    """Rows that make sense on a platform, and a sentence for each kind that is left out."""
    rows, notes = ROWS, []
    if platform != "cpu":
        rows = tuple(row for row in ROWS if row.engine in ("vmap", "jax") and not row.pinned)
        rows += (dataclasses.replace(PEAK, label="float32 matrix product", pinned=False),)
        notes.append(
            f"On {platform} members are mapped by `vmap`; the rows with `lax.map`, with pinned "
            f"processes and with PyTorch are for CPUs and left out."
        )
    elif not has_torch:
        rows = tuple(row for row in ROWS if row.engine != "torch")
        notes.append("The PyTorch rows are left out: torch is not installed (extra `bench`).")
    return rows, notes


def matmul_flops(decoder: DecoderConfig, batch_size: int, length: int) -> int:
    """Floating-point operations in the matrix products of one training step.

    With width h, SwiGLU width m, H query and K key-value heads of size s, V token ids, N layers
    and L = length - 1 tokens that are read, the forward pass of a sequence takes::

        L × [N × (2 h s (2 H + 2 K) + 6 h m + 4 L H s) + 2 h V]

    (queries and output, keys and values; gate, up, down; scores and weighted values over the whole
    L × L square, since masked entries are computed too; head). Each product has two in the backward
    pass, one for each of its inputs, of the same size: three times the forward pass in all. Norms,
    softmax, rotations and the optimiser are not counted.

    Args:
      decoder: shape of the model.
      batch_size: examples in a step.
      length: tokens of a padded example; the last one is only a label.
    """
    read, width, size = length - 1, decoder.hidden_size, decoder.head_size
    layer = (
        2 * width * size * (2 * decoder.num_heads + 2 * decoder.num_kv_heads)
        + 6 * width * decoder.intermediate_size
        + 4 * read * decoder.num_heads * size
    )
    return 3 * batch_size * read * (decoder.num_layers * layer + 2 * width * decoder.vocab_size)


# -------------------------------------------------------------------- inside a row's process


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Work:
    """Arguments of one member, or of several along a leading axis; the key as its raw words."""

    base: Parameters
    data: TrainingData
    key: jax.Array


def make_work(shape: Shape, members: Sequence[int]) -> Work:
    """Base, data and key of each member; they depend on its number and the shape alone."""

    def member(index: jax.Array) -> Work:
        key = jax.random.fold_in(jax.random.key(0), index)
        key_base, key_data, key_optimise = jax.random.split(key, 3)
        drawn = pool(TASK, key_data, Mixture.up_to(shape.difficulty), DATA_SIZE)
        data = TrainingData(drawn.tokens, drawn.loss_mask, jnp.int32(DATA_SIZE))
        return Work(initialise(DECODER, key_base), data, jax.random.key_data(key_optimise))

    # Run once in each process: LLVM's optimiser would take most of the time.
    quickly = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.vmap(member), compiler_options=quickly)(jnp.array(members))


def _compile(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The compiled function, and the seconds that tracing and compiling it took."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def _member(training: FinetuneConfig) -> Callable[[Work], Any]:
    return lambda work: finetune(
        DECODER, work.base, work.data, training, jax.random.wrap_key_data(work.key)
    )


def _take(work: Work, index: int) -> Work:
    return jax.tree.map(lambda leaf: leaf[index], work)


def prepare_sharded(
    mapping: Engine, training: FinetuneConfig, work: Work
) -> tuple[Callable[[], Any], float]:
    """All members in one program, as `experiments.sweep.programs` runs a chunk."""
    member = _member(training)
    mesh = jax.make_mesh((jax.local_device_count(),), ("members",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("members")

    def local(work: Work) -> Any:
        return jax.lax.map(member, work) if mapping == "map" else jax.vmap(member)(work)

    program = jax.shard_map(local, mesh=mesh, in_specs=(spec,), out_specs=spec, check_vma=False)
    work = jax.device_put(work, NamedSharding(mesh, spec))
    compiled, seconds = _compile(program, work)
    return lambda: jax.block_until_ready(compiled(work)), seconds


def prepare_jax(training: FinetuneConfig, work: Work) -> tuple[Callable[[], Any], float]:
    """One member after another, each a call of the same compiled function."""
    members = [_take(work, index) for index in range(len(work.key))]
    compiled, seconds = _compile(_member(training), members[0])

    def run() -> None:
        for each in members:
            jax.block_until_ready(compiled(each))

    return run, seconds


def prepare_torch(training: FinetuneConfig, work: Work) -> tuple[Callable[[], Any], float]:
    """One member after another in the PyTorch loop, which has nothing to compile."""
    from experiments.benchmarks import torch_loop  # the only module that needs torch

    host = jax.device_get(work)
    members = [_take(host, index) for index in range(len(host.key))]

    def run() -> None:
        for each in members:
            torch_loop.finetune(DECODER, each.base, each.data, training)

    return run, math.nan


def prepare_matmul(products: int) -> tuple[Callable[[], Any], float]:
    """Products of two large square matrices, one after another."""
    left, right = jax.random.normal(jax.random.key(0), (2, MATMUL_SIZE, MATMUL_SIZE))
    compiled, seconds = _compile(jnp.matmul, left, right)

    def run() -> None:
        for _ in range(products):
            jax.block_until_ready(compiled(left, right))

    return run, seconds


def serve(engine: Engine, plan_name: str, places: int, core: int | None) -> None:
    """Be a process of a row: prepare, say so, then do the work once for each line that comes in.

    The protocol is one JSON value a line: first seconds of compilation by shape and, from PyTorch
    on the whole machine, its parity; then, for each name of a shape on the standard input,
    ``true`` when its work is done.

    Args:
      engine: the code to run.
      plan_name: a key of `PLANS`.
      places: cores or devices that the members of a repeat are counted by.
      core: index among this machine's cores to be pinned to, or None for the whole machine.
    """
    plan = PLANS[plan_name]
    members = range(plan.members_per_place * places)
    if core is not None:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
        members = members[core::places]
    if core is not None or engine in ("map", "vmap"):
        configure_host_devices()
    if engine == "torch":
        import torch

        torch.set_num_threads(num_cores())
    runs, ready = {}, {"compile_seconds": {}, "parity": {}}
    if engine == "matmul":
        runs[MATMUL], ready["compile_seconds"][MATMUL] = prepare_matmul(plan.products)
    for shape in () if engine == "matmul" else plan.shapes:
        training = FinetuneConfig(plan.steps, optimiser=Optimiser(batch_size=shape.batch_size))
        work = make_work(shape, members)
        if engine == "torch":
            if core is None:
                ready["parity"][shape.name] = _parity(shape, work)
            prepared = prepare_torch(training, work)
        elif engine == "jax":
            prepared = prepare_jax(training, work)
        else:
            prepared = prepare_sharded(engine, training, work)
        runs[shape.name], ready["compile_seconds"][shape.name] = prepared
    for run in runs.values():
        run()
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        runs[json.loads(line)]()
        print("true", flush=True)


def _parity(shape: Shape, work: Work) -> Mapping[str, float]:
    from experiments.benchmarks import torch_loop  # the only module that needs torch

    first = _take(work, 0)
    batch = TrainingData(
        first.data.tokens[: shape.batch_size],
        first.data.loss_mask[: shape.batch_size],
        jnp.int32(shape.batch_size),
    )
    return torch_loop.parity(DECODER, first.base, batch, jax.random.wrap_key_data(first.key))


# -------------------------------------------------------------------- the process that measures


class Team:
    """The processes of one row, up and idle until asked; a context manager.

    Attributes:
      ready: what each process said when it was prepared.
      work: for each shape that the row runs, the ``member_steps`` and ``flops`` of a repeat.

    Raises:
      RuntimeError: if a process ends before its time.
    """

    def __init__(self, row: Row, plan_name: str, places: int):
        self.row = row
        # A user's flags would change some rows and not others; a cache would hide compilation.
        dropped = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "OMP_NUM_THREADS")
        environment = {name: value for name, value in os.environ.items() if name not in dropped}
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"from experiments.benchmarks.grid import serve; "
                    f"serve({row.engine!r}, {plan_name!r}, {places}, {core})",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
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
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"a process of row {self.row.name!r} ended early, exit status {process.wait()}"
            )
        return json.loads(line)

    def run(self, name: str) -> float:
        """Seconds from the order to work on a shape until the last process has done its share."""
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
            # The end of its input lets an idle process finish; one still preparing is stopped.
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


def _work(plan: Plan, row: Row, places: int) -> dict[str, dict[str, int]]:
    if row.engine == "matmul":
        products = plan.products * (places if row.pinned else 1)
        return {MATMUL: {"member_steps": 0, "flops": products * 2 * MATMUL_SIZE**3}}
    steps = plan.members_per_place * places * plan.steps
    return {
        shape.name: {
            "member_steps": steps,
            "flops": steps * matmul_flops(DECODER, shape.batch_size, shape.length),
        }
        for shape in plan.shapes
    }


def measure(plan_name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      plan_name: a key of `PLANS`.

    Returns:
      The tidy table, one row per row, shape and repeat: ``seconds`` of wall time for
      ``member_steps`` with ``flops`` in matrix products, and ``compile_seconds`` (missing where
      nothing is compiled); and the manifest.

    Raises:
      RuntimeError: if a process fails, or the PyTorch model is not the same model as ours.
    """
    plan, platform = PLANS[plan_name], jax.default_backend()
    places = jax.local_device_count() if platform != "cpu" else num_cores()
    rows, notes = choose_rows(platform, has_torch=importlib.util.find_spec("torch") is not None)
    measured = []
    with contextlib.ExitStack() as stack:
        teams = []
        for row in rows:
            print(f"preparing {row.name} …", flush=True)
            teams.append(stack.enter_context(Team(row, plan_name, places)))
        parity = [ready["parity"] for team in teams for ready in team.ready if ready["parity"]]
        _check_parity(parity)
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
    manifest = environment() | {
        "plan": plan_name,
        "repeats": plan.repeats,
        "steps": plan.steps,
        "members": plan.members_per_place * places,
        "platform": platform,
        "decoder": dataclasses.asdict(DECODER),
        "num_parameters": num_parameters(
            jax.eval_shape(lambda: initialise(DECODER, jax.random.key(0)))
        ),
        "rows": {row.name: row.label for row in rows},
        "parity": parity[0] if parity else {},
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts(table)],
        "notes": notes,
    }
    return table, manifest


def _check_parity(parity: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Raise RuntimeError unless losses agree within 1e-5 nats and gradients within 1e-4."""
    for shapes in parity:
        for name, difference in shapes.items():
            if not (difference["loss"] <= 1e-5 and difference["gradient"] <= 1e-4):
                raise RuntimeError(
                    f"the PyTorch model differs from ours at {name}: loss by "
                    f"{difference['loss']:.1e} nats, gradient by {difference['gradient']:.1e}"
                )


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bars: how many times as fast ours is as each baseline at the first shape.

    Ratios are taken within a round, which cancels drift of the machine. A bar whose rows were not
    measured is left out.
    """
    seconds = table[table["shape"] == SHAPES[0].name].pivot(
        index="repeat", columns="row", values="seconds"
    )
    labels = {row.name: row.label for row in ROWS}
    return [
        Verdict.of(f"times as fast as: {labels[row]}", bar, list(seconds[row] / seconds["ours"]))
        for row, bar in BARS
        if {row, "ours"} <= set(seconds.columns)
    ]


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
    lines = table_lines(header, cells)
    if manifest["verdicts"]:
        lines += ["", *verdict_lines(manifest, 2)]
    lines += ["", f"{caption(manifest)} {_explanation(table, manifest)}"]
    return "\n".join(lines) + "\n"


def _explanation(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
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
            f"With copied weights the PyTorch model's loss is within {loss:.0e} nats of ours and "
            f"its gradient within {gradient:.0e} relative."
        )
    return " ".join([*sentences, *manifest["notes"]])


def run(quick: bool = False, record: bool = False) -> None:
    """Measure, and print the tables and bars.

    Args:
      quick: only check that everything works; the numbers mean nothing.
      record: keep table and manifest under experiments/results/benchmarks.

    Raises:
      ValueError: if a quick run is to be recorded.
    """
    report(
        "grid", lambda: measure("quick" if quick else "full"), markdown, quick=quick, record=record
    )


def main() -> None:
    """Entry point of ``python -m experiments.benchmarks.grid``."""
    # Several processes share an accelerator here: none may take all of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    tyro.cli(run)


if __name__ == "__main__":
    main()
