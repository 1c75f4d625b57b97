"""Cost of training and decoding, against the operations that XLA counts."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from experiments.engine.cost import (
    PEAKS,
    decoding_flops,
    device_hours,
    num_matrix_weights,
    peak_flops,
    training_flops,
)
from experiments.llm.training import lora
from synth.config import DecoderConfig, Lora
from synth.decoder import initialise, logits

LENGTH = 256
SMALL = DecoderConfig(512, 64, 160, 2, 4, 2, positions="sequential", max_positions=LENGTH)
SHAPES = {
    "small": SMALL,
    "tied": dataclasses.replace(SMALL, tied_head=True),
    "wide heads": dataclasses.replace(SMALL, head_dim=32),
}


def counted(function, *arguments) -> float:
    """Operations of a program, as XLA counts them before it optimises."""
    analysis = jax.jit(function).lower(*arguments).cost_analysis()
    assert isinstance(analysis, dict)
    return analysis["flops"]


def inputs(decoder: DecoderConfig):
    parameters = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((LENGTH,), jnp.int32)
    return parameters, tokens, tokens


@pytest.mark.parametrize("name", SHAPES)
def test_operations_are_those_that_xla_counts(name):
    decoder = SHAPES[name]

    def total(parameters, tokens, positions):
        return logits(decoder, parameters, tokens, positions).sum()

    arguments = inputs(decoder)
    # The rest is normalisation, softmax and the like: a smaller share in a large model.
    forward = decoding_flops(decoder, LENGTH, LENGTH)
    assert counted(total, *arguments) == pytest.approx(forward, rel=0.1)
    both = training_flops(decoder, LENGTH, LENGTH)
    assert counted(jax.grad(total), *arguments) == pytest.approx(both, rel=0.1)


def test_adapters_leave_the_gradients_of_kernels_out():
    decoder = dataclasses.replace(SMALL, lora=Lora(rank=2))
    parameters, tokens, positions = inputs(SMALL)
    adapters = jax.eval_shape(
        lambda: lora.split(
            lora.attach(
                SMALL, initialise(SMALL, jax.random.key(0)), Lora(rank=2), jax.random.key(1)
            )[1]
        )[1]
    )

    def total(adapters, parameters, tokens, positions):
        return logits(decoder, lora.join(parameters, adapters), tokens, positions).sum()

    expected = training_flops(decoder, LENGTH, LENGTH)
    flops = counted(jax.grad(total), adapters, parameters, tokens, positions)
    assert flops == pytest.approx(expected, rel=0.1)


def test_weights_of_a_published_model():
    """Qwen2.5-1.5B: its card states 1.54 billion parameters, 1.31 without the embedding."""
    qwen = DecoderConfig(151_936, 1536, 8960, 28, 12, 2, tied_head=True, unroll=False)
    assert num_matrix_weights(qwen) == pytest.approx(1.54e9, rel=0.005)
    embedding = 151_936 * 1536
    assert num_matrix_weights(qwen) - embedding == pytest.approx(1.31e9, rel=0.005)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("NVIDIA H20", None),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("cpu", None),
    ],
)
def test_peaks_by_the_names_of_devices(kind, peak):
    assert peak_flops(SimpleNamespace(device_kind=kind)) == peak


def test_the_processor_here_has_no_stated_peak():
    assert peak_flops() is None


def test_hours_of_a_device():
    # One hour of training at 40% of the peak, and two hours of decoding at 5%.
    peak = 3600 * PEAKS["A100"]
    assert device_hours(0.4 * peak, 0.1 * peak, device="A100") == pytest.approx(3)
    with pytest.raises(ValueError, match=r"device must be one of \['A100', .*, got 'abacus'"):
        device_hours(1.0, 1.0, device="abacus")
