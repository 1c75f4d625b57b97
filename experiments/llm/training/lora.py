"""Adapters on a loaded checkpoint: attach them, train only them, merge them into the kernels.

The decoder itself computes with adapters (`synth.config.Lora`), so that training never forms the
sum of a kernel and its adapter, nor the gradient of a kernel.
"""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from experiments.storage.sharding import parameter_sharding
from synth.config import DecoderConfig, Kernel, Lora
from synth.decoder import Parameters

LEAVES = ("lora_a", "lora_b")


def attach(
    decoder: DecoderConfig,
    parameters: Parameters,
    lora: Lora,
    key: PRNGKeyArray,
    *,
    mesh: Mesh | None = None,
) -> tuple[DecoderConfig, Parameters]:
    """Add new adapters, which do not change the decoder's output yet.

    Args:
      decoder, parameters: a decoder without adapters; its arrays are shared, not copied.
      lora: rank and scale of the adapters, and the kernels that get one.
      key: a JAX key; the draw of one adapter does not depend on which others there are.
      mesh: devices that hold the parameters; None for one device.

    Raises:
      ValueError: if there are adapters already.
    """
    if decoder.lora is not None:
        raise ValueError(f"decoder must have no adapters yet, got {decoder.lora}")
    adapters: Parameters = {}
    # A kernel's number in the list of all kernels makes its key, whichever of them get adapters.
    for number, name in enumerate(get_args(Kernel)):
        if name in lora.kernels:
            kernel = parameters["layers"][name]["kernel"]
            pair = _new_pair(kernel.shape, lora.rank, jax.random.fold_in(key, number))
            if mesh is not None:
                pair = {
                    leaf: jax.device_put(
                        array, parameter_sharding(f"layers/{name}/{leaf}", array.shape, mesh)
                    )
                    for leaf, array in pair.items()
                }
            adapters[name] = pair
    return dataclasses.replace(decoder, lora=lora), join(parameters, {"layers": adapters})


def _new_pair(
    shape: tuple[int, int, int], rank: int, key: PRNGKeyArray
) -> dict[str, Float[Array, ...]]:
    """Adapters of one kernel in all layers, in float32 whatever the kernel's type."""
    layers, inputs, outputs = shape
    narrow = jax.random.normal(key, (layers, inputs, rank)) / math.sqrt(inputs)
    return {"lora_a": narrow, "lora_b": jnp.zeros((layers, rank, outputs))}


def split(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """Split parameters into those without the adapters, and the adapters; `join` is the inverse.

    Training differentiates with respect to the second part.
    """
    layers = parameters["layers"]
    frozen = {
        name: {leaf: array for leaf, array in part.items() if leaf not in LEAVES}
        for name, part in layers.items()
    }
    adapters = {
        name: {leaf: part[leaf] for leaf in LEAVES}
        for name, part in layers.items()
        if LEAVES[0] in part
    }
    return {**parameters, "layers": frozen}, {"layers": adapters}


def join(frozen: Parameters, adapters: Parameters) -> Parameters:
    """Parameters with adapters, from the two parts that `split` gives."""
    layers = {
        name: {**part, **adapters["layers"].get(name, {})}
        for name, part in frozen["layers"].items()
    }
    return {**frozen, "layers": layers}


def merge(decoder: DecoderConfig, parameters: Parameters) -> tuple[DecoderConfig, Parameters]:
    """Add the adapters to their kernels: a decoder without any, which computes the same.

    Raises:
      ValueError: if there are no adapters.
    """
    if decoder.lora is None:
        raise ValueError("decoder must have adapters to merge, got lora=None")
    frozen, adapters = split(parameters)
    layers = dict(frozen["layers"])
    for name, pair in adapters["layers"].items():
        kernel = layers[name]["kernel"]
        change = decoder.lora.scale * jnp.einsum("lir,lro->lio", pair["lora_a"], pair["lora_b"])
        merged = (kernel.astype(jnp.float32) + change).astype(kernel.dtype)
        layers[name] = {**layers[name], "kernel": merged}
    return dataclasses.replace(decoder, lora=None), {**frozen, "layers": layers}
