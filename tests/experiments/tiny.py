"""The smallest sweep that still gets some answers right and some wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.sweep.grid import PRETRAINING, PretrainConfig, SweepConfig
from synth.config import DecoderConfig, Optimiser

TINY = SweepConfig(
    # Sums modulo 2: four problems at level 1, so that training and test problems overlap.
    task_options={"modulus": 2, "operators": "+"},
    decoder=DecoderConfig(
        vocab_size=1,
        hidden_size=16,
        intermediate_size=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        position_start=4,
        position_gap=1,
    ),
    pretrain=PretrainConfig(
        hardest=1,
        steps=150,
        learning_rate=1e-2,
        optimiser=dataclasses.replace(PRETRAINING, batch_size=16),
        max_risk=1.0,
    ),
    difficulties=(1, 2),
    data_sizes=(3, 12),
    compute=20.0,
    optimiser=Optimiser(batch_size=8),
    learning_rates=(5e-3,),
    seeds=2,
    test_hardest=4,
    test_examples=16,
    risk_examples=8,
    validation_examples=8,
    chunk_members=2,
    save_members=True,
    save_predictions=True,
)
"""Two groups (one for each difficulty) of four members, each in two chunks."""


def tiny(**changes: Any) -> SweepConfig:
    """`TINY` with other fields."""
    return dataclasses.replace(TINY, **changes)


OWN_TASK = """
import dataclasses
from synth.task import TextExample, TextTask

@dataclasses.dataclass(frozen=True)
class Twice(TextTask):
    name = "twice"
    hardest: int = 4
    letter: str = "a"

    @property
    def vocabulary(self):
        return ("<pad>", ">", ".", self.letter)

    def max_length(self, difficulty):
        return 3 * difficulty + 2

    def sample(self, generator, difficulty):
        word = " ".join([self.letter] * difficulty)
        return TextExample(word + " >", f"{word} {word} .")

    def encode(self, text):
        return [self.vocabulary.index(word) for word in text.split()]
"""
"""Source of a module with a task of the user's own."""
