"""Layout of parameters in a checkpoint: tensor names, shapes, stacked layers, transposed matrices.

`synth.decoder.Parameters` stack all layers of a parameter along a leading axis and hold matrices as
[inputs, outputs]; a parameter is addressed by its path, such as ``layers/query/kernel``. Hugging
Face stores one tensor for each layer, and matrices as [outputs, inputs].
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax

from synth.config import DecoderConfig
from synth.decoder import Parameters, initialise

NAMES = {
    "embedding": "model.embed_tokens.weight",
    "norm/gain": "model.norm.weight",
    "head": "lm_head.weight",
    "layers/attention_norm/gain": "model.layers.{}.input_layernorm.weight",
    "layers/query/kernel": "model.layers.{}.self_attn.q_proj.weight",
    "layers/query/bias": "model.layers.{}.self_attn.q_proj.bias",
    "layers/query_norm/gain": "model.layers.{}.self_attn.q_norm.weight",
    "layers/key/kernel": "model.layers.{}.self_attn.k_proj.weight",
    "layers/key/bias": "model.layers.{}.self_attn.k_proj.bias",
    "layers/key_norm/gain": "model.layers.{}.self_attn.k_norm.weight",
    "layers/value/kernel": "model.layers.{}.self_attn.v_proj.weight",
    "layers/value/bias": "model.layers.{}.self_attn.v_proj.bias",
    "layers/output/kernel": "model.layers.{}.self_attn.o_proj.weight",
    "layers/mlp_norm/gain": "model.layers.{}.post_attention_layernorm.weight",
    "layers/gate/kernel": "model.layers.{}.mlp.gate_proj.weight",
    "layers/up/kernel": "model.layers.{}.mlp.up_proj.weight",
    "layers/down/kernel": "model.layers.{}.mlp.down_proj.weight",
}
"""Path of a parameter to its Hugging Face name, with ``{}`` for the number of the layer."""


@functools.cache
def parameter_shapes(decoder: DecoderConfig) -> Mapping[str, tuple[int, ...]]:
    """Shape of every parameter of a decoder, by path."""
    shapes = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in leaves_by_path(shapes).items()}


def tensor_shapes(decoder: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a checkpoint, by its Hugging Face name."""
    expected = {}
    for path, shape in parameter_shapes(decoder).items():
        shape = shape[1:] if is_stacked(path) else shape
        shape = shape[::-1] if is_transposed(path) else shape
        expected |= dict.fromkeys(tensor_names(path, decoder.num_layers), shape)
    return expected


def tensor_names(path: str, num_layers: int) -> list[str]:
    """Hugging Face names of a parameter: one, or one for each layer."""
    name = NAMES[path]
    return [name.format(layer) for layer in range(num_layers)] if is_stacked(path) else [name]


def is_stacked(path: str) -> bool:
    """Return whether a parameter has a leading axis of layers, stored as one tensor each."""
    return "{}" in NAMES[path]


def is_transposed(path: str) -> bool:
    """Return whether a parameter is a matrix that is stored as [outputs, inputs]."""
    return path == "head" or path.endswith("/kernel")


def is_buffer(name: str) -> bool:
    """Return whether a tensor holds rotary frequencies, which old Llama checkpoints store.

    They follow from ``config.json``, and `transformers` ignores the stored ones too.
    """
    return bool(re.fullmatch(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", name))


def leaves_by_path(parameters: Parameters) -> dict[str, Any]:
    """Flatten a tree of parameters into its leaves by path."""
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf
        for keys, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }


def nested(leaves: Mapping[str, Any]) -> Parameters:
    """Build the tree of parameters whose `leaves_by_path` are these."""
    parameters: Parameters = {}
    for path, leaf in leaves.items():
        *folders, last = path.split("/")
        branch = parameters
        for name in folders:
            branch = branch.setdefault(name, {})
        branch[last] = leaf
    return parameters


def check_shapes(
    subject: str, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse shapes, by name, that are not the expected ones.

    Raises:
      ValueError: if a name is missing or unexpected, or has another shape; it names all of them.
    """
    problems = []
    if missing := sorted(set(expected) - set(shapes)):
        problems.append(f"missing {missing}")
    if unexpected := sorted(set(shapes) - set(expected)):
        problems.append(f"unexpected {unexpected}")
    problems += [
        f"{name} has shape {shapes[name]}, expected {expected[name]}"
        for name in sorted(set(shapes) & set(expected))
        if shapes[name] != expected[name]
    ]
    if problems:
        raise ValueError(f"{subject} do not fit the config: {'; '.join(problems)}")
