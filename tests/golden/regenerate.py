"""Golden logits of `transformers`: small decoders whose weights follow from a seed.

Only logits are stored. To regenerate (needs the extras torch and transformers)::

    PYTHONPATH=. python -m tests.golden.regenerate
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import numpy as np

from experiments import checkpoint
from synth.decoder import DecoderConfig, Llama3Rope, Parameters, initialise

FILE = Path(__file__).parent / "transformers_logits.npz"

CONFIGS = {
    "qwen2": DecoderConfig(23, 16, 24, 2, 2, 2),
    "qwen2-tied": DecoderConfig(23, 16, 24, 2, 2, 2, tied_head=True, unroll=False),
    "qwen2-grouped": DecoderConfig(23, 16, 24, 3, 4, 2, head_dim=6, rope_theta=1e6),
    "qwen3": DecoderConfig(23, 16, 24, 2, 4, 1, head_dim=8, qkv_bias=False, qk_norm=True),
    "llama": DecoderConfig(23, 16, 24, 2, 4, 2, qkv_bias=False, rope_theta=5e5, rms_norm_eps=1e-5),
    # Pairs that turn every 6, 167, 4443 and 118 thousand tokens: fast, in between, and twice slow.
    "llama3-rope": DecoderConfig(
        23,
        16,
        24,
        2,
        2,
        1,
        qkv_bias=False,
        tied_head=True,
        rope_theta=5e5,
        max_positions=1024,
        rope_scaling=Llama3Rope(8.0, 1.0, 4.0, 256),
        unroll=False,
    ),
}

LENGTH = 12


def weights(config: DecoderConfig, seed: int = 0) -> Parameters:
    """Parameters whose every entry matters: gains away from 1, biases away from 0.

    NumPy promises that the stream of `RandomState` never changes.
    """
    random = np.random.RandomState(seed)

    def draw(keys, leaf):
        kind = keys[-1].key
        gaussian = random.standard_normal(leaf.shape)
        if kind == "gain":
            return (1 + 0.3 * gaussian).astype(np.float32)
        scale = {"kernel": leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 1.0, "bias": 0.3}
        return (scale.get(kind, 0.5) * gaussian).astype(np.float32)

    shapes = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def inputs(config: DecoderConfig, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and increasing positions with gaps, one sequence of `LENGTH`."""
    random = np.random.RandomState(seed + 1)
    tokens = random.randint(0, config.vocab_size, LENGTH)
    positions = 7 + np.cumsum(random.randint(1, 6, LENGTH))
    return tokens.astype(np.int32), positions.astype(np.int32)


def transformers_logits(folder: Path, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Logits [length, vocab] that `transformers` computes with a checkpoint folder, float32."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return (
            model(
                input_ids=torch.tensor(tokens[None].astype(np.int64)),
                position_ids=torch.tensor(positions[None].astype(np.int64)),
                # Without a mask, transformers takes a gap in the positions for the start of another
                # sequence packed into the same row.
                attention_mask=torch.ones(1, len(tokens), dtype=torch.int64),
                use_cache=False,
            )
            .logits[0]
            .numpy()
        )


def regenerate() -> None:
    """Write `FILE` anew."""
    golden = {}
    for name, config in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            checkpoint.save(path, config, weights(config))
            golden[name] = transformers_logits(path, *inputs(config))
    np.savez_compressed(FILE, **golden)


if __name__ == "__main__":
    regenerate()
