"""Decoder checkpoints as Hugging Face folders, the toy's and the real ones alike.

A checkpoint is a folder with ``model.safetensors`` (Hugging Face names, matrices [outputs, inputs])
and ``config.json``, so that `transformers` loads a toy and this module loads a published Qwen2,
Qwen3 or Llama. What only this study knows stands in ``config.json`` under the key ``sweetspot``.

With randomised positions, give `transformers` an ``attention_mask`` of ones beside the
``position_ids``: without one it takes a gap for the start of another sequence in the same row.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from synth.decoder import DecoderConfig, Parameters, initialise

TENSORS = "model.safetensors"
CONFIG = "config.json"

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
"""Path in `Parameters` to Hugging Face name, with a gap for the layer; used in both directions."""

FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "rms_norm_eps": "rms_norm_eps",
    "max_positions": "max_position_embeddings",
}
"""Fields that both configs have and a file must state."""

FAMILIES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
"""Model types that are the decoder under some setting of its switches."""

STUDY_FIELDS = ("positions", "position_start", "position_gap", "unroll")


def save(
    path: str | os.PathLike[str],
    config: DecoderConfig,
    parameters: Parameters,
    *,
    dtype: DTypeLike | None = None,
) -> None:
    """Write a decoder as a new Hugging Face folder that `transformers` can load.

    The folder appears complete or not at all.

    Args:
      path: the folder to create.
      config: shape and switches of the decoder.
      parameters: its parameters, as `synth.decoder.initialise` lays them out.
      dtype: floating-point type to store; None keeps the parameters' own, which must be one.

    Raises:
      FileExistsError: if `path` exists.
      ValueError: if no Hugging Face family has these switches, or the parameters do not fit
        `config`, or have several types where `dtype` is not given.
    """
    path = Path(path)
    family = _family(config)
    tensors = _tensors(config, parameters, dtype)
    stored = next(iter(tensors.values())).dtype
    if path.exists():
        raise FileExistsError(f"path must be a new folder, but {str(path)!r} exists")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and on the same file system: the rename at the end is atomic.
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        save_file(tensors, partial / TENSORS, metadata={"format": "pt"})
        text = json.dumps(_to_hugging_face(config, family, str(stored)), indent=2)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
        for file in partial.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        # mkdtemp makes a folder for its owner alone.
        partial.chmod(0o755)
        try:
            partial.rename(path)
        except OSError as error:
            if not path.exists():
                raise
            raise FileExistsError(
                f"path must be a new folder, but {str(path)!r} appeared meanwhile"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(
    path: str | os.PathLike[str], *, dtype: DTypeLike | None = jnp.float32
) -> tuple[DecoderConfig, Parameters]:
    """Read a checkpoint folder, saved by `save` or published on the Hugging Face hub.

    A folder without the study's own fields gets sequential positions and a rolled layer scan. A
    ``head_dim`` of ``hidden_size / num_heads`` comes back as None, which means the same.

    Args:
      path: a folder with ``config.json`` and ``model.safetensors``.
      dtype: type of the parameters in memory; None keeps the stored one.

    Raises:
      FileNotFoundError: if the folder lacks one of its two files.
      ValueError: if the model type, rotary type, sliding window, or another switch is not
        supported, if a config key is missing or unknown to the study, or if a tensor is missing,
        unexpected or of the wrong shape.
    """
    path = Path(path)
    if (path / f"{TENSORS}.index.json").exists():
        raise ValueError(f"{str(path)!r} is a sharded checkpoint; only one {TENSORS} is supported")
    for name in (CONFIG, TENSORS):
        if not (path / name).is_file():
            raise FileNotFoundError(f"checkpoint {str(path)!r} has no {name}")
    try:
        written = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(path / CONFIG)!r} is not JSON ({error})") from error
    config = _from_hugging_face(written)
    try:
        with safe_open(path / TENSORS, framework="numpy") as file:
            return config, _parameters(config, file, dtype)
    except SafetensorError as error:
        raise ValueError(f"{str(path / TENSORS)!r} cannot be read ({error})") from error


def _family(config: DecoderConfig) -> str:
    """Model type whose architecture the switches give."""
    if config.qkv_bias and config.qk_norm:
        # Qwen3's attention_bias would put a bias on the output projection as well.
        raise ValueError("qkv_bias and qk_norm are both on: no Hugging Face model type has both")
    family = "qwen2" if config.qkv_bias else "qwen3" if config.qk_norm else "llama"
    if family == "llama" and config.hidden_size % config.num_heads:
        raise ValueError(
            f"hidden_size must be a multiple of num_heads for Hugging Face's llama, "
            f"got {config.hidden_size} and {config.num_heads}"
        )
    return family


def _to_hugging_face(config: DecoderConfig, family: str, dtype: str) -> dict[str, Any]:
    """Contents of ``config.json``."""
    written = {
        "model_type": family,
        "architectures": [FAMILIES[family]],
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied_head,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        # transformers before 5 looks here, and takes 10000 in silence where it is missing.
        "rope_theta": config.rope_theta,
        "dtype": dtype,
        # The families' defaults would make a token of ours the end marker.
        **{f"{marker}_token_id": None for marker in ("bos", "eos", "pad")},
    }
    if family in ("qwen3", "llama"):
        written["attention_bias"] = False
    if family == "llama":
        written["mlp_bias"] = False
    else:
        written["use_sliding_window"] = False
    written["sweetspot"] = {field: getattr(config, field) for field in STUDY_FIELDS}
    return written


def _from_hugging_face(written: dict[str, Any]) -> DecoderConfig:
    """Read ``config.json``, of this study or published, in its old or new form."""
    family = written.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {family!r}")
    for switch in ("attention_bias", "mlp_bias"):
        if written.get(switch):
            raise ValueError(f"{switch} is not supported, got {written[switch]!r}")
    if written.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act must be 'silu', got {written['hidden_act']!r}")
    if written.get("use_sliding_window") or set(written.get("layer_types") or ()) - {
        "full_attention"
    }:
        raise ValueError(
            f"sliding windows are not supported, got "
            f"use_sliding_window={written.get('use_sliding_window')!r} and "
            f"layer_types={written.get('layer_types')!r}"
        )
    missing = [theirs for theirs in FIELDS.values() if theirs not in written]
    if missing:
        raise ValueError(f"{CONFIG} must state {missing}")
    shared = {ours: written[theirs] for ours, theirs in FIELDS.items()}
    size = written.get("head_dim")
    if size is None and family == "qwen3":
        raise ValueError(f"{CONFIG} must state ['head_dim'] for model_type 'qwen3'")
    study = written.get("sweetspot") or {"positions": "sequential", "unroll": False}
    if unknown := sorted(set(study) - set(STUDY_FIELDS)):
        raise ValueError(f"'sweetspot' in {CONFIG} has unknown {unknown}, accepts {STUDY_FIELDS}")
    return DecoderConfig(
        **shared,
        num_kv_heads=written.get("num_key_value_heads") or shared["num_heads"],
        head_dim=None if size and size * shared["num_heads"] == shared["hidden_size"] else size,
        rope_theta=_rope_theta(written),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied_head=bool(written.get("tie_word_embeddings", False)),
        **study,
    )


def _rope_theta(written: dict[str, Any]) -> float:
    """Base of the rotary frequencies; refuses every type but the default one."""
    rope = written.get("rope_parameters") or written.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rope type must be 'default', got {kind!r}")
    share = rope.get("partial_rotary_factor", written.get("partial_rotary_factor"))
    if share not in (None, 1.0):
        raise ValueError(f"partial_rotary_factor must be 1, got {share!r}")
    stated = {
        float(place["rope_theta"])
        for place in (rope, written)
        if place.get("rope_theta") is not None
    }
    if len(stated) > 1:
        raise ValueError(f"rope_theta is stated twice and differs: {sorted(stated)}")
    return stated.pop() if stated else 10_000.0


@functools.cache
def _shapes(config: DecoderConfig) -> Mapping[str, tuple[int, ...]]:
    """Shape of every parameter of a decoder, by path."""
    shapes = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf.shape
        for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }


def _is_transposed(path: str) -> bool:
    """Whether ours is [inputs, outputs] where Hugging Face has [outputs, inputs]."""
    return path == "head" or path.endswith("/kernel")


def _names(path: str, num_layers: int) -> list[str]:
    """Hugging Face names of a parameter: one, or one for each layer."""
    name = NAMES[path]
    return [name.format(layer) for layer in range(num_layers)] if "{}" in name else [name]


def _tensors(
    config: DecoderConfig, parameters: Parameters, dtype: DTypeLike | None
) -> dict[str, Float[np.ndarray, ...]]:
    """Parameters under their Hugging Face names."""
    given = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }
    _refuse("parameters", {path: leaf.shape for path, leaf in given.items()}, _shapes(config))
    types = {str(leaf.dtype) for leaf in given.values()}
    if dtype is None and len(types) > 1:
        raise ValueError(f"parameters must share one dtype where dtype is None, got {types}")
    kind = jnp.dtype(next(iter(types)) if dtype is None else dtype)
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"dtype must be a floating-point type, got {kind}")
    tensors = {}
    for path, leaf in given.items():
        names = _names(path, config.num_layers)
        for name, tensor in zip(names, leaf if "{}" in NAMES[path] else [leaf], strict=True):
            tensor = tensor.T if _is_transposed(path) else tensor
            tensors[name] = np.ascontiguousarray(tensor, kind)
    return tensors


def _parameters(config: DecoderConfig, file: Any, dtype: DTypeLike | None) -> Parameters:
    """Parameters out of an open safetensors file, layers stacked."""
    stored = file.keys()
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in stored}
    expected = {}
    for path, shape in _shapes(config).items():
        shape = shape[1:] if "{}" in NAMES[path] else shape
        shape = shape[::-1] if _is_transposed(path) else shape
        expected |= dict.fromkeys(_names(path, config.num_layers), shape)
    head, embedding = NAMES["head"], NAMES["embedding"]
    if config.tied_head and head in shapes and embedding in shapes:
        if not np.array_equal(file.get_tensor(head), file.get_tensor(embedding)):
            raise ValueError(f"{head} differs from {embedding}, but tie_word_embeddings is true")
        del shapes[head]
    _refuse(TENSORS, shapes, expected)
    parameters: Parameters = {}
    for path in _shapes(config):
        read = [file.get_tensor(name) for name in _names(path, config.num_layers)]
        read = [tensor.T for tensor in read] if _is_transposed(path) else read
        leaf = np.stack(read) if "{}" in NAMES[path] else read[0]
        *folders, last = path.split("/")
        place = parameters
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = jnp.asarray(leaf if dtype is None else leaf.astype(dtype))
    return parameters


def _refuse(
    where: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise ValueError that names what is missing, unexpected or of the wrong shape."""
    problems = []
    if missing := sorted(set(expected) - set(found)):
        problems.append(f"missing {missing}")
    if unexpected := sorted(set(found) - set(expected)):
        problems.append(f"unexpected {unexpected}")
    problems += [
        f"{name} has shape {found[name]}, expected {expected[name]}"
        for name in sorted(set(found) & set(expected))
        if found[name] != expected[name]
    ]
    if problems:
        raise ValueError(f"{where} do not fit the config: {'; '.join(problems)}")
