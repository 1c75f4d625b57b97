"""Continuous batching: rows that begin at different times, and lie anywhere in the ring."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synth.cached import ready_to_decode
from synth.decoder import logits
from synth.stream import Continuing, advance, enter, start_stream
from tests.golden import regenerate as golden

DECODER = golden.CONFIGS["llama"]
PROMPTS = [list(range(1, 1 + length)) for length in (3, 7, 2, 9, 5, 4, 8)]
WIDTH, NEW = 9, 10

compiled_enter = jax.jit(enter, static_argnums=(0, 7))
compiled_advance = jax.jit(advance, static_argnums=(0, 4))


@pytest.fixture(scope="module")
def parameters():
    return jax.tree.map(jnp.asarray, golden.weights(DECODER))


def one_by_one(parameters, prompt, how):
    """Greedy continuation up to its stop, the whole sequence read again for each token."""
    read = jax.jit(logits, static_argnums=0)
    sequence = np.zeros(32, np.int32)
    sequence[: len(prompt)] = prompt
    for end in range(len(prompt), len(prompt) + how.max_new_tokens):
        sequence[end] = np.argmax(read(DECODER, parameters, sequence, np.arange(32))[end - 1])
        if sequence[end] in how.stop:
            break
    return sequence[len(prompt) : end + 1].tolist()


def padded(prompts):
    tokens = np.full((len(prompts), WIDTH), 5, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[WIDTH - len(prompt) :] = prompt
    return tokens, np.array([len(prompt) for prompt in prompts], np.int32)


def start(rows):
    return start_stream(DECODER, jnp.float32, num_rows=rows, capacity=WIDTH + NEW)


def put(parameters, stream, rows, prompts, how, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(prompts))
    return compiled_enter(
        DECODER, parameters, stream, np.array(rows, np.int32), *padded(prompts), keys, how
    )


def test_rows_that_take_turns_get_what_each_gets_alone(parameters):
    """Two rows for seven prompts: the ring goes around more than once."""
    how = Continuing(NEW, stop=(5, 8))
    stream, ready = start(2), ready_to_decode(DECODER, parameters)
    waiting, busy, continuations, steps = list(range(len(PROMPTS))), {}, {}, 0
    while waiting or busy:
        for row in {0, 1} - set(busy):
            if waiting:
                busy[row] = waiting.pop(0), int(stream.slot)
                stream = put(parameters, stream, [row], [PROMPTS[busy[row][0]]], how)
        before = int(stream.slot)
        patience = 1 if len(busy) == 2 else 2
        stream = compiled_advance(DECODER, ready, stream, jnp.int32(patience), how)
        steps += (int(stream.slot) - before) % (WIDTH + NEW)
        assert np.asarray(stream.ended).sum() >= patience
        for row in [row for row in busy if stream.ended[row]]:
            prompt, slot = busy.pop(row)
            places = (slot + np.arange(int(stream.num_new[row]))) % (WIDTH + NEW)
            new = continuations[prompt] = np.asarray(stream.tokens)[row, places].tolist()
            assert stream.num_read[row] == len(PROMPTS[prompt]) + len(new) - 1
    expected = [one_by_one(parameters, prompt, how) for prompt in PROMPTS]
    assert [continuations[prompt] for prompt in range(len(PROMPTS))] == expected
    lengths = [len(tokens) for tokens in expected]
    assert min(lengths) < NEW == max(lengths)
    assert steps > WIDTH + NEW
    # Batches of two that run until the longer one has ended would have taken more.
    assert steps < sum(max(lengths[i : i + 2]) - 1 for i in range(0, len(lengths), 2))


def test_a_row_beyond_the_stream_goes_nowhere(parameters):
    how = Continuing(NEW)
    one = put(parameters, start(2), [1], PROMPTS[:1], how)
    two = put(parameters, start(2), [1, 2], [PROMPTS[0], PROMPTS[1]], how)
    assert two.ended.tolist() == [True, False]
    np.testing.assert_array_equal(one.tokens, two.tokens)
    for ours, theirs in zip(jax.tree.leaves(one.cache), jax.tree.leaves(two.cache), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
        assert np.asarray(ours)[1].any()
        assert not np.asarray(ours)[0].any()


def test_a_sequence_may_end_with_its_first_token(parameters):
    (first, *_) = one_by_one(parameters, PROMPTS[0], Continuing(1))
    for how in (Continuing(1), Continuing(5, stop=(first,))):
        stream = put(parameters, start(1), [0], PROMPTS[:1], how)
        assert stream.ended.all()
        after = compiled_advance(
            DECODER, ready_to_decode(DECODER, parameters), stream, jnp.int32(1), how
        )
        assert (int(after.slot), int(after.num_new[0])) == (0, 1)
        assert int(after.tokens[0, 0]) == first


def test_low_temperature_is_greedy_and_keys_matter_at_a_high_one(parameters):
    def decode(temperature, seed):
        how = Continuing(6, temperature=temperature)
        stream = put(parameters, start(3), [0, 1, 2], PROMPTS[:3], how, seed)
        ready = ready_to_decode(DECODER, parameters)
        return compiled_advance(DECODER, ready, stream, jnp.int32(3), how).tokens[:, :6].tolist()

    assert decode(1e-6, 0) == [one_by_one(parameters, row, Continuing(6)) for row in PROMPTS[:3]]
    assert decode(3.0, 0) == decode(3.0, 0) != decode(3.0, 1)


def test_refusals(parameters):
    message = "must fit into max_positions = 256, got a capacity of 257"
    with pytest.raises(ValueError, match=re.escape(message)):
        start_stream(DECODER, jnp.float32, num_rows=1, capacity=257)
    message = f"must fit into the stream's capacity of {WIDTH + NEW}, got {WIDTH} + {NEW + 1}"
    with pytest.raises(ValueError, match=re.escape(message)):
        put(parameters, start(1), [0], PROMPTS[:1], Continuing(NEW + 1))
    for new, temperature in ((0, 0.0), (1, -1.0)):
        with pytest.raises(ValueError, match=f"at least 0, got {new} and {temperature}"):
            Continuing(new, temperature=temperature)
