"""Fine-tuning steps of real checkpoints against `transformers`, side by side in one process.

Both train the same random Qwen2 on the same batch, by AdamW with clipping; `transformers` runs as
its users run it (`experiments.benchmarks.transformers_loop`), in bfloat16 under autocast. Ours is
split into as many micro-batches as suit the caches, and computes on all cores, either as one device
or, if the model is tiny, as one for each core. Peak memory is that of a process which takes steps
and does nothing else.

The column *limit* is the speed if there were only the products with the weights, each as fast as a
large one of all cores, in XLA or PyTorch, whichever is faster.

On a GPU a random checkpoint of the shape of Qwen2.5-1.5B takes steps in bfloat16 at 2048 tokens,
and its MFU is printed; that part has not been run yet.

Commands and cost (two CPU cores, 16 GB)::

    python -m experiments.benchmarks.finetuning --quick    # one minute: checks that it works
    python -m experiments.benchmarks.finetuning --record   # ten minutes: the table of
                                                           # docs/performance.md

Expect on an AMD EPYC, in float32: 1.4 to 2 times as fast as `transformers`, in half of its memory,
a third with rematerialisation. On Intel's CPUs, where PyTorch's products are the faster ones (370
against 310 GFLOP/s on two cores), expect less; that has not been measured since steps were made
faster. In bfloat16 PyTorch uses the CPU's own instructions, where there are any, and XLA does not:
on a CPU that is PyTorch's home, and ours is the accelerator.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.benchmarks import Verdict, command, describe, main, page, spread
from experiments.engine.cost import num_matrix_weights, peak_flops, training_flops
from experiments.llm.answering.model import Model
from experiments.llm.published import QWEN25_MATH_1_5B
from experiments.llm.text.loader import Batch
from experiments.llm.training import lora
from experiments.llm.training.config import StepConfig
from experiments.llm.training.step import make_step, place, start
from experiments.storage import checkpoint
from experiments.storage.sharding import make_mesh, parameter_shardings
from synth.config import DecoderConfig, Dtype, Execution, Lora
from synth.decoder import Parameters, initialise

LEARNING_RATE = 1e-4
OURS, THEIRS, LIMIT = "ours", "transformers", "limit"
Sizes = Mapping[str, int]
"""Fields of transformers' ``Qwen2Config``."""


def sizes(vocabulary: int, width: int, inner: int, layers: int, heads: int, kv_heads: int) -> Sizes:
    """Sizes of a model by the names of ``Qwen2Config``."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


TINY = sizes(512, 64, 192, 2, 4, 2)
MIDDLE = sizes(8192, 512, 1280, 8, 8, 4)
SMOLLM2 = sizes(49152, 576, 1536, 30, 9, 3)


@dataclass(frozen=True)
class Work:
    """A model, its batch, and how it is trained.

    Attributes:
      name: in tables.
      sizes: of the model.
      rows, length: sequences of a step, and tokens of each.
      bar: speedup over transformers that ours must reach; None for no bar.
      micro_batches: parts of a step of ours; their gradients add up.
      chunk_tokens: tokens of each row whose logits ours holds at once.
      is_split: whether ours takes a device for each core, or one that computes on all.
      dtype: of activations and products; parameters are float32.
      rank: of adapters, which alone are trained; 0 for none.
      checkpoint: folder of the weights that both begin with; None for random ones.
    """

    name: str
    sizes: Sizes
    rows: int
    length: int
    bar: float | None
    micro_batches: int = 1
    chunk_tokens: int = 512
    is_split: bool = False
    dtype: Dtype = "float32"
    rank: int = 0
    checkpoint: Path | None = None


SMALL = Work(
    "135M (SmolLM2's shape), 6 × 512, float32",
    SMOLLM2,
    6,
    512,
    1.0,
    micro_batches=3,
    chunk_tokens=128,
)
WORKS = (
    Work("tiny, 32 × 128, float32", TINY, 32, 128, 1.0, micro_batches=4, is_split=True),
    Work("25M, 8 × 256, float32", MIDDLE, 8, 256, 1.1),
    SMALL,
    dataclasses.replace(SMALL, name="the same, LoRA of rank 16, float32", rank=16, bar=1.1),
    dataclasses.replace(
        SMALL, name="the same, all parameters, bfloat16", dtype="bfloat16", bar=None
    ),
)
WHOLE = dataclasses.replace(SMALL, micro_batches=1)
"""`SMALL` in one micro-batch."""
REMAT = "ours, remat"
MOST_MEMORY = {OURS: 9.0, REMAT: 5.0}
"""Gigabytes that the process of a program may have at its peak, by steps of `WHOLE`."""
QUICK = dataclasses.replace(WORKS[0], rows=4, length=16, micro_batches=2)


def batch_of(work: Work, vocabulary: int) -> np.ndarray:
    """Random token ids [row, length], of which a step predicts all but the first of each row."""
    random = np.random.default_rng(0)
    return random.integers(3, vocabulary, (work.rows, work.length)).astype(np.int32)


def our_step(model: Model, work: Work) -> Callable[[], float]:
    """A function that takes one optimiser step and returns its loss.

    The model's own parameters survive it, whose execution is that of the work.
    """
    decoder, mesh = model.decoder, model.mesh
    # A step donates its state.
    parameters = jax.tree.map(jnp.copy, model.parameters)
    if work.rank:
        decoder, parameters = lora.attach(
            decoder, parameters, Lora(work.rank), jax.random.key(0), mesh=mesh
        )
    ids = batch_of(work, decoder.vocab_size).reshape(work.micro_batches, -1, work.length)
    positions = np.broadcast_to(np.arange(work.length, dtype=np.int32), ids.shape)
    batch = Batch(ids, positions, np.zeros_like(ids), np.ones(ids.shape, bool))
    config = StepConfig(chunk_tokens=work.chunk_tokens)
    step = make_step(decoder, config, mesh)
    frozen, state = start(decoder, parameters, config, mesh=mesh)
    del parameters

    def run() -> float:
        nonlocal state
        state, measured = step(frozen, state, place(batch, mesh), jnp.float32(LEARNING_RATE))
        return float(measured.loss)

    return run


def as_ours(theirs: Any, mesh: Any) -> Model:
    """A model of `transformers` as ours, over the devices of a mesh."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(Path(folder) / "model")
        return Model(*checkpoint.load(Path(folder) / "model", mesh=mesh), None, (), mesh)


def programs(work: Work) -> dict[str, Callable[[], float]]:
    """A step of either program, which returns its loss, with models of equal weights."""
    from experiments.benchmarks import transformers_loop as loop  # only it needs transformers

    named = work.checkpoint
    theirs = loop.random_model(work.sizes) if named is None else loop.read_model(named)
    count = jax.device_count()
    mesh = make_mesh(data=count) if work.is_split and count > 1 else None
    ours = as_ours(theirs, mesh)
    decoder = dataclasses.replace(ours.decoder, execution=Execution(work.dtype))
    if work.rank:
        loop.add_adapters(theirs, Lora(work.rank))
    return {
        OURS: our_step(dataclasses.replace(ours, decoder=decoder), work),
        THEIRS: loop.training_step(
            theirs, batch_of(work, theirs.config.vocab_size), LEARNING_RATE, dtype=work.dtype
        ),
    }


def product_flops(work: Work) -> int:
    """Operations of a step's products with the weights."""
    # A backward pass multiplies for the slopes of inputs and of weights; the latter are only
    # needed of weights that are trained, next to which adapters count for nothing.
    passes = 2 if work.rank else 3
    weights = num_matrix_weights(_decoder(work.sizes))
    return 2 * passes * weights * work.rows * work.length


def _decoder(sizes: Sizes) -> DecoderConfig:
    """The same shape as a configuration of ours."""
    vocabulary, width, inner, layers, heads, kv_heads = sizes.values()
    return DecoderConfig(
        vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        tied_head=True,
        positions="sequential",
        unroll=False,
    )


def xla_product_speed(dtype: Dtype, size: int = 2048) -> Callable[[], float]:
    """A function that returns operations per second of one large product of all cores in XLA."""
    options = {"xla_cpu_multi_thread_eigen": True} if jax.default_backend() == "cpu" else None
    product = jax.jit(jnp.matmul, compiler_options=options)
    ones = jnp.ones((size, size), dtype)
    jax.block_until_ready(product(ones, ones))

    def run() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(product(ones, ones))
        return 2 * size**3 / (time.perf_counter() - begin)

    return run


# ---------------------------------------------------------------------------------------- memory


def peak_memory(work: Work, program: str, steps: int = 3) -> float:
    """Gigabytes of memory that this process has had at most, after steps of a program.

    Args:
      work: what is trained; all its parameters are.
      program: `OURS`, `REMAT` (which is ours with rematerialisation) or `THEIRS`.
      steps: how many to take.

    Raises:
      FileNotFoundError: if the system is no Linux.
    """
    if program == THEIRS:
        from experiments.benchmarks import transformers_loop as loop

        model = loop.random_model(work.sizes)
        run = loop.training_step(
            model, batch_of(work, work.sizes["vocab_size"]), LEARNING_RATE, dtype=work.dtype
        )
    else:
        execution = Execution(work.dtype, remat=program == REMAT)
        decoder = dataclasses.replace(_decoder(work.sizes), execution=execution)
        run = our_step(Model(decoder, _random(decoder), None, (), None), work)
    for _ in range(steps):
        run()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024 / 1e9


def _random(decoder: DecoderConfig, mesh: Any = None) -> Parameters:
    """Random parameters, which are drawn where they stay."""

    def drawn():
        return initialise(decoder, jax.random.key(0))

    shardings = None if mesh is None else parameter_shardings(jax.eval_shape(drawn), mesh)
    return jax.jit(drawn, out_shardings=shardings)()


def peak_memories(work: Work) -> dict[str, float]:
    """`peak_memory` of every program, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for program in (OURS, REMAT, THEIRS):
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            found[program] = pool.submit(peak_memory, work, program).result()
    return found


# -------------------------------------------------------------------------------------- measuring


def measure(works: tuple[Work, ...], repeats: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark on a CPU.

    Args:
      works: what is measured; peak memory too if `SMALL` is among them.
      repeats: rounds; both programs take turns in each.

    Returns:
      The tidy table, one row per work, program (or `LIMIT`) and repeat: ``seconds`` for ``tokens``;
      and the manifest, with the difference of losses at the first step in ``agreement``, in nats,
      and gigabytes of peak ``memory``.
    """
    memory = peak_memories(WHOLE) if SMALL in works else {}
    rows, agreement = [], {}
    for work in works:
        both = programs(work)
        # Compare the first steps, since later ones start from weights that have diverged.
        ours, theirs = (program() for program in both.values())
        agreement[work.name] = abs(ours - theirs)
        speeds = product_speeds(work.dtype)
        for repeat in range(repeats):
            seconds = {}
            for name, program in both.items():
                begin = time.perf_counter()
                program()
                seconds[name] = time.perf_counter() - begin
            seconds[LIMIT] = product_flops(work) / max(speed() for speed in speeds)
            rows += [
                {
                    "work": work.name,
                    "program": name,
                    "repeat": repeat,
                    "seconds": value,
                    "tokens": work.rows * work.length,
                }
                for name, value in seconds.items()
            ]
    table = pd.DataFrame(rows)
    return table, describe(
        verdicts(table, memory, works), repeats=repeats, agreement=agreement, memory=memory
    )


def product_speeds(dtype: Dtype) -> list[Callable[[], float]]:
    """Speeds of a large product in a type: XLA's and PyTorch's."""
    from experiments.benchmarks import transformers_loop as loop

    return [xla_product_speed(dtype), loop.product_speed(dtype=dtype)]


def ratios(table: pd.DataFrame, work: str) -> list[float]:
    """Speed of ours over that of transformers, round by round."""
    part = table[table["work"] == work]
    seconds = part.pivot(index="repeat", columns="program", values="seconds")
    return (seconds[THEIRS] / seconds[OURS]).tolist()


def verdicts(
    table: pd.DataFrame, memory: Mapping[str, float], works: tuple[Work, ...]
) -> list[Verdict]:
    """The project's bars: speedups of ours over transformers, and peak memory."""
    bars = [
        Verdict.of(
            f"{work.name}: times as fast as transformers", work.bar, ratios(table, work.name)
        )
        for work in works
        if work.bar is not None
    ]
    return bars + [
        Verdict.of(
            f"{WHOLE.name}: {MOST_MEMORY[program]:.0f} GB / peak memory of {program}",
            1.0,
            [MOST_MEMORY[program] / measured],
        )
        for program, measured in memory.items()
        if program in MOST_MEMORY
    ]


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of tokens per second, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    cells = []
    for work, part in table.groupby("work", sort=False):
        rates = {name: each["tokens"] / each["seconds"] for name, each in part.groupby("program")}
        speeds = (spread(rates[name], 0) for name in (OURS, THEIRS, LIMIT))
        cells.append((str(work), *speeds, spread(ratios(table, str(work)), 2)))
    header = ("step", *(f"{name}, tokens/s" for name in (OURS, THEIRS, LIMIT)), "ours / theirs")
    note = (
        "The limit is products with the weights alone, at the speed of one large product. "
        f"Losses of the first step differ by at most {max(manifest['agreement'].values()):.0e} nats"
        " in any type."
    )
    if memory := manifest["memory"]:
        told = ", ".join(f"{program} {value:.1f} GB" for program, value in memory.items())
        note += (
            f" Peak memory of a process that takes such steps in one micro-batch ({WHOLE.name}): "
            f"{told}."
        )
    return page(header, cells, manifest, digits=2, note=note)


def measure_utilisation(steps: int = 10, rows: int = 4, length: int = 2048) -> None:
    """Print tokens per second and MFU of the accelerators: Qwen2.5-1.5B's shape, bfloat16."""
    execution = Execution("bfloat16", remat=True, attention="cudnn")
    decoder: DecoderConfig = dataclasses.replace(QWEN25_MATH_1_5B, execution=execution)
    count = jax.device_count()
    mesh = make_mesh(fsdp=count)
    work = Work("", {}, rows * count, length, None)
    run = our_step(Model(decoder, _random(decoder, mesh), None, (), mesh), work)
    run()
    begin = time.perf_counter()
    for _ in range(steps):
        run()
    seconds = (time.perf_counter() - begin) / steps
    tokens = work.rows * length
    done, peak = training_flops(decoder, tokens, length), peak_flops()
    told = "unknown" if peak is None else f"{done / seconds / peak / count:.1%}"
    print(f"{tokens / seconds:,.0f} tokens/s, MFU {told} ({jax.devices()[0].device_kind})")


compare = command(
    "finetuning", lambda quick: measure(*(((QUICK,), 2) if quick else (WORKS, 3))), markdown
)


# The flags and the help of `compare`.
@functools.wraps(compare)
def run(quick: bool = False, record: bool = False) -> None:
    if jax.default_backend() == "cpu":
        compare(quick=quick, record=record)
    else:
        measure_utilisation()


if __name__ == "__main__":
    main(run)
