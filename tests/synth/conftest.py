"""A briefly trained decoder, for tests that need both right and wrong answers."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synth.config import DecoderConfig, FinetuneConfig, Optimiser
from synth.decoder import Parameters
from synth.finetune import Stratum, pretrain
from synth.gaps import evaluation_positions
from synth.generate import left_padded_prompts
from synth.task import Mixture, Pool, pool
from synth.tasks.chain import Chain


@dataclass(frozen=True)
class Trained:
    """A decoder that solves some problems of a pool, and the pool as decoding needs it.

    Attributes:
      drawn: problems of levels 1 to 3, so of three lengths.
      prompts, prompt_lengths: padded on the left.
      positions: those of evaluation, one row for each problem.
      losses: loss before each training step, in nats.
    """

    task: Chain
    decoder: DecoderConfig
    parameters: Parameters
    drawn: Pool
    prompts: jax.Array
    prompt_lengths: jax.Array
    positions: jax.Array
    max_new_tokens: int
    losses: np.ndarray

    @property
    def end(self) -> int:
        """Id of the end marker."""
        return self.task.vocabulary.index(".")


@pytest.fixture(scope="session")
def trained() -> Trained:
    task = Chain(hardest=3, modulus=2, operators=("+",), layout="running")
    decoder = DecoderConfig(
        vocab_size=len(task.vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        max_positions=32,
        position_start=8,
        position_gap=3,
    )

    def sample(key):
        key_difficulty, key_example = jax.random.split(key)
        difficulty = jax.random.randint(key_difficulty, (), 1, 3)
        example = task.sample(key_example, difficulty)
        return example.tokens, example.loss_mask

    config = FinetuneConfig(150, 1e-2, optimiser=Optimiser(batch_size=16))
    compiled = jax.jit(pretrain, static_argnums=(0, 1, 2))
    strata = (Stratum(16, sample),)
    parameters, losses = compiled(decoder, strata, config, jax.random.key(0))
    drawn = pool(task, jax.random.key(1), Mixture.up_to(3), 64)
    prompts, lengths = left_padded_prompts(drawn)
    max_new_tokens = int(drawn.loss_mask.sum(axis=1).max()) + 1
    capacity = prompts.shape[1] + max_new_tokens
    positions = jax.vmap(lambda index: evaluation_positions(decoder, index, capacity))(
        jnp.arange(len(prompts))
    )
    return Trained(
        task,
        decoder,
        parameters,
        drawn,
        prompts,
        lengths,
        positions,
        max_new_tokens,
        np.asarray(losses),
    )
