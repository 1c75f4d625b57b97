"""Checks of decoding and gradients against those of `transformers`, stored or live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations
from experiments.llm.answering.model import Model
from experiments.llm.training.loss import loss_sums
from experiments.storage import checkpoint
from synth.config import DecoderConfig
from synth.decoder import Parameters


def check_greedy(
    decoder: DecoderConfig,
    parameters: Parameters,
    prompts: Sequence[Sequence[int]],
    expected: np.ndarray,
    stop: tuple[int, ...],
) -> None:
    """Decode all prompts in one batch, and in groups; some end with a stop token, some do not.

    Args:
      decoder, parameters: the model.
      prompts: token ids of each, at most 48.
      expected: [prompts, new tokens]; -1 after a stop token.
      stop: token ids.
    """
    most = expected.shape[1]
    for rows in (len(prompts), 6):
        decoding = DecodingConfig(max_new_tokens=most, batch_size=rows, prompt_multiple=48)
        continued = continuations(Model(decoder, parameters, None, stop), prompts, decoding)
        for (one,), row in zip(continued, expected, strict=True):
            new = row[row >= 0].tolist()
            assert one.truncated == (new[-1] not in stop)
            assert one.tokens.tolist() == (new if one.truncated else new[:-1])
        assert {one.truncated for (one,) in continued} == {True, False}


def check_gradient(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: np.ndarray,
    loss_mask: np.ndarray,
    expected: Mapping[str, np.ndarray],
    folder: Path,
    *,
    chunk_tokens: int,
    tolerance: float = 1e-4,
) -> None:
    """Compare the gradient of the SFT loss with respect to every parameter, by names in files.

    Args:
      decoder, parameters: the model.
      tokens, loss_mask: [rows, length].
      expected: gradients by name of the tensor.
      folder: folder to write our gradients into.
      chunk_tokens: see `loss_sums`.
      tolerance: norm of a parameter's difference, relative to that of its gradient.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)

    @jax.jit
    @jax.grad
    def gradient(parameters):
        arrays = (jnp.asarray(tokens), positions, jnp.asarray(loss_mask))
        total, weight = loss_sums(decoder, parameters, *arrays, "sft", chunk_tokens=chunk_tokens)
        return total.sum() / weight.sum()

    checkpoint.save(folder, decoder, gradient(parameters))
    ours = load_file(folder / "model.safetensors")
    assert ours.keys() == expected.keys()
    for name, theirs in expected.items():
        scale = np.linalg.norm(theirs)
        assert scale > 0
        assert np.linalg.norm(ours[name] - theirs) < tolerance * scale, name
