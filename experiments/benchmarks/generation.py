"""Drawing examples: examples a second of `synth.task.pool`, on all host devices together.

One program draws a pool on each device, from a key of its own: difficulty 8 of the chain.

Commands and cost (two CPU cores)::

    python -m experiments.benchmarks.generation --quick    # half a minute: checks that it works
    python -m experiments.benchmarks.generation --record   # one minute: docs/performance.md

Expect: more than 100,000 examples a second in the layout ``lines``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import pandas as pd
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.benchmarks import Verdict, command, describe, main, page, spread
from synth.task import Mixture, pool
from synth.tasks import make_task

DIFFICULTY = 8
LAYOUTS = {"chain": "`lines` (default)", "chain-running": "`running`"}
BAR = 100_000


def prepare(name: str, examples: int) -> tuple[Callable[[], Any], float, int]:
    """Compile a program that draws `examples` of a task on each device.

    Returns:
      A function that runs it and waits, the seconds of compilation, and the padded length in
      tokens.
    """
    task, mixture = make_task(name), Mixture.exact(DIFFICULTY)
    mesh = jax.make_mesh((jax.local_device_count(),), ("pools",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("pools")

    def local(keys: jax.Array) -> Any:
        return pool(task, keys[0], mixture, examples)

    program = jax.shard_map(local, mesh=mesh, in_specs=(spec,), out_specs=spec, check_vma=False)
    keys = jax.device_put(jax.random.split(jax.random.key(0), mesh.size), NamedSharding(mesh, spec))
    start = time.perf_counter()
    compiled = jax.jit(program).lower(keys).compile()
    seconds = time.perf_counter() - start
    return lambda: jax.block_until_ready(compiled(keys)), seconds, task.max_length(DIFFICULTY)


def measure(examples: int, repeats: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark.

    Args:
      examples: drawn by each device in a repeat.
      repeats: rounds; the layouts take turns in each.

    Returns:
      The tidy table, one row per task and repeat: ``seconds`` for ``examples`` on all devices,
      padded to ``tokens``, and ``compile_seconds``; and the manifest.
    """
    prepared = {name: prepare(name, examples) for name in LAYOUTS}
    for draw, _, _ in prepared.values():
        draw()
    measured = []
    # The layouts take turns in each round.
    for repeat in range(repeats):
        for name, (draw, compile_seconds, tokens) in prepared.items():
            start = time.perf_counter()
            draw()
            measured.append(
                {
                    "task": name,
                    "repeat": repeat,
                    "seconds": time.perf_counter() - start,
                    "examples": examples * jax.local_device_count(),
                    "tokens": tokens,
                    "compile_seconds": compile_seconds,
                }
            )
    table = pd.DataFrame(measured)
    facts = {"difficulty": DIFFICULTY, "num_devices": jax.local_device_count()}
    return table, describe(verdicts(table), repeats=repeats, **facts)


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """The project's bar: examples per second in the layout ``lines``."""
    lines = table[table["task"] == "chain"]
    return [
        Verdict.of("examples per second, `lines`", BAR, list(lines["examples"] / lines["seconds"]))
    ]


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of layouts, the bar, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    cells = []
    for name, part in table.groupby("task", sort=False):
        rates = part["examples"] / part["seconds"]
        tokens, compiling = int(part["tokens"].iloc[0]), float(part["compile_seconds"].iloc[0])
        cells.append((LAYOUTS[str(name)], str(tokens), spread(rates, 0), f"{compiling:.0f}"))
    header = ("layout", "tokens", "examples/s", "compile s")
    note = f"Difficulty {manifest['difficulty']}, {manifest['num_devices']} devices together."
    return page(header, cells, manifest, digits=0, note=note)


run = command("generation", lambda quick: measure(*((64, 2) if quick else (100_000, 9))), markdown)


if __name__ == "__main__":
    main(run)
