"""Names and ``config.json`` of Hugging Face, for the decoder and back.

Qwen2 and 2.5, Qwen3, and Llama 2 to 3 are the decoder under some setting of its switches. Both
forms of ``config.json`` are read: the new one with ``rope_parameters`` and ``dtype``, and the
published one with ``rope_theta``, ``rope_scaling`` and ``torch_dtype``. What only this study knows
stands under the key ``sweetspot``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from synth.config import DecoderConfig, Llama3Rope

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

UNROLLED_LAYERS = 8
"""Foreign checkpoints of at most as many layers are unrolled: faster, and soon compiled."""

STUDY_FIELDS = ("positions", "position_start", "position_gap", "unroll")

ROPE_FIELDS = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_max_positions": "original_max_position_embeddings",
}
"""Fields of `Llama3Rope`, all of which a file with that rotary type must state."""


def is_buffer(name: str) -> bool:
    """Whether a tensor is what old Llama checkpoints store beside their parameters.

    Rotary frequencies follow from ``config.json``, and `transformers` ignores the stored ones too.
    """
    return bool(re.fullmatch(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", name))


def family_of(config: DecoderConfig) -> str:
    """Model type whose architecture the switches give.

    Raises:
      ValueError: if there is none.
    """
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


def to_hugging_face(config: DecoderConfig, dtype: str) -> dict[str, Any]:
    """Contents of ``config.json`` for weights stored as `dtype`.

    Raises:
      ValueError: if no model type has these switches.
    """
    family = family_of(config)
    written = {
        "model_type": family,
        "architectures": [FAMILIES[family]],
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied_head,
        **_written_rope(config),
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


def _written_rope(config: DecoderConfig) -> dict[str, Any]:
    """Keys about rotary positions, in the new form and for transformers before 5.

    That looks for the old keys, and takes 10000 and no scaling in silence where they are missing.
    """
    if config.rope_scaling is None:
        rope: dict[str, Any] = {"rope_type": "default"}
    else:
        rope = {"rope_type": "llama3"}
        rope |= {theirs: getattr(config.rope_scaling, ours) for ours, theirs in ROPE_FIELDS.items()}
    written = {
        "rope_parameters": rope | {"rope_theta": config.rope_theta},
        "rope_theta": config.rope_theta,
    }
    return written if config.rope_scaling is None else written | {"rope_scaling": rope}


def from_hugging_face(written: Mapping[str, Any]) -> DecoderConfig:
    """Read ``config.json``, of this study or published, in its old or new form.

    A file without the study's own fields gets sequential positions and a rolled layer scan. A
    ``head_dim`` of ``hidden_size / num_heads`` comes back as None, which means the same.

    Raises:
      ValueError: if the model type, rotary type, a sliding window or another switch is not
        supported, or a key is missing or unknown to the study.
    """
    family = written.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {family!r}")
    for switch in ("attention_bias", "mlp_bias"):
        if written.get(switch):
            raise ValueError(f"{switch} is not supported, got {written[switch]!r}")
    if written.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act must be 'silu', got {written['hidden_act']!r}")
    if missing := [theirs for theirs in FIELDS.values() if written.get(theirs) is None]:
        raise ValueError(f"{CONFIG} must state {missing}")
    shared = {ours: written[theirs] for ours, theirs in FIELDS.items()}
    _refuse_sliding_windows(written, shared["num_layers"])
    size = written.get("head_dim")
    if size is None and family == "qwen3":
        raise ValueError(f"{CONFIG} must state ['head_dim'] for model_type 'qwen3'")
    study = written.get("sweetspot") or {
        "positions": "sequential",
        "unroll": shared["num_layers"] <= UNROLLED_LAYERS,
    }
    if unknown := sorted(set(study) - set(STUDY_FIELDS)):
        raise ValueError(f"'sweetspot' in {CONFIG} has unknown {unknown}, accepts {STUDY_FIELDS}")
    theta, scaling = _read_rope(written)
    return DecoderConfig(
        **shared,
        num_kv_heads=written.get("num_key_value_heads") or shared["num_heads"],
        head_dim=None if size and size * shared["num_heads"] == shared["hidden_size"] else size,
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied_head=bool(written.get("tie_word_embeddings", False)),
        **study,
    )


def _refuse_sliding_windows(written: Mapping[str, Any], num_layers: int) -> None:
    """Published files state a window that is not in use: that is no reason to refuse them."""
    if kinds := written.get("layer_types"):
        in_use = set(kinds) != {"full_attention"}
    else:
        full = written.get("max_window_layers")
        in_use = bool(written.get("use_sliding_window")) and (full is None or full < num_layers)
    if in_use:
        raise ValueError(
            f"sliding windows are not supported, got "
            f"use_sliding_window={written.get('use_sliding_window')!r} and "
            f"layer_types={written.get('layer_types')!r}"
        )


def _read_rope(written: Mapping[str, Any]) -> tuple[float, Llama3Rope | None]:
    """Base of the rotary frequencies, and their rescaling."""
    rope = written.get("rope_parameters") or written.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"rope type must be 'default' or 'llama3', got {kind!r}")
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
    theta = stated.pop() if stated else 10_000.0
    if kind == "default":
        return theta, None
    if missing := [theirs for theirs in ROPE_FIELDS.values() if rope.get(theirs) is None]:
        raise ValueError(f"rope type 'llama3' must state {missing}")
    return theta, Llama3Rope(**{ours: rope[theirs] for ours, theirs in ROPE_FIELDS.items()})
