"""Problems of a scan: read, encoded, and checked against checkpoint and grader before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.engine.progress import console
from experiments.igsm.config import Stream
from experiments.llm.problems.data import Problems, read, read_source
from experiments.llm.problems.grade import check_solutions, references
from experiments.llm.scan.grid import ScanConfig
from experiments.llm.text.encoding import Encoded, check_examples, encode_within
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
from synth.config import DecoderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def read_stream(config: ScanConfig, directory: Path, stream: Stream) -> Problems:
    """Read the training, test or base problems: exported into the scan's directory, or named."""
    if config.export is not None:
        return read(directory / "data" / stream / f"*.{config.export.format}")
    sources = {"train": config.train, "test": config.test, "base": config.base_data}
    return read_source(sources[stream])


@dataclass(frozen=True)
class ScanProblems:
    """All problems of a scan.

    Attributes:
      config: the scan.
      decoder, tokenizer: those of the checkpoint that base or members start from.
      train, encoded: problems that members are trained on, without too long ones.
      base: encoded problems that the base is trained on; None if it is not trained.
      test: problems that finished members are asked.
      digests: fingerprints of the problems as they were read, by stream.
    """

    config: ScanConfig
    decoder: DecoderConfig
    tokenizer: PreTrainedTokenizerFast
    train: Problems
    encoded: Encoded
    base: Encoded | None
    test: Problems
    digests: dict[str, str]

    @classmethod
    def read(cls, config: ScanConfig, directory: Path, start: checkpoint.PathLike) -> ScanProblems:
        """Read and check all problems.

        Args:
          config: the scan.
          directory: the scan's, with its exported problems.
          start: the checkpoint that base or members start from.

        Raises:
          FileNotFoundError, ImportError, ValueError: if problems or checkpoint cannot be used.
        """
        decoder, tokenizer = checkpoint.read_config(start), load_tokenizer(start)

        def encoded(problems: Problems) -> Encoded:
            examples = encode_within(
                problems,
                tokenizer,
                context=decoder.max_positions,
                max_length=config.max_length,
                on_long="drop",
                console=console,
            )
            check_examples(examples, decoder)
            return examples

        # Read every stream and encode the two that are trained on.
        names: list[Stream] = ["train", "test", *(["base"] if config.base.training else [])]
        streams = {name: read_stream(config, directory, name) for name in names}
        examples = encoded(streams["train"])
        train, test = streams["train"].take(examples.rows), streams["test"]
        base = encoded(streams["base"]) if "base" in streams else None
        # The grader must find what it needs, and accept the reference solutions.
        references(test, config.grader)
        references(train, config.grader)
        check_solutions(train, config.grader)
        digests = {name: problems.digest() for name, problems in streams.items()}
        return cls(config, decoder, tokenizer, train, examples, base, test, digests)
