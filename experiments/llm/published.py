"""Shapes of published checkpoints, for estimates and benchmarks without their files."""

from __future__ import annotations

from synth.config import DecoderConfig

QWEN25_MATH_1_5B = DecoderConfig(
    vocab_size=151_936,
    hidden_size=1536,
    intermediate_size=8960,
    num_layers=28,
    num_heads=12,
    num_kv_heads=2,
    tied_head=True,
    positions="sequential",
    max_positions=4096,
    unroll=False,
)
QWEN25_MATH_7B = DecoderConfig(
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    positions="sequential",
    max_positions=4096,
    unroll=False,
)
