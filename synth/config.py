"""Configurations of a decoder and of its training; they load without JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from synth.arguments import (
    check_choice,
    check_least,
    check_not_negative,
    check_number,
    check_positive,
)

if TYPE_CHECKING:
    import jax.numpy as jnp
    from jaxtyping import Array, Float

Loss = Literal["sft", "dft"]
Schedule = Literal["cosine", "constant"]
Positions = Literal["sequential", "randomised"]
Attention = Literal["plain", "xla", "cudnn"]
Dtype = Literal["float32", "bfloat16"]
Kernel = Literal["query", "key", "value", "output", "gate", "up", "down"]


@dataclass(frozen=True)
class Llama3Rope:
    """Llama 3.1's rescaling of the rotary frequencies, for sequences longer than it trained on.

    Attributes:
      factor: slow frequencies are divided by it.
      low_frequency_factor, high_frequency_factor: a frequency is slow if it makes fewer turns than
        the first in `original_max_positions` tokens, and fast, so that it is kept, if more than the
        second; in between both values are mixed in proportion.
      original_max_positions: length of sequences in the original training, in tokens.

    Raises:
      ValueError: if a number is out of range.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_max_positions: int

    def __post_init__(self) -> None:
        check_positive(self, "factor", "low_frequency_factor", "high_frequency_factor")
        check_least(self, 1, "original_max_positions")
        if self.factor < 1 or self.original_max_positions < 1:
            raise ValueError(
                f"factor and original_max_positions must be at least 1, "
                f"got {self.factor} and {self.original_max_positions}"
            )
        if not 0 < self.low_frequency_factor < self.high_frequency_factor:
            raise ValueError(
                f"low_frequency_factor must be positive and below high_frequency_factor, "
                f"got {self.low_frequency_factor} and {self.high_frequency_factor}"
            )


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters beside kernels: ``x @ kernel + alpha / rank · (x @ a) @ b``.

    `b` starts at zero, so that an adapted decoder starts as its base (Hu et al. 2021, arXiv
    2106.09685).

    Attributes:
      rank: inner width of the adapters.
      alpha: their scale, before the division by the rank.
      kernels: the kernels of each layer that have one.

    Raises:
      ValueError: if a field is out of range.
    """

    rank: int = 16
    alpha: float = 32.0
    kernels: tuple[Kernel, ...] = get_args(Kernel)

    def __post_init__(self) -> None:
        check_least(self, 1, "rank")
        check_positive(self, "alpha")
        if not self.kernels or set(self.kernels) - set(get_args(Kernel)):
            raise ValueError(f"kernels must be some of {get_args(Kernel)}, got {self.kernels}")

    @property
    def scale(self) -> float:
        """Factor of the adapters' output."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Execution:
    """Numerical settings of a decoder: the model is the same, and results differ by rounding only.

    Attributes:
      dtype: type of activations and matrix products, to which parameters are cast as they are used;
        None takes the parameters' own. Norms, softmax, rotation and logits are always in float32.
      remat: keep only each layer's input for the backward pass, and compute the rest again; else
        the results of products with weights and of attention are kept too.
      attention: ``plain`` is `synth.blockwise.attend_in_blocks`; ``xla`` and ``cudnn`` are
        implementations of `jax.nn.dot_product_attention` (the second needs an NVIDIA GPU and 16-bit
        activations). Decoding always uses `synth.attention.attend`.

    Raises:
      ValueError: if a field is not one of its choices.
    """

    dtype: Dtype | None = None
    remat: bool = False
    attention: Attention = "plain"

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype must be None or one of {get_args(Dtype)}, got {self.dtype!r}")
        check_choice(self, "attention", get_args(Attention))


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
      tied_head: the output layer is the embedding; if false, it has parameters of its own.
      positions: ``sequential`` 0, 1, 2 …, or ``randomised`` (see `synth.decoder.draw_positions`).
      max_positions: length of the longest sequence in the study, in tokens.
      position_start: randomised positions start uniformly below this.
      position_gap: the largest spread of randomised positions.
      unroll: unroll the scan over layers (faster for toys, slower to compile for deep models).
      rope_scaling: Llama 3.1's change to the rotary frequencies, if any.
      lora: adapters beside kernels, if any.
      execution: types, memory and attention; None for `Execution`'s defaults.

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
    # None by default, for the manifests of runs from before these fields existed.
    rope_scaling: Llama3Rope | None = None
    lora: Lora | None = None
    execution: Execution | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads")
        check_least(self, 1, *sizes, "num_kv_heads")
        check_least(self, 1, "max_positions", "position_start", "position_gap")
        if self.head_dim is not None:
            check_least(self, 1, "head_dim")
        check_positive(self, "rope_theta")
        check_not_negative(self, "rms_norm_eps")
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
            raise ValueError(
                f"the width of a head must be even, got {self.head_size} (head_dim, or hidden_size "
                f"over num_heads)"
            )
        check_choice(self, "positions", get_args(Positions))

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_heads

    def activation_dtype(self, parameters: dict[str, Any]) -> jnp.dtype:
        """Type of activations, and of a cache.

        Raises:
          ValueError: if `execution` states none and parameters have several.
        """
        # Imported here, so that configurations can be read without JAX.
        import jax
        import jax.numpy as jnp

        if self.execution and self.execution.dtype:
            return jnp.dtype(self.execution.dtype)
        types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(parameters)})
        if len(types) > 1:
            raise ValueError(
                f"execution must state a dtype where parameters have several, got {types}"
            )
        return jnp.dtype(types[0])


@dataclass(frozen=True)
class Optimiser:
    """AdamW with its batches and its schedule; the learning rate is stated beside it.

    Attributes:
      batch_size: examples in a step, over all devices and micro-batches.
      schedule: ``cosine`` to zero, or ``constant``, after the warm-up.
      warmup: share of the steps with a linear warm-up, in [0, 1).
      weight_decay: AdamW's decoupled decay.
      b2: decay of AdamW's second moment.
      clip: global norm to which gradients are clipped.

    Raises:
      ValueError: if a field is out of range.
    """

    batch_size: int = 32
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    b2: float = 0.98
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_least(self, 1, "batch_size")
        check_choice(self, "schedule", get_args(Schedule))
        for name in ("warmup", "weight_decay", "b2", "clip"):
            check_number(name, getattr(self, name))
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), got {self.warmup}")
        if self.weight_decay < 0 or self.clip <= 0 or not 0 < self.b2 < 1:
            raise ValueError(
                f"weight_decay must not be negative, clip positive and b2 in (0, 1); "
                f"got {self.weight_decay}, {self.clip} and {self.b2}"
            )


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of one training, a base's or a member's.

    All fields but the learning rate are static: `synth.finetune` registers the class with JAX as a
    tree whose only leaf is the learning rate.

    Attributes:
      steps: optimiser steps.
      learning_rate: peak learning rate; may be traced and mapped over.
      loss: ``sft`` is cross-entropy; ``dft`` weighs each token's cross-entropy by the probability
        of its label, gradient stopped (Wu et al. 2025, arXiv 2508.05629).
      optimiser: batches, schedule and AdamW.

    Raises:
      ValueError: if a field is out of range.
    """

    steps: int
    learning_rate: float | Float[Array, ""] = 1.5e-3
    loss: Loss = "sft"
    optimiser: Optimiser = Optimiser()

    def __post_init__(self) -> None:
        check_least(self, 1, "steps")
        # A traced rate has no value yet.
        if isinstance(self.learning_rate, (int, float)):
            check_positive(self, "learning_rate")
        check_choice(self, "loss", get_args(Loss))
