"""Golden numbers of `transformers`: small decoders whose weights follow from a seed.

Logits of one sequence, greedy continuations of 20 prompts, and the gradient of the SFT loss;
weights and inputs are not stored. To regenerate (needs the extras torch and transformers)::

    PYTHONPATH=. python -m tests.golden.regenerate
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.storage import checkpoint
from synth.config import DecoderConfig, Llama3Rope
from synth.decoder import Parameters, initialise

FILE = Path(__file__).parent / "transformers.npz"

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
GREEDY = ("qwen2-tied", "qwen3", "llama3-rope")
GRADIENT = "qwen2-grouped"
STOP, NEW_TOKENS = (2, 5), 16


def weights(decoder: DecoderConfig, seed: int = 0) -> Parameters:
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

    shapes = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def inputs(decoder: DecoderConfig, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and increasing positions with gaps, one sequence of `LENGTH`."""
    random = np.random.RandomState(seed + 1)
    tokens = random.randint(0, decoder.vocab_size, LENGTH)
    positions = 7 + np.cumsum(random.randint(1, 6, LENGTH))
    return tokens.astype(np.int32), positions.astype(np.int32)


def prompts(decoder: DecoderConfig) -> list[list[int]]:
    """Twenty of different lengths."""
    random = np.random.RandomState(3)
    lengths = [1 + (7 * row) % 41 for row in range(20)]
    return [random.randint(6, decoder.vocab_size, length).tolist() for length in lengths]


def examples(decoder: DecoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [3, length] and the mask of those that bear the loss."""
    random = np.random.RandomState(4)
    tokens = random.randint(0, decoder.vocab_size, (3, 3 * LENGTH)).astype(np.int32)
    return tokens, random.rand(*tokens.shape) < 0.3


def transformers_model(folder: Path) -> Any:
    """A checkpoint folder in `transformers`, float32."""
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def transformers_logits(folder: Path, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Logits [length, vocab] that `transformers` computes with a checkpoint folder, float32."""
    import torch

    model = transformers_model(folder)
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


def transformers_greedy(
    folder: Path,
    asked: list[list[int]],
    stop: tuple[int, ...] = STOP,
    new_tokens: int = NEW_TOKENS,
) -> np.ndarray:
    """Greedy continuations [prompts, new_tokens], each prompt alone; -1 after a stop token."""
    import torch

    model, found = transformers_model(folder), np.full((len(asked), new_tokens), -1, np.int32)
    for row, prompt in zip(found, asked, strict=True):
        tokens = torch.tensor([prompt])
        new = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=list(stop),
            pad_token_id=0,
        )[0, tokens.shape[1] :]
        row[: len(new)] = new.numpy()
    return found


def transformers_gradient(
    folder: Path, tokens: np.ndarray, loss_mask: np.ndarray
) -> dict[str, np.ndarray]:
    """Gradient of the mean loss of the tokens in the mask, by the names of the files."""
    import torch

    model = transformers_model(folder)
    labels = torch.tensor(np.where(loss_mask, tokens, -100).astype(np.int64))
    model(torch.tensor(tokens.astype(np.int64)), labels=labels).loss.backward()
    return {name: np.asarray(leaf.grad) for name, leaf in model.named_parameters()}


def regenerate() -> None:
    """Write `FILE` anew."""
    golden = {}
    for name, decoder in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            checkpoint.save(path, decoder, weights(decoder))
            golden[name] = transformers_logits(path, *inputs(decoder))
            if name in GREEDY:
                golden[f"greedy {name}"] = transformers_greedy(path, prompts(decoder))
            if name == GRADIENT:
                gradient = transformers_gradient(path, *examples(decoder))
                golden |= {f"gradient {part}": values for part, values in gradient.items()}
    np.savez_compressed(FILE, **golden)


if __name__ == "__main__":
    regenerate()
