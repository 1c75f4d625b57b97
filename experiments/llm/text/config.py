"""Choices that the command line offers about text."""

from __future__ import annotations

from typing import Literal

Pieces = Literal["words", "phrases"]
"""Rules by which `experiments.llm.text.tokenizer.train_tokenizer` splits text."""

OnLong = Literal["error", "drop", "truncate"]
"""Ways to treat an example that is longer than allowed."""

LossOn = Literal["last", "all"]
"""Turns of the assistant in a chat that the loss counts: the last, the solution, or all."""
