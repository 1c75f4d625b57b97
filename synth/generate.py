"""Greedy and sampled decoding with a key-value cache.

`generate` is written for one sequence, and a batch of toys is `jax.vmap` around it: prompts are
padded on the left to one length, so that all sequences share one, unbatched, cache index.

For real checkpoints see `synth.stream`. `prompt_batches` sorts sequences of all lengths into
batches of few shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from synth.config import DecoderConfig
from synth.decoder import Parameters, read_prompt, read_token
from synth.task import PADDING, Pool


def left_padded_prompts(
    pool: Pool,
) -> tuple[Int[Array, "examples prompt"], Int[Array, " examples"]]:
    """Problems of a pool without their solutions, padded on the left.

    Returns:
      Token ids and the length of each prompt in tokens.
    """
    is_prompt = np.asarray((pool.tokens != PADDING) & ~pool.loss_mask)
    lengths = is_prompt.sum(axis=1)
    prompts = np.full((len(lengths), lengths.max()), PADDING, np.int32)
    for row, tokens, keep, length in zip(
        prompts, np.asarray(pool.tokens), is_prompt, lengths, strict=True
    ):
        row[-length:] = tokens[keep]
    return jnp.asarray(prompts), jnp.asarray(lengths)


def generate(
    decoder: DecoderConfig,
    parameters: Parameters,
    prompt: Int[Array, " prompt"],
    prompt_length: Int[Array, ""],
    positions: Int[Array, " capacity"],
    *,
    max_new_tokens: int,
    end: int,
    temperature: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> Int[Array, " new"]:
    """Continue one prompt.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      prompt: token ids, padded on the left.
      prompt_length: tokens of the prompt that are not padding.
      positions: positions of the sequence, prompt first, without padding; at least
        ``len(prompt) + max_new_tokens`` of them.
      max_new_tokens: tokens to produce.
      end: id of the end marker; `PADDING` follows it.
      temperature: 0 for greedy decoding.
      key: needed where `temperature` is positive.

    Raises:
      ValueError: if the temperature is negative or a key is missing.
    """
    _check_temperature(temperature, key)
    capacity = prompt.size + max_new_tokens
    first = prompt.size - prompt_length
    # Slot s of the padded sequence holds token s - first of the sequence itself.
    slot_positions = positions[jnp.clip(jnp.arange(capacity) - first, 0)]
    keys = jax.random.split(jax.random.key(0) if key is None else key, max_new_tokens)

    scores, cache = read_prompt(
        decoder,
        parameters,
        prompt,
        slot_positions[: prompt.size],
        first=first,
        capacity=capacity,
    )

    def step(carry, inputs):
        scores, cache, ended = carry
        index, position, key = inputs
        token = jnp.where(ended, PADDING, choose(scores, temperature, key))
        scores, cache = read_token(
            decoder, parameters, token, position, cache=cache, index=index, length=index - first + 1
        )
        return (scores, cache, ended | (token == end)), token

    slots = prompt.size + jnp.arange(max_new_tokens)
    inputs = (slots, slot_positions[prompt.size :], keys)
    _, tokens = jax.lax.scan(step, (scores, cache, jnp.bool_(False)), inputs)
    return tokens


def _check_temperature(temperature: float, key: PRNGKeyArray | None) -> None:
    if temperature < 0 or (temperature > 0 and key is None):
        raise ValueError(
            f"temperature must be 0, or positive with a key; got {temperature} and key {key}"
        )


def choose(scores: Float[Array, " vocab"], temperature: float, key: PRNGKeyArray) -> Int[Array, ""]:
    """The best token, or a draw at a temperature."""
    if temperature == 0:
        return scores.argmax()
    return jax.random.categorical(key, scores / temperature)


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of similar length, padded on the left to one.

    Attributes:
      rows: index of each prompt in the sequence that `prompt_batches` was given.
      prompts: their tokens; rows beyond ``len(rows)`` repeat the last and are to be dropped.
      lengths: tokens of each row that are not padding.
    """

    rows: Int[np.ndarray, " rows"]
    prompts: Int[np.ndarray, "batch prompt"]
    lengths: Int[np.ndarray, " batch"]


def pad_left(sequences: Sequence[Sequence[int]], width: int) -> Int[np.ndarray, "sequences width"]:
    """Token ids with zeros before them, up to one width."""
    padded = np.zeros((len(sequences), width), np.int32)
    for target, tokens in zip(padded, sequences, strict=True):
        target[width - len(tokens) :] = tokens
    return padded


def prompt_batches(
    prompts: Sequence[Sequence[int]], *, batch_size: int, multiple: int = 64
) -> Iterator[PromptBatch]:
    """Batches of prompts, shortest first, whose padded lengths are multiples of `multiple`.

    So a program is compiled for each such length that occurs, and no more.

    Args:
      prompts: token ids of each prompt.
      batch_size: rows of every batch.
      multiple: what padded lengths are multiples of, in tokens.

    Raises:
      ValueError: if a prompt is empty, or `batch_size` or `multiple` is below 1.
    """
    if batch_size < 1 or multiple < 1:
        raise ValueError(
            f"batch_size and multiple must be at least 1, got {batch_size} and {multiple}"
        )
    lengths = np.array([len(prompt) for prompt in prompts], int)
    if empty := np.flatnonzero(lengths == 0).tolist():
        raise ValueError(f"prompts must have at least one token, but these are empty: {empty}")
    widths = -(-lengths // multiple) * multiple
    for width in np.unique(widths):
        members = np.flatnonzero(widths == width)
        for start in range(0, len(members), batch_size):
            rows = members[start : start + batch_size]
            filled = np.pad(rows, (0, batch_size - len(rows)), mode="edge")
            padded = pad_left([prompts[row] for row in filled], width)
            yield PromptBatch(rows, padded, lengths[filled].astype(np.int32))
