"""A complete tiny checkpoint folder: decoder with random weights, tokenizer, chat template."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.llm.text.tokenizer import save_tokenizer, train_tokenizer
from experiments.storage import checkpoint, layout
from synth.config import DecoderConfig
from synth.decoder import Parameters
from synth.tasks.igsm import problems

VOCAB_SIZE = 320
MAX_POSITIONS = 1024


def write_tiny_folder(path: Path, *, seed: int = 0) -> Path:
    """Write a Qwen2 with 40 thousand random float32 parameters, and a tokenizer for iGSM text."""
    drawn = [problem for level in (1, 2, 3) for problem in problems(level, 10, seed=0)]
    tokenizer = train_tokenizer((f"{one.problem} {one.solution}" for one in drawn), VOCAB_SIZE)
    decoder = DecoderConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        positions="sequential",
        max_positions=MAX_POSITIONS,
    )
    checkpoint.save(path, decoder, random_parameters(decoder, seed))
    save_tokenizer(tokenizer, path)
    return path


def random_parameters(decoder: DecoderConfig, seed: int) -> Parameters:
    """Parameters drawn by NumPy: `synth.decoder.initialise` takes seconds to compile."""
    generator = np.random.default_rng(seed)
    leaves = {}
    for path, shape in layout.parameter_shapes(decoder).items():
        centre = 1.0 if path.endswith("/gain") else 0.0
        leaves[path] = jnp.asarray(centre + 0.1 * generator.standard_normal(shape), jnp.float32)
    return layout.nested(leaves)
