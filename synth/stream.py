"""Continuous batching: sequences are decoded together; where one ends, the next prompt begins.

Answers differ in length. A batch that runs until its longest answer has ended computes for rows
that ended long before; here they make room (Yu et al. 2022, "Orca", OSDI: iteration-level
scheduling).

The cache is a ring of slots. All rows write at one slot, and the sequence of each lies in the slots
just behind it, as many as it has tokens: so rows that began at different times still need only one
slice update for each token. A prompt that enters is rolled to end where the ring stands.

`start_stream`, then `enter` and `advance` in turns, which the caller compiles, and schedules.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from synth.config import DecoderConfig
from synth.decoder import Cache, Parameters, empty_cache, read_prompt, read_token
from synth.generate import choose


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stream:
    """Rows of sequences under way.

    Attributes:
      cache: keys and values, in a ring of slots.
      tokens: new tokens of each row, in the slots where their keys and values go.
      slot: where the ring stands: every row's newest token is there, not yet read.
      num_read: tokens of each sequence in the cache.
      num_new: new tokens of each sequence, a stop token included.
      ended: rows that are free, and whose tokens stay as they are.
      keys: randomness of each row.
    """

    cache: Cache
    tokens: Int[Array, "rows capacity"]
    slot: Int[Array, ""]
    num_read: Int[Array, " rows"]
    num_new: Int[Array, " rows"]
    ended: Bool[Array, " rows"]
    keys: PRNGKeyArray


@dataclass(frozen=True)
class Continuing:
    """How sequences go on, and when they end.

    Attributes:
      max_new_tokens: the most new tokens of a sequence.
      stop: ids that end one, each as good as another; may be empty.
      temperature: 0 for greedy decoding.

    Raises:
      ValueError: if a field is out of range.
    """

    max_new_tokens: int
    stop: tuple[int, ...] = ()
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0:
            raise ValueError(
                f"max_new_tokens must be at least 1 and temperature at least 0, "
                f"got {self.max_new_tokens} and {self.temperature}"
            )


def start_stream(decoder: DecoderConfig, dtype: DTypeLike, *, rows: int, capacity: int) -> Stream:
    """A stream whose rows are all free.

    Args:
      decoder: shape of the model.
      dtype: of its activations.
      rows: sequences that go on together.
      capacity: slots; at least the widest prompt, padding included, and its new tokens.

    Raises:
      ValueError: if `capacity` exceeds `max_positions` of the decoder.
    """
    if capacity > decoder.max_positions:
        raise ValueError(
            f"prompt and new tokens must fit into max_positions = {decoder.max_positions}, "
            f"got a capacity of {capacity}"
        )
    none = jnp.zeros(rows, jnp.int32)
    return Stream(
        cache=empty_cache(decoder, (rows,), capacity, dtype),
        tokens=jnp.zeros((rows, capacity), jnp.int32),
        slot=jnp.int32(0),
        num_read=none,
        num_new=none,
        ended=jnp.ones(rows, bool),
        keys=jax.random.split(jax.random.key(0), rows),
    )


def enter(
    decoder: DecoderConfig,
    parameters: Parameters,
    stream: Stream,
    rows: Int[Array, " batch"],
    prompts: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    keys: PRNGKeyArray,
    how: Continuing,
) -> Stream:
    """Read prompts into free rows, and choose the first new token of each.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      stream: what is under way.
      rows: where each prompt goes; one beyond the stream's rows goes nowhere.
      prompts: token ids, padded on the left with any token.
      lengths: tokens of each that are not padding, at least 1.
      keys: randomness of each.
      how: how they go on (static).

    Raises:
      ValueError: if prompts and new tokens exceed the capacity of the stream.
    """
    width, capacity = prompts.shape[1], stream.cache.capacity
    if width + how.max_new_tokens > capacity:
        raise ValueError(
            f"prompt and new tokens must fit into the stream's capacity of {capacity}, "
            f"got {width} + {how.max_new_tokens}"
        )
    first = width - lengths
    # Where padding stands does not matter: nothing sees it.
    positions = jnp.clip(jnp.arange(width)[None] - first[:, None], 0)
    scores, read = read_prompt(
        decoder, parameters, prompts, positions, first=first, capacity=capacity
    )
    none = jnp.zeros_like(lengths)
    token, ended = _next(scores, keys, none, how)

    def put(target: Array, new: Array) -> Array:
        return target.at[rows].set(new, mode="drop")

    def put_rolled(ring: Array, new: Array) -> Array:
        return put(ring, jnp.roll(new, stream.slot - width, axis=-2))

    return dataclasses.replace(
        stream,
        cache=jax.tree.map(put_rolled, stream.cache, read),
        tokens=stream.tokens.at[rows, stream.slot].set(token, mode="drop"),
        num_read=put(stream.num_read, lengths),
        num_new=put(stream.num_new, none + 1),
        ended=put(stream.ended, ended),
        keys=put(stream.keys, keys),
    )


def advance(
    decoder: DecoderConfig,
    parameters: Parameters,
    stream: Stream,
    patience: Int[Array, ""],
    how: Continuing,
) -> Stream:
    """Decode token after token until enough rows are free.

    What a sequence gets does not depend on the others, but by rounding.

    Args:
      decoder: shape of the model (static).
      parameters: its weights, best `synth.decoder.ready_to_decode`.
      stream: what is under way.
      patience: number of free rows, at most all, at which to come back.
      how: how sequences go on (static).
    """

    def step(stream: Stream) -> Stream:
        goes_on = (~stream.ended).astype(stream.num_read.dtype)
        token = jax.lax.dynamic_index_in_dim(stream.tokens, stream.slot, axis=1, keepdims=False)
        scores, cache = read_token(
            decoder,
            parameters,
            token,
            stream.num_read,
            cache=stream.cache,
            index=stream.slot,
            length=stream.num_read + 1,
        )
        slot = (stream.slot + 1) % stream.cache.capacity
        token, ended = _next(scores, stream.keys, stream.num_new, how)
        kept = jax.lax.dynamic_index_in_dim(stream.tokens, slot, axis=1, keepdims=False)
        token = jnp.where(stream.ended, kept, token)
        return dataclasses.replace(
            stream,
            cache=cache,
            tokens=jax.lax.dynamic_update_slice_in_dim(stream.tokens, token[:, None], slot, axis=1),
            slot=slot,
            num_read=stream.num_read + goes_on,
            num_new=stream.num_new + goes_on,
            ended=stream.ended | ended,
        )

    return jax.lax.while_loop(lambda stream: stream.ended.sum() < patience, step, stream)


def _next(
    scores: Float[Array, "rows vocab"],
    keys: PRNGKeyArray,
    num_new: Int[Array, " rows"],
    how: Continuing,
) -> tuple[Int[Array, " rows"], Bool[Array, " rows"]]:
    """Token after `num_new` others of each row, and whether it is the last."""
    now = jax.vmap(jax.random.fold_in)(keys, num_new)
    token = jax.vmap(choose, (0, None, 0))(scores, how.temperature, now).astype(jnp.int32)
    stops = jnp.asarray(how.stop, jnp.int32)
    is_stop = (token[:, None] == stops[None]).any(axis=1)
    return token, is_stop | (num_new + 1 >= how.max_new_tokens)
