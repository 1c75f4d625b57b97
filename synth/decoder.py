"""A Qwen2-shaped transformer: token ids in, logits out.

RMSNorm, rotary positions, grouped-query attention, SwiGLU. With `qkv_bias` off it is a Llama, with
`qk_norm` on a Qwen3. The same module holds the 26-thousand-parameter toy and a real checkpoint.

Every function takes one sequence, or several at once (leading axes ``*rows``). Use `jax.vmap` for
members, which have weights of their own. Rows that share weights are faster given at once: each
weight is then multiplied with all tokens in one product, whose gradient needs no transposition.

Flax nnx builds the module and names its parameters; everything else works on the parameters as a
plain nested dict of arrays, which `initialise` makes. `logits` reads whole sequences;
`hidden_states` stops before the head, for callers to whom the logits of a whole sequence are too
much memory. `synth.cached` reads with a cache, for decoding.

Axes used throughout: ``length`` (tokens of a sequence), ``keys`` (tokens that may be attended to:
the sequence's own, or the slots of a cache), ``size`` (width of a head), ``half`` (half of it),
``capacity`` (slots of a cache), ``width`` (of the residual stream).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from synth.attention import ATTENDED, attend, attend_fused
from synth.blockwise import attend_in_blocks
from synth.config import DecoderConfig, Execution, Kernel, Lora

Parameters = dict[str, Any]
"""Nested dict of arrays; layer parameters are stacked along a leading axis ``layers``."""


PRODUCT = "product"
"""Name of what products with weights give (`checkpoint_name`)."""
KEPT = jax.checkpoint_policies.save_only_these_names(PRODUCT, ATTENDED)
"""Policy by which a scanned layer with plain attention keeps arrays for its backward pass.

Norms, rotations and SwiGLU are cheap to compute again. What they would keep is half of the memory
of a step, and to write and read it takes longer.
"""


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
        # Drawn after the kernel, so that an adapter does not change the kernel's draw.
        self.lora_a = (
            nnx.Param(_normal(1 / math.sqrt(inputs))(rngs.params(), (inputs, lora.rank)))
            if lora
            else None
        )
        self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs))) if lora else None
        self.lora_scale = lora.scale if lora else 1.0

    def __call__(self, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        # Flatten, as the gradient of a product with several leading axes would copy `x`.
        flat = x.reshape(-1, x.shape[-1])
        y = flat @ self.kernel[...]
        if self.lora_a is not None and self.lora_b is not None:
            narrow = checkpoint_name(flat @ self.lora_a[...], PRODUCT)
            y = y + self.lora_scale * (narrow @ self.lora_b[...])
        if self.bias is not None:
            y = y + self.bias[...][None]
        return checkpoint_name(y, PRODUCT).reshape(*x.shape[:-1], -1)


class RMSNorm(nnx.Module):
    """Divide vectors by their root mean square, in float32; then multiply by a gain."""

    def __init__(self, size: int, *, eps: float):
        self.gain = nnx.Param(jnp.ones(size))
        self.eps = eps

    def __call__(self, x: Float[Array, "*rows size"]) -> Float[Array, "*rows size"]:
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        gain = jnp.broadcast_to(self.gain[...].astype(x.dtype), x.shape)
        return (wide * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype) * gain


def rotate(
    x: Float[Array, "*rows length heads size"],
    cosine: Float[Array, "*rows length half"],
    sine: Float[Array, "*rows length half"],
) -> Float[Array, "*rows length heads size"]:
    """Apply the rotary embedding, in float32 (Su et al. 2021, arXiv 2104.09864).

    Coordinate i is paired with i + half, the convention of Llama and Qwen checkpoints.

    Args:
      x: queries or keys.
      cosine, sine: of each position's angle for each pair.
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cosine, sine = cosine[..., None, :], sine[..., None, :]
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    ).astype(x.dtype)


def rotary_frequencies(decoder: DecoderConfig) -> Float[Array, " half"]:
    """Angle in radians between neighbouring positions, for each pair of coordinates of a head."""
    half = decoder.head_size // 2
    frequency = decoder.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    rope = decoder.rope_scaling
    if rope is None:
        return frequency
    # Llama 3.1: keep fast frequencies, divide slow ones by the factor, and interpolate between.
    turns = rope.original_max_positions * frequency / (2 * math.pi)
    spread = rope.high_frequency_factor - rope.low_frequency_factor
    kept = jnp.clip((turns - rope.low_frequency_factor) / spread, 0.0, 1.0)
    return frequency * (kept + (1 - kept) / rope.factor)


KeysAndValues = tuple[
    Float[Array, "*rows kv_heads keys size"], Float[Array, "*rows kv_heads keys size"]
]
"""Keys and values of one layer."""
LayerPast = tuple[
    Float[Array, "*rows kv_heads size capacity"],
    Float[Array, "*rows kv_heads capacity size"],
    Int[Array, ""],
]
"""Cached keys and values of one layer, and the slot at which to write the new ones.

Keys lie with their slots last. Scores then are a product whose sum runs along columns of the
keys, which XLA on CPUs multiplies twice as fast.
"""


class Layer(nnx.Module):
    """Attention and SwiGLU, each behind a norm and added to the residual stream."""

    def __init__(self, decoder: DecoderConfig, *, rngs: nnx.Rngs):
        width, size, eps = decoder.hidden_size, decoder.head_size, decoder.rms_norm_eps
        # Scale residual branches down, so that the stream's scale does not depend on the depth.
        small = 1 / math.sqrt(2 * decoder.num_layers)
        queries, keys = decoder.num_heads * size, decoder.num_kv_heads * size

        def linear(name: Kernel, inputs: int, outputs: int, scale: float = 1.0, bias: bool = False):
            lora = decoder.lora if decoder.lora and name in decoder.lora.kernels else None
            return Linear(inputs, outputs, scale=scale, bias=bias, lora=lora, rngs=rngs)

        self.attention_norm = RMSNorm(width, eps=eps)
        self.query = linear("query", width, queries, bias=decoder.qkv_bias)
        self.key = linear("key", width, keys, bias=decoder.qkv_bias)
        self.value = linear("value", width, keys, bias=decoder.qkv_bias)
        self.query_norm = RMSNorm(size, eps=eps) if decoder.qk_norm else None
        self.key_norm = RMSNorm(size, eps=eps) if decoder.qk_norm else None
        self.output = linear("output", queries, width, small)
        self.mlp_norm = RMSNorm(width, eps=eps)
        self.gate = linear("gate", width, decoder.intermediate_size)
        self.up = linear("up", width, decoder.intermediate_size)
        self.down = linear("down", decoder.intermediate_size, width, small)
        self.decoder = decoder

    def __call__(
        self,
        x: Float[Array, "*rows length width"],
        cosine: Float[Array, "*rows length half"],
        sine: Float[Array, "*rows length half"],
        visible: Bool[Array, "*rows length keys"] | None,
        past: LayerPast | None = None,
        segments: Int[Array, "*rows length"] | None = None,
    ) -> tuple[Float[Array, "*rows length width"], KeysAndValues]:
        """Apply one layer.

        Args:
          x: the residual stream.
          cosine, sine: of the rotary angles, see `rotate`.
          visible: true where a token may attend to a key; None for the causal mask.
          past: cached keys and values, and the slot at which to write the new ones.
          segments: under the causal mask, see `hidden_states`.

        Returns:
          The residual stream after the layer; and keys and values, written into those of `past` if
          there are any.
        """
        # Queries, keys and values: project, split into heads, rotate. Only then are the heads moved
        # before the sequence: what is moved is rotated in strides, which takes twice as long.
        h = self.attention_norm(x)
        query, key, value = (
            linear(h).reshape(*x.shape[:-1], -1, self.decoder.head_size)
            for linear in (self.query, self.key, self.value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        query, key, value = (each.swapaxes(-2, -3) for each in (query, key, value))
        # With a cache, attend to its slots.
        if past is not None:
            keys, values, index = past
            write = jax.lax.dynamic_update_slice_in_dim
            key = write(keys, key.mT, index, axis=-1).mT
            value = write(values, value, index, axis=-2)
        attention = self.decoder.execution.attention if self.decoder.execution else "plain"
        if visible is not None:
            attended = attend(query, key, value, visible)
        elif attention == "plain":
            attended = attend_in_blocks(query, key, value, segments)
        else:
            attended = attend_fused(query, key, value, segments, attention)
        attended = attended.swapaxes(-2, -3).reshape(*x.shape[:-1], -1)
        x = x + self.output(attended)
        # SwiGLU.
        h = self.mlp_norm(x)
        return x + self.down(jax.nn.silu(self.gate(h)) * self.up(h)), (key, value)


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm and head."""

    def __init__(self, decoder: DecoderConfig, *, rngs: nnx.Rngs):
        shape = (decoder.vocab_size, decoder.hidden_size)
        self.embedding = nnx.Param(_normal(0.5)(rngs.params(), shape))
        self.layers = nnx.vmap(lambda rngs: Layer(decoder, rngs=rngs))(
            rngs.split(decoder.num_layers)
        )
        self.norm = RMSNorm(decoder.hidden_size, eps=decoder.rms_norm_eps)
        # Used by `head_kernel`.
        self.head = (
            None
            if decoder.tied_head
            else nnx.Param(_normal(0.05)(rngs.params(), (decoder.hidden_size, decoder.vocab_size)))
        )
        self.decoder = decoder

    def __call__(
        self,
        tokens: Int[Array, "*rows length"],
        positions: Int[Array, "*rows length"],
        visible: Bool[Array, "*rows length keys"] | None,
        past: tuple[Iterable[KeysAndValues], Int[Array, ""]] | None = None,
        segments: Int[Array, "*rows length"] | None = None,
    ) -> tuple[Float[Array, "*rows length width"], list[KeysAndValues]]:
        """Apply all layers and the final norm.

        Args:
          tokens, positions: the tokens to read.
          visible: true where a token may attend to a key; None for the causal mask.
          past: each layer's keys and values of earlier tokens, in slots, and the slot at which to
            write the new ones.
          segments: under the causal mask, see `hidden_states`.

        Returns:
          The stream after the final norm, of which `project` makes logits; and the keys and values
          of each layer, written into those of `past` if there are any.
        """
        execution = self.decoder.execution or Execution()
        dtype = execution.dtype or self.embedding[...].dtype
        # Rotary angles, the same for all layers.
        angle = positions[..., None].astype(jnp.float32) * jnp.broadcast_to(
            rotary_frequencies(self.decoder), (*positions.shape, self.decoder.head_size // 2)
        )
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        graph, stacked = nnx.split(self.layers)
        count = self.decoder.num_layers

        def step(x, parameters, past=None):
            if execution.dtype is not None:
                parameters = jax.tree.map(lambda leaf: leaf.astype(dtype), parameters)
            return nnx.merge(graph, parameters)(x, cosine, sine, visible, past, segments)

        x = self.embedding[...][tokens].astype(dtype)
        if past is not None:
            # A Python loop, in which each layer's cache stays an array of its own.
            caches, index = past
            layers = []
            for layer, cached in enumerate(caches):
                x, kept = step(x, _layer(stacked, layer), (*cached, index))
                layers.append(kept)
        else:
            # `KEPT` knows arrays by their names. Fused attention gives none to those that its
            # backward pass needs, so that the policy would compute them twice.
            by_name = not self.decoder.unroll and execution.attention == "plain"
            if execution.remat or by_name:
                # Only an unrolled scan needs the barrier that keeps XLA from merging the forward
                # pass with its repetition.
                policy = None if execution.remat else KEPT
                step = jax.checkpoint(step, prevent_cse=self.decoder.unroll, policy=policy)
            unroll = count if self.decoder.unroll else 1
            x, kept = jax.lax.scan(step, x, stacked, length=count, unroll=unroll)
            layers = list(zip(*kept, strict=True))
        return self.norm(x), layers


def _layer(stacked: Any, layer: int) -> Any:
    """Take one layer out of a tree of stacked arrays, or of tuples with one array per layer."""
    return jax.tree.map(lambda leaf: leaf[layer], stacked, is_leaf=lambda x: isinstance(x, tuple))


def initialise(decoder: DecoderConfig, key: PRNGKeyArray) -> Parameters:
    """Draw the parameters of a decoder, as a nested dict of float32 arrays."""
    return nnx.to_pure_dict(nnx.state(Decoder(decoder, rngs=nnx.Rngs(params=key))))


@functools.cache
def _graph(decoder: DecoderConfig) -> nnx.GraphDef:
    """Structure of the nnx module, without its parameters."""
    return nnx.graphdef(nnx.eval_shape(lambda: Decoder(decoder, rngs=nnx.Rngs(0))))


def as_module(decoder: DecoderConfig, parameters: Parameters) -> Decoder:
    """Put parameters, whose types are checked, into the nnx module."""
    decoder.activation_dtype(parameters)
    return nnx.merge(_graph(decoder), parameters)


def hidden_states(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    segments: Int[Array, "*rows length"] | None = None,
) -> Float[Array, "*rows length width"]:
    """Compute the input of the head for sequences under a causal mask.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens, positions: a sequence, or rows of them.
      segments: for rows of several packed sequences, the number of the sequence that each token
        belongs to; tokens of different segments do not see each other. Positions start anew in
        each segment.

    Raises:
      ValueError: see `DecoderConfig.activation_dtype`.
    """
    return as_module(decoder, parameters)(tokens, positions, None, segments=segments)[0]


def head_kernel(decoder: DecoderConfig, parameters: Parameters) -> Float[Array, "width vocab"]:
    """Kernel of the output layer: `hidden_states` times it are the logits."""
    kernel = parameters["embedding"].T if decoder.tied_head else parameters["head"]
    return kernel.astype(decoder.activation_dtype(parameters))


def project(
    decoder: DecoderConfig, parameters: Parameters, hidden: Float[Array, "*rows width"]
) -> Float[Array, "*rows vocab"]:
    """Multiply hidden states by the head: logits in float32."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    scores = jnp.matmul(flat, head_kernel(decoder, parameters), preferred_element_type=jnp.float32)
    return scores.reshape(*hidden.shape[:-1], -1)


def logits(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "*rows length"],
    positions: Int[Array, "*rows length"],
    segments: Int[Array, "*rows length"] | None = None,
) -> Float[Array, "*rows length vocab"]:
    """Next-token logits of sequences under a causal mask, in float32.

    Arguments and errors are those of `hidden_states`.
    """
    hidden = hidden_states(decoder, parameters, tokens, positions, segments)
    return project(decoder, parameters, hidden)


def draw_positions(decoder: DecoderConfig, key: PRNGKeyArray, length: int) -> Int[Array, " length"]:
    """Draw the positions of one sequence, by the rule of its decoder.

    Randomised positions let a decoder read longer sequences than it was trained on (random
    increasing positions are an idea of Ruoss et al. 2023, arXiv 2305.16843). They begin at a
    uniform number below `position_start`. A spread is drawn uniformly from ``1 .. position_gap``,
    and each gap uniformly from ``1 .. spread``. They are drawn for the study-wide `max_positions`
    and cut to `length`, so that padding changes nothing.

    Args:
      decoder: states the rule (static).
      key: a JAX key; not used by ``sequential`` positions.
      length: number of positions (static).

    Raises:
      ValueError: if `length` exceeds `max_positions`.
    """
    if length > decoder.max_positions:
        raise ValueError(
            f"length must be at most max_positions = {decoder.max_positions} tokens, got {length}"
        )
    if decoder.positions == "sequential":
        return jnp.arange(length)
    # One draw for all three, since each call of the generator compiles slowly.
    uniform = jax.random.uniform(key, (decoder.max_positions + 1,))
    start = jnp.floor(uniform[0] * decoder.position_start)
    spread = 1 + jnp.floor(uniform[1] * decoder.position_gap)
    gaps = 1 + jnp.floor(uniform[2 : length + 1] * spread)
    return jnp.cumsum(jnp.concatenate([start[None], gaps])).astype(int)


def num_parameters(parameters: Parameters) -> int:
    """Number of scalars in a parameter tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))
