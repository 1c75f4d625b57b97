"""Batches of bases, cut into strata of nearly equal length."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from experiments.sweep.pretraining import MOST_STRATA, base_program, base_strata, strata
from experiments.sweep.programs import Sweep
from synth.finetune import Stratum, pretrain
from synth.task import Mixture
from tests.experiments.tiny import TINY, tiny
from tests.synth.test_finetune import DECODER


def length(level: int) -> int:
    return 5 * level + 4


MIXTURES = [
    Mixture.geometric(16, ratio=0.65),
    Mixture.geometric(3, ratio=0.1),
    Mixture.up_to(20),
    Mixture.exact(7),
    Mixture((2, 30), (0.99, 0.01)),
]


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("size", [1, 2, 64])
def test_strata_have_the_levels_of_the_mixture(mixture, size):
    parts = strata(mixture, length, size)
    assert sum(count for count, _ in parts) == size
    assert len(parts) <= min(MOST_STRATA, size)
    share = dict.fromkeys(mixture.levels, 0.0)
    for count, part in parts:
        for level, probability in zip(part.levels, part.probabilities, strict=True):
            share[level] += probability * count / size
    np.testing.assert_allclose(list(share.values()), mixture.probabilities, atol=1e-6)
    for (_, easier), (_, harder) in itertools.pairwise(parts):
        assert easier.hardest <= harder.levels[0]


def test_strata_save_most_of_the_padding_of_a_mixture_that_falls_off():
    mixture, size = MIXTURES[0], 64
    padded = sum(count * length(part.hardest) for count, part in strata(mixture, length, size))
    tokens = size * np.dot(mixture.probabilities, [length(level) for level in mixture.levels])
    assert padded < 0.4 * size * length(16)
    assert padded < 1.75 * tokens


def test_a_batch_of_one_length_is_not_cut():
    assert strata(Mixture.up_to(4), lambda _: 9, 64) == [(64, Mixture.up_to(4))]


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (-0.1, 1.0), (0.2, 1.1)])
def test_an_interval_of_quantiles_is_checked(low, high):
    with pytest.raises(ValueError, match="low and high must be 0 <= low < high <= 1"):
        Mixture.up_to(3).between(low, high)


def test_strata_must_make_a_batch():
    stratum = Stratum(3, lambda key: (None, None))  # type: ignore[arg-type]
    settings = Sweep(TINY).finetuning("sft", 2, jax.numpy.float32(1e-3))
    with pytest.raises(ValueError, match=r"strata must make a batch of 8 examples, got \[3\]"):
        pretrain(DECODER, [stratum], settings, jax.random.key(0))


@pytest.mark.parametrize("task", ["chain-running", "igsm"])
def test_every_stratum_holds_its_own_levels(task):
    """Of an array task, and of a text task, whose pool is drawn on the host."""
    mixture = {"hardest": 4, "level_ratio": 0.5, "text_examples": 80}
    sweep = Sweep(
        tiny(
            task=task,
            task_options={},
            pretrain=type(TINY.pretrain)(**mixture, optimiser=TINY.pretrain.optimiser),
        )
    )
    parts = base_strata(sweep)
    assert len(parts) > 1
    seen = []

    def record(decoder, samples, config, key):
        for stratum in samples:
            tokens, _ = stratum.sample(key)
            seen.append((stratum.num_examples, len(tokens)))
        return ({},)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.sweep.pretraining.pretrain", record)
        base, shared = base_program(sweep, 3)
        base(jax.random.key_data(jax.random.key(1)), *shared)
    assert seen == [(count, sweep.task.max_length(part.hardest)) for count, part in parts]
