"""Perplexities in batches, against one sequence at a time in NumPy."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.llm.answering.perplexity import padded_length, perplexities
from experiments.llm.text.encoding import Encoded, Report
from experiments.storage.sharding import make_mesh, parameter_shardings
from synth.decoder import logits
from tests.golden import regenerate as golden

DECODER = golden.CONFIGS["llama3-rope"]
LENGTHS = [(3, 9), (40, 30), (5, 60), (1, 1), (20, 70), (2, 61), (7, 7)]
"""Tokens of each problem and of its solution without end marker; they have two padded lengths."""


def examples(lengths=LENGTHS) -> Encoded:
    random = np.random.default_rng(0)
    tokens = [
        random.integers(0, DECODER.vocab_size, prompt + solution + 1).astype(np.int32)
        for prompt, solution in lengths
    ]
    prompts = np.array([prompt for prompt, _ in lengths])
    report = Report(len(lengths), {}, 0, 200, 200)
    return Encoded(tokens, prompts, np.arange(len(lengths)), report)


@pytest.fixture(scope="module")
def parameters():
    return jax.tree.map(jnp.asarray, golden.weights(DECODER))


@pytest.fixture(scope="module")
def expected(parameters) -> np.ndarray:
    """Perplexities from the logits of each sequence, by their definition."""
    values = []
    read = jax.jit(logits, static_argnums=0)
    for tokens, (prompt, solution) in zip(examples().tokens, LENGTHS, strict=True):
        # Pad to one length, so that the reference is compiled once; no token attends to later ones.
        padded = np.pad(tokens, (0, 128 - len(tokens)))
        scores = np.asarray(read(DECODER, parameters, padded, np.arange(128, dtype=np.int32)))
        scores = scores.astype(np.float64)
        log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        nats = [-log_probabilities[t - 1, tokens[t]] for t in range(prompt, prompt + solution)]
        values.append(np.exp(np.mean(nats)))
    return np.array(values)


@pytest.mark.parametrize("batch_tokens", [1, 300])
def test_batches_give_the_perplexity_of_each_solution(batch_tokens, parameters, expected):
    done = []
    ours = perplexities(
        DECODER, parameters, examples(), batch_tokens=batch_tokens, advance=done.append
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert sum(done) == len(LENGTHS)
    assert len(done) == (len(LENGTHS) if batch_tokens == 1 else 2)


def test_devices_share_the_rows(parameters, expected):
    mesh = make_mesh(fsdp=2)
    spread = jax.device_put(parameters, parameter_shardings(parameters, mesh))
    ours = perplexities(DECODER, spread, examples(), mesh=mesh)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_truncated_solution_counts_as_far_as_it_goes(parameters):
    (whole,) = examples([(5, 40)]).tokens
    report = Report(1, {}, 1, 30, 46)
    rows = np.array([0])
    cut = Encoded([whole[:30]], np.array([5]), rows, report, np.array([16]))
    # The last token of this one is its end marker, which does not count.
    short = Encoded([whole[:31]], np.array([5]), rows, report)
    values = [perplexities(DECODER, parameters, each) for each in (cut, short)]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_few_padded_lengths_of_little_waste():
    padded = np.array([padded_length(length, 4000) for length in range(1, 4001)])
    lengths = np.arange(1, 4001)
    assert (padded >= lengths).all()
    assert (padded[64:] < 1.5 * lengths[64:]).all()
    assert sorted(set(padded)) == [
        64,
        96,
        128,
        192,
        256,
        384,
        512,
        768,
        1024,
        1536,
        2048,
        3072,
        4000,
    ]


def test_what_is_refused(parameters):
    with pytest.raises(ValueError, match="batch_tokens must be at least 1, got 0"):
        perplexities(DECODER, parameters, examples(), batch_tokens=0)
    message = "context of the checkpoint, 1024 tokens, but 1 of 2 are longer, the longest 1031"
    with pytest.raises(ValueError, match=re.escape(message)):
        perplexities(DECODER, parameters, examples([(3, 4), (1000, 30)]))
    small = dataclasses.replace(DECODER, vocab_size=20)
    with pytest.raises(ValueError, match="tokens beyond the 20 of the checkpoint"):
        perplexities(small, parameters, examples())
