"""A Qwen2-shaped transformer for one sequence: token ids in, logits out.

RMSNorm, rotary positions, grouped-query attention, SwiGLU. With `qkv_bias` off it is a Llama, with
`qk_norm` on a Qwen3. Batches, seeds and cells are `jax.vmap` around it; the same module holds the
26-thousand-parameter toy and a real checkpoint.

Flax nnx builds the module and names its parameters; everything else works on the parameters as a
plain nested dict of arrays: `initialise` makes it, `logits` and `logits_with_cache` use it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Parameters = dict[str, Any]
"""Nested dict of arrays; layer parameters are stacked along a leading axis ``layers``."""

Positions = Literal["sequential", "randomised"]


@dataclass(frozen=True)
class DecoderConfig:
    """Shape and switches of a decoder.

    Attributes:
      vocab_size: number of token ids.
      hidden_size: width of the residual stream.
      intermediate_size: width of the SwiGLU.
      num_layers, num_heads, num_kv_heads: depth, query heads, and the key-value heads they share.
      head_dim: width of one head; None for ``hidden_size // num_heads``.
      rope_theta: base of the rotary frequencies.
      rms_norm_eps: added to the mean square.
      qkv_bias: biases on queries, keys and values (Qwen2 has them).
      qk_norm: RMSNorm on each query and key head (Qwen3 has it).
      tied_head: whether the output layer is the embedding.
      positions: ``sequential`` 0, 1, 2 …, or ``randomised`` (see `draw_positions`).
      max_positions: length of the longest sequence in the study, in tokens.
      position_start: randomised positions start uniformly below this.
      position_gap: the largest spread of randomised positions.
      unroll: unroll the scan over layers (faster for toys, slower to compile for deep models).

    Raises:
      ValueError: if a size is below 1 or the heads do not divide.
    """

    vocab_size: int
    hidden_size: int = 32
    intermediate_size: int = 96
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int | None = None
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    qkv_bias: bool = True
    qk_norm: bool = False
    tied_head: bool = False
    positions: Positions = "randomised"
    max_positions: int = 256
    position_start: int = 64
    position_gap: int = 5
    unroll: bool = True

    def __post_init__(self) -> None:
        for field in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "max_positions",
            "position_start",
            "position_gap",
        ):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads, "
                f"got {self.num_heads} and {self.num_kv_heads}"
            )
        if self.head_dim is None and self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_heads where head_dim is not given, "
                f"got {self.hidden_size} and {self.num_heads}"
            )
        if self.head_size % 2:
            raise ValueError(f"the width of a head must be even, got {self.head_size}")
        if self.positions not in get_args(Positions):
            raise ValueError(
                f"positions must be one of {get_args(Positions)}, got {self.positions!r}"
            )

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_heads


def _normal(scale: float):
    return lambda key, shape: scale * jax.random.normal(key, shape)


class Linear(nnx.Module):
    """``x @ kernel (+ bias)``, kernel of shape [inputs, outputs]."""

    def __init__(self, inputs: int, outputs: int, *, scale: float, bias: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(
            _normal(scale / math.sqrt(inputs))(rngs.params(), (inputs, outputs))
        )
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        y = x @ self.kernel[...]
        return y if self.bias is None else y + self.bias[...]


class RMSNorm(nnx.Module):
    """Divide a vector by its root mean square, in float32; multiply by a gain."""

    def __init__(self, size: int, *, eps: float):
        self.gain = nnx.Param(jnp.ones(size))
        self.eps = eps

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(wide * wide)
        return (wide * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype) * self.gain[...]


def rotate(
    x: Float[Array, "length heads size"],
    cosine: Float[Array, "length half"],
    sine: Float[Array, "length half"],
) -> Float[Array, "length heads size"]:
    """Rotary embedding, halves convention (Su et al. 2021, arXiv 2104.09864)."""
    first, second = jnp.split(x, 2, axis=-1)
    cosine, sine = cosine[:, None], sine[:, None]
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )


def attend(
    query: Float[Array, "length heads size"],
    key: Float[Array, "keys kv_heads size"],
    value: Float[Array, "keys kv_heads size"],
    visible: Bool[Array, "length keys"],
) -> Float[Array, "length heads size"]:
    """Scaled dot-product attention; each key-value head serves ``heads / kv_heads`` queries."""
    length, heads, size = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(length, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum("qhgd,khd->hgqk", grouped, key) / math.sqrt(size)
    scores = jnp.where(visible[None, None], scores.astype(jnp.float32), -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("hgqk,khd->qhgd", weights, value).reshape(length, heads, size)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens seen so far, for decoding one token at a time."""

    keys: Float[Array, "layers capacity kv_heads size"]
    values: Float[Array, "layers capacity kv_heads size"]

    @classmethod
    def empty(cls, config: DecoderConfig, capacity: int) -> Cache:
        """A cache of zeros for `capacity` tokens."""
        shape = (config.num_layers, capacity, config.num_kv_heads, config.head_size)
        return cls(jnp.zeros(shape), jnp.zeros(shape))


class Layer(nnx.Module):
    """Attention and SwiGLU, each behind a norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        width, size, eps = config.hidden_size, config.head_size, config.rms_norm_eps
        # Residual branches start small, so that depth does not change the scale of the stream.
        small = 1 / math.sqrt(2 * config.num_layers)
        linear = functools.partial(Linear, rngs=rngs)
        queries, keys = config.num_heads * size, config.num_kv_heads * size
        self.attention_norm = RMSNorm(width, eps=eps)
        self.query = linear(width, queries, scale=1.0, bias=config.qkv_bias)
        self.key = linear(width, keys, scale=1.0, bias=config.qkv_bias)
        self.value = linear(width, keys, scale=1.0, bias=config.qkv_bias)
        self.query_norm = RMSNorm(size, eps=eps) if config.qk_norm else None
        self.key_norm = RMSNorm(size, eps=eps) if config.qk_norm else None
        self.output = linear(queries, width, scale=small, bias=False)
        self.mlp_norm = RMSNorm(width, eps=eps)
        self.gate = linear(width, config.intermediate_size, scale=1.0, bias=False)
        self.up = linear(width, config.intermediate_size, scale=1.0, bias=False)
        self.down = linear(config.intermediate_size, width, scale=small, bias=False)
        self.config = config

    def __call__(self, x, cosine, sine, visible, past=None):
        """One layer; given past keys, values and an index, the new ones are written there."""
        size = self.config.head_size
        h = jax.vmap(self.attention_norm)(x)
        query, key, value = (
            jax.vmap(project)(h).reshape(len(x), -1, size)
            for project in (self.query, self.key, self.value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query = jax.vmap(jax.vmap(self.query_norm))(query)
            key = jax.vmap(jax.vmap(self.key_norm))(key)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        if past is not None:
            *cached, index = past
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=0)
                for old, new in zip(cached, (key, value), strict=True)
            )
        attended = attend(query, key, value, visible).reshape(len(x), -1)
        x = x + jax.vmap(self.output)(attended)
        return x + jax.vmap(self.mlp)(x), (key, value)

    def mlp(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        """SwiGLU of one token's normalised stream."""
        h = self.mlp_norm(x)
        return self.down(jax.nn.silu(self.gate(h)) * self.up(h))


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm and head."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        shape = (config.vocab_size, config.hidden_size)
        self.embedding = nnx.Param(_normal(0.5)(rngs.params(), shape))
        self.layers = nnx.vmap(lambda rngs: Layer(config, rngs=rngs))(rngs.split(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.head = (
            None
            if config.tied_head
            else nnx.Param(_normal(0.05)(rngs.params(), (config.hidden_size, config.vocab_size)))
        )
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, " length"],
        positions: Int[Array, " length"],
        visible: Bool[Array, "length keys"],
        cache: Cache | None = None,
        index: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "length vocab"], Cache]:
        half = self.config.head_size // 2
        frequency = self.config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
        angle = jnp.outer(positions.astype(jnp.float32), frequency)
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        graph, stacked = nnx.split(self.layers)

        def step(x, layer):
            parameters, cached = layer
            past = None if cached is None else (*cached, index)
            return nnx.merge(graph, parameters)(x, cosine, sine, visible, past)

        cached = None if cache is None else (cache.keys, cache.values)
        x, (keys, values) = jax.lax.scan(
            step,
            self.embedding[...][tokens],
            (stacked, cached),
            length=self.config.num_layers,
            unroll=self.config.num_layers if self.config.unroll else 1,
        )
        head = self.embedding[...].T if self.head is None else self.head[...]
        return jax.vmap(self.norm)(x) @ head, Cache(keys, values)


def initialise(config: DecoderConfig, key: PRNGKeyArray) -> Parameters:
    """Random parameters of a decoder, as a nested dict of float32 arrays."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(params=key))))


@functools.cache
def _graph(config: DecoderConfig) -> nnx.GraphDef:
    """Structure of the decoder, without its numbers."""
    return nnx.graphdef(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))


def logits(
    config: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, " length"],
    positions: Int[Array, " length"],
) -> Float[Array, "length vocab"]:
    """Next-token logits of one sequence under a causal mask."""
    causal = jnp.tril(jnp.ones((tokens.size, tokens.size), bool))
    return nnx.merge(_graph(config), parameters)(tokens, positions, causal)[0]


def logits_with_cache(
    config: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, " length"],
    positions: Int[Array, " length"],
    *,
    cache: Cache,
    index: Int[Array, ""],
    first: Int[Array, ""],
) -> tuple[Float[Array, "length vocab"], Cache]:
    """Logits of the next `length` tokens of a sequence whose past is in the cache.

    Args:
      tokens, positions: the new tokens; they occupy slots ``index .. index + length - 1``.
      cache: keys and values of the slots before `index`.
      index: slot of the first new token.
      first: slot where the sequence begins; slots before it are left padding.
    """
    slots = jnp.arange(cache.keys.shape[1])
    new = index + jnp.arange(tokens.size)
    visible = (slots[None] <= new[:, None]) & (slots[None] >= first)
    return nnx.merge(_graph(config), parameters)(tokens, positions, visible, cache, index)


def draw_positions(config: DecoderConfig, key: PRNGKeyArray, length: int) -> Int[Array, " length"]:
    """Positions of one sequence, by the rule of its decoder.

    Randomised positions let a short-trained decoder read longer sequences: a start uniform below
    `position_start`, a spread uniform on ``1 .. position_gap``, then gaps uniform on
    ``1 .. spread``. They are drawn at the study-wide `max_positions` and cut to `length`, so
    padding changes nothing. (The idea of training on random increasing positions: Ruoss et al.
    2023, arXiv 2305.16843.)

    Raises:
      ValueError: if `length` exceeds `max_positions`.
    """
    if length > config.max_positions:
        raise ValueError(
            f"length must be at most max_positions = {config.max_positions} tokens, got {length}"
        )
    if config.positions == "sequential":
        return jnp.arange(length)
    # One draw for all three: each call of the generator is costly to compile.
    uniform = jax.random.uniform(key, (config.max_positions + 1,))
    start = jnp.floor(uniform[0] * config.position_start)
    spread = 1 + jnp.floor(uniform[1] * config.position_gap)
    gaps = 1 + jnp.floor(uniform[2 : length + 1] * spread)
    return jnp.cumsum(jnp.concatenate([start[None], gaps])).astype(int)


def num_parameters(parameters: Parameters) -> int:
    """Number of scalars in a parameter tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))
