"""Configuration of an export of iGSM, and the files that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from synth.arguments import check_choice, check_increasing, check_seed, check_whole
from synth.tasks.igsm.problems import PRESETS

Format = Literal["jsonl", "parquet"]
Split = Literal["keys", "deduplicated", "template"]
Stream = Literal["base", "train", "test"]

SYSTEM_PROMPT = (
    "Please reason step by step, and put your final answer within \\boxed{}."  # the paper's
)


def _sizes(name: str, sizes: int | tuple[int, ...], levels: tuple[int, ...]) -> list[int]:
    """One size for each level.

    Raises:
      ValueError: if there are neither one nor as many as levels, or one is below 1.
    """
    given = sizes if isinstance(sizes, tuple) else (sizes,)
    if not given:
        raise ValueError(f"{name} must be at least 1, got {sizes}")
    for size in given:
        check_whole(name, size, 1)
    if len(given) not in (1, len(levels)):
        raise ValueError(
            f"{name} must be one number, or one for each of the difficulties {levels}; got {sizes}"
        )
    return list(given) * (len(levels) if len(given) == 1 else 1)


@dataclass(frozen=True)
class ProblemFile:
    """One file: `size` problems of one difficulty from one stream."""

    stream: Stream
    difficulty: int
    size: int
    format: Format

    @property
    def path(self) -> str:
        """Path of the file inside the export."""
        return f"{self.stream}/op{self.difficulty:02d}.{self.format}"

    @property
    def configuration(self) -> str:
        """Name under which `datasets.load_dataset` finds the file."""
        return f"train-op{self.difficulty}" if self.stream == "train" else self.stream


@dataclass(frozen=True)
class ExportConfig:
    """An export of iGSM. The defaults are the paper's grid, with a larger test.

    Attributes:
      preset: settings of the generator, a name in `synth.tasks.igsm.PRESETS`.
      seed: the only source of randomness, from 0 to 2³² − 1.
      split: how test differs from training. ``keys``: independent draws, as in the paper (the
        manifest counts the problems that occur in both); ``deduplicated``: such problems are
        dropped from the test and redrawn; ``template``: no template occurs in both, too coarse
        up to difficulty 3.
      format: ``jsonl`` or ``parquet``.
      difficulties: operations of the fine-tuning data, increasing.
      train_sizes: problems at each of them, or one number for all.
      base_difficulties: operations of the data for a base, increasing; may be empty.
      base_sizes: problems at each of them, or one number for all.
      test_difficulties: operations of the test problems, increasing.
      test_examples: problems at each of them.
      verify: check every row with the verifier.

    Raises:
      ValueError: if a field is out of range.
    """

    preset: str = "paper"
    seed: int = 0
    split: Split = "keys"
    format: Format = "jsonl"
    difficulties: tuple[int, ...] = (6, 8, 10, 12, 14)
    train_sizes: tuple[int, ...] = (10_000, 10_000, 10_000, 5_000, 5_000)
    base_difficulties: tuple[int, ...] = tuple(range(2, 9))
    base_sizes: tuple[int, ...] = (2_000,)
    test_difficulties: tuple[int, ...] = tuple(range(2, 21))
    test_examples: int = 500
    verify: bool = True

    def __post_init__(self) -> None:
        check_choice(self, "preset", tuple(PRESETS))
        check_choice(self, "split", get_args(Split))
        check_choice(self, "format", get_args(Format))
        check_seed(self, "seed")
        check_increasing(self, "difficulties", "test_difficulties")
        if self.base_difficulties:
            check_increasing(self, "base_difficulties")
        _ = self.files  # Refuses sizes that do not fit the difficulties.
        if self.split == "template" and 1 in self.test_difficulties:
            raise ValueError(
                f"test_difficulties must be at least 2 for split 'template', got "
                f"{self.test_difficulties}: no template of difficulty 1 is in the test's bins"
            )

    @property
    def modulus(self) -> int:
        """The preset's modulus of all arithmetic."""
        return PRESETS[self.preset].settings.modulus

    @property
    def files(self) -> list[ProblemFile]:
        """Every file of the export, training before test."""
        grid: list[tuple[Stream, tuple[int, ...], str]] = [
            ("base", self.base_difficulties, "base_sizes"),
            ("train", self.difficulties, "train_sizes"),
            ("test", self.test_difficulties, "test_examples"),
        ]
        return [
            ProblemFile(stream, level, size, self.format)
            for stream, levels, name in grid
            for level, size in zip(levels, _sizes(name, getattr(self, name), levels), strict=True)
        ]


DEFAULT_EXPORT = ExportConfig()
