"""Greedy and sampled decoding with a key-value cache, written for one sequence.

A batch is `jax.vmap` around it: prompts are padded on the left to one length, so that all
sequences share one, unbatched, cache index.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from synth.decoder import Cache, DecoderConfig, Parameters, logits_with_cache
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
    if temperature < 0 or (temperature > 0 and key is None):
        raise ValueError(
            f"temperature must be 0, or positive with a key; got {temperature} and key {key}"
        )
    capacity = prompt.size + max_new_tokens
    first = prompt.size - prompt_length
    # Slot s of the padded sequence holds token s - first of the sequence itself.
    slot_positions = positions[jnp.clip(jnp.arange(capacity) - first, 0)]
    keys = jax.random.split(jax.random.key(0) if key is None else key, max_new_tokens)

    def choose(scores: Float[Array, " vocab"], key: PRNGKeyArray) -> Int[Array, ""]:
        if temperature == 0:
            return scores.argmax()
        return jax.random.categorical(key, scores / temperature)

    scores, cache = logits_with_cache(
        decoder,
        parameters,
        prompt,
        slot_positions[: prompt.size],
        cache=Cache.empty(decoder, capacity),
        index=jnp.int32(0),
        first=first,
    )

    def step(carry, inputs):
        scores, cache, ended = carry
        index, key = inputs
        token = jnp.where(ended, PADDING, choose(scores, key))
        position = jax.lax.dynamic_slice_in_dim(slot_positions, index, 1)
        next_scores, cache = logits_with_cache(
            decoder, parameters, token[None], position, cache=cache, index=index, first=first
        )
        return (next_scores[0], cache, ended | (token == end)), token

    slots = prompt.size + jnp.arange(max_new_tokens)
    _, tokens = jax.lax.scan(step, (scores[-1], cache, jnp.bool_(False)), (slots, keys))
    return tokens
