"""A checkpoint from scratch: a tokenizer trained on a data set, and random weights."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from experiments.llm.problems.data import Problems
from experiments.llm.text.tokenizer import save_tokenizer, train_tokenizer
from experiments.llm.training.config import ScratchConfig
from experiments.storage import checkpoint
from synth.decoder import initialise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def new_checkpoint(config: ScratchConfig, problems: Problems, path: Path) -> None:
    """Write a checkpoint with random weights and a tokenizer trained on problems.

    The folder appears complete or not at all.

    Args:
      config: size of model and tokenizer.
      problems: texts that the tokenizer is trained on.
      path: the folder to create.

    Raises:
      FileExistsError: if it exists.
    """
    tokenizer = learn_tokenizer(config, problems)
    decoder = dataclasses.replace(config.decoder, vocab_size=len(tokenizer))
    parameters = initialise(decoder, jax.random.key(config.seed))
    add_tokenizer = functools.partial(save_tokenizer, tokenizer)
    checkpoint.save(path, decoder, parameters, add_files=add_tokenizer)


def learn_tokenizer(config: ScratchConfig, problems: Problems) -> PreTrainedTokenizerFast:
    """Train the tokenizer of `new_checkpoint` on the problems' texts and solutions."""
    turns = [turn["content"] for prompt in problems.prompts for turn in prompt]
    return train_tokenizer([*turns, *problems.solutions], config.vocab_size, pieces=config.pieces)
