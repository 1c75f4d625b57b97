"""Greedy and sampled decoding with a key-value cache.

`generate` is written for one sequence; `jax.vmap` makes a batch of it. Prompts are padded on the
left to one length, so that all sequences of a batch share one, unbatched, cache index. For real
checkpoints, whose responses differ much in length, see `synth.stream`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from synth.cached import read_prompt, read_token
from synth.config import DecoderConfig
from synth.decoder import Parameters
from synth.task import PADDING, Pool


def left_padded_prompts(
    pool: Pool,
) -> tuple[Int[Array, "examples prompt"], Int[Array, " examples"]]:
    """Take the problems of a pool without their solutions, padded on the left.

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
    """Continue one prompt, token by token.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      prompt: token ids, padded on the left.
      prompt_length: tokens of the prompt that are not padding.
      positions: positions of the sequence, those of the prompt first, none for padding; at least
        ``len(prompt) + max_new_tokens`` of them.
      max_new_tokens: tokens to produce (static).
      end: id of the end marker.
      temperature: 0 for greedy decoding (static).
      key: needed if `temperature` is positive.

    Returns:
      The new tokens, end marker included; `PADDING` after it.

    Raises:
      ValueError: if the temperature is negative or a key is missing.
    """
    _check_temperature(temperature, key)
    capacity = prompt.size + max_new_tokens
    first = prompt.size - prompt_length
    # Slot s of the cache belongs to token s - first of the sequence itself.
    slot_positions = positions[jnp.clip(jnp.arange(capacity) - first, 0)]
    keys = jax.random.split(jax.random.key(0) if key is None else key, max_new_tokens)

    # Read the prompt at once; then choose and read one token at a time. Once it has ended, a
    # sequence goes on with padding, since all sequences of a batch take the same steps.
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
    """Choose the best token at temperature 0, else draw one at that temperature."""
    if temperature == 0:
        # On CPUs the largest value and then its first place take a tenth of the time of `argmax`.
        places = jnp.arange(scores.size)
        return jnp.where(scores == scores.max(), places, scores.size - 1).min()
    return jax.random.categorical(key, scores / temperature)


def pad_left(sequences: Sequence[Sequence[int]], width: int) -> Int[np.ndarray, "sequences width"]:
    """Put zeros before token ids, up to one width."""
    padded = np.zeros((len(sequences), width), np.int32)
    for target, tokens in zip(padded, sequences, strict=True):
        target[width - len(tokens) :] = tokens
    return padded
