"""Greedy and sampled decoding with a key-value cache.

`generate` is written for one sequence, and a batch of toys is `jax.vmap` around it: prompts are
padded on the left to one length, so that all sequences share one, unbatched, cache index.

`generate_batch` is for real checkpoints: its loop ends when every sequence has, several tokens may
end one, and the logits of a prompt are those of its last token alone. `prompt_batches` sorts
prompts of all lengths into batches of few shapes for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from synth.decoder import DecoderConfig, Parameters, read_prompt, read_token, ready_to_decode
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
        token = jnp.where(ended, PADDING, _choose(scores, temperature, key))
        scores, cache = read_token(
            decoder, parameters, token, position, cache=cache, index=index, first=first
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


def _choose(
    scores: Float[Array, " vocab"], temperature: float, key: PRNGKeyArray
) -> Int[Array, ""]:
    """The best token, or a draw at a temperature."""
    if temperature == 0:
        return scores.argmax()
    return jax.random.categorical(key, scores / temperature)


def generate_batch(
    decoder: DecoderConfig,
    parameters: Parameters,
    prompts: Int[Array, "batch prompt"],
    prompt_lengths: Int[Array, " batch"],
    *,
    max_new_tokens: int,
    stop: tuple[int, ...],
    temperature: float = 0.0,
    keys: PRNGKeyArray | None = None,
) -> tuple[Int[Array, "batch new"], Int[Array, " batch"]]:
    """Continue prompts of different lengths, at sequential positions, until all have ended.

    What a sequence gets does not depend on the others, but by rounding.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      prompts: token ids, padded on the left with any token.
      prompt_lengths: tokens of each prompt that are not padding, at least 1.
      max_new_tokens: the most tokens to produce.
      stop: ids that end a sequence, each as good as another; may be empty.
      temperature: 0 for greedy decoding.
      keys: one for each row; needed where `temperature` is positive.

    Returns:
      New tokens, and how many of each row count (a stop token is the last of them); what follows
      is zeros.

    Raises:
      ValueError: if the temperature is negative or keys are missing, or if prompt and new tokens
        together exceed `max_positions` of the decoder.
    """
    _check_temperature(temperature, keys)
    batch, width = prompts.shape
    capacity = width + max_new_tokens
    if capacity > decoder.max_positions:
        raise ValueError(
            f"prompt and new tokens must fit into max_positions = {decoder.max_positions}, "
            f"got {width} + {max_new_tokens}"
        )
    first = width - prompt_lengths
    if keys is None:
        keys = jax.random.split(jax.random.key(0), batch)
    stops = jnp.asarray(stop, prompts.dtype)
    # Where padding stands does not matter: nothing sees it.
    positions = jnp.clip(jnp.arange(capacity)[None] - first[:, None], 0)

    def write(count, scores, new, lengths, ended):
        """Token number `count` of every row that goes on."""
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, count)
        token = jax.vmap(_choose, (0, None, 0))(scores, temperature, now).astype(new.dtype)
        token = jnp.where(ended, 0, token)
        new = jax.lax.dynamic_update_slice_in_dim(new, token[:, None], count, axis=1)
        lengths = lengths + (~ended).astype(lengths.dtype)
        return new, lengths, ended | (token[:, None] == stops[None]).any(axis=1)

    def step(state):
        count, cache, new, lengths, ended = state
        index = width + count - 1
        token = jax.lax.dynamic_index_in_dim(new, count - 1, axis=1, keepdims=False)
        position = jax.lax.dynamic_index_in_dim(positions, index, axis=1, keepdims=False)
        scores, cache = read_token(
            decoder, weights, token, position, cache=cache, index=index, first=first
        )
        return count + 1, cache, *write(count, scores, new, lengths, ended)

    def goes_on(state):
        count, *_, ended = state
        return (count < max_new_tokens) & ~ended.all()

    weights = ready_to_decode(decoder, parameters)
    scores, cache = read_prompt(
        decoder, parameters, prompts, positions[:, :width], first=first, capacity=capacity
    )
    new = jnp.zeros((batch, max_new_tokens), prompts.dtype)
    nothing = jnp.zeros_like(prompt_lengths)
    begun = write(jnp.int32(0), scores, new, nothing, jnp.zeros(batch, bool))
    _, _, new, lengths, _ = jax.lax.while_loop(goes_on, step, (jnp.int32(1), cache, *begun))
    return new, lengths


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
            padded = np.zeros((batch_size, width), np.int32)
            for target, row in zip(padded, filled, strict=True):
                target[width - lengths[row] :] = prompts[row]
            yield PromptBatch(rows, padded, lengths[filled].astype(np.int32))
