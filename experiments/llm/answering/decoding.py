"""Continue prompts of all lengths: greedy or sampled, by continuous batching.

Prompts enter a stream (see `synth.stream`) longest first, a few at a time, whenever as many rows
are free; each is padded to a multiple of some length, for each of which one program is compiled.

A sampled continuation depends on the seed, its prompt and its number alone, not on which others are
asked for: a subset of the prompts gets the same ones (up to rounding; a prompt that occurs again
gets others).
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
from experiments.storage.sharding import ROW_AXES, row_split, spread
from synth import stream
from synth.config import DecoderConfig
from synth.decoder import Parameters, ready_to_decode
from synth.generate import pad_left
from synth.stream import Continuing, Stream

GROUPS = 8
"""Prompts enter in groups of a batch's eighth: fewer would wait less and be read at more cost."""

SMALLER = 0.5
"""When prompts are left that need so small a part of the capacity, a smaller stream begins."""


def ignore(count: int) -> None:
    """Progress that nobody watches."""


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
      model: what continues them.
      prompts: token ids of each.
      config: how.
      kept: where continuations are kept as they end; what is there already is not decoded again.
      advance: called with the number of continuations that are done since the last call.

    Returns:
      For each prompt its samples.

    Raises:
      ValueError: before any decoding, if a prompt is empty or has a token that the model does not
        know, if prompt and new tokens do not fit into the context, if the batch size does not
        divide over the mesh, or if `kept` is given where several processes decode.
      OSError: if `kept` cannot be written.
    """
    check_prompts(model.decoder, prompts, config, mesh=model.mesh)
    words = identities(prompts, config.samples)
    names, found = [row.tobytes().hex() for row in words], {}
    if kept is not None:
        if jax.process_count() > 1:
            raise ValueError("kept must be None where several processes decode")
        there = ((one, kept.get(name)) for one, name in enumerate(names))
        found = {one: continuation for one, continuation in there if continuation is not None}
        advance(len(found))
    wanted = [one for one in range(len(names)) if one not in found]
    for new in _Batch(model, prompts, config, words, wanted) if wanted else ():
        if kept is not None:
            kept.add((names[one], continuation) for one, continuation in new.items())
        found |= new
        advance(len(new))
    return [
        [found[row * config.samples + sample] for sample in range(config.samples)]
        for row in range(len(prompts))
    ]


class _Batch:
    """Rows of a stream, and the prompts that wait for one.

    A continuation is known by the number of its prompt times `DecodingConfig.samples`, plus its
    own. Iterating gives those that have ended since the last time.
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
        number, split = len(wanted), row_split(model.mesh)
        # Longest first: they tend to go on longest, and none should be left when all others ended.
        self._waiting = deque(sorted(wanted, key=lambda one: -len(self._prompt(one))))
        self._rows = min(config.batch_size, -(-number // split) * split)
        self._group = max(self._rows // GROUPS // split, 1) * split
        self._how = Continuing(config.max_new_tokens, model.stop, config.temperature)
        self._free = list(range(self._rows))
        self._busy: dict[int, int] = {}  # row: continuation
        self._begun: dict[int, int] = {}  # row: slot of its first new token
        self._capacity = 0

    def __iter__(self) -> Iterator[dict[int, Continuation]]:
        ready = _ready(self._model.decoder, self._model.parameters)
        while self._waiting:
            self._capacity = self._need(self._waiting[0])
            yield from self._stream(ready)

    def _stream(self, ready: Parameters) -> Iterator[dict[int, Continuation]]:
        """Prompts that need much of one capacity, until all have ended."""
        model = self._model
        dtype = model.decoder.activation_dtype(model.parameters)
        rows = _start(model.decoder, dtype, self._rows, self._capacity, model.mesh)
        slot = 0
        while self._num_next() or self._busy:
            while 0 < self._num_next() <= len(self._free):
                rows = self._enter(rows, slot)
            # Also where nothing waits, so that what has ended is handed on.
            wanted = self._num_next() or min(len(self._free) + self._group, self._rows)
            rows, seen = _advance(model.decoder, ready, rows, wanted, self._how, model.mesh)
            seen = _Seen(*map(np.asarray, seen))
            slot = int(seen.slot)
            yield self._leave(seen)

    def _num_next(self) -> int:
        """Prompts that enter next, together; 0 where the rest would do with less capacity."""
        if not self._waiting or self._need(self._waiting[0]) <= SMALLER * self._capacity:
            return 0
        return min(self._group, len(self._waiting))

    def _prompt(self, one: int) -> Sequence[int]:
        return self._prompts[one // self._config.samples]

    def _width(self, one: int) -> int:
        """Length to which a prompt is padded; what would exceed the context is left out."""
        multiple, room = self._config.prompt_multiple, self._model.decoder.max_positions
        padded = -(-len(self._prompt(one)) // multiple) * multiple
        return min(padded, room - self._config.max_new_tokens)

    def _need(self, one: int) -> int:
        """Slots of a prompt and its new tokens."""
        return self._width(one) + self._config.max_new_tokens

    def _enter(self, rows: Stream, slot: int) -> Stream:
        """Give free rows to the next group; a place without a prompt repeats the last, nowhere."""
        taken = [self._waiting.popleft() for _ in range(self._num_next())]
        places = [self._free.pop() for _ in taken]
        for one, row in zip(taken, places, strict=True):
            self._busy[row], self._begun[row] = one, slot
        missing = self._group - len(taken)
        filled = [*taken, *taken[-1:] * missing]
        prompts = [self._prompt(one) for one in filled]
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        place = functools.partial(spread, mesh=self._model.mesh)
        return _enter(
            self._model.decoder,
            self._model.parameters,
            rows,
            np.array([*places, *[self._rows] * missing], np.int32),
            place(pad_left(prompts, self._width(taken[0]))),
            place(lengths),
            place(self._identities[filled]),
            jax.random.key(self._config.seed),
            self._how,
            self._model.mesh,
        )

    def _leave(self, seen: _Seen) -> dict[int, Continuation]:
        """What has ended; its rows are free."""
        found = {}
        for row in [row for row in self._busy if seen.ended[row]]:
            places = (self._begun.pop(row) + np.arange(seen.num_new[row])) % self._capacity
            new = seen.tokens[row, places]
            is_stop = int(new[-1]) in self._how.stop
            found[self._busy.pop(row)] = Continuation(new[: new.size - is_stop], not is_stop)
            self._free.append(row)
        return found


class _Seen(NamedTuple):
    """What every process sees of a stream: fields of `Stream`."""

    tokens: Int[np.ndarray, "rows capacity"]
    slot: Int[np.ndarray, ""]
    num_new: Int[np.ndarray, " rows"]
    ended: Bool[np.ndarray, " rows"]


def _placed(rows: Stream, decoder: DecoderConfig, mesh: Mesh | None) -> Stream:
    """A stream whose rows, and the heads of its cache, are split as a batch and its decoder are."""
    if mesh is None:
        return rows
    names = tuple(name for name in ROW_AXES if name in mesh.axis_names) or None
    is_split = "tp" in mesh.axis_names and decoder.num_kv_heads % mesh.shape["tp"] == 0
    heads = "tp" if is_split else None

    def place(leaf: Array) -> Array:
        axes = (names, heads) if leaf.ndim == 4 else (names,) * min(leaf.ndim, 1)
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(*axes)))

    return jax.tree.map(place, rows)


_ready = jax.jit(ready_to_decode, static_argnums=0)


@functools.partial(jax.jit, static_argnums=range(5))
def _start(
    decoder: DecoderConfig, dtype: jnp.dtype, rows: int, capacity: int, mesh: Mesh | None
) -> Stream:
    return _placed(
        stream.start_stream(decoder, dtype, num_rows=rows, capacity=capacity), decoder, mesh
    )


@functools.partial(jax.jit, static_argnums=(0, 8, 9), donate_argnums=2)
def _enter(
    decoder: DecoderConfig,
    parameters: Parameters,
    rows: Stream,
    places: Int[Array, " batch"],
    prompts: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    identities: UInt32[Array, "batch words"],
    key: PRNGKeyArray,
    how: Continuing,
    mesh: Mesh | None,
) -> Stream:
    keys = jax.vmap(lambda words: functools.reduce(jax.random.fold_in, words, key))(identities)
    rows = stream.enter(decoder, parameters, rows, places, prompts, lengths, keys, how)
    return _placed(rows, decoder, mesh)


@functools.partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=2)
def _advance(
    decoder: DecoderConfig,
    ready: Parameters,
    rows: Stream,
    wanted: Int[Array, ""],
    how: Continuing,
    mesh: Mesh | None,
) -> tuple[Stream, tuple[Array, ...]]:
    """Decode until `wanted` rows are free; see `_Seen`."""
    rows = _placed(stream.advance(decoder, ready, rows, wanted, how), decoder, mesh)
    seen = (rows.tokens, rows.slot, rows.num_new, rows.ended)
    if mesh is not None:
        everywhere = NamedSharding(mesh, PartitionSpec())
        seen = jax.lax.with_sharding_constraint(seen, everywhere)
    return rows, seen


def kept_of(directory: Path, model: Model, config: DecodingConfig) -> Kept:
    """Where the continuations of a model that was read from a folder are kept.

    Args:
      directory: where the file is.
      model: whose weights, stop tokens and types make a file of their own.
      config: of which length, temperature and seed do.

    Raises:
      ResultsError: if another process writes the file.
    """
    assert model.folder is not None  # what is asked from the command line was read
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
    """Refuse what cannot be decoded, before any work.

    Args:
      decoder: what is to continue the prompts.
      prompts: token ids of each.
      config: how.
      mesh: where the decoder's parameters will be.

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
    """What is random about each continuation: its prompt, how often that came before, its number.

    The prompt stands for itself by a digest of 64 bits, not by its place.
    """
    times: Counter[bytes] = Counter()
    found = np.empty((len(prompts), samples, 4), np.uint32)
    for words, prompt in zip(found, prompts, strict=True):
        digest = blake2b(np.asarray(prompt, np.int32).tobytes(), digest_size=8).digest()
        words[:, :2] = np.frombuffer(digest, "<u4")
        words[:, 2] = times[digest]
        words[:, 3] = np.arange(samples)
        times[digest] += 1
    return found.reshape(-1, 4)
