"""A checkpoint made from nothing: a tokenizer trained on a data set, and random weights."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import jax

from experiments.llm.problems.data import Problems
from experiments.llm.text.tokenizer import Pieces, save_tokenizer, train_tokenizer
from experiments.storage import checkpoint
from synth.decoder import DecoderConfig, initialise


@dataclass(frozen=True)
class ScratchConfig:
    """A new checkpoint.

    Attributes:
      vocab_size: tokens of the tokenizer, at most.
      pieces: see `experiments.llm.text.tokenizer.train_tokenizer`.
      decoder: shape of the model, at sequential positions; its `vocab_size` comes from the
        tokenizer.
      seed: of the weights.

    Raises:
      ValueError: if the decoder's positions are not sequential.
    """

    vocab_size: int
    decoder: DecoderConfig
    pieces: Pieces = "words"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.decoder.positions != "sequential":
            raise ValueError(
                f"positions of the decoder must be 'sequential', as those of every published "
                f"checkpoint; got {self.decoder.positions!r}"
            )


def new_checkpoint(config: ScratchConfig, problems: Problems, path: Path) -> None:
    """Write a checkpoint that has not been trained, with a tokenizer that has.

    The folder appears complete or not at all.

    Args:
      config: of what size.
      problems: what the tokenizer is trained on.
      path: the folder to create.

    Raises:
      FileExistsError: if it exists.
    """
    turns = [turn["content"] for prompt in problems.prompts for turn in prompt]
    tokenizer = train_tokenizer(
        [*turns, *problems.solutions], config.vocab_size, pieces=config.pieces
    )
    decoder = dataclasses.replace(config.decoder, vocab_size=len(tokenizer))
    parameters = initialise(decoder, jax.random.key(config.seed))
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    checkpoint.save(partial, decoder, parameters)
    save_tokenizer(tokenizer, partial)
    if path.exists():
        raise FileExistsError(f"path must be a new folder, but {str(path)!r} exists")
    partial.rename(path)
