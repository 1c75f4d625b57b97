"""Real checkpoints: decoding against `transformers`, side by side in one process.

Both have the same random Qwen2 in float32 and decode greedily; `transformers` runs as its users run
it (`experiments.benchmarks.transformers_loop`). Its ``generate_batch``, which batches continuously,
took 2.5 times as long as ``generate`` on a CPU. Ours is spread over a host device for each core:
the rows of a small model, and the matrices of a larger one, which have to be read again for each
token.

Three works are measured. One batch whose answers all have one length is the same work for both.
Reading prompts is that batch up to the first token of each answer. A test set has answers of many
lengths, and more problems than a batch has rows: measured is the time to the last answer. A random
Qwen2 with large weights wanders through its vocabulary, so that declaring a share of it stop tokens
gives answers of many lengths, and a few that are cut off; the longest answer of a batch is two to
three times the mean, as in the recipe ``tiny-igsm``.

The column *limit* is the speed if there were only the weights: products with them as fast as one
large product of all cores, or, where that takes longer, reading them from memory once for all rows
that decode a token together.

Commands and cost (two CPU cores)::

    python -m experiments.benchmarks.llm --quick    # two minutes: checks that it works
    python -m experiments.benchmarks.llm --record   # five minutes: the table of docs/performance.md

Expect: a test set decoded 2.3 to 3.8 times as fast as by `transformers`, and one batch of answers
of one length 1.6 times at SmolLM2's shape, 2.2 times at 25 million parameters and 2.7 times at the
tiny shape. Reading prompts takes about as long in both: 1.2 to 1.4 times as fast, and half as fast
at the tiny shape. (Where each device of a mesh has a single key-value head, XLA on CPUs copies the
cache for every token: a tenth of the time at 25 million parameters.)
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd

from experiments.benchmarks import Verdict, command, describe, main, page, spread
from experiments.benchmarks.finetuning import (
    LIMIT,
    MIDDLE,
    OURS,
    SMOLLM2,
    THEIRS,
    TINY,
    Sizes,
    as_ours,
    xla_product_speed,
)
from experiments.engine.cost import num_matrix_weights
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations
from experiments.llm.answering.model import Model
from experiments.storage.sharding import make_mesh
from synth.config import DecoderConfig

DECODING, ANSWERING, READING = (
    "decoding, one batch, answers of one length",
    "decoding, a test set, answers of many lengths",
    "reading the prompts of one batch",
)
PRODUCTS = "products with the weights alone, at the speed of one large product"
WANDERING = 0.3
"""Scale of random weights at which greedy decoding does not fall into repeating one token."""


@dataclass(frozen=True)
class Shape:
    """A model and its batches.

    Attributes:
      name: in tables.
      sizes: fields of transformers' ``Qwen2Config``.
      prompts, prompt, new: sequences that are decoded together, their tokens, and new tokens.
      problems, most_new: prompts of the test set, and the most new tokens of an answer.
      stop_every: one in so many tokens of the vocabulary ends an answer of the test set.
      decoding_axis: axis of the mesh, over all devices, on which ours decodes.
      bars: the least speedup over transformers, by work.
    """

    name: str
    sizes: Sizes
    prompts: int
    prompt: int
    new: int
    problems: int
    most_new: int
    stop_every: int
    decoding_axis: Literal["data", "tp"]
    bars: Mapping[str, float]


SHAPES = (
    Shape(
        "tiny: width 64, 2 layers",
        TINY,
        prompts=32,
        prompt=64,
        new=128,
        problems=256,
        most_new=128,
        stop_every=64,
        decoding_axis="data",
        bars={ANSWERING: 2.0, DECODING: 2.0},
    ),
    Shape(
        "25M: width 512, 8 layers",
        MIDDLE,
        prompts=16,
        prompt=64,
        new=64,
        problems=128,
        most_new=96,
        stop_every=48,
        decoding_axis="tp",
        bars={ANSWERING: 2.4, DECODING: 1.6},
    ),
    Shape(
        "135M: SmolLM2's shape",
        SMOLLM2,
        prompts=16,
        prompt=64,
        new=32,
        problems=48,
        most_new=96,
        stop_every=48,
        decoding_axis="tp",
        bars={ANSWERING: 1.8, DECODING: 1.3},
    ),
)
QUICK = dataclasses.replace(SHAPES[0], prompts=2, new=4, problems=6, most_new=8)


@dataclass(frozen=True)
class Decoding:
    """Prompts of one length, and how they are continued.

    Attributes:
      prompts: token ids of each.
      rows: prompts in a batch.
      most_new: the most new tokens of an answer.
      stop: tokens that end an answer.
    """

    prompts: list[list[int]]
    rows: int
    most_new: int
    stop: tuple[int, ...] = ()

    @classmethod
    def of(cls, shape: Shape, work: str) -> Decoding:
        """The work of a shape: `DECODING`, `ANSWERING` or `READING`."""
        number = shape.problems if work == ANSWERING else shape.prompts
        random, size = np.random.default_rng(1), shape.sizes["vocab_size"]
        prompts = random.integers(3, size, (number, shape.prompt)).tolist()
        if work != ANSWERING:
            return cls(prompts, shape.prompts, shape.new if work == DECODING else 1)
        return cls(prompts, shape.prompts, shape.most_new, tuple(range(0, size, shape.stop_every)))


def our_decoding(model: Model, decoding: Decoding) -> Callable[[], list[list[int]]]:
    """A function that answers all prompts greedily, without the stop tokens."""
    config = DecodingConfig(max_new_tokens=decoding.most_new, batch_size=decoding.rows)
    model = dataclasses.replace(model, stop=decoding.stop)
    return lambda: [
        part.tokens.tolist() for (part,) in continuations(model, decoding.prompts, config)
    ]


@dataclass(frozen=True)
class Cost:
    """What no program that reads whole weights can do without.

    Attributes:
      products: operations of the products with the weights.
      read: bytes of weights that are read from memory, while a token is decoded in each row.
      products_decoding: those `products` that are done meanwhile.
    """

    products: int
    read: int
    products_decoding: int

    @classmethod
    def of(cls, decoder: DecoderConfig, decoding: Decoding, answers: list[list[int]]) -> Cost:
        """Cost of a work, given its answers."""
        # Every token that is read goes through the layers; only new tokens need logits. A stop
        # token is a new token too. The first new token comes of the prompt, and the last is never
        # read.
        new = [min(len(answer) + 1, decoding.most_new) for answer in answers]
        decoded, weights = sum(new) - len(new), num_matrix_weights(decoder)
        layers = weights - decoder.vocab_size * decoder.hidden_size
        prompts = layers * sum(map(len, decoding.prompts)) + (weights - layers) * len(new)
        steps = max(-(-decoded // decoding.rows), max(new) - 1)
        return cls(2 * (prompts + weights * decoded), 4 * weights * steps, 2 * weights * decoded)

    def seconds(self, operations: float, bandwidth: float) -> float:
        """Time at a number of operations, and of bytes, a second."""
        prompts = (self.products - self.products_decoding) / operations
        return prompts + max(self.products_decoding / operations, self.read / bandwidth)


def measure(shapes: tuple[Shape, ...], repeats: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the benchmark on a CPU.

    Args:
      shapes: models and batches.
      repeats: rounds; both programs take turns in each.

    Returns:
      The tidy table, one row per shape, work, program (or `LIMIT`) and repeat: ``seconds`` for
      ``tokens``, which are those of the prompts if they are read, and else new ones; and the
      manifest, with the share of equal answers in ``agreement``, and number and lengths of the
      ``answers``.
    """
    from experiments.benchmarks import transformers_loop  # the only module that needs transformers

    rows, agreement, answers = [], {}, {}
    reading = transformers_loop.reading_speed()
    products = xla_product_speed("float32"), transformers_loop.product_speed()
    for speed in (reading, *products):
        speed()
    for shape in shapes:
        for work, programs, cost in _works(shape):
            ours, theirs = (program() for program in programs.values())
            equal = [one == other for one, other in zip(ours, theirs, strict=True)]
            agreement[f"{shape.name}, {work}"] = float(np.mean(equal))
            lengths = [len(answer) for answer in ours]
            costs = cost(ours)
            answers[f"{shape.name}, {work}"] = {
                "number": len(lengths),
                "mean": float(np.mean(lengths)),
                "longest": max(lengths),
            }
            # The rounds, in which both programs and the limit take turns.
            for repeat in range(repeats):
                seconds = {}
                for name, program in programs.items():
                    start_time = time.perf_counter()
                    program()
                    seconds[name] = time.perf_counter() - start_time
                seconds[LIMIT] = costs.seconds(max(speed() for speed in products), reading())
                rows += [
                    {
                        "shape": shape.name,
                        "work": work,
                        "program": name,
                        "repeat": repeat,
                        "seconds": value,
                        "tokens": shape.prompts * shape.prompt if work == READING else sum(lengths),
                    }
                    for name, value in seconds.items()
                ]
    table = pd.DataFrame(rows)
    return table, describe(
        verdicts(table, shapes),
        repeats=repeats,
        num_devices=jax.device_count(),
        limit=f"{PRODUCTS}, or, where it takes longer, reading them once for each token of a batch",
        agreement=agreement,
        answers=answers,
    )


Work = tuple[str, dict[str, Callable[[], Any]], Callable[[list[list[int]]], Cost]]
"""Its name, a run of it by either program, and its cost given the answers."""


def _works(shape: Shape) -> Iterator[Work]:
    """The works of a shape, each with new models."""
    from experiments.benchmarks import transformers_loop as loop

    for work, scale in ((READING, 0.02), (DECODING, 0.02), (ANSWERING, WANDERING)):
        theirs = loop.random_model(shape.sizes, scale)
        count = jax.device_count()
        mesh = make_mesh(**{shape.decoding_axis: count}) if count > 1 else None
        decoding, ours = Decoding.of(shape, work), as_ours(theirs, mesh)
        limits = {"batch_size": decoding.rows, "most_new": decoding.most_new}
        programs = {
            OURS: our_decoding(ours, decoding),
            THEIRS: loop.decoding(theirs, decoding.prompts, stop=decoding.stop, **limits),
        }
        yield work, programs, functools.partial(Cost.of, ours.decoder, decoding)


def ratios(table: pd.DataFrame, shape: str, work: str) -> list[float]:
    """Speed of ours over that of transformers, round by round."""
    part = table[(table["shape"] == shape) & (table["work"] == work)]
    seconds = part.pivot(index="repeat", columns="program", values="seconds")
    return (seconds[THEIRS] / seconds[OURS]).tolist()


def verdicts(table: pd.DataFrame, shapes: tuple[Shape, ...]) -> list[Verdict]:
    """The project's bars: speedups of ours over transformers, by shape and work."""
    bars = []
    for shape in shapes:
        for work, bar in shape.bars.items():
            name = f"{work}, {shape.name}: times as fast as transformers"
            bars.append(Verdict.of(name, bar, ratios(table, shape.name, work)))
    return bars


def markdown(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """A table of tokens per second, the bars, and where it was measured.

    Args:
      table, manifest: as `measure` returns them or `experiments/results/benchmarks` holds them.
    """
    cells = []
    for key, part in table.groupby(["shape", "work"], sort=False):
        shape, work = key  # type: ignore[misc]
        rates = {name: each["tokens"] / each["seconds"] for name, each in part.groupby("program")}
        columns = (spread(rates[name], 0) for name in (OURS, THEIRS, LIMIT))
        cells.append((str(shape), str(work), *columns))
    header = ("model", "work", *(f"{name}, tokens/s" for name in (OURS, THEIRS, LIMIT)))
    told = "; ".join(
        f"{name.split(':')[0]}, {words['number']} answers of {words['mean']:.0f} tokens on average "
        f"and {words['longest']} at most"
        for name, words in manifest["answers"].items()
        if ANSWERING in name
    )
    note = (
        f"float32, {manifest['num_devices']} devices. The limit is {manifest['limit']}. "
        f"Test sets: {told}. "
        f"{min(manifest['agreement'].values()):.0%} of the answers are equal."
    )
    return page(header, cells, manifest, digits=2, note=note)


run = command("llm", lambda quick: measure(*(((QUICK,), 2) if quick else (SHAPES, 3))), markdown)


if __name__ == "__main__":
    main(run)
