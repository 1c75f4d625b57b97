"""Engines of the benchmark `grid`: the same fine-tuning by several programs, in own processes.

`serve` is the main function of such a process. XLA's flags and a process's cores are fixed when it
starts, so that every engine needs processes of its own. Here too: the work that they all do.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.devices import configure_host_devices, num_cores
from synth.config import DecoderConfig, FinetuneConfig, Optimiser
from synth.decoder import Parameters, initialise
from synth.finetune import TrainingData, finetune
from synth.task import Mixture, pool
from synth.tasks import make_task

TASK = make_task("chain-running", hardest=18)
DECODER = DecoderConfig(vocab_size=len(TASK.vocabulary), max_positions=TASK.max_length(18))
DATA_SIZE = 256
MATMUL_SIZE = 2048
MATMUL = "matmul"

Engine = Literal["map", "vmap", "jax", "torch", "torch_compile", "torch_vmap", "matmul", "roofline"]


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
    """Amount of work in the benchmark.

    Attributes:
      shapes: batches to measure.
      members_per_place: members for each core (or each device, where that is not a CPU) in a
        repeat.
      steps: optimiser steps of each member.
      repeats: rounds.
      products: matrix products of each process in a repeat of the row ``peak``.
      compiles_torch: include the rows of ``torch.compile``, which compile for minutes.
    """

    shapes: tuple[Shape, ...] = SHAPES
    members_per_place: int = 4
    steps: int = 40
    repeats: int = 5
    products: int = 8
    compiles_torch: bool = True


PLANS = {
    "full": Plan(),
    "quick": Plan(
        shapes=SHAPES[:1],
        members_per_place=1,
        steps=2,
        repeats=2,
        products=1,
        compiles_torch=False,
    ),
}


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

    # This program runs once in each process, and optimising it would take most of that time.
    quickly = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.vmap(member), compiler_options=quickly)(jnp.array(members))


def _compile(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The compiled function, and the seconds that tracing and compiling it took."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def _member(training: FinetuneConfig) -> Callable[[Work], Any]:
    """The function that fine-tunes one member."""
    return lambda work: finetune(
        DECODER, work.base, work.data, training, jax.random.wrap_key_data(work.key)
    )


def _take(work: Work, index: int) -> Work:
    """The work of one member among several."""
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


def _on_host(work: Work) -> list[Work]:
    """The work of each member, as NumPy arrays."""
    host = jax.device_get(work)
    return [_take(host, index) for index in range(len(host.key))]


def prepare_jax(training: FinetuneConfig, work: Work) -> tuple[Callable[[], Any], float]:
    """One member after another in the plain JAX loop, which compiles its step in the first run."""
    from experiments.benchmarks import jax_loop

    members = _on_host(work)

    def run() -> None:
        for seed, each in enumerate(members):
            jax_loop.finetune(DECODER, each.base, each.data, training, seed)

    return run, _first_run(run)


def prepare_torch(
    engine: Engine, training: FinetuneConfig, work: Work
) -> tuple[Callable[[], Any], float]:
    """One member after another in the PyTorch loop, eager or compiled; or all of them together."""
    from experiments.benchmarks import torch_loop  # the only modules that need torch

    members = _on_host(work)

    def run() -> None:
        for each in members:
            is_compiled = engine == "torch_compile"
            torch_loop.finetune(DECODER, each.base, each.data, training, is_compiled=is_compiled)

    def run_together() -> None:
        from experiments.benchmarks import torch_members

        bases, data = [each.base for each in members], [each.data for each in members]
        torch_members.finetune(DECODER, bases, data, training)

    if engine == "torch":
        return run, math.nan
    chosen = run if engine == "torch_compile" else run_together
    return chosen, _first_run(chosen)


def _first_run(run: Callable[[], Any]) -> float:
    """Seconds of compilation: what the first run takes longer than the second."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return max(0.0, seconds[0] - seconds[1])


def prepare_matmul(products: int) -> tuple[Callable[[], Any], float]:
    """Products of two large square matrices, one after another."""
    left, right = jax.random.normal(jax.random.key(0), (2, MATMUL_SIZE, MATMUL_SIZE))
    compiled, seconds = _compile(jnp.matmul, left, right)

    def run() -> None:
        for _ in range(products):
            jax.block_until_ready(compiled(left, right))

    return run, seconds


def prepare_roofline(shape: Shape, steps: int) -> tuple[Callable[[], Any], float]:
    """What a step takes at least, so many times; see `experiments.benchmarks.roofline`."""
    from experiments.benchmarks import roofline

    least = roofline.prepare(DECODER, shape.batch_size, shape.length)
    return lambda: least(steps), math.nan


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
    # The members, cores and devices of this process; XLA's flags come before its first array.
    plan = PLANS[plan_name]
    members = range(plan.members_per_place * places)
    if core is not None:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
        members = members[core::places]
    if core is not None or engine in ("map", "vmap"):
        configure_host_devices()
    if engine.startswith("torch"):
        import torch

        torch.set_num_threads(num_cores())
    # Prepare every shape, run each once, and say that all is ready.
    runs, ready = {}, {"compile_seconds": {}, "parity": {}}
    if engine == "matmul":
        runs[MATMUL], ready["compile_seconds"][MATMUL] = prepare_matmul(plan.products)
    for shape in () if engine == "matmul" else plan.shapes:
        if engine == "roofline":
            prepared = prepare_roofline(shape, plan.steps * len(members))
            runs[shape.name], ready["compile_seconds"][shape.name] = prepared
            continue
        training = FinetuneConfig(plan.steps, optimiser=Optimiser(batch_size=shape.batch_size))
        work = make_work(shape, members)
        if engine in ("torch", "jax") and core is None:
            ready["parity"][shape.name] = _parity(engine, shape, work)
        if engine.startswith("torch"):
            prepared = prepare_torch(engine, training, work)
        elif engine == "jax":
            prepared = prepare_jax(training, work)
        else:
            prepared = prepare_sharded(engine, training, work)
        runs[shape.name], ready["compile_seconds"][shape.name] = prepared
    for run in runs.values():
        run()
    print(json.dumps(ready), flush=True)
    # Work once for each order.
    for line in sys.stdin:
        runs[json.loads(line)]()
        print("true", flush=True)


def _parity(engine: Engine, shape: Shape, work: Work) -> Mapping[str, float]:
    """Differences of another program's model from ours, on a batch of the first member."""
    if engine == "jax":
        from experiments.benchmarks import jax_loop as loop
    else:
        from experiments.benchmarks import torch_loop as loop  # needs torch
    first = _take(work, 0)
    batch = TrainingData(
        first.data.tokens[: shape.batch_size],
        first.data.loss_mask[: shape.batch_size],
        jnp.int32(shape.batch_size),
    )
    return loop.parity(DECODER, first.base, batch, jax.random.wrap_key_data(first.key))
