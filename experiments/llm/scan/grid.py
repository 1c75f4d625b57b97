"""A scan: base, data, and the grid of fine-tunings, as one frozen configuration."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import Annotated, get_args

import tyro

from experiments.igsm.config import ExportConfig
from experiments.llm.answering.config import SAMPLED, DecodingConfig
from experiments.llm.difficulty.buckets import Missing
from experiments.llm.difficulty.scales import Direction, Measure, hard_is_high
from experiments.llm.difficulty.selection import Selection
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.training.config import ScratchConfig, TrainingConfig
from experiments.storage.config import Devices
from experiments.sweep.grid import DataUnit
from synth.arguments import (
    check_choice,
    check_increasing,
    check_least,
    check_not_negative,
    check_number,
    check_rates,
    check_whole,
)
from synth.config import Loss

NO_DATA = Source("")
"""No data set. A `Source` rather than None, so that the command line has flags for its fields."""


@dataclass(frozen=True)
class Member:
    """One fine-tuned checkpoint: a cell at one seed."""

    seed: int
    selection: Selection
    difficulty: int
    data_size: int
    loss: Loss
    learning_rate: float

    @property
    def name(self) -> str:
        """All fields in one word, as a file name."""
        return "_".join(str(value) for value in dataclasses.astuple(self))


@dataclass(frozen=True)
class BaseConfig:
    """Preparation of the base; by default it is the checkpoint as it is.

    Attributes:
      training: fine-tuning of the checkpoint on the base's own data; None for none.
      scratch: begin with a new checkpoint; needs `training`.
      levels: the base's own test levels, which it must know.
      least_accuracy: the scan stops if the base gets less of these right.

    Raises:
      ValueError: if a field is out of range.
    """

    training: TrainingConfig | None = None
    scratch: ScratchConfig | None = None
    levels: tuple[int, ...] = ()
    least_accuracy: float = 0.0

    def __post_init__(self) -> None:
        if self.scratch is not None and self.training is None:
            raise ValueError("training of the base must be given with scratch, got None")
        check_number("least_accuracy", self.least_accuracy)
        for level in self.levels:
            check_whole("levels", level, 0)
        if not 0 <= self.least_accuracy <= 1:
            raise ValueError(f"least_accuracy must lie in [0, 1], got {self.least_accuracy}")
        if self.least_accuracy and not self.levels:
            raise ValueError("levels must be given with least_accuracy, got ()")


@dataclass(frozen=True)
class ScanConfig:
    """A grid of fine-tunings of one checkpoint.

    Attributes:
      checkpoint: folder or hub id; unused with ``base.scratch``.
      train, test, base_data: problems; `NO_DATA` with `export`.
      export: make iGSM problems in the run's directory.
      base: preparation of the checkpoint before members start from it.
      measure: ``op`` takes stated levels, others are cut into buckets; see
        `experiments.llm.difficulty.scales`.
      harder: the harder values of ``column:NAME``.
      missing: what becomes of problems that state no value of the measure; by default an error.
      pass_rate_samples, pass_rate_temperature: number and temperature of the responses behind a
        problem's pass rate, if that is the measure.
      buckets: number of buckets of equal size; unused for ``op`` and with `edges`.
      edges: inner edges of the buckets, in place of equal sizes.
      selections: ``exact`` trains on level d, ``range`` on the easiest level up to d, ``above`` on
        d and harder.
      difficulties: levels d of the grid, increasing.
      data_sizes: examples (or tokens, see `data_unit`) of each cell, increasing.
      data_unit: unit of `data_sizes`; a token budget buys the longest affordable prefix.
      losses: losses to compare.
      learning_rates: one for each loss, in its order; not tuned over, unlike a sweep's.
      seeds: members of each cell; each draws its own data.
      training: training of every member; loss, learning rate and seed are the member's.
      max_length: tokens of an example at most, or the checkpoint's context if that is shorter;
        longer ones are dropped and counted.
      risk_examples: problems behind train risk and in-distribution risk; that many of each
        selection are held out from training.
      test_examples: problems of each test level at most; 0 for all.
      decoding, grader: how answers are made and judged.
      devices: shape of the mesh.
      save_members: keep every fine-tuned checkpoint.

    Raises:
      ValueError: if a field is out of range.
    """

    checkpoint: str = ""
    train: Source = NO_DATA
    test: Source = NO_DATA
    base_data: Source = NO_DATA
    export: ExportConfig | None = None
    base: BaseConfig = BaseConfig()
    measure: Annotated[Measure, tyro.conf.arg(metavar="MEASURE")] = "op"
    harder: Direction | None = None
    missing: Missing | None = None
    pass_rate_samples: int = SAMPLED.samples
    pass_rate_temperature: float = SAMPLED.temperature
    buckets: int = 3
    edges: tuple[float, ...] = ()
    selections: tuple[Selection, ...] = ("exact",)
    difficulties: tuple[int, ...] = (1, 2, 3)
    data_sizes: tuple[int, ...] = (1000, 2000, 5000)
    data_unit: DataUnit = "examples"
    losses: tuple[Loss, ...] = ("sft", "dft")
    learning_rates: tuple[float, ...] = (5e-5, 1e-5)
    seeds: int = 1
    training: TrainingConfig = field(default_factory=TrainingConfig)
    max_length: int = 2048
    risk_examples: int = 200
    test_examples: int = 0
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    grader: GraderConfig = field(default_factory=GraderConfig)
    devices: Devices = field(default_factory=Devices)
    save_members: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("selections", Selection), ("losses", Loss)):
            values = getattr(self, name)
            if not values or set(values) - set(get_args(kind)) or len(set(values)) < len(values):
                raise ValueError(f"{name} must be distinct, some of {get_args(kind)}, got {values}")
        check_increasing(self, "difficulties", "data_sizes")
        check_rates("learning_rates", self.learning_rates)
        for edge in self.edges:
            check_number("edges", edge)
        if len(self.learning_rates) != len(self.losses):
            raise ValueError(
                f"learning_rates must be positive, one for each of {self.losses}, "
                f"got {self.learning_rates}"
            )
        check_least(self, 2, "buckets", "max_length")
        check_least(self, 1, "seeds", "risk_examples")
        check_least(self, 0, "test_examples")
        check_least(self, 1, "pass_rate_samples")
        check_not_negative(self, "pass_rate_temperature")
        if self.pass_rate_samples > 1 and not self.pass_rate_temperature:
            raise ValueError(
                f"pass_rate_samples must be 1 at pass_rate_temperature 0, where all are equal; "
                f"got {self.pass_rate_samples}"
            )
        hard_is_high(self.measure, self.harder)
        check_choice(self, "data_unit", get_args(DataUnit))
        number = len(self.edges) + 1 if self.edges else self.buckets
        if self.measure != "op" and max(self.difficulties) > number:
            raise ValueError(
                f"difficulties must be buckets from 1 to {number}, got {self.difficulties}"
            )

    def check_sources(self) -> None:
        """Raise ValueError if base or data are not named.

        Not a check of `__post_init__`, because commands fill these fields in later.
        """
        if not self.checkpoint and self.base.scratch is None:
            raise ValueError("checkpoint must be a folder or hub id, got ''")
        if self.export is None:
            needed = ["train", "test", *(["base_data"] if self.base.training else [])]
            if empty := [name for name in needed if not getattr(self, name).source]:
                flags = ", ".join(f"--{name.replace('_', '-')}.source" for name in empty)
                raise ValueError(f"{' and '.join(empty)} must name a data set ({flags}), got ''")

    @property
    def sampled(self) -> DecodingConfig:
        """Settings of the responses behind a pass rate."""
        return dataclasses.replace(
            self.decoding, samples=self.pass_rate_samples, temperature=self.pass_rate_temperature
        )

    @property
    def members(self) -> list[Member]:
        """Every member; seeds vary slowest, so that early results cover whole curves."""
        return [
            Member(seed, selection, difficulty, size, loss, rate)
            for seed, selection, difficulty, size, (loss, rate) in itertools.product(
                range(self.seeds),
                self.selections,
                self.difficulties,
                self.data_sizes,
                zip(self.losses, self.learning_rates, strict=True),
            )
        ]

    @property
    def num_members(self) -> int:
        """Members of the whole grid."""
        return len(self.members)

    @property
    def compute_name(self) -> str:
        """Compute of each cell as it stands in the table."""
        return f"{self.training.compute:g} {self.training.compute_unit}"
