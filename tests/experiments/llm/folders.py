"""Tiny checkpoints of every family in published form, made by `transformers` itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.llm.tiny import write_tiny_folder

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

DEFAULT = {"rope_type": "default", "rope_theta": 10_000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}

CASES: dict[str, dict[str, Any]] = {
    "qwen2": {"family": "qwen2", "rope_parameters": DEFAULT | {"rope_theta": 1e6}},
    "qwen2-tied": {"family": "qwen2", "rope_parameters": DEFAULT, "tie_word_embeddings": True},
    "qwen2-sharded": {"family": "qwen2", "rope_parameters": DEFAULT, "shard": "20KB"},
    "qwen2-published": {
        "family": "qwen2",
        "rope_parameters": DEFAULT | {"rope_theta": 1e6},
        "published": True,
    },
    "qwen3": {"family": "qwen3", "rope_parameters": DEFAULT | {"rope_theta": 1e6}, "head_dim": 16},
    "qwen3-tied-sharded": {
        "family": "qwen3",
        "rope_parameters": DEFAULT,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "shard": "20KB",
    },
    "llama": {"family": "llama", "rope_parameters": DEFAULT | {"rope_theta": 5e5}},
    "llama-all-heads": {"family": "llama", "rope_parameters": DEFAULT, "num_key_value_heads": 4},
    "llama-one-key": {"family": "llama", "rope_parameters": DEFAULT, "num_key_value_heads": 1},
    "llama3-rope": {"family": "llama", "rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "llama3-rope-published": {"family": "llama", "rope_parameters": LLAMA3, "published": True},
}
"""Settings of each checkpoint; with ``published`` its config.json has the old form."""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A complete tiny checkpoint, made without torch; see `tests.experiments.llm.tiny`."""
    pytest.importorskip("transformers", reason="pip install 'sweetspot-sft[llm]'")
    return write_tiny_folder(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def torch():
    """The reference implementation, in one thread."""
    reason = "torch and transformers are the reference here: pip install 'sweetspot-sft[llm,bench]'"
    pytest.importorskip("transformers", reason=reason)
    module = pytest.importorskip("torch", reason=reason)
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def reference_folder(torch, tmp_path_factory) -> Callable[[str], Path]:
    """Maker of a case's folder with random weights, which is made once."""
    root = tmp_path_factory.mktemp("transformers")

    def build(name: str) -> Path:
        if not (root / name).exists():
            _build(torch, root / name, dict(CASES[name]))
        return root / name

    return build


def _build(torch, path: Path, settings: dict[str, Any]) -> None:
    import transformers

    family = settings.pop("family")
    shard, published = settings.pop("shard", "1GB"), settings.pop("published", False)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SIZES | settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        # New gains are all one and biases all zero, which would hide that two of them are swapped.
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path, max_shard_size=shard)
    if published:
        _to_published_form(path / "config.json")


def _to_published_form(path: Path) -> None:
    """Rewrite config.json as Qwen2.5 and Llama 3.1 were published."""
    written = json.loads(path.read_text())
    rope = written.pop("rope_parameters")
    written["rope_theta"] = rope.pop("rope_theta")
    written["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    written["torch_dtype"] = written.pop("dtype", "float32")
    if written["model_type"] == "qwen2":
        written.pop("layer_types", None)
        written |= {"sliding_window": 4096, "max_window_layers": 2, "use_sliding_window": False}
    path.write_text(json.dumps(written))
