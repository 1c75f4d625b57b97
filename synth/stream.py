"""Continuous batching: when a sequence of a batch ends, the next prompt takes its row.

Responses differ in length. A batch that runs until its longest response has ended computes for rows
that ended long before; here they are given to new prompts (Yu et al. 2022, "Orca", OSDI:
iteration-level scheduling).

The cache is a ring of slots, in which one place is current. All rows write their newest token to
that slot, and the earlier tokens of each lie in the slots just before it. So rows that began at
different times still need only one slice update for each token. A prompt that enters is rolled so
that it ends just before the current slot.

Call `start_stream` once, then `enter` and `advance` in turns. The caller compiles them, and decides
which prompt enters when.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from synth.cached import Cache, empty_cache, read_prompt, read_token
from synth.config import DecoderConfig
from synth.decoder import Parameters
from synth.generate import choose


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stream:
    """The state of a batch: one sequence in each row.

    Attributes:
      cache: keys and values, in a ring of slots.
      tokens: new tokens of each row, in the slots where their keys and values go.
      slot: the current place of the ring, with every row's newest token, which is not yet read.
      num_read: tokens of each sequence in the cache.
      num_new: new tokens of each sequence, a stop token included.
      ended: true for rows that are free; their tokens no longer change.
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
    """Rules by which sequences are continued, and end.

    Attributes:
      max_new_tokens: the most new tokens of a sequence.
      stop: ids of which any one ends a sequence; may be empty.
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


def start_stream(
    decoder: DecoderConfig, dtype: DTypeLike, *, num_rows: int, capacity: int
) -> Stream:
    """Make a stream whose rows are all free.

    Args:
      decoder: shape of the model.
      dtype: of its activations.
      num_rows: sequences that are decoded together.
      capacity: slots of the ring; at least the widest prompt, padding included, and its new tokens.

    Raises:
      ValueError: if `capacity` exceeds `max_positions` of the decoder.
    """
    if capacity > decoder.max_positions:
        raise ValueError(
            f"prompt and new tokens must fit into max_positions = {decoder.max_positions}, "
            f"got a capacity of {capacity}"
        )
    none = jnp.zeros(num_rows, jnp.int32)
    return Stream(
        cache=empty_cache(decoder, (num_rows,), capacity, dtype),
        tokens=jnp.zeros((num_rows, capacity), jnp.int32),
        slot=jnp.int32(0),
        num_read=none,
        num_new=none,
        ended=jnp.ones(num_rows, bool),
        keys=jax.random.split(jax.random.key(0), num_rows),
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
      stream: the state so far.
      rows: free row of each prompt; a prompt whose row is beyond the stream's is dropped.
      prompts: token ids, padded on the left with any token.
      lengths: tokens of each prompt that are not padding, at least 1.
      keys: randomness of each sequence.
      how: rules of continuation (static).

    Raises:
      ValueError: if prompts and new tokens exceed the capacity of the stream.
    """
    width, capacity = prompts.shape[1], stream.cache.capacity
    if width + how.max_new_tokens > capacity:
        raise ValueError(
            f"prompt and new tokens must fit into the stream's capacity of {capacity}, "
            f"got {width} + {how.max_new_tokens}"
        )
    # Read the prompts into a cache of their own. Padding is not seen: its positions do not matter.
    first = width - lengths
    positions = jnp.clip(jnp.arange(width)[None] - first[:, None], 0)
    scores, read = read_prompt(
        decoder, parameters, prompts, positions, first=first, capacity=capacity
    )
    none = jnp.zeros_like(lengths)
    token, ended = _next(scores, keys, none, how)

    # Copy everything into the rows. The prompts end at slot `width` of their cache, and must end
    # at the stream's current slot.
    def put(target: Array, new: Array) -> Array:
        return target.at[rows].set(new, mode="drop")

    return dataclasses.replace(
        stream,
        cache=jax.tree.map(put, stream.cache, read.rolled(stream.slot - width)),
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

    Apart from rounding, the tokens of a sequence do not depend on the other rows.

    Args:
      decoder: shape of the model (static).
      parameters: its weights; faster if they are `synth.cached.ready_to_decode`.
      stream: the state so far.
      patience: number of free rows at which to return; at most the number of rows.
      how: rules of continuation (static).
    """

    def step(stream: Stream) -> Stream:
        # Read the current token of every row; free rows are computed too, and ignored.
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
        # Choose the next tokens and write them to the next slot, except in free rows.
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
    """Choose each row's token after `num_new` others; return it and whether it is the last."""
    now = jax.vmap(jax.random.fold_in)(keys, num_new)
    token = jax.vmap(choose, (0, None, 0))(scores, how.temperature, now).astype(jnp.int32)
    stops = jnp.asarray(how.stop, jnp.int32)
    is_stop = (token[:, None] == stops[None]).any(axis=1)
    return token, is_stop | (num_new + 1 >= how.max_new_tokens)
