"""Reading with a cache of keys and values, for decoding.

`read_prompt` reads whole prompts and makes the cache; `read_token` then reads one token at a time.
Axes as in `synth.decoder`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from synth.attention import causal_mask
from synth.config import DecoderConfig
from synth.decoder import KeysAndValues, Parameters, as_module, head_kernel, project


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens read so far, for decoding one token at a time.

    Attributes:
      keys, values: an array for each layer, so that a loop can write each in place.
    """

    keys: tuple[Float[Array, "*rows kv_heads size capacity"], ...]
    values: tuple[Float[Array, "*rows kv_heads capacity size"], ...]

    @classmethod
    def of(cls, layers: Iterable[KeysAndValues]) -> Cache:
        """The cache of keys and values of each layer."""
        layers = list(layers)
        return cls(tuple(key.mT for key, _ in layers), tuple(value for _, value in layers))

    @property
    def capacity(self) -> int:
        """Number of slots for tokens."""
        return self.values[0].shape[-2]

    def rolled(self, shift: Int[Array, ""]) -> Cache:
        """The same ring of slots, each `shift` places further on."""
        return Cache(
            tuple(jnp.roll(each, shift, axis=-1) for each in self.keys),
            tuple(jnp.roll(each, shift, axis=-2) for each in self.values),
        )


def empty_cache(
    decoder: DecoderConfig, leading: tuple[int, ...], capacity: int, dtype: DTypeLike
) -> Cache:
    """Make a cache of zeros.

    Args:
      decoder: shape of the model.
      leading: sizes of the leading axes ``*rows``.
      capacity: slots for tokens.
      dtype: of the model's activations; see `DecoderConfig.activation_dtype`.
    """
    shape = (*leading, decoder.num_kv_heads, capacity, decoder.head_size)
    # Arrays of their own, so that each can be donated.
    layers = range(decoder.num_layers)
    return Cache.of([(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in layers])


def read_prompt(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    *,
    first: Int[Array, "*rows"],
    capacity: int,
) -> tuple[Float[Array, "*rows vocab"], Cache]:
    """Read prompts; return the logits after their last token, and a cache that holds them.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens, positions: a prompt or rows of them, padded on the left to one length.
      first: index of each prompt's first token; the padding before it is not seen.
      capacity: slots of the cache, at least `length` (static).

    Raises:
      ValueError: if `capacity` is below the length.
    """
    length = tokens.shape[-1]
    if capacity < length:
        raise ValueError(f"capacity must be at least the prompt's {length} tokens, got {capacity}")
    slots = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    visible = causal_mask(tokens.shape) & (slots >= first[..., None])[..., None, :]
    hidden, layers = as_module(decoder, parameters)(tokens, positions, visible)
    # Add free slots at the end of the cache.
    room = ((0, capacity - length), (0, 0))
    layers = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0),) * (leaf.ndim - 2) + room), layers)
    return _scores(decoder, parameters, hidden[..., -1, :]), Cache.of(layers)


def read_token(
    decoder: DecoderConfig,
    parameters: Parameters,
    token: Int[Array, "*rows"],
    position: Int[Array, "*rows"],
    *,
    cache: Cache,
    index: Int[Array, ""],
    length: Int[Array, "*rows"],
) -> tuple[Float[Array, "*rows vocab"], Cache]:
    """Read one more token of each sequence; return the logits after it, and the new cache.

    The cache is a ring: the slot before the first is the last.

    Args:
      decoder: shape of the model (static).
      parameters: its weights; in a loop, faster if they are `ready_to_decode`.
      token, position: the new token of each sequence.
      cache: keys and values of the earlier tokens, in the slots just before `index`.
      index: slot of the new token, the same for all sequences.
      length: number of tokens of each sequence with the new one, at most the capacity.
    """
    # A slot is visible if it was written at most `length` tokens ago, the new one included.
    age = (index - jnp.arange(cache.capacity)) % cache.capacity
    visible = jnp.broadcast_to(age, (*token.shape, cache.capacity)) < length[..., None]
    past = zip(cache.keys, cache.values, strict=True), index
    hidden, layers = as_module(decoder, parameters)(
        token[..., None], position[..., None], visible[..., None, :], past
    )
    return _scores(decoder, parameters, hidden[..., 0, :]), Cache.of(layers)


def _scores(
    decoder: DecoderConfig, parameters: Parameters, hidden: Float[Array, "*rows width"]
) -> Float[Array, "*rows vocab"]:
    """Multiply the hidden states of one token in each row by the head: logits in float32.

    With few rows it takes the time of reading the head. In `project` XLA on CPUs also transposes a
    tied head, because it is the second factor; here it is the first.
    """
    if not decoder.tied_head:
        return project(decoder, parameters, hidden)
    kernel = head_kernel(decoder, parameters).T
    turned = jax.lax.optimization_barrier(hidden.reshape(-1, hidden.shape[-1]).T)
    scores = jnp.matmul(kernel, turned, preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(scores).T.reshape(*hidden.shape[:-1], -1)


def ready_to_decode(decoder: DecoderConfig, parameters: Parameters) -> Parameters:
    """Prepare parameters for a loop of `read_token`.

    They are cast to the activations' type, and stacks of layers split into tuples of arrays.
    Otherwise the loop would do both for every token.

    Raises:
      ValueError: see `DecoderConfig.activation_dtype`.
    """
    dtype = decoder.activation_dtype(parameters)
    parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), parameters)
    return parameters | {"layers": jax.tree.map(tuple, parameters["layers"])}
