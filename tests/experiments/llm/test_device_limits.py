"""What a device cannot do is told in one line, which names the flags that help."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from experiments.llm.answering import decoding
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.model import Model
from experiments.llm.training import train as training
from experiments.llm.training.config import TrainingConfig
from experiments.llm.training.finetune import finetune
from experiments.storage.memory import OutOfMemoryError
from synth.config import DecoderConfig
from synth.decoder import initialise

DECODER = DecoderConfig(vocab_size=8, positions="sequential", max_positions=32)


def run_out(*_, **__):
    """XLA's own error: no device has so much memory."""
    jnp.ones((10**14,), jnp.float32).block_until_ready()


def test_training_says_what_makes_a_step_smaller(monkeypatch):
    monkeypatch.setattr(training, "start", run_out)
    loader = SimpleNamespace(steps=1)
    with pytest.raises(OutOfMemoryError) as caught:
        training.train(DECODER, {}, loader, TrainingConfig())  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for flag in ("--accumulation", "--batch-size", "--remat", "--lora-rank", "--fsdp"):
        assert flag in message


def test_decoding_says_what_makes_a_batch_smaller(monkeypatch):
    model = Model(DECODER, initialise(DECODER, jax.random.key(0)), None, ())
    monkeypatch.setattr(decoding, "_start", run_out)
    with pytest.raises(OutOfMemoryError, match=r"ran out in decoding: lower --decoding.batch-size"):
        decoding.continuations(model, [[1, 2]], DecodingConfig(max_new_tokens=4))


def test_attention_of_another_device_is_refused_before_any_work(tmp_path):
    config = TrainingConfig(attention="cudnn")
    message = "attention 'cudnn' needs an NVIDIA GPU, but JAX runs on cpu: take --attention plain"
    with pytest.raises(ValueError, match=message):
        finetune(tmp_path / "none", None, config, tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=message):
        training.load_base(tmp_path / "none", config)
