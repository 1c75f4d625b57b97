"""Greedy and sampled decoding with the cache, against the decoder without one."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from synth.decoder import logits
from synth.generate import choose, generate, left_padded_prompts
from synth.task import PADDING, Pool


@functools.partial(jax.jit, static_argnames=("decoder", "max_new_tokens", "end", "temperature"))
def decode(decoder, parameters, prompts, lengths, positions, keys=None, **settings):
    """`generate` over a batch."""

    def one(prompt, length, positions, key):
        return generate(decoder, parameters, prompt, length, positions, key=key, **settings)

    return jax.vmap(one, (0, 0, 0, None if keys is None else 0))(prompts, lengths, positions, keys)


@pytest.fixture(scope="module")
def greedy(trained):
    return np.asarray(
        decode(
            trained.decoder,
            trained.parameters,
            trained.prompts,
            trained.prompt_lengths,
            trained.positions,
            max_new_tokens=trained.max_new_tokens,
            end=trained.end,
        )
    )


def prompt_of(trained, row):
    return np.asarray(trained.prompts[row])[-int(trained.prompt_lengths[row]) :]


def test_left_padded_prompts():
    drawn = Pool(
        jnp.array([[1, 2, 3, 4, 0], [5, 6, 0, 0, 0]]),
        jnp.array([[False, False, False, True, False], [False, True, False, False, False]]),
        jnp.array([1, 1]),
    )
    prompts, lengths = left_padded_prompts(drawn)
    np.testing.assert_array_equal(prompts, [[1, 2, 3], [PADDING, PADDING, 5]])
    np.testing.assert_array_equal(lengths, [3, 1])


def test_greedy_takes_the_best_token_of_the_decoder_without_a_cache(trained, greedy):
    """The slow way for a few rows: read the whole sequence again for each token."""
    read = jax.jit(logits, static_argnums=0)
    for row in range(4):
        prompt = prompt_of(trained, row)
        # One length for all, padded on the right, where a causal decoder does not look.
        sequence = np.full(trained.positions.shape[1], PADDING, np.int32)
        sequence[: prompt.size] = prompt
        for step, token in enumerate(greedy[row]):
            scores = read(trained.decoder, trained.parameters, sequence, trained.positions[row])
            assert token == np.argmax(scores[prompt.size + step - 1])
            sequence[prompt.size + step] = token
            if token == trained.end:
                break


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.5, 2.0, 2.0, -1.0], 1),
        ([-np.inf, -np.inf, -3.0], 2),
        ([np.inf, 1.0, np.inf], 0),
        ([-np.inf] * 3, 0),
        ([np.nan, 1.0, np.nan], 2),
    ],
)
def test_the_first_of_the_best_tokens_is_chosen(scores, best):
    """Where a score is no number, it is still a token."""
    assert choose(jnp.array(scores), 0.0, jax.random.key(0)) == best


def test_padding_follows_the_end_marker(trained, greedy):
    ended = 0
    for row in greedy:
        places = np.flatnonzero(row == trained.end)
        if places.size:
            ended += 1
            assert places.size == 1
            assert (row[places[0] + 1 :] == PADDING).all()
            assert (row[: places[0]] != PADDING).all()
    assert ended > len(greedy) / 2


def test_nothing_is_produced_after_an_end_marker_that_comes_at_once(trained, greedy):
    first = int(greedy[0, 0])
    produced = decode(
        trained.decoder,
        trained.parameters,
        trained.prompts[:1],
        trained.prompt_lengths[:1],
        trained.positions[:1],
        max_new_tokens=4,
        end=first,
    )
    np.testing.assert_array_equal(produced[0], [first, PADDING, PADDING, PADDING])


@pytest.mark.parametrize("extra", [1, 5])
def test_the_amount_of_left_padding_does_not_matter(trained, greedy, extra):
    produced = decode(
        trained.decoder,
        trained.parameters,
        jnp.pad(trained.prompts, ((0, 0), (extra, 0)), constant_values=PADDING),
        trained.prompt_lengths,
        # More slots need more positions; those that count are the same.
        jnp.pad(trained.positions, ((0, 0), (0, extra)), mode="edge"),
        max_new_tokens=trained.max_new_tokens,
        end=trained.end,
    )
    np.testing.assert_array_equal(produced, greedy)


@pytest.mark.parametrize(("temperature", "key"), [(-0.5, jax.random.key), (0.7, None)])
def test_temperature_is_refused(trained, temperature, key):
    with pytest.raises(
        ValueError,
        match=re.escape(f"temperature must be 0, or positive with a key; got {temperature}"),
    ):
        generate(
            trained.decoder,
            trained.parameters,
            trained.prompts[0],
            trained.prompt_lengths[0],
            trained.positions[0],
            max_new_tokens=2,
            end=trained.end,
            temperature=temperature,
            key=key and key(0),
        )


def test_sampling_at_a_low_temperature_is_greedy(trained, greedy):
    keys = jax.random.split(jax.random.key(0), len(greedy))
    produced = decode(
        trained.decoder,
        trained.parameters,
        trained.prompts,
        trained.prompt_lengths,
        trained.positions,
        keys,
        max_new_tokens=trained.max_new_tokens,
        end=trained.end,
        temperature=1e-6,
    )
    np.testing.assert_array_equal(produced, greedy)


@pytest.fixture(scope="module")
def samples(trained):
    """One new token for each of 6000 keys, twice from the same keys, at temperature 3."""
    num_keys = 6000

    def sample(keys):
        return np.asarray(
            decode(
                trained.decoder,
                trained.parameters,
                *(
                    jnp.repeat(part[:1], num_keys, axis=0)
                    for part in (trained.prompts, trained.prompt_lengths, trained.positions)
                ),
                keys,
                max_new_tokens=1,
                end=trained.end,
                temperature=3.0,
            )
        )[:, 0]

    keys = jax.random.split(jax.random.key(1), num_keys)
    return sample(keys), sample(keys)


def test_samples_depend_on_the_key_alone(samples):
    np.testing.assert_array_equal(*samples)
    assert len(set(samples[0].tolist())) > 1


def test_sampled_frequencies_equal_the_softmax(trained, samples):
    prompt = prompt_of(trained, 0)
    scores = logits(
        trained.decoder,
        trained.parameters,
        jnp.asarray(prompt),
        trained.positions[0, : prompt.size],
    )
    expected = np.exp(np.asarray(scores[-1], np.float64) / 3.0)
    expected *= samples[0].size / expected.sum()
    counts = np.bincount(samples[0], minlength=trained.decoder.vocab_size)
    assert expected.min() > 5
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-4
