"""Risk by test slice, and the two gaps that make up the test risk.

The solution of a problem is canonical. So greedy decoding reproduces it exactly if the
teacher-forced argmax is right at each of its tokens, end marker included, and the 0-1 risk of whole
solutions costs one forward pass.

Axes: see `synth.task`.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from synth.config import DecoderConfig
from synth.decoder import Parameters, draw_positions, logits
from synth.finetune import num_parts


def evaluation_positions(
    decoder: DecoderConfig, index: Int[Array, ""], length: int, key: PRNGKeyArray | None = None
) -> Int[Array, " length"]:
    """Positions of example `index` of a pool, the same in evaluation and in decoding.

    Args:
      decoder: states the rule, see `draw_positions`.
      index: number of the example in its pool.
      length: number of positions, in tokens.
      key: by default a constant one, so that positions are fixed; with another key they are
        independent of the fixed ones, as a certificate needs them.
    """
    key = jax.random.key(0) if key is None else key
    return draw_positions(decoder, jax.random.fold_in(key, index), length)


def is_correct(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, " length"],
    loss_mask: Bool[Array, " length"],
    positions: Int[Array, " length"],
) -> Bool[Array, ""]:
    """Return whether the argmax is right at every solution token of one example."""
    predicted = logits(decoder, parameters, tokens[:-1], positions[:-1]).argmax(axis=1)
    return jnp.all((predicted == tokens[1:]) | ~loss_mask[1:])


def correct_examples(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "examples length"],
    loss_mask: Bool[Array, "examples length"],
    *,
    key: PRNGKeyArray | None = None,
    batch_size: int = 128,
) -> Bool[Array, " examples"]:
    """Return whether each example of a pool is solved: `is_correct` at `evaluation_positions`.

    Args:
      decoder: shape of the model (static).
      parameters: its weights.
      tokens, loss_mask: the pool's.
      key: see `evaluation_positions`.
      batch_size: examples evaluated at once, which bounds the memory; on a CPU a part of these, see
        `num_parts`.
    """
    batch_size //= num_parts(decoder, batch_size, tokens.shape[1])

    def of_example(example):
        index, tokens, loss_mask = example
        positions = evaluation_positions(decoder, index, tokens.size, key)
        return is_correct(decoder, parameters, tokens, loss_mask, positions)

    examples = (jnp.arange(len(tokens)), tokens, loss_mask)
    return jax.lax.map(of_example, examples, batch_size=batch_size)


@dataclass(frozen=True)
class Gaps:
    """Three risks in [0, 1], and the two gaps between them.

    Attributes:
      train_risk: on the member's own training examples.
      in_distribution_risk: on fresh draws from its training mixture.
      test_risk: on the test mixture.
    """

    train_risk: float
    in_distribution_risk: float
    test_risk: float

    @property
    def generalization_gap(self) -> float:
        """In-distribution risk minus train risk."""
        return self.in_distribution_risk - self.train_risk

    @property
    def extrapolation_gap(self) -> float:
        """Test risk minus in-distribution risk."""
        return self.test_risk - self.in_distribution_risk


def risk(correct: Bool[np.ndarray, " examples"]) -> float:
    """Share of examples that are wrong, in float64; NaN if there are none."""
    return float(1.0 - np.mean(correct, dtype=np.float64)) if correct.size else float("nan")


def mean_risk(slices: list[Bool[np.ndarray, " examples"]]) -> float:
    """Mean risk of the slices that hold examples, each with equal weight; NaN if there are none."""
    risks = [risk(correct) for correct in slices if correct.size]
    return float(np.mean(risks)) if risks else float("nan")


def measure_gaps(
    train_correct: Bool[np.ndarray, " train"],
    in_distribution_correct: Bool[np.ndarray, " fresh"],
    test_correct: list[Bool[np.ndarray, " examples"]],
) -> Gaps:
    """Risks and gaps of one member.

    Args:
      train_correct: true for the training examples that it solves.
      in_distribution_correct: the same for fresh draws from its training mixture.
      test_correct: the same for each test slice; slices have equal weight whatever their size.
    """
    return Gaps(
        train_risk=risk(train_correct),
        in_distribution_risk=risk(in_distribution_correct),
        test_risk=mean_risk(test_correct),
    )
