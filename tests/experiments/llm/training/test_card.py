"""The card of a fine-tuned checkpoint, as the hub's own library reads it."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from experiments.llm.training.card import model_card
from experiments.llm.training.config import TrainingConfig

LINES = [{"step": 0, "loss": 2.0}, {"step": 1, "loss": 1.5, "validation_loss": 1.75}]


def identity(**others) -> dict:
    return {
        "base": "Qwen/Qwen2.5-Math-1.5B",
        "config": dataclasses.asdict(TrainingConfig(loss="dft", lora_rank=8)),
        "num_examples": 2000,
        "data": "0123456789abcdef",
        "source": {"source": "openai/gsm8k", "split": "train", "configuration": "main"},
        "difficulty": 2,
        "watch": {"num_examples": 50},
    } | others


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_tells_what_the_checkpoint_is():
    text = model_card(identity(), LINES, "one")
    assert front(text) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "Qwen/Qwen2.5-Math-1.5B",
        "base_model_relation": "finetune",
        "datasets": ["openai/gsm8k"],
        "tags": ["sweetspot", "dft", "lora"],
    }
    for told in (
        "# one",
        "Qwen/Qwen2.5-Math-1.5B, fine-tuned with DFT, by adapters of rank 8, merged.",
        "| split | train |",
        "| difficulty | 2 |",
        "| examples | 2,000 |",
        "| SHA-256 of their tokens begins with | 0123456789abcdef |",
        "| examples of the validation loss | 50 |",
        "| learning rate | 5e-05 |",
        "| batch size | 16 |",
        "| first step | 2.0000 |",
        "| lowest validation loss | 1.7500, after step 2 |",
        "| jax | ",
    ):
        assert told in text


def test_a_card_names_no_folder_of_this_machine(tmp_path):
    (tmp_path / "base").mkdir()
    local = {"source": {"source": str(tmp_path / "rows.jsonl"), "split": None}}
    text = model_card(identity(base=str(tmp_path / "base"), watch=None, **local), [], "one")
    assert str(tmp_path) not in text
    assert "base, fine-tuned with" in text
    assert "| source | rows.jsonl |" in text
    assert not {"base_model", "datasets"} & front(text).keys()


@pytest.mark.slow  # imports the hub's library
def test_the_hub_reads_the_card():
    hub = pytest.importorskip("huggingface_hub", reason="pip install 'sweetspot-sft[llm]'")
    data = hub.ModelCard(model_card(identity(), LINES, "one"), ignore_metadata_errors=False).data
    assert (data.library_name, data.base_model) == ("transformers", "Qwen/Qwen2.5-Math-1.5B")
    assert data.tags == ["sweetspot", "dft", "lora"]
    assert data.datasets == ["openai/gsm8k"]
