"""Text as tokens: tokenizers, encoded examples, batches."""
