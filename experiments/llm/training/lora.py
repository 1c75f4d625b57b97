"""Adapters on a loaded checkpoint: attach them, train them alone, merge them into the kernels.

The decoder itself computes with them (`synth.config.Lora`), so that neither a kernel's sum with
its adapter nor the gradient of a kernel is ever formed in training.
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
    config: DecoderConfig,
    parameters: Parameters,
    lora: Lora,
    key: PRNGKeyArray,
    *,
    mesh: Mesh | None = None,
) -> tuple[DecoderConfig, Parameters]:
    """A decoder with new adapters, which computes what the one without did.

    Args:
      config, parameters: a decoder without adapters; its arrays are shared, not copied.
      lora: rank, scale and place of the adapters.
      key: a JAX key; an adapter's draw does not depend on which others there are.
      mesh: where the parameters live, if not on one device.

    Raises:
      ValueError: if there are adapters already.
    """
    if config.lora is not None:
        raise ValueError(f"config must have no adapters yet, got {config.lora}")
    adapters: Parameters = {}
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
    return dataclasses.replace(config, lora=lora), join(parameters, {"layers": adapters})


def _new_pair(
    shape: tuple[int, int, int], rank: int, key: PRNGKeyArray
) -> dict[str, Float[Array, ...]]:
    """Adapters of one kernel in all layers, float32 whatever the kernel is."""
    layers, inputs, outputs = shape
    narrow = jax.random.normal(key, (layers, inputs, rank)) / math.sqrt(inputs)
    return {"lora_a": narrow, "lora_b": jnp.zeros((layers, rank, outputs))}


def split(parameters: Parameters) -> tuple[Parameters, Parameters]:
    """The parameters without their adapters, and the adapters alone; `join` undoes it.

    Training differentiates with respect to the second.
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
    """Parameters with adapters, out of the two parts that `split` gives."""
    layers = {
        name: {**part, **adapters["layers"].get(name, {})}
        for name, part in frozen["layers"].items()
    }
    return {**frozen, "layers": layers}


def merge(config: DecoderConfig, parameters: Parameters) -> tuple[DecoderConfig, Parameters]:
    """The decoder without adapters that computes the same, as a checkpoint is saved.

    Raises:
      ValueError: if there are no adapters.
    """
    if config.lora is None:
        raise ValueError("config must have adapters to merge, got lora=None")
    frozen, adapters = split(parameters)
    layers = dict(frozen["layers"])
    for name, pair in adapters["layers"].items():
        kernel = layers[name]["kernel"]
        change = config.lora.scale * jnp.einsum("lir,lro->lio", pair["lora_a"], pair["lora_b"])
        merged = (kernel.astype(jnp.float32) + change).astype(kernel.dtype)
        layers[name] = {**layers[name], "kernel": merged}
    return dataclasses.replace(config, lora=None), {**frozen, "layers": layers}
