"""Problems of a scan: read, encoded, and checked against checkpoint and grader before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.engine.progress import console
from experiments.igsm.config import Stream
from experiments.llm.difficulty.columns import with_values
from experiments.llm.difficulty.scales import needed_columns
from experiments.llm.problems.data import NoColumnError, Problems, read, read_source
from experiments.llm.problems.grade import check_solutions, references
from experiments.llm.scan.grid import ScanConfig
from experiments.llm.text.encoding import Encoded, check_examples, encode_within
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.storage import checkpoint
from synth.config import DecoderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def read_stream(config: ScanConfig, directory: Path, stream: Stream) -> Problems:
    """Read the training, test or base problems: exported into the scan's directory, or named.

    Training and test problems have the columns that the measure is made of. A test whose data set
    lacks them is read without.
    """
    numbers = [] if stream == "base" else needed_columns(config.measure)
    if config.export is not None:
        pattern = directory / "data" / stream / f"*.{config.export.format}"
        return read(pattern, numbers=numbers)
    sources = {"train": config.train, "test": config.test, "base": config.base_data}
    try:
        return read_source(sources[stream], numbers=numbers)
    except NoColumnError as error:
        if stream != "test":
            raise
        console.print(
            f"{error}. So the test is one slice, of level 0: its risk is not told by difficulty, "
            f"and llm recommend, which needs that, cannot be asked.",
            style="yellow",
            highlight=False,
        )
        return read_source(sources[stream])


def _with_measure(config: ScanConfig, problems: Problems) -> Problems:
    """Leave out or refuse problems without a value of the measure, see `with_values`.

    Data that state no measure at all are left to others: a test is then one slice.
    """
    is_stated = any(op is not None for op in problems.ops)
    if set(needed_columns(config.measure)) - set(problems.columns) or (
        config.measure == "op" and not is_stated
    ):
        return problems
    return with_values(config.measure, problems, config.missing)


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
        for name in ("train", "test"):
            streams[name] = _with_measure(config, streams[name])
        examples = encoded(streams["train"])
        train, test = streams["train"].take(examples.rows), streams["test"]
        base = encoded(streams["base"]) if "base" in streams else None
        # The grader must find what it needs, and accept the reference solutions.
        references(test, config.grader)
        references(train, config.grader)
        check_solutions(train, config.grader)
        digests = {name: problems.digest() for name, problems in streams.items()}
        return cls(config, decoder, tokenizer, train, examples, base, test, digests)
