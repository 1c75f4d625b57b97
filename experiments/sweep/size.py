"""Memory that a sweep takes at least, so that one that cannot run is refused before any work.

Each number is a lower bound, of one thing that is held at once. A sweep that passes may still run
out of memory; one that does not pass would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import jax

from experiments.storage.memory import OutOfMemoryError, available_memory, device_memory
from experiments.sweep.plan import Chunk
from experiments.sweep.programs import Sweep
from synth.config import DecoderConfig
from synth.task import ArrayTask

EXAMPLE_BYTES, FLOAT_BYTES = 5, 4
"""Bytes of a token with its place in the loss mask, and of a float32."""


@dataclass(frozen=True)
class Need:
    """Bytes that a field of the configuration asks for: `value` is what it was set to."""

    field: str
    value: object
    bytes: int


def check_size(sweep: Sweep, chunks: Iterable[Chunk], *, memory: int | None = None) -> None:
    """Refuse a sweep that needs more memory than there is.

    Args:
      sweep: the sweep's programs, none of which runs.
      chunks: all of its members.
      memory: bytes that it may take; by default the RAM that is free, or the devices' memory if
        that is more. Where the system tells neither, nothing is refused.

    Raises:
      OutOfMemoryError: names the field that asks for most of it.
    """
    limit = memory if memory is not None else _memory()
    most = max(needs(sweep, chunks), key=lambda need: need.bytes)
    if limit is not None and most.bytes > limit:
        raise OutOfMemoryError(
            f"{most.field} = {most.value} needs at least {_size(most.bytes)} of memory at once, "
            f"and there are {_size(limit)}"
        )


def _memory() -> int | None:
    found = [device_memory(device) for device in jax.local_devices() if device.platform != "cpu"]
    known = [value for value in (available_memory(), sum(x or 0 for x in found)) if value]
    return max(known, default=None)


def _size(number: int) -> str:
    return f"{number / 2**30:,.1f} GiB"


def needs(sweep: Sweep, chunks: Iterable[Chunk]) -> Iterator[Need]:
    """What each field asks for, at least."""
    config, task = sweep.config, sweep.task
    chunks = list(chunks)
    groups = {chunk.group for chunk in chunks}
    longest = max(group.length for group in groups)

    # Data: one training pool, one draw of the mixture, one seed's test.
    pool = max(groups, key=lambda group: group.rows * group.length)
    yield Need("data_sizes", config.data_sizes, pool.rows * pool.length * EXAMPLE_BYTES)
    risk = config.risk_examples * longest * EXAMPLE_BYTES
    yield Need("risk_examples", config.risk_examples, risk)
    tokens = sum(len(levels) * task.max_length(levels[-1]) for levels in sweep.draws.buckets)
    test = config.test_examples * tokens * EXAMPLE_BYTES
    yield Need("test_examples", config.test_examples, test)
    if len(config.learning_rates) > 1:
        number = config.validation_examples
        yield Need("validation_examples", number, number * tokens * EXAMPLE_BYTES)

    # Trainings: a batch's activations.
    pretraining = config.pretrain
    own = task.max_length(pretraining.hardest)
    for name, rows, length in (
        ("batch_size", config.optimiser.batch_size, longest),
        ("pretrain.batch_size", pretraining.optimiser.batch_size, own),
    ):
        yield Need(name, rows, rows * length * token_bytes(sweep.decoder))
    if not isinstance(task, ArrayTask):
        drawn = min(pretraining.text_examples, pretraining.steps * pretraining.optimiser.batch_size)
        text = drawn * own * EXAMPLE_BYTES
        yield Need("pretrain.text_examples", pretraining.text_examples, text)

    # Models: one in training, with its gradient and two moments; all bases; and, if they are kept,
    # those of a chunk (which run in smaller parts where memory asks for it).
    model = FLOAT_BYTES * num_parameters(sweep.decoder)
    yield Need("decoder", sweep.decoder, 4 * model)
    if config.save_members:
        largest = max(len(chunk.members) for chunk in chunks)
        yield Need("chunk_members", config.chunk_members, largest * model)
    yield Need("base_seeds", config.base_seeds, config.base_seeds * model)


def token_bytes(decoder: DecoderConfig) -> int:
    """Bytes that the backward pass keeps of each token: logits, and each layer's inputs."""
    layer = decoder.hidden_size + decoder.intermediate_size
    return FLOAT_BYTES * (decoder.vocab_size + decoder.num_layers * layer)


def num_parameters(decoder: DecoderConfig) -> int:
    """Parameters of embedding and kernels; gains and biases are not counted."""
    heads = 2 * (decoder.num_heads + decoder.num_kv_heads) * decoder.head_size
    layer = decoder.hidden_size * (heads + 3 * decoder.intermediate_size)
    return decoder.hidden_size * decoder.vocab_size + decoder.num_layers * layer
