"""A Qwen2-shaped transformer: token ids in, logits out.

RMSNorm, rotary positions, grouped-query attention, SwiGLU. With `qkv_bias` off it is a Llama, with
`qk_norm` on a Qwen3. The same module holds the 26-thousand-parameter toy and a real checkpoint.

Everything takes one sequence, or rows of several (leading axes ``*rows``). Members and cells, which
have weights of their own, are `jax.vmap` around it. Rows that share weights are better given at
once: each weight then meets all tokens in one product, whose gradient XLA need not transpose for.

Flax nnx builds the module and names its parameters; everything else works on the parameters as a
plain nested dict of arrays: `initialise` makes it; `logits`, or `read_prompt` and `read_token` with
a cache, use it. Where the logits of a whole sequence are too much memory at once, `hidden_states`
stops short of the head.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from synth.config import DecoderConfig, Execution, Kernel, Lora

Parameters = dict[str, Any]
"""Nested dict of arrays; layer parameters are stacked along a leading axis ``layers``."""


def _normal(scale: float):
    return lambda key, shape: scale * jax.random.normal(key, shape)


class Linear(nnx.Module):
    """``x @ kernel (+ bias) (+ adapter)``, kernel of shape [inputs, outputs]."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        scale: float,
        bias: bool,
        lora: Lora | None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(
            _normal(scale / math.sqrt(inputs))(rngs.params(), (inputs, outputs))
        )
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        # Drawn last, so that the kernel is the same with an adapter as without.
        self.lora_a = (
            nnx.Param(_normal(1 / math.sqrt(inputs))(rngs.params(), (inputs, lora.rank)))
            if lora
            else None
        )
        self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs))) if lora else None
        self.lora_scale = lora.scale if lora else 1.0

    def __call__(self, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        # One product for all rows: with several leading axes its gradient would copy `x`.
        flat = x.reshape(-1, x.shape[-1])
        y = flat @ self.kernel[...]
        if self.lora_a is not None and self.lora_b is not None:
            y = y + self.lora_scale * ((flat @ self.lora_a[...]) @ self.lora_b[...])
        if self.bias is not None:
            y = y + self.bias[...][None]
        return y.reshape(*x.shape[:-1], -1)


class RMSNorm(nnx.Module):
    """Divide vectors by their root mean square, in float32; multiply by a gain."""

    def __init__(self, size: int, *, eps: float):
        self.gain = nnx.Param(jnp.ones(size))
        self.eps = eps

    def __call__(self, x: Float[Array, "*rows size"]) -> Float[Array, "*rows size"]:
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        gain = jnp.broadcast_to(self.gain[...].astype(x.dtype), x.shape)
        return (wide * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype) * gain


def rotate(
    x: Float[Array, "*rows heads length size"],
    cosine: Float[Array, "*rows length half"],
    sine: Float[Array, "*rows length half"],
) -> Float[Array, "*rows heads length size"]:
    """Rotary embedding in float32, halves convention (Su et al. 2021, arXiv 2104.09864)."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = cosine[..., None, :, :], sine[..., None, :, :]
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    ).astype(x.dtype)


def rotary_frequencies(config: DecoderConfig) -> Float[Array, " half"]:
    """Radians that each pair of a head turns from one position to the next."""
    half = config.head_size // 2
    frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    rope = config.rope_scaling
    if rope is None:
        return frequency
    turns = rope.original_max_positions * frequency / (2 * math.pi)
    spread = rope.high_frequency_factor - rope.low_frequency_factor
    kept = jnp.clip((turns - rope.low_frequency_factor) / spread, 0.0, 1.0)
    return frequency * (kept + (1 - kept) / rope.factor)


def attend(
    query: Float[Array, "*rows heads length size"],
    key: Float[Array, "*rows kv_heads keys size"],
    value: Float[Array, "*rows kv_heads keys size"],
    visible: Bool[Array, "*rows length keys"],
) -> Float[Array, "*rows heads length size"]:
    """Scaled dot-product attention; each key-value head serves ``heads / kv_heads`` queries."""
    *rows, heads, length, size = query.shape
    kv_heads = key.shape[-3]
    # The queries of a key-value head follow each other, so that each head is one product.
    grouped = query.reshape(*rows, kv_heads, -1, size)
    scores = jnp.einsum("...qd,...kd->...qk", grouped, key, preferred_element_type=jnp.float32)
    scores = scores.reshape(*rows, heads, length, -1) / math.sqrt(size)
    scores = jnp.where(visible[..., None, :, :], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    grouped = weights.reshape(*rows, kv_heads, -1, weights.shape[-1])
    return jnp.einsum("...qk,...kd->...qd", grouped, value).reshape(query.shape)


def attend_fused(
    query: Float[Array, "*rows heads length size"],
    key: Float[Array, "*rows kv_heads length size"],
    value: Float[Array, "*rows kv_heads length size"],
    visible: Bool[Array, "*rows length length"] | None,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "*rows heads length size"]:
    """`attend` by `jax.nn.dot_product_attention`; None for `visible` is the causal mask."""

    def sequences(x):
        """Rows along one axis, and heads inside of the sequence."""
        return x.reshape(-1, *x.shape[-3:]).swapaxes(1, 2)

    found = jax.nn.dot_product_attention(
        *map(sequences, (query, key, value)),
        mask=None if visible is None else visible.reshape(-1, 1, *visible.shape[-2:]),
        is_causal=visible is None,
        # Its own default is a NumPy scalar, which strict dtype promotion refuses.
        scale=1 / math.sqrt(query.shape[-1]),
        implementation=implementation,
    )
    return found.swapaxes(1, 2).reshape(query.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens seen so far, for decoding one token at a time.

    Each layer has arrays of its own, so that a loop writes them in place.
    """

    keys: tuple[Float[Array, "*rows kv_heads capacity size"], ...]
    values: tuple[Float[Array, "*rows kv_heads capacity size"], ...]

    @property
    def capacity(self) -> int:
        """Number of slots for tokens."""
        return self.keys[0].shape[-2]


def empty_cache(
    config: DecoderConfig, rows: tuple[int, ...], capacity: int, dtype: DTypeLike
) -> Cache:
    """A cache of zeros.

    Args:
      config: shape of the decoder.
      rows: leading axes.
      capacity: slots.
      dtype: of the decoder's activations; see `DecoderConfig.activation_dtype`.
    """
    shape = (*rows, config.num_kv_heads, capacity, config.head_size)
    keys, values = (
        tuple(jnp.zeros(shape, dtype) for _ in range(config.num_layers)) for _ in range(2)
    )
    return Cache(keys, values)


class Layer(nnx.Module):
    """Attention and SwiGLU, each behind a norm and added to the residual stream."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        width, size, eps = config.hidden_size, config.head_size, config.rms_norm_eps
        # Residual branches start small, so that depth does not change the scale of the stream.
        small = 1 / math.sqrt(2 * config.num_layers)
        queries, keys = config.num_heads * size, config.num_kv_heads * size

        def linear(name: Kernel, inputs: int, outputs: int, scale: float = 1.0, bias: bool = False):
            lora = config.lora if config.lora and name in config.lora.kernels else None
            return Linear(inputs, outputs, scale=scale, bias=bias, lora=lora, rngs=rngs)

        self.attention_norm = RMSNorm(width, eps=eps)
        self.query = linear("query", width, queries, bias=config.qkv_bias)
        self.key = linear("key", width, keys, bias=config.qkv_bias)
        self.value = linear("value", width, keys, bias=config.qkv_bias)
        self.query_norm = RMSNorm(size, eps=eps) if config.qk_norm else None
        self.key_norm = RMSNorm(size, eps=eps) if config.qk_norm else None
        self.output = linear("output", queries, width, small)
        self.mlp_norm = RMSNorm(width, eps=eps)
        self.gate = linear("gate", width, config.intermediate_size)
        self.up = linear("up", width, config.intermediate_size)
        self.down = linear("down", config.intermediate_size, width, small)
        self.config = config

    def __call__(self, x, cosine, sine, visible, past=None):
        """One layer; given past keys, values and an index, the new ones are written there."""
        h = self.attention_norm(x)
        query, key, value = (
            self._heads(project(h)) for project in (self.query, self.key, self.value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        if past is not None:
            *cached, index = past
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old, new, index, axis=-2)
                for old, new in zip(cached, (key, value), strict=True)
            )
        attention = self.config.execution.attention if self.config.execution else "plain"
        if attention == "plain" or past is not None:
            attended = attend(query, key, value, visible)
        else:
            attended = attend_fused(query, key, value, visible, attention)
        attended = attended.swapaxes(-2, -3).reshape(*x.shape[:-1], -1)
        x = x + self.output(attended)
        h = self.mlp_norm(x)
        return x + self.down(jax.nn.silu(self.gate(h)) * self.up(h)), (key, value)

    def _heads(self, x: Float[Array, "*rows length outputs"]):
        """Heads apart, each with its own sequence: [*rows, heads, length, size]."""
        return x.reshape(*x.shape[:-1], -1, self.config.head_size).swapaxes(-2, -3)


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm and head."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        shape = (config.vocab_size, config.hidden_size)
        self.embedding = nnx.Param(_normal(0.5)(rngs.params(), shape))
        self.layers = nnx.vmap(lambda rngs: Layer(config, rngs=rngs))(rngs.split(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        # Used by `head_kernel`.
        self.head = (
            None
            if config.tied_head
            else nnx.Param(_normal(0.05)(rngs.params(), (config.hidden_size, config.vocab_size)))
        )
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "*rows length"],
        positions: Int[Array, "*rows length"],
        visible: Bool[Array, "*rows length keys"] | None,
        past: tuple[Cache, Int[Array, ""]] | None = None,
    ) -> tuple[Float[Array, "*rows length width"], Cache]:
        """The stream after the final norm; `head_kernel` makes logits of it.

        New keys and values go into the cache of `past` at its index; without, the cache that is
        returned has one slot for each token.
        """
        execution = self.config.execution or Execution()
        dtype = execution.dtype or self.embedding[...].dtype
        angle = positions[..., None].astype(jnp.float32) * jnp.broadcast_to(
            rotary_frequencies(self.config), (*positions.shape, self.config.head_size // 2)
        )
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        graph, stacked = nnx.split(self.layers)
        count = self.config.num_layers

        def step(x, parameters, past=None):
            if execution.dtype is not None:
                parameters = jax.tree.map(lambda leaf: leaf.astype(dtype), parameters)
            return nnx.merge(graph, parameters)(x, cosine, sine, visible, past)

        x = self.embedding[...][tokens].astype(dtype)
        if past is not None:
            cache, index = past
            keys, values = [], []
            for layer in range(count):
                cached = cache.keys[layer], cache.values[layer], index
                x, (key, value) = step(x, _layer(stacked, layer), cached)
                keys.append(key)
                values.append(value)
        else:
            if execution.remat:
                # A rolled loop keeps the compiler from merging both computations anyway.
                step = jax.checkpoint(step, prevent_cse=self.config.unroll)
            unroll = count if self.config.unroll else 1
            x, (keys, values) = jax.lax.scan(step, x, stacked, length=count, unroll=unroll)
        return self.norm(x), Cache(tuple(keys), tuple(values))


def _layer(stacked: Any, layer: int) -> Any:
    """One layer's part of a tree of stacked arrays, or of tuples with an array for each."""
    return jax.tree.map(lambda leaf: leaf[layer], stacked, is_leaf=lambda x: isinstance(x, tuple))


def initialise(config: DecoderConfig, key: PRNGKeyArray) -> Parameters:
    """Random parameters of a decoder, as a nested dict of float32 arrays."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(params=key))))


@functools.cache
def _graph(config: DecoderConfig) -> nnx.GraphDef:
    """Structure of the decoder, without its numbers."""
    return nnx.graphdef(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))


def _module(config: DecoderConfig, parameters: Parameters) -> Decoder:
    """The decoder with its numbers, whose types are checked."""
    config.activation_dtype(parameters)
    return nnx.merge(_graph(config), parameters)


def hidden_states(
    config: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    segments: Int[Array, "*rows length"] | None = None,
) -> Float[Array, "*rows length width"]:
    """What the head reads, of sequences under a causal mask.

    Args:
      config: shape of the decoder (static).
      parameters: its weights.
      tokens, positions: a sequence, or rows of them.
      segments: where several sequences are packed into a row, the number of each token's own;
        tokens of different segments do not see each other. Positions start anew in each.

    Raises:
      ValueError: see `DecoderConfig.activation_dtype`.
    """
    fused = config.execution is not None and config.execution.attention != "plain"
    visible = _causal(tokens)
    if segments is not None:
        visible = visible & (segments[..., :, None] == segments[..., None, :])
    elif fused:
        # The implementation's own causal mask saves the work above the diagonal.
        visible = None
    return _module(config, parameters)(tokens, positions, visible)[0]


def _causal(tokens: Int[Array, "*rows length"]) -> Bool[Array, "*rows length length"]:
    """Each token sees itself and those before."""
    length = tokens.shape[-1]
    return jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (*tokens.shape, length))


def head_kernel(config: DecoderConfig, parameters: Parameters) -> Float[Array, "width vocab"]:
    """The output layer: its product with `hidden_states` are the logits."""
    kernel = parameters["embedding"].T if config.tied_head else parameters["head"]
    return kernel.astype(config.activation_dtype(parameters))


def project(
    config: DecoderConfig, parameters: Parameters, hidden: Float[Array, "*rows width"]
) -> Float[Array, "*rows vocab"]:
    """Logits of hidden states, in float32."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    scores = jnp.matmul(flat, head_kernel(config, parameters), preferred_element_type=jnp.float32)
    return scores.reshape(*hidden.shape[:-1], -1)


def logits(
    config: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    segments: Int[Array, "*rows length"] | None = None,
) -> Float[Array, "*rows length vocab"]:
    """Next-token logits of sequences under a causal mask, in float32.

    Arguments are those of `hidden_states`.
    """
    hidden = hidden_states(config, parameters, tokens, positions, segments)
    return project(config, parameters, hidden)


def read_prompt(
    config: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    *,
    first: Int[Array, "*rows"],
    capacity: int,
) -> tuple[Float[Array, "*rows vocab"], Cache]:
    """Logits after the last token of prompts, and a cache that holds the prompts.

    Args:
      config: shape of the decoder (static).
      parameters: its weights.
      tokens, positions: a prompt or rows of them, padded on the left to one length.
      first: slot where each begins; nothing sees the slots before it.
      capacity: slots of the cache, at least `length` (static).

    Raises:
      ValueError: if `capacity` is below the length.
    """
    length = tokens.shape[-1]
    if capacity < length:
        raise ValueError(f"capacity must be at least the prompt's {length} tokens, got {capacity}")
    slots = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    visible = _causal(tokens) & (slots >= first[..., None])[..., None, :]
    if config.execution is not None:
        # Others need not stay finite where padding sees nothing.
        execution = dataclasses.replace(config.execution, attention="plain")
        config = dataclasses.replace(config, execution=execution)
    hidden, cache = _module(config, parameters)(tokens, positions, visible)
    room = ((0, capacity - length), (0, 0))
    cache = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0),) * (leaf.ndim - 2) + room), cache)
    return project(config, parameters, hidden[..., -1, :]), cache


def read_token(
    config: DecoderConfig,
    parameters: Parameters,
    token: Int[Array, "*rows"],
    position: Int[Array, "*rows"],
    *,
    cache: Cache,
    index: Int[Array, ""],
    length: Int[Array, "*rows"],
) -> tuple[Float[Array, "*rows vocab"], Cache]:
    """Logits after the next token of sequences whose past is in the cache.

    The cache is a ring: the slot before the first is the last.

    Args:
      config: shape of the decoder (static).
      parameters: its weights; a loop over tokens better has them `ready_to_decode`.
      token, position: the new token of each sequence.
      cache: keys and values of each past, in the slots just before `index`.
      index: slot of the new token, one for all.
      length: tokens of each sequence with the new one, at most the capacity.
    """
    age = (index - jnp.arange(cache.capacity)) % cache.capacity
    visible = jnp.broadcast_to(age, (*token.shape, cache.capacity)) < length[..., None]
    hidden, cache = _module(config, parameters)(
        token[..., None], position[..., None], visible[..., None, :], (cache, index)
    )
    return project(config, parameters, hidden[..., 0, :]), cache


def ready_to_decode(config: DecoderConfig, parameters: Parameters) -> Parameters:
    """Parameters for a loop of `read_token`: of the activations' type, stacks as tuples of arrays.

    Else the loop would cast them, and cut each layer out of the stack, for every token.

    Raises:
      ValueError: see `DecoderConfig.activation_dtype`.
    """
    dtype = config.activation_dtype(parameters)
    parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), parameters)
    return parameters | {"layers": jax.tree.map(tuple, parameters["layers"])}


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
