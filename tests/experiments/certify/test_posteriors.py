"""Draws of a posterior are fresh: no key serves twice."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.certify import posteriors
from experiments.certify.config import CheckpointConfig
from synth.config import DecoderConfig
from synth.decoder import initialise
from theory.posterior import Gaussian

DECODER = DecoderConfig(11, 8, 16, 1, 2, 1)


@pytest.fixture
def keys_as_results(monkeypatch) -> None:
    """Let training return its key as the posterior, and drawing return its key as the errors."""

    def fit(loss, block, examples, prior_scale, config, key, **_):
        data = jax.random.key_data(key)
        return Gaussian(data, data, jnp.float32(1.0)), jnp.zeros(1)

    def errors(loss, block, posterior, examples, key, **_):
        return jax.random.key_data(key)

    monkeypatch.setattr(posteriors, "fit_posterior", fit)
    monkeypatch.setattr(posteriors, "gibbs_errors", errors)
    # The path to a posterior: what its draws return, once.
    monkeypatch.setattr(posteriors, "path_to", lambda posterior, errors, steps: errors(posterior))


def are_distinct(keys: list[Any]) -> bool:
    data = {tuple(np.asarray(key).ravel().tolist()) for key in keys}
    return len(data) == len(keys)


def test_a_members_training_and_draws_have_keys_of_their_own(keys_as_results):
    tokens, mask = jnp.ones((4, 5), jnp.int32), jnp.ones((4, 5), bool)
    key = jax.random.key(3)
    measure = posteriors.member_posterior(DECODER, "gains", num_draws=8)
    found = measure(
        {
            "key": jax.random.key_data(key),
            "base": initialise(DECODER, key),
            "sample": (tokens, mask),
            "fresh": (tokens, mask),
            "buckets": [(tokens, mask)] * 3,
            "num_examples": jnp.int32(4),
            "penalty": jnp.float32(1.0),
        }
    )
    fitted = found["posterior"].shift
    keys = [fitted, found["path"], found["sample"], found["fresh"], *found["buckets"]]
    assert len(keys) == 7
    assert are_distinct([*keys, jax.random.key_data(key)])


def test_a_checkpoints_training_and_draws_have_keys_of_their_own(keys_as_results):
    fit, measure = posteriors.checkpoint_posterior(DECODER, "gains", CheckpointConfig())
    parameters = initialise(DECODER, jax.random.key(0))
    sample = (jnp.ones((4, 5), jnp.int32), jnp.ones((4, 5), bool))
    fresh = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), sample)
    key, other = jax.random.key(1), jax.random.key(2)
    posterior, errors = fit(
        parameters, sample, jnp.float32(0.1), jnp.int32(4), jnp.float32(1.0), key
    )
    path, wrong = measure(parameters, posterior, sample, fresh, jnp.int32(4), other)
    keys = [posterior.shift, errors, path, *wrong]
    assert len(keys) == 6
    assert are_distinct([*keys, jax.random.key_data(key), jax.random.key_data(other)])
