"""Everything that has to be seen once on a new kind of device: parity, speed, memory, determinism.

Sections run in processes of their own, each with a limit to its time, so that one that fails, hangs
or aborts is recorded and the others still run. On a CPU ``--smoke`` runs the same code at a tiny
size, with a host device for each core; the full plan needs an accelerator::

    python -m experiments.benchmarks.device --smoke    # 2 minutes of two cores
    python -m experiments.benchmarks.device --record   # at most 8 minutes of a GPU; not run on one

Expect: every section passed. Where cuDNN's attention does not exist, XLA's is measured alone.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks import RESULTS, describe, main
from experiments.storage.results import write_record
from synth.config import Attention, DecoderConfig, Execution

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""XLA's flag for the same bits in each run on a GPU, at some cost in speed."""

Measured = Iterator[tuple[str, float, str]]
"""What is measured, its value and unit; given as soon as it is known."""

SMALL = DecoderConfig(  # SmolLM2-135M
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    qkv_bias=False,
    tied_head=True,
    positions="sequential",
    max_positions=2048,
    unroll=False,
)
LARGE = dataclasses.replace(  # Llama-3.2-1B
    SMALL,
    vocab_size=128_256,
    hidden_size=2048,
    intermediate_size=8192,
    num_layers=16,
    num_heads=32,
    num_kv_heads=8,
)
TOY = dataclasses.replace(
    SMALL,
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
)


@dataclass(frozen=True)
class Plan:
    """Sizes of the work.

    Attributes:
      members: numbers of members of a grid that run at once.
      steps: of each member, and of each real checkpoint.
      decoders: shapes of checkpoints by name.
      rows, length: sequences of a training step, and tokens of each.
      prompts, new: sequences that are decoded together, and new tokens of each.
      flags: that make the preset ``gpu`` of `tradeoff` end soon.
    """

    members: tuple[int, ...] = (1, 16, 256)
    steps: int = 20
    decoders: Mapping[str, DecoderConfig] = dataclasses.field(
        default_factory=lambda: {"135M": SMALL, "1B": LARGE}
    )
    rows: int = 8
    length: int = 2048
    prompts: int = 64
    new: int = 256
    flags: tuple[str, ...] = ("--pretrain.steps", "200", "--compute", "50")


FULL = Plan()
SMOKE = Plan(
    members=(1, 4),
    steps=2,
    decoders={"toy": TOY},
    rows=2,
    length=32,
    prompts=2,
    new=4,
    flags=("--pretrain.steps", "2", "--compute", "2"),
)


def fastest(run: Callable[[], Any], repeats: int = 3) -> float:
    """Least seconds of a run, after one that compiles."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


# ------------------------------------------------------------------------------------ the sections


def members_of(count: int, steps: int, devices: Any = None) -> Callable[[], list[Any]]:
    """A function that fine-tunes so many members; returns losses and parameters of each."""
    import jax

    from experiments.benchmarks.engines import DECODER, SHAPES, make_work
    from experiments.sweep.mapping import MemberMap
    from synth.config import FinetuneConfig, Optimiser
    from synth.finetune import finetune

    shape = SHAPES[0]
    work = jax.device_get(make_work(shape, range(count)))
    trees = [jax.tree.map(lambda leaf, n=n: leaf[n], work) for n in range(count)]
    training = FinetuneConfig(steps, optimiser=Optimiser(batch_size=shape.batch_size))

    def member(one: Any) -> Any:
        key = jax.random.wrap_key_data(one.key)
        return finetune(DECODER, one.base, one.data, training, key)

    over = MemberMap("auto", devices=devices)
    program = jax.jit(over.over(member))
    return lambda: over.unstack(program(over.stack(trees)), count)


def grid(plan: Plan) -> Measured:
    """Members on this device against the same on a CPU, and their speed by number."""
    import jax

    here = members_of(plan.members[0], plan.steps)()[0][1]
    there = members_of(plan.members[0], plan.steps, jax.devices("cpu")[:1])()[0][1]
    first, worst = abs(here[0] - there[0]), float(np.max(np.abs(here - there)))
    yield "loss of the first step, difference from a CPU", float(first), "nats"
    yield "loss of any step, greatest difference from a CPU", worst, "nats"
    if not first < 1e-2:
        raise RuntimeError(f"the first loss is {here[0]} here and {there[0]} on a CPU")
    for count in plan.members:
        seconds = fastest(members_of(count, plan.steps))
        yield f"{count} member(s) at once", count * plan.steps / seconds, "member-steps/s"


def attentions() -> tuple[Attention, ...]:
    """Implementations of attention that this device has."""
    import jax

    return ("xla", "cudnn") if jax.default_backend() == "gpu" else ("xla",)


def step(plan: Plan) -> Measured:
    """A training step of a real shape in bfloat16, by attention: tokens per second and MFU."""
    import jax

    from experiments.benchmarks.finetuning import QUICK, our_step
    from experiments.engine.cost import peak_flops, training_flops
    from experiments.llm.answering.model import Model
    from synth.decoder import initialise

    if "cudnn" not in attentions():
        yield "cuDNN's attention, which this device lacks", 0.0, "available"
    shape = dataclasses.replace(QUICK, rows=plan.rows, length=plan.length, micro_batches=1)
    for name, plain in plan.decoders.items():
        losses = {}
        for attention in attentions():
            execution = Execution("bfloat16", remat=True, attention=attention)
            decoder = dataclasses.replace(plain, execution=execution)
            parameters = jax.jit(functools.partial(initialise, decoder))(jax.random.key(0))
            run = our_step(Model(decoder, parameters, None, ()), shape)
            losses[attention] = run()
            seconds = fastest(run, plan.steps)
            tokens = plan.rows * plan.length
            yield f"{name}, {attention}", tokens / seconds, "tokens/s"
            if (peak := peak_flops()) is not None:
                done = training_flops(decoder, tokens, plan.length)
                yield f"{name}, {attention}, MFU", done / seconds / peak, "share"
            del run, parameters
        if not max(losses.values()) - min(losses.values()) < 0.05:
            raise RuntimeError(f"losses of {name} differ by attention: {losses}")


def decoding(plan: Plan) -> Measured:
    """Greedy decoding of prompts of one length in bfloat16."""
    import jax

    from experiments.llm.answering.config import DecodingConfig
    from experiments.llm.answering.decoding import continuations
    from experiments.llm.answering.model import Model
    from synth.decoder import initialise

    for name, plain in plan.decoders.items():
        decoder = dataclasses.replace(plain, execution=Execution("bfloat16"))
        parameters = jax.jit(functools.partial(initialise, decoder))(jax.random.key(0))
        prompts = np.random.default_rng(0).integers(3, 500, (plan.prompts, 64)).tolist()
        config = DecodingConfig(max_new_tokens=plan.new, batch_size=plan.prompts)
        model = Model(decoder, parameters, None, ())
        seconds = fastest(lambda m=model, p=prompts, c=config: continuations(m, p, c), 1)
        yield name, plan.prompts * plan.new / seconds, "tokens/s"


def digest(plan: Plan) -> Measured:
    """Print a digest of trained members; the section `determinism` compares several processes."""
    import jax

    total = hashlib.sha256()
    for leaf in jax.tree.leaves(members_of(plan.members[1], plan.steps)()):
        total.update(np.ascontiguousarray(leaf).tobytes())
    yield f"digest {total.hexdigest()}", 0.0, ""


def determinism(plan: Plan) -> Measured:
    """Whether two processes give the same bits, with and without XLA's flag."""
    name = "full" if plan is FULL else "smoke"
    for flags in ("", DETERMINISTIC):
        variables = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        found = set()
        for _ in range(2):
            done = subprocess.run(
                _command(name, "digest"),
                env=os.environ | variables,
                capture_output=True,
                text=True,
                check=True,
            )
            found.add(json.loads(done.stdout.splitlines()[-1])[0])
        same = float(len(found) == 1)
        yield f"same bits in two processes {flags or 'without flags'}", same, "yes"
        if flags and not same:
            raise RuntimeError(f"two processes differ with {flags}")


def memory(plan: Plan) -> Measured:
    """What a device reports of its memory, and that a program that is too large is halved."""
    import jax
    import jax.numpy as jnp

    from experiments.storage.memory import device_memory
    from experiments.sweep.together import Together

    device = jax.devices()[0]
    if (limit := device_memory(device)) is not None:
        yield "memory for programs", limit / 2**30, "GiB"
    members_of(plan.members[-1], plan.steps)()
    if peak := (device.memory_stats() or {}).get("peak_bytes_in_use"):
        yield f"peak with {plan.members[-1]} members", peak / 2**30, "GiB"

    def work(members: Any, places: int) -> list[Any]:
        # No device has 2^50 bytes: the error is the genuine one.
        size = 2**48 if places > 2 else 2**10
        jnp.ones((size,), jnp.float32).block_until_ready()
        return list(members)

    together = Together([device])
    if together.run("memory", range(8), work, most=8) != [*range(8)] or together.fewest != 2:
        raise RuntimeError(f"8 members were not halved to 2, but to {together.fewest}")
    yield "members at once after running out of memory with 8 and 4", together.fewest, "members"


def presets(plan: Plan) -> Measured:
    """The real command with the preset ``gpu``, made short."""
    sizes = "--difficulties 4 --data-sizes 16 --base-seeds 1 --seeds 2 --test-hardest 6"
    counts = "--test-examples 16 --risk-examples 16 --pretrain.max-risk 1"
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", "tradeoff", "--preset", "gpu", *sizes.split(), *counts.split(), *plan.flags]
        seconds = time.perf_counter()
        command = [sys.executable, "-m", "experiments", *words, "--out", f"{folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
        yield "sweetspot run tradeoff --preset gpu", time.perf_counter() - seconds, "s"


SECTIONS: dict[str, tuple[Callable[[Plan], Measured], int]] = {
    "grid": (grid, 100),
    "step": (step, 130),
    "decoding": (decoding, 70),
    "determinism": (determinism, 80),
    "memory": (memory, 40),
    "presets": (presets, 60),
}
"""Each section, and the most seconds that it may take on an accelerator: 8 minutes together."""
PATIENCE = 5
"""A CPU that others use as well may take this many times as long."""


# --------------------------------------------------------------------- one process for each section


def _command(plan_name: str, section: str) -> list[str]:
    """Command of the process of a section, which prints what it measures as lines of JSON."""
    call = f"from experiments.benchmarks.device import serve; serve({plan_name!r}, {section!r})"
    return [sys.executable, "-c", call]


def serve(plan_name: str, section: str) -> None:
    """Be the process of a section."""
    from experiments.devices import configure_host_devices

    configure_host_devices()
    measure_section = digest if section == "digest" else SECTIONS[section][0]
    for each in measure_section(FULL if plan_name == "full" else SMOKE):
        print(json.dumps(each), flush=True)


def run_section(plan_name: str, section: str, limit: float) -> tuple[list[Any], dict[str, Any]]:
    """What a section measured until it ended, failed or took too long; and how it ended."""
    start = time.perf_counter()
    # Every process takes memory as it needs it: parents and children share the device.
    variables = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            _command(plan_name, section),
            stdout=out,
            stderr=errors,
            env=variables,
            cwd=Path(__file__).parents[2],
        )
        try:
            status = process.wait(limit)
            reason = "" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            reason = f"stopped after {limit:.0f} s"
        out.seek(0)
        errors.seek(0)
        rows = [json.loads(line) for line in out if line.startswith('["')]
        last = (errors.read().strip().splitlines() or [""])[-1]
    ended = {"status": "failed" if reason else "passed", "seconds": time.perf_counter() - start}
    return rows, ended | ({"reason": f"{reason}: {last}"} if reason else {})


def measure(plan_name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run every section, and print its numbers as it ends.

    Args:
      plan_name: ``full`` or ``smoke``.

    Returns:
      One row for each value: section, measure, value, unit; and the manifest, in which ``sections``
      tells how each ended.
    """
    rows, sections = [], {}
    for name, (_, seconds) in SECTIONS.items():
        limit = seconds if plan_name == "full" else PATIENCE * seconds
        found, sections[name] = run_section(plan_name, name, limit)
        print(f"{name}: {sections[name]['status']}, {sections[name]['seconds']:.0f} s", flush=True)
        for told, value, unit in found:
            print(f"  {told}: {value:,.4g} {unit}", flush=True)
        if "reason" in sections[name]:
            print(f"  {sections[name]['reason']}", flush=True)
        rows += [(name, *each) for each in found]
    table = pd.DataFrame(rows, columns=["section", "measure", "value", "unit"])
    return table, describe([], plan=plan_name, repeats=1, sections=sections)


def run(smoke: bool = False, record: bool = False) -> None:
    """Run every section on this machine's device.

    Args:
      smoke: a tiny size, which a CPU can do; the numbers mean nothing.
      record: keep table and manifest under experiments/results/benchmarks.

    Raises:
      ValueError: if a smoke run is to be recorded, before anything is measured.
    """
    if smoke and record:
        raise ValueError("record needs the full plan, got smoke as well")
    table, manifest = measure("smoke" if smoke else "full")
    if record:
        for path in write_record(RESULTS, "device", table, manifest):
            print(path)
    if any(section["status"] != "passed" for section in manifest["sections"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main(run)
