"""Decoding of prompts of all lengths, greedy or sampled, by continuous batching.

Prompts enter a stream (see `synth.stream`) longest first, a group at a time, as soon as enough rows
are free. Each is padded to a multiple of some length; one program is compiled for each padded
length.

A sampled continuation depends only on the seed, its prompt and its sample's number. So a subset of
the prompts gets the same continuations (up to rounding), and a prompt that occurs twice gets others
the second time.
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.kept import Continuation, Kept
from experiments.llm.answering.model import Model
from experiments.storage import checkpoint
from experiments.storage.memory import advice_on_memory
from experiments.storage.sharding import ROW_AXES, row_split, spread
from synth.cached import ready_to_decode
from synth.config import DecoderConfig
from synth.decoder import Parameters
from synth.generate import pad_left
from synth.stream import Continuing, Stream, enter, start_stream
from synth.stream import advance as advance_stream

GROUPS = 8
"""Prompts enter in groups of this fraction of a batch.

Smaller groups would wait less for free rows, but reading their prompts would cost more.
"""

SMALLER = 0.5
"""If all waiting prompts need at most this share of a stream's capacity, a smaller one begins."""


SMALLER_BATCHES = (
    "lower --decoding.batch-size or --decoding.max-new-tokens, or spread the model over more "
    "devices (--data, --fsdp or --tp); answers that are kept are not decoded again"
)
"""What makes the memory of decoding smaller."""


def ignore(count: int) -> None:
    """Do nothing: progress that is not shown."""


@advice_on_memory("decoding", SMALLER_BATCHES)
def continuations(
    model: Model,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig,
    *,
    kept: Kept | None = None,
    advance: Callable[[int], object] = ignore,
) -> list[list[Continuation]]:
    """Continue prompts that are given as tokens.

    Args:
      model: the model that continues them.
      prompts: token ids of each.
      config: of the decoding.
      kept: file in which continuations are kept as they end; those in it are not decoded again.
      advance: called with the number of continuations that are done since the last call.

    Returns:
      For each prompt its samples.

    Raises:
      ValueError: before any decoding, if a prompt is empty or has a token that the model does not
        know, if prompt and new tokens do not fit into the context, if the batch size does not
        divide over the mesh, or if `kept` is given and several processes decode.
      OSError: if `kept` cannot be written.
      OutOfMemoryError: if a device's memory does not hold a batch.
    """
    check_prompts(model.decoder, prompts, config, mesh=model.mesh)
    words = identities(prompts, config.samples)
    names = [row.tobytes().hex() for row in words]
    done: dict[int, Continuation] = {}
    # Take over the continuations that are in the file.
    if kept is not None:
        if jax.process_count() > 1:
            raise ValueError("kept must be None where several processes decode")
        earlier = ((number, kept.get(name)) for number, name in enumerate(names))
        done = {number: one for number, one in earlier if one is not None}
        advance(len(done))
    # Decode the others, and keep each batch of them as it ends.
    wanted = [number for number in range(len(names)) if number not in done]
    for ended in _Scheduler(model, prompts, config, words, wanted) if wanted else ():
        if kept is not None:
            kept.add((names[number], continuation) for number, continuation in ended.items())
        done |= ended
        advance(len(ended))
    return [
        [done[row * config.samples + sample] for sample in range(config.samples)]
        for row in range(len(prompts))
    ]


class _Scheduler:
    """Decides which waiting prompt enters which free row of a stream, and when.

    The number of a continuation is the number of its prompt times `DecodingConfig.samples`, plus
    the number of the sample. Iteration decodes, and gives the continuations that have ended since
    the last time, by number.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        config: DecodingConfig,
        identities: UInt32[np.ndarray, "continuations words"],
        wanted: Sequence[int],
    ):
        self._model, self._prompts, self._config = model, prompts, config
        self._identities = identities
        # Longest prompts first: their continuations tend to be long too, and one that enters last
        # would be decoded alone at the end.
        self._waiting = deque(sorted(wanted, key=lambda number: -len(self._prompt(number))))
        # The mesh splits rows into equal parts: their number, and that of a group, divide by it.
        split = row_split(model.mesh)
        self._num_rows = min(config.batch_size, -(-len(wanted) // split) * split)
        self._group = max(self._num_rows // GROUPS // split, 1) * split
        self._continuing = Continuing(config.max_new_tokens, model.stop, config.temperature)
        self._free = list(range(self._num_rows))
        self._number_in: dict[int, int] = {}  # row: number of its continuation
        self._first_slot: dict[int, int] = {}  # row: slot of its first new token
        self._capacity = 0

    def __iter__(self) -> Iterator[dict[int, Continuation]]:
        ready = _ready(self._model.decoder, self._model.parameters)
        while self._waiting:
            self._capacity = self._need(self._waiting[0])
            yield from self._run_stream(ready)

    def _run_stream(self, ready: Parameters) -> Iterator[dict[int, Continuation]]:
        """Decode the prompts that need a stream of this capacity, until all have ended."""
        model = self._model
        dtype = model.decoder.activation_dtype(model.parameters)
        stream = _start(model.decoder, dtype, self._num_rows, self._capacity, model.mesh)
        slot = 0
        while self._num_next() or self._number_in:
            # Fill free rows, a group of prompts at a time.
            while 0 < self._num_next() <= len(self._free):
                stream = self._enter(stream, slot)
            # Decode until the next group has room. If none waits, until a few more have ended, so
            # that continuations are handed on early.
            wanted = self._num_next() or min(len(self._free) + self._group, self._num_rows)
            stream, seen = _advance(
                model.decoder, ready, stream, wanted, self._continuing, model.mesh
            )
            seen = _Snapshot(*map(np.asarray, seen))
            slot = int(seen.slot)
            # Take the ended continuations out of their rows.
            yield self._leave(seen)

    def _num_next(self) -> int:
        """Size of the next group; 0 if no prompt waits that needs a stream of this capacity."""
        if not self._waiting or self._need(self._waiting[0]) <= SMALLER * self._capacity:
            return 0
        return min(self._group, len(self._waiting))

    def _prompt(self, number: int) -> Sequence[int]:
        return self._prompts[number // self._config.samples]

    def _width(self, number: int) -> int:
        """Length to which a prompt is padded, no more than the context has room for."""
        multiple, context = self._config.prompt_multiple, self._model.decoder.max_positions
        padded = -(-len(self._prompt(number)) // multiple) * multiple
        return min(padded, context - self._config.max_new_tokens)

    def _need(self, number: int) -> int:
        """Slots that a padded prompt and its new tokens take."""
        return self._width(number) + self._config.max_new_tokens

    def _enter(self, stream: Stream, slot: int) -> Stream:
        """Let the next group of prompts enter free rows."""
        numbers = [self._waiting.popleft() for _ in range(self._num_next())]
        rows = [self._free.pop() for _ in numbers]
        for number, row in zip(numbers, rows, strict=True):
            self._number_in[row], self._first_slot[row] = number, slot
        # All groups have one size: copies of the last prompt, which enter no row, fill the last.
        missing = self._group - len(numbers)
        filled = [*numbers, *numbers[-1:] * missing]
        prompts = [self._prompt(number) for number in filled]
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        place = functools.partial(spread, mesh=self._model.mesh)
        return _enter(
            self._model.decoder,
            self._model.parameters,
            stream,
            np.array([*rows, *[self._num_rows] * missing], np.int32),
            place(pad_left(prompts, self._width(numbers[0]))),
            place(lengths),
            place(self._identities[filled]),
            jax.random.key(self._config.seed),
            self._continuing,
            self._model.mesh,
        )

    def _leave(self, seen: _Snapshot) -> dict[int, Continuation]:
        """Free the rows whose continuations have ended, and return these."""
        ended = {}
        for row in [row for row in self._number_in if seen.ended[row]]:
            # The slots are a ring: new tokens may go on at its start.
            slots = (self._first_slot.pop(row) + np.arange(seen.num_new[row])) % self._capacity
            new = seen.tokens[row, slots]
            is_stop = int(new[-1]) in self._continuing.stop
            continuation = Continuation(new[: new.size - is_stop], not is_stop)
            ended[self._number_in.pop(row)] = continuation
            self._free.append(row)
        return ended


class _Snapshot(NamedTuple):
    """Fields of a `Stream` that the scheduler reads, copied to the host of every process."""

    tokens: Int[np.ndarray, "rows capacity"]
    slot: Int[np.ndarray, ""]
    num_new: Int[np.ndarray, " rows"]
    ended: Bool[np.ndarray, " rows"]


def _constrained(stream: Stream, decoder: DecoderConfig, mesh: Mesh | None) -> Stream:
    """Split the rows of a stream like a batch, and the heads of its cache like the decoder's.

    Where ``tp`` does not divide the key-value heads, it splits the rows of the cache: else each
    device would read the whole cache for every token.
    """
    if mesh is None:
        return stream
    names = tuple(name for name in ROW_AXES if name in mesh.axis_names)
    rows, heads = names, None
    if "tp" in mesh.axis_names:
        if decoder.num_kv_heads % mesh.shape["tp"] == 0:
            heads = "tp"
        elif stream.ended.size % (row_split(mesh) * mesh.shape["tp"]) == 0:
            rows = (*names, "tp")

    def place(leaf: Array) -> Array:
        # Only the cache's arrays have four axes: rows, heads, and slots and the width of a head.
        axes = (rows or None, heads) if leaf.ndim == 4 else (names or None,) * min(leaf.ndim, 1)
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(*axes)))

    return jax.tree.map(place, stream)


_ready = jax.jit(ready_to_decode, static_argnums=0)


@functools.partial(jax.jit, static_argnums=range(5))
def _start(
    decoder: DecoderConfig, dtype: jnp.dtype, num_rows: int, capacity: int, mesh: Mesh | None
) -> Stream:
    stream = start_stream(decoder, dtype, num_rows=num_rows, capacity=capacity)
    return _constrained(stream, decoder, mesh)


@functools.partial(jax.jit, static_argnums=(0, 8, 9), donate_argnums=2)
def _enter(
    decoder: DecoderConfig,
    parameters: Parameters,
    stream: Stream,
    rows: Int[Array, " batch"],
    prompts: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    identities: UInt32[Array, "batch words"],
    key: PRNGKeyArray,
    continuing: Continuing,
    mesh: Mesh | None,
) -> Stream:
    keys = jax.vmap(lambda words: functools.reduce(jax.random.fold_in, words, key))(identities)
    stream = enter(decoder, parameters, stream, rows, prompts, lengths, keys, continuing)
    return _constrained(stream, decoder, mesh)


@functools.partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=2)
def _advance(
    decoder: DecoderConfig,
    ready: Parameters,
    stream: Stream,
    wanted: Int[Array, ""],
    continuing: Continuing,
    mesh: Mesh | None,
) -> tuple[Stream, tuple[Array, ...]]:
    """Decode until `wanted` rows are free; also returns the fields of `_Snapshot`."""
    stream = _constrained(advance_stream(decoder, ready, stream, wanted, continuing), decoder, mesh)
    seen = (stream.tokens, stream.slot, stream.num_new, stream.ended)
    if mesh is not None:
        everywhere = NamedSharding(mesh, PartitionSpec())
        seen = jax.lax.with_sharding_constraint(seen, everywhere)
    return stream, seen


def kept_of(directory: Path, model: Model, config: DecodingConfig) -> Kept:
    """Open the file of continuations of a model in a directory.

    Args:
      directory: directory of the file.
      model: read from a folder. Its weights, their types and its stop tokens choose the file.
      config: its number of new tokens, temperature and seed choose the file too.

    Raises:
      ResultsError: if another process writes the file.
    """
    assert model.folder is not None  # every command reads its model from a folder
    types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(model.parameters)})
    return Kept(
        directory,
        {
            "checkpoint": checkpoint.digest(model.folder),
            "types": types,
            "stop": list(model.stop),
            "max_new_tokens": config.max_new_tokens,
            "temperature": float(config.temperature),
            "seed": config.seed,
        },
    )


def check_prompts(
    decoder: DecoderConfig,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig,
    *,
    mesh: Mesh | None = None,
) -> None:
    """Refuse prompts and settings that cannot be decoded, before any work.

    Args:
      decoder: shape of the model that is to continue the prompts.
      prompts: token ids of each.
      config: of the decoding.
      mesh: devices that will hold the parameters.

    Raises:
      ValueError: see `continuations`.
    """
    context = decoder.max_positions
    lengths = np.array([len(prompt) for prompt in prompts], int)
    if empty := np.flatnonzero(lengths == 0).tolist():
        raise ValueError(f"prompts must have at least one token, but these are empty: {empty}")
    if (long := lengths + config.max_new_tokens > context).any():
        raise ValueError(
            f"prompt and max_new_tokens must fit into the context of the checkpoint, {context} "
            f"tokens, but {long.sum()} of {len(lengths)} prompts are too long, the longest "
            f"{lengths.max()} + {config.max_new_tokens}; the first is row {long.argmax()}"
        )
    size = decoder.vocab_size
    unknown = [row for row, prompt in enumerate(prompts) if max(prompt, default=0) >= size]
    if unknown:
        raise ValueError(
            f"prompts have tokens beyond the {size} of the checkpoint, the first in row "
            f"{unknown[0]}: does the tokenizer belong to it?"
        )
    if config.batch_size % (split := row_split(mesh)):
        raise ValueError(
            f"batch_size must be a multiple of the mesh's data × fsdp, {split}; "
            f"got {config.batch_size}"
        )


def identities(
    prompts: Sequence[Sequence[int]], samples: int
) -> UInt32[np.ndarray, "continuations words"]:
    """Identity of each continuation, from which its random key is made.

    It consists of 64 bits of the prompt's digest, the number of earlier prompts that are equal, and
    the number of the sample. So it does not depend on which other prompts there are.
    """
    times: Counter[bytes] = Counter()
    identity = np.empty((len(prompts), samples, 4), np.uint32)
    for words, prompt in zip(identity, prompts, strict=True):
        digest = blake2b(np.asarray(prompt, np.int32).tobytes(), digest_size=8).digest()
        words[:, :2] = np.frombuffer(digest, "<u4")
        words[:, 2] = times[digest]
        words[:, 3] = np.arange(samples)
        times[digest] += 1
    return identity.reshape(-1, 4)
