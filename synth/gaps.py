"""Risk by test slice, and the two gaps that add up to it.

The solution of a problem is canonical, so a solution is reproduced by greedy decoding exactly when
the teacher-forced argmax is right at each of its tokens, end marker included: the 0-1 risk of the
whole solution costs one forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from synth.config import DecoderConfig
from synth.decoder import Parameters, draw_positions, logits


def evaluation_positions(
    decoder: DecoderConfig, index: Int[Array, ""], length: int, key: PRNGKeyArray | None = None
) -> Int[Array, " length"]:
    """Positions of row `index` of a pool: fixed, the same in evaluation and in decoding.

    With a `key` of one's own they are independent draws, as a certificate needs them.
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
    """Whether the argmax is right at every solution token of one example."""
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
    """`is_correct` for each row of a pool, at the positions fixed for that row.

    Args:
      key: draws each row's positions anew, independently; by default they are the fixed ones.
      batch_size: rows evaluated at once, which bounds the memory.
    """

    def row(index, tokens, loss_mask):
        positions = evaluation_positions(decoder, index, tokens.size, key)
        return is_correct(decoder, parameters, tokens, loss_mask, positions)

    rows = (jnp.arange(len(tokens)), tokens, loss_mask)
    return jax.lax.map(lambda arguments: row(*arguments), rows, batch_size=batch_size)


@dataclass(frozen=True)
class Gaps:
    """Three risks in [0, 1], and the gaps between them.

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
    """Share of examples that are wrong, in float64; NaN for none."""
    return float(1.0 - np.mean(correct, dtype=np.float64)) if correct.size else float("nan")


def mean_risk(slices: list[Bool[np.ndarray, " examples"]]) -> float:
    """Mean of the risks of the slices that hold examples: slices weigh equally; NaN for none."""
    risks = [risk(correct) for correct in slices if correct.size]
    return float(np.mean(risks)) if risks else float("nan")


def measure_gaps(
    train_correct: Bool[np.ndarray, " train"],
    in_distribution_correct: Bool[np.ndarray, " fresh"],
    test_correct: list[Bool[np.ndarray, " examples"]],
) -> Gaps:
    """Risks of one member from what it got right.

    Args:
      train_correct: for training examples.
      in_distribution_correct: for fresh draws from the training mixture.
      test_correct: for each test slice; slices weigh equally whatever their size.
    """
    return Gaps(
        train_risk=risk(train_correct),
        in_distribution_risk=risk(in_distribution_correct),
        test_risk=mean_risk(test_correct),
    )
