"""Batches of sequences of many lengths: all are there, in few shapes."""

import numpy as np
import pytest

from experiments.llm.answering.batches import padded_batches


def test_batches_cover_every_sequence_in_few_shapes():
    lengths = [1, 8, 9, 16, 3, 17, 2, 8]
    sequences = [list(range(1, 1 + length)) for length in lengths]
    widths = np.array([8 * -(-length // 8) for length in lengths])
    batches = list(padded_batches(sequences, widths, lambda *_: 3))
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(8))
    assert [batch.tokens.shape for batch in batches] == [(3, 24), (3, 16), (3, 8), (3, 8)]
    for batch in batches:
        assert batch.filled[: len(batch.rows)].tolist() == batch.rows.tolist()
        assert set(batch.filled[len(batch.rows) :].tolist()) <= {batch.rows[-1]}
        for row, tokens in zip(batch.filled, batch.tokens, strict=True):
            assert tokens[: lengths[row]].tolist() == sequences[row]
            assert not tokens[lengths[row] :].any()


def test_batches_refuse_empty_sequences():
    with pytest.raises(ValueError, match=r"at least one token, but these are empty: \[1\]"):
        list(padded_batches([[1], []], np.array([8, 8]), lambda *_: 2))
