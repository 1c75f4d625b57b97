"""Real checkpoints: fine-tuning and decoding against `transformers`, side by side in one process.

On a CPU both have the same random Qwen2 in float32, the same batch, AdamW with clipping, and greedy
decoding of as many new tokens; `transformers` runs as its users run it (an eager loop,
``generate`` with its cache), with a thread for each core. Ours is spread over a host device for
each core: the rows of a step, in as many micro-batches as suit a core's caches; for decoding the
rows of a small model, and the matrices of a larger one, which are read anew for each token.

On a GPU a random checkpoint of the shape of Qwen2.5-1.5B takes steps in bfloat16 at 2048 tokens,
and its MFU is told; that part has not been run yet.

Commands and cost (two CPU cores)::

    python -m experiments.benchmarks.llm --quick    # two minutes: checks that it works
    python -m experiments.benchmarks.llm --record   # ten minutes: the table in the README

Expect: training as fast or faster at the tiny shape, a little slower at 25 million parameters;
decoding several times as fast at the tiny shape, and little faster at 25 million parameters, where
both wait for the same products of few rows.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tyro

from experiments import checkpoint
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
from experiments.llm.cost import peak_flops, training_flops
from experiments.llm.decoding import DecodingConfig, continuations
from experiments.llm.loader import Batch
from experiments.llm.model import Model
from experiments.llm.published import QWEN25_MATH_1_5B
from experiments.llm.sharding import make_mesh, parameter_shardings
from experiments.llm.step import StepConfig, make_step, place, start
from synth.decoder import DecoderConfig, Execution, initialise

LEARNING_RATE = 1e-4
TRAINING, DECODING = "fine-tuning step", "decoding"


@dataclass(frozen=True)
class Shape:
    """A model and its batches.

    Attributes:
      name: in tables.
      sizes: fields of transformers' ``Qwen2Config``.
      rows, length: tokens of a training step.
      micro_batches: parts of a step of ours; their gradients add up.
      prompts, prompt, new: sequences that are decoded together, their tokens, and new ones.
      decoding_axis: axis of the mesh, over all devices, on which ours decodes.
      bar: how many times as fast training must be.
    """

    name: str
    sizes: dict[str, Any]
    rows: int
    length: int
    micro_batches: int
    prompts: int
    prompt: int
    new: int
    decoding_axis: Literal["data", "tp"]
    bar: float


SHAPES = (
    Shape(
        "tiny: width 64, 2 layers",
        {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        rows=32,
        length=128,
        micro_batches=4,
        prompts=32,
        prompt=64,
        new=128,
        decoding_axis="data",
        bar=1.0,
    ),
    Shape(
        "25M: width 512, 8 layers",
        {
            "vocab_size": 8192,
            "hidden_size": 512,
            "intermediate_size": 1280,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
        },
        rows=8,
        length=256,
        micro_batches=1,
        prompts=16,
        prompt=64,
        new=64,
        decoding_axis="tp",
        bar=0.7,
    ),
)
QUICK = dataclasses.replace(
    SHAPES[0], rows=4, length=16, micro_batches=2, prompts=2, prompt=64, new=4
)


def reference(shape: Shape) -> Any:
    """A random Qwen2 of `transformers`, with tied embeddings."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(num_cores())
    config = transformers.Qwen2Config(
        **shape.sizes,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    return transformers.Qwen2ForCausalLM(config)


def batch_of(shape: Shape, vocabulary: int) -> np.ndarray:
    """Random tokens, of which a step predicts all but the first."""
    random = np.random.default_rng(0)
    return random.integers(3, vocabulary, (shape.rows, shape.length)).astype(np.int32)


def our_step(model: Model, shape: Shape) -> Callable[[], float]:
    """One optimiser step, and its loss."""
    tokens = batch_of(shape, model.decoder.vocab_size)
    tokens = tokens.reshape(shape.micro_batches, -1, shape.length)
    positions = np.broadcast_to(np.arange(shape.length, dtype=np.int32), tokens.shape)
    batch = Batch(tokens, positions, np.zeros_like(tokens), np.ones(tokens.shape, bool))
    config = StepConfig()
    step = make_step(model.decoder, config, model.mesh)
    # The step gives its state away, and decoding still needs the parameters.
    parameters = jax.tree.map(jnp.copy, model.parameters)
    frozen, state = start(model.decoder, parameters, config, mesh=model.mesh)

    def run() -> float:
        nonlocal state
        placed = place(batch, model.mesh)
        state, measured = step(frozen, state, placed, jnp.float32(LEARNING_RATE))
        return float(measured.loss)

    return run


def their_step(model: Any, shape: Shape) -> Callable[[], float]:
    """One step of an eager loop, and its loss."""
    import torch

    tokens = torch.tensor(batch_of(shape, shape.sizes["vocab_size"]).astype(np.int64))
    optimiser = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.0
    )

    def run() -> float:
        optimiser.zero_grad()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())

    return run


def prompts_of(shape: Shape) -> list[list[int]]:
    """Prompts of one length."""
    random = np.random.default_rng(1)
    return random.integers(3, shape.sizes["vocab_size"], (shape.prompts, shape.prompt)).tolist()


def our_decoding(model: Model, shape: Shape) -> Callable[[], list[list[int]]]:
    """Greedy decoding of all prompts."""
    config = DecodingConfig(max_new_tokens=shape.new, batch_size=shape.prompts)
    prompts = prompts_of(shape)
    return lambda: [part.tokens.tolist() for (part,) in continuations(model, prompts, config)]


def their_decoding(model: Any, shape: Shape) -> Callable[[], list[list[int]]]:
    """The same by ``generate``."""
    import torch

    prompts = torch.tensor(prompts_of(shape))

    def run() -> list[list[int]]:
        with torch.no_grad():
            found = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=shape.new,
                do_sample=False,
            )
        return found[:, shape.prompt :].tolist()

    return run


def measure(shapes: tuple[Shape, ...], repeats: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark on a CPU.

    Args:
      shapes: models and batches.
      repeats: rounds; both programs take turns in each.

    Returns:
      The tidy table, one row per shape, work, program and repeat: ``seconds`` for ``tokens``; and
      the manifest, with the largest difference of losses after the same steps and the share of
      decoded tokens that are equal.
    """
    rows, agreement = [], {}
    count = jax.device_count()
    for shape in shapes:
        theirs = reference(shape)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs.save_pretrained(Path(folder) / "model")
            ours = {
                axis: Model(*checkpoint.load(Path(folder) / "model", mesh=mesh), None, (), mesh)
                for axis in ("data", shape.decoding_axis)
                for mesh in [make_mesh(**{axis: count}) if count > 1 else None]
            }
        works = {
            DECODING: (
                our_decoding(ours[shape.decoding_axis], shape),
                their_decoding(theirs, shape),
            ),
            TRAINING: (our_step(ours["data"], shape), their_step(theirs, shape)),
        }
        tokens = {TRAINING: shape.rows * shape.length, DECODING: shape.prompts * shape.new}
        for work, programs in works.items():
            # Training changes the reference's weights, so that decoding comes first.
            first = [program() for program in programs]
            agreement[f"{shape.name}, {work}"] = _agreement(*first)
            for repeat in range(repeats):
                for name, program in zip(("ours", "transformers"), programs, strict=True):
                    start_time = time.perf_counter()
                    program()
                    rows.append(
                        {
                            "shape": shape.name,
                            "work": work,
                            "program": name,
                            "repeat": repeat,
                            "seconds": time.perf_counter() - start_time,
                            "tokens": tokens[work],
                        }
                    )
    table = pd.DataFrame(rows)
    manifest = environment() | {
        "repeats": repeats,
        "num_devices": count,
        "agreement": agreement,
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts(table, shapes)],
    }
    return table, manifest


def _agreement(ours: Any, theirs: Any) -> float:
    """Difference of two losses, or share of equal tokens."""
    if isinstance(ours, float):
        return abs(ours - theirs)
    return float(np.mean(np.array(ours) == np.array(theirs)))


def ratios(table: pd.DataFrame, shape: str, work: str) -> list[float]:
    """How many times as fast ours is, round by round."""
    part = table[(table["shape"] == shape) & (table["work"] == work)]
    seconds = part.pivot(index="repeat", columns="program", values="seconds")
    return (seconds["transformers"] / seconds["ours"]).tolist()


def verdicts(table: pd.DataFrame, shapes: tuple[Shape, ...]) -> list[Verdict]:
    """The project's bars."""
    found = []
    for shape in shapes:
        for work, bar in ((TRAINING, shape.bar), (DECODING, 2.0)):
            name = f"{work}, {shape.name}: times as fast as transformers"
            found.append(Verdict.of(name, bar, ratios(table, shape.name, work)))
    return found


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of tokens per second, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    cells = []
    for key, part in table.groupby(["shape", "work"], sort=False):
        shape, work = key  # type: ignore[misc]
        rates = {name: each["tokens"] / each["seconds"] for name, each in part.groupby("program")}
        both = (spread(rates[name], 0) for name in ("ours", "transformers"))
        cells.append((str(shape), str(work), *both))
    lines = table_lines(("model", "work", "ours, tokens/s", "transformers, tokens/s"), cells)
    lines += ["", *verdict_lines(manifest, 2), ""]
    losses = [value for name, value in manifest["agreement"].items() if TRAINING in name]
    equal = [value for name, value in manifest["agreement"].items() if DECODING in name]
    lines.append(
        f"{caption(manifest)} float32, {manifest['num_devices']} devices. Losses of the first step "
        f"differ by at most {max(losses):.0e} nats; {min(equal):.0%} of the decoded tokens are "
        f"equal."
    )
    return "\n".join(lines) + "\n"


def measure_utilisation(steps: int = 10, rows: int = 4, length: int = 2048) -> None:
    """Print tokens per second and MFU of one accelerator: Qwen2.5-1.5B's shape, bfloat16."""
    execution = Execution("bfloat16", remat=True, attention="cudnn")
    decoder: DecoderConfig = dataclasses.replace(QWEN25_MATH_1_5B, execution=execution)
    mesh = make_mesh(fsdp=jax.device_count())
    shapes = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    parameters = jax.jit(
        lambda: initialise(decoder, jax.random.key(0)),
        out_shardings=parameter_shardings(shapes, mesh),
    )()
    shape = dataclasses.replace(
        QUICK, rows=rows * jax.device_count(), length=length, micro_batches=1
    )
    run = our_step(Model(decoder, parameters, None, (), mesh), shape)
    run()
    start_time = time.perf_counter()
    for _ in range(steps):
        run()
    seconds = (time.perf_counter() - start_time) / steps
    tokens = shape.rows * length
    done = training_flops(decoder, tokens, length)
    peak = peak_flops()
    told = "unknown" if peak is None else f"{done / seconds / peak / jax.device_count():.1%}"
    print(f"{tokens / seconds:,.0f} tokens/s, MFU {told} ({jax.devices()[0].device_kind})")


def run(quick: bool = False, record: bool = False) -> None:
    """Measure, and print the table and the bars.

    Args:
      quick: only check that everything works; the numbers mean nothing.
      record: keep table and manifest under experiments/results/benchmarks.

    Raises:
      ValueError: if a quick run is to be recorded.
    """
    if jax.default_backend() != "cpu":
        measure_utilisation()
        return
    report(
        "llm",
        lambda: measure(*(((QUICK,), 2) if quick else (SHAPES, 7))),
        markdown,
        quick=quick,
        record=record,
    )


def main() -> None:
    """Entry point of ``python -m experiments.benchmarks.llm``."""
    configure_host_devices()
    tyro.cli(run)


if __name__ == "__main__":
    main()
