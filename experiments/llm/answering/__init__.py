"""A checkpoint that answers: decoding, evaluation."""
