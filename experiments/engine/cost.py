"""Cost of training and decoding: floating-point operations, utilisation, hours of a device.

Operations are those of the model, as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B):
two for each token and weight of a matrix, and attention over the whole length, causal or not; the
backward pass costs twice the forward one. Operations that `remat` repeats do not count, so that the
model FLOPs utilisation (MFU) of two programs can be compared.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax

from experiments.storage.layout import parameter_shapes
from synth.config import DecoderConfig

PEAKS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v4": 275e12,
}
"""Peak operations per second in dense bfloat16, from data sheets.

The first of these names that is a part of JAX's name for a device gives its peak."""

MEMORY = {
    "H200 NVL": 141e9,
    "H200": 141e9,
    "H100 NVL": 94e9,
    "H100 PCIe": 80e9,
    "H100": 80e9,
    "A100": 80e9,
    "L40S": 48e9,
    "L4": 24e9,
    "TPU v6 lite": 32e9,
    "TPU v5 lite": 16e9,
    "TPU v5": 95e9,
    "TPU v5p": 95e9,
    "TPU v4": 32e9,
}
"""Bytes of memory of each device in `PEAKS`, from the same data sheets; A100: the larger model."""

TRAINING_UTILISATION, DECODING_UTILISATION = 0.4, 0.05
"""Shares of the peak that estimates assume; decoding is bound by memory bandwidth.

Training: PaLM reports 46% and lists others from 21% to 33% (table 3). Decoding: an assumption.
"""

SIMULATOR_UTILISATION = 0.14
"""Share of the peak that estimates assume for the simulator's float32 members: the 28% that its
programs reach on CPU cores (see docs/performance.md), of half the peak in bfloat16, which is what
tensor cores reach in TF32. Not measured on an accelerator."""


def named_device(name: str) -> str:
    """Return the name in `PEAKS` that is meant, such as H200 for ``h200``.

    Raises:
      ValueError: if there is none.
    """

    def plain(words: str) -> str:
        return re.sub(r"[^a-z0-9]", "", words.lower())

    for known in PEAKS:
        if plain(known) == plain(name):
            return known
    raise ValueError(f"device must be one of {sorted(PEAKS)}, got {name!r}")


def num_matrix_weights(decoder: DecoderConfig) -> int:
    """Number of weights that every token is multiplied by: kernels, adapters and the head."""
    last = "embedding" if decoder.tied_head else "head"
    return sum(
        math.prod(shape)
        for path, shape in parameter_shapes(decoder).items()
        if path == last or path.endswith(("/kernel", "/lora_a", "/lora_b"))
    )


def training_flops(decoder: DecoderConfig, num_tokens: float, length: float) -> float:
    """Operations of forward and backward passes over `num_tokens` in sequences of `length` tokens.

    With adapters, the gradients of all other weights are not computed.
    """
    passes = 4 if decoder.lora else 6
    width = decoder.num_heads * decoder.head_size
    attention = 12 * decoder.num_layers * width * length
    return num_tokens * (passes * num_matrix_weights(decoder) + attention)


def decoding_flops(decoder: DecoderConfig, num_tokens: float, length: float) -> float:
    """Operations of a forward pass over `num_tokens`, each of which attends to `length` tokens."""
    width = decoder.num_heads * decoder.head_size
    attention = 4 * decoder.num_layers * width * length
    return num_tokens * (2 * num_matrix_weights(decoder) + attention)


def peak_flops(device: Any = None) -> float | None:
    """Peak operations per second of a device, from `PEAKS`; None if the device is not in there.

    Args:
      device: a JAX device; by default the first one.
    """
    kind = (device or jax.devices()[0]).device_kind
    # No letter or digit may follow the name: an L40 is no L4.
    return next((peak for name, peak in PEAKS.items() if re.search(rf"{name}(?!\w)", kind)), None)


def device_hours(training: float, decoding: float, *, device: str) -> float:
    """Hours of one device that so many operations take, at the assumed utilisations.

    Args:
      training, decoding: operations, see `training_flops` and `decoding_flops`.
      device: a name in `PEAKS`.

    Raises:
      ValueError: if the device is not known.
    """
    peak = PEAKS[named_device(device)]
    return (training / TRAINING_UTILISATION + decoding / DECODING_UTILISATION) / peak / 3600


def finetuning_flops(
    decoder: DecoderConfig, num_examples: float, epochs: float, example_tokens: float
) -> float:
    """Operations of a fine-tuning on examples of this mean length, one example a row."""
    return training_flops(decoder, epochs * num_examples * example_tokens, example_tokens)


def answering_flops(decoder: DecoderConfig, num_problems: float, example_tokens: float) -> float:
    """Operations of answering problems: reading prompts and writing responses."""
    return decoding_flops(decoder, num_problems * example_tokens, example_tokens)
