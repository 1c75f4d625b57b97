"""``config.json`` of Hugging Face, translated to a `DecoderConfig` and back.

Qwen2 and 2.5, Qwen3, and Llama 2 to 3 are the decoder under some setting of its switches. Both
forms of ``config.json`` are read: the new one with ``rope_parameters`` and ``dtype``, and the
published one with ``rope_theta``, ``rope_scaling`` and ``torch_dtype``. Settings that only this
study has are stored under the key ``sweetspot``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.storage.untrusted import read_json_file
from synth.config import DecoderConfig, Llama3Rope

CONFIG = "config.json"

FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "rms_norm_eps": "rms_norm_eps",
    "max_positions": "max_position_embeddings",
}
"""Fields of `DecoderConfig` and keys of ``config.json``, all of which a file must state."""

FAMILIES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
"""Model types that are the decoder under some setting of its switches."""

MOST = {
    "num_hidden_layers": 10_000,
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "head_dim": 100_000,
    "vocab_size": 10_000_000,
    "hidden_size": 10_000_000,
    "intermediate_size": 10_000_000,
    "max_position_embeddings": 2**31 - 1,
    "original_max_position_embeddings": 2**31 - 1,
}
"""The most that a whole number of ``config.json`` may be: far above any model, and below what makes
shapes overflow or names fill the memory."""

UNROLLED_LAYERS = 8
"""Most layers that are unrolled where a file does not say: faster, and still quick to compile."""

STUDY_FIELDS = ("positions", "position_start", "position_gap", "unroll")
"""Fields of `DecoderConfig` that Hugging Face does not have."""

ROPE_FIELDS = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_max_positions": "original_max_position_embeddings",
}
"""Fields of `Llama3Rope` and keys of ``config.json``, which a file of that rotary type states."""


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a file of a checkpoint folder that holds a JSON object.

    Raises:
      FileNotFoundError: if the folder has no such file.
      ValueError: if it is no JSON, no object, or too large.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {str(folder)!r} has no {name}")
    contents = read_json_file(path)
    if not isinstance(contents, dict):
        raise ValueError(f"{str(path)!r} must hold an object, got {type(contents).__name__}")
    return contents


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write a JSON file of a checkpoint, indented as Hugging Face does."""
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def family_of(decoder: DecoderConfig) -> str:
    """Hugging Face model type of the architecture that the switches describe.

    Raises:
      ValueError: if there is none.
    """
    if decoder.qkv_bias and decoder.qk_norm:
        # Qwen3's attention_bias would put a bias on the output projection as well.
        raise ValueError("qkv_bias and qk_norm are both on: no Hugging Face model type has both")
    family = "qwen2" if decoder.qkv_bias else "qwen3" if decoder.qk_norm else "llama"
    if family == "llama" and decoder.hidden_size % decoder.num_heads:
        raise ValueError(
            f"hidden_size must be a multiple of num_heads for Hugging Face's llama, "
            f"got {decoder.hidden_size} and {decoder.num_heads}"
        )
    return family


def to_hugging_face(decoder: DecoderConfig, dtype: str) -> dict[str, Any]:
    """Contents of ``config.json`` for weights stored as `dtype`.

    Raises:
      ValueError: if no model type has these switches.
    """
    family = family_of(decoder)
    written = {
        "model_type": family,
        "architectures": [FAMILIES[family]],
        **{theirs: getattr(decoder, ours) for ours, theirs in FIELDS.items()},
        "num_key_value_heads": decoder.num_kv_heads,
        "head_dim": decoder.head_size,
        "hidden_act": "silu",
        "tie_word_embeddings": decoder.tied_head,
        **_written_rope(decoder),
        "dtype": dtype,
        # Stated as none: a family's default ids would make one of our tokens the end marker.
        **{f"{marker}_token_id": None for marker in ("bos", "eos", "pad")},
    }
    if family in ("qwen3", "llama"):
        written["attention_bias"] = False
    if family == "llama":
        written["mlp_bias"] = False
    else:
        written["use_sliding_window"] = False
    written["sweetspot"] = {field: getattr(decoder, field) for field in STUDY_FIELDS}
    return written


def _written_rope(decoder: DecoderConfig) -> dict[str, Any]:
    """Keys about rotary positions, in the new form and in the old one.

    Before version 5 `transformers` reads only the old keys, and silently takes a base of 10000 and
    no scaling where they are missing.
    """
    if decoder.rope_scaling is None:
        rope: dict[str, Any] = {"rope_type": "default"}
    else:
        rope = {"rope_type": "llama3"}
        scaling = decoder.rope_scaling
        rope |= {theirs: getattr(scaling, ours) for ours, theirs in ROPE_FIELDS.items()}
    written = {
        "rope_parameters": rope | {"rope_theta": decoder.rope_theta},
        "rope_theta": decoder.rope_theta,
    }
    return written if decoder.rope_scaling is None else written | {"rope_scaling": rope}


def from_hugging_face(written: Mapping[str, Any]) -> DecoderConfig:
    """Translate ``config.json``, of this study or published, in its old or new form.

    A file without the study's own fields gets sequential positions, and a loop over layers if it
    has more than `UNROLLED_LAYERS`. A ``head_dim`` of ``hidden_size / num_heads`` comes back as
    None, which means the same.

    Raises:
      ValueError: if the model type, rotary type, a sliding window or another switch is not
        supported, or a key is missing, unknown to the study, or of the wrong type or size.
    """
    # Refuse architectures that no setting of our switches gives.
    family = written.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"model_type must be one of {sorted(FAMILIES)}, got {_short(family)}")
    for switch in ("attention_bias", "mlp_bias"):
        if written.get(switch):
            raise ValueError(f"{switch} is not supported, got {_short(written[switch])}")
    if written.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act must be 'silu', got {_short(written['hidden_act'])}")
    # Read the fields that both configurations have.
    if missing := [theirs for theirs in FIELDS.values() if written.get(theirs) is None]:
        raise ValueError(f"{CONFIG} must state {missing}")
    for key in (*MOST, "rms_norm_eps"):
        _check_number(written, key)
    shared = {ours: written[theirs] for ours, theirs in FIELDS.items()}
    _refuse_sliding_windows(written, shared["num_layers"])
    size = written.get("head_dim")
    if size is None and family == "qwen3":
        raise ValueError(f"{CONFIG} must state ['head_dim'] for model_type 'qwen3'")
    # Read the study's own settings, or choose those of a published checkpoint.
    study = _object(written, "sweetspot") or {
        "positions": "sequential",
        "unroll": shared["num_layers"] <= UNROLLED_LAYERS,
    }
    if unknown := sorted(set(study) - set(STUDY_FIELDS)):
        raise ValueError(f"'sweetspot' in {CONFIG} has unknown {unknown}, accepts {STUDY_FIELDS}")
    if not isinstance(study.get("positions", ""), str) or not isinstance(
        study.get("unroll", 0), int
    ):
        raise ValueError(f"positions must be text and unroll true or false, got {study}")
    for key in ("position_start", "position_gap"):
        _check_number(study, key, most=2**31 - 1)
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


def _check_number(written: Mapping[str, Any], key: str, most: float = math.inf) -> None:
    """Refuse a stated number that is of another type, not positive or too large.

    Those of `MOST` are whole; the others are finite.
    """
    value, most = written.get(key), MOST.get(key, most)
    kinds = int if math.isfinite(most) else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value <= min(most, 1e30)):
        accepted = f"a whole number from 1 to {most}" if kinds is int else "a positive number"
        raise ValueError(f"{key} in {CONFIG} must be {accepted}, got {_short(value)}")


def _object(written: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Stated object; empty if the key is missing or null."""
    value = written.get(key) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} in {CONFIG} must be an object, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    """Text of a value for an error, cut off where it is long."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse_sliding_windows(written: Mapping[str, Any], num_layers: int) -> None:
    """Refuse a sliding window that some layer uses; published files also state unused ones."""
    if kinds := written.get("layer_types"):
        in_use = not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds)
    else:
        full = written.get("max_window_layers")
        full = full if isinstance(full, int) else None
        in_use = bool(written.get("use_sliding_window")) and (full is None or full < num_layers)
    if in_use:
        raise ValueError(
            f"sliding windows are not supported, got "
            f"use_sliding_window={_short(written.get('use_sliding_window'))} and "
            f"layer_types={_short(written.get('layer_types'))}"
        )


def _read_rope(written: Mapping[str, Any]) -> tuple[float, Llama3Rope | None]:
    """Base of the rotary frequencies, and their rescaling."""
    # The new form nests all settings; the old one has rope_scaling, with the base beside it.
    rope = _object(written, "rope_parameters") or _object(written, "rope_scaling")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in ("default", "llama3"):
        raise ValueError(f"rope type must be 'default' or 'llama3', got {_short(kind)}")
    share = rope.get("partial_rotary_factor", written.get("partial_rotary_factor"))
    if share not in (None, 1.0):
        raise ValueError(f"partial_rotary_factor must be 1, got {_short(share)}")
    _check_number(written, "rope_theta")
    for key in ("rope_theta", *ROPE_FIELDS.values()):
        _check_number(rope, key)
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
