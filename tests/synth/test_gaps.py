"""Risk by teacher forcing against real decoding, and the gaps between the three risks."""

import math

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from synth.gaps import correct_examples, evaluation_positions, is_correct, measure_gaps, risk
from synth.generate import generate
from synth.task import PADDING

outcomes = hypothesis.extra.numpy.arrays(bool, st.integers(1, 40))
score = jax.jit(correct_examples, static_argnums=0, static_argnames="batch_size")


def test_teacher_forcing_equals_greedy_decoding(trained):
    def decode(prompt, length, positions):
        return generate(
            trained.decoder,
            trained.parameters,
            prompt,
            length,
            positions,
            max_new_tokens=trained.max_new_tokens,
            end=trained.end,
        )

    produced = np.asarray(
        jax.jit(jax.vmap(decode))(trained.prompts, trained.prompt_lengths, trained.positions)
    )
    tokens, loss_mask = np.asarray(trained.drawn.tokens), np.asarray(trained.drawn.loss_mask)
    expected = []
    for row, mask, output in zip(tokens, loss_mask, produced, strict=True):
        solution = np.full_like(output, PADDING)
        solution[: mask.sum()] = row[mask]
        expected.append(np.array_equal(output, solution))
    correct = np.asarray(
        score(trained.decoder, trained.parameters, trained.drawn.tokens, trained.drawn.loss_mask)
    )
    np.testing.assert_array_equal(correct, expected)
    # The comparison is meaningful only if both outcomes occur, and several lengths.
    assert 0.1 < correct.mean() < 0.9
    assert len(set(np.asarray(trained.prompt_lengths).tolist())) == 3


def test_batch_size_does_not_matter(trained):
    drawn = trained.drawn
    whole = score(trained.decoder, trained.parameters, drawn.tokens, drawn.loss_mask)
    parts = score(trained.decoder, trained.parameters, drawn.tokens, drawn.loss_mask, batch_size=24)
    np.testing.assert_array_equal(whole, parts)


def test_one_wrong_solution_token_is_an_error_and_prompt_tokens_do_not_count(trained):
    correct = np.asarray(
        score(trained.decoder, trained.parameters, trained.drawn.tokens, trained.drawn.loss_mask)
    )
    index = int(np.flatnonzero(correct)[0])
    tokens, mask = trained.drawn.tokens[index], trained.drawn.loss_mask[index]
    positions = evaluation_positions(trained.decoder, jnp.int32(index), tokens.size)
    check = jax.jit(is_correct, static_argnums=0)
    assert check(trained.decoder, trained.parameters, tokens, mask, positions)
    for place in np.flatnonzero(mask):
        wrong = tokens.at[place].set(tokens[place] % (trained.decoder.vocab_size - 1) + 1)
        assert not check(trained.decoder, trained.parameters, wrong, mask, positions)
    # With an empty mask nothing can be wrong; with a full one the prompt, which is random, counts.
    assert check(trained.decoder, trained.parameters, tokens, mask & False, positions)
    assert not check(trained.decoder, trained.parameters, tokens, mask | True, positions)


def test_evaluation_positions_are_fixed_for_a_row_and_do_not_see_padding(trained):
    first = evaluation_positions(trained.decoder, jnp.int32(3), 12)
    np.testing.assert_array_equal(
        first, evaluation_positions(trained.decoder, jnp.int32(3), 20)[:12]
    )
    others = [evaluation_positions(trained.decoder, jnp.int32(row), 12) for row in range(8)]
    assert len({tuple(np.asarray(positions).tolist()) for positions in others}) > 4


@hypothesis.given(outcomes, outcomes, st.lists(outcomes, min_size=1, max_size=5))
def test_train_risk_and_both_gaps_add_up_to_the_test_risk(train, fresh, slices):
    gaps = measure_gaps(train, fresh, slices)
    total = gaps.train_risk + gaps.generalization_gap + gaps.extrapolation_gap
    assert abs(total - gaps.test_risk) <= 1e-12
    # By counting, with exact integers until the one division.
    wrong = [(part.size - int(part.sum())) / part.size for part in slices]
    assert abs(gaps.test_risk - math.fsum(wrong) / len(wrong)) <= 1e-12
    assert abs(gaps.train_risk - (train.size - int(train.sum())) / train.size) <= 1e-12
    assert abs(gaps.in_distribution_risk - (~fresh).sum() / fresh.size) <= 1e-12


def test_slices_weigh_equally_whatever_their_size():
    gaps = measure_gaps(
        np.ones(4, bool), np.ones(4, bool), [np.ones(1000, bool), np.zeros(2, bool)]
    )
    assert gaps.test_risk == gaps.extrapolation_gap == 0.5
    assert gaps.generalization_gap == 0.0


def test_risk():
    assert risk(np.array([True, False, False, False])) == 0.75
    assert math.isnan(risk(np.zeros(0, bool)))
    # float32 would lose the single error among 2^25.
    many = np.ones(2**25, bool)
    many[0] = False
    assert risk(many) == 2.0**-25
