"""The configuration of a sweep: its grid of members, their data and their training."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from experiments.storage.records import from_record
from synth.arguments import (
    check_choice,
    check_increasing,
    check_least,
    check_number,
    check_positive,
    check_rates,
    check_seed,
    check_some,
)
from synth.config import DecoderConfig, Loss, Optimiser

if TYPE_CHECKING:
    from synth.task import Mixture

MixtureKind = Literal["range", "exact", "window", "above"]
DataUnit = Literal["examples", "tokens"]
ComputeUnit = Literal["steps", "epochs", "tokens"]
MemberMapping = Literal["auto", "map", "vmap"]

PRETRAINING, FINETUNING = Optimiser(batch_size=64, weight_decay=0.01), Optimiser()
"""Defaults of a sweep's two trainings."""

MOST_MEMBERS, MOST_LEVELS = 1_000_000, 10_000
"""Members and test slices that a sweep may have: far more than any run, and few enough to list."""


@dataclass(frozen=True)
class Member:
    """One fine-tuned model: a cell at one base seed and one seed."""

    base_seed: int
    seed: int
    mixture: MixtureKind
    difficulty: int
    data_size: int
    loss: Loss
    learning_rate: float

    @property
    def name(self) -> str:
        """All fields in one word, as a file name."""
        return "_".join(str(value) for value in dataclasses.astuple(self))


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of the bases' pre-training.

    Attributes:
      hardest: bases are trained on difficulties 1 .. hardest, on fresh draws.
      level_ratio: how likely a level is, as a multiple of the level before it: at 1 all are equally
        likely, and below 1 what a base knows falls off gradually instead of over a cliff.
      steps: optimiser steps of that training.
      learning_rate: its peak learning rate.
      optimiser: its batches, schedule and AdamW.
      max_risk: a base that errs more often than this on its own mixture stops the sweep.
      text_examples: draws that bases of a text task are trained on, in place of fresh ones.

    Raises:
      ValueError: if a field is out of range.
    """

    hardest: int = 4
    level_ratio: float = 1.0
    steps: int = 2500
    learning_rate: float = 4e-3
    optimiser: Annotated[Optimiser, tyro.conf.arg(name="")] = PRETRAINING
    max_risk: float = 0.5
    text_examples: int = 40_000

    def __post_init__(self) -> None:
        check_least(self, 1, "hardest", "steps", "text_examples")
        check_positive(self, "learning_rate")
        check_number("max_risk", self.max_risk)
        if not 0 <= self.max_risk <= 1:
            raise ValueError(f"max_risk must lie in [0, 1], got {self.max_risk}")
        check_number("level_ratio", self.level_ratio)
        if not 0 < self.level_ratio <= 1:
            raise ValueError(f"level_ratio must lie in (0, 1], got {self.level_ratio}")

    @property
    def mixture(self) -> Mixture:
        """Training mixture of the bases."""
        from synth.task import Mixture  # here, so that configurations can be read without JAX

        return Mixture.geometric(self.hardest, ratio=self.level_ratio)


@dataclass(frozen=True)
class SweepConfig:
    """A grid of fine-tunings of one task.

    Attributes:
      task: a name in `synth.tasks.TASKS`, or ``module:attribute`` for one's own.
      task_options: fields of the task; its `hardest` is set to `test_hardest`.
      decoder: shape of the model; `vocab_size` and `max_positions` are set from the task.
      pretrain: how the bases are made.
      mixtures: levels that members are fine-tuned on (bases: see `pretrain`): ``range`` is 1 .. d,
        ``exact`` is d alone, ``window`` is d - width .. d, ``above`` is d .. the hardest of
        `difficulties`.
      window_width: width of ``window``, in levels.
      difficulties: hardest training level d of each cell, increasing.
      data_sizes: number of examples (or tokens, see `data_unit`) of each cell, increasing.
      data_unit: unit of `data_sizes`. A token budget buys the longest affordable prefix.
      compute: amount of training of each cell, in `compute_unit`.
      compute_unit: optimiser ``steps``, ``epochs`` over the cell's data, or ``tokens`` processed.
      losses: losses to compare.
      learning_rates: one value, or several to tune over: the one with the lowest mean risk on a
        validation draw from the test mixture is kept for each cell.
      optimiser: batches, schedule and AdamW of the fine-tuning.
      base_seeds: number of bases, each from its own initialisation and data.
      seeds: members for each cell and base; each draws its own data.
      master_seed: the only source of randomness of the whole sweep, from 0 to 2³² − 1.
      test_hardest: test slices are the levels 1 .. test_hardest; at least 1.5 times the hardest
        training level, so that training on every test level cannot win by construction.
      test_examples: fresh test draws for each slice, base seed and seed.
      risk_examples: rows to measure train risk on (at most), and fresh draws for
        in-distribution risk.
      validation_examples: draws for each slice when learning rates are tuned.
      mapping: how members run inside a device; ``auto`` is ``map`` on CPUs and ``vmap`` elsewhere.
      chunk_members: members of a part, which bounds the loss by a kill. They run together, or fewer
        at once where memory does not hold them.
      save_members: keep the parameters of every member.
      save_predictions: keep which examples every member got right.

    Raises:
      ValueError: if a field is out of range.
    """

    task: str = "chain-running"
    task_options: dict[str, int | float | bool | str] = field(default_factory=dict)
    decoder: DecoderConfig = field(default_factory=lambda: DecoderConfig(vocab_size=1))
    pretrain: PretrainConfig = PretrainConfig()
    mixtures: tuple[MixtureKind, ...] = ("range",)
    window_width: int = 2
    difficulties: tuple[int, ...] = (4, 6, 8, 10)
    data_sizes: tuple[int, ...] = (16, 128, 1024)
    data_unit: DataUnit = "examples"
    compute: float = 500.0
    compute_unit: ComputeUnit = "steps"
    losses: tuple[Loss, ...] = ("sft",)
    learning_rates: tuple[float, ...] = (1.5e-3,)
    optimiser: Annotated[Optimiser, tyro.conf.arg(name="")] = FINETUNING
    base_seeds: int = 1
    seeds: int = 3
    master_seed: int = 0
    test_hardest: int = 18
    test_examples: int = 128
    risk_examples: int = 512
    validation_examples: int = 32
    mapping: MemberMapping = "auto"
    chunk_members: int = 8
    save_members: bool = False
    save_predictions: bool = False

    def __post_init__(self) -> None:
        # Check each field, then test levels against the others.
        if not isinstance(self.task, str):
            raise ValueError(f"task must be a name, got {self.task!r}")
        check_some(self, "mixtures", get_args(MixtureKind))
        check_some(self, "losses", get_args(Loss))
        check_choice(self, "data_unit", get_args(DataUnit))
        check_choice(self, "compute_unit", get_args(ComputeUnit))
        check_choice(self, "mapping", get_args(MemberMapping))
        check_increasing(self, "difficulties", "data_sizes")
        check_least(self, 1, "base_seeds", "seeds")
        check_least(self, 1, "chunk_members", most=MOST_MEMBERS)
        check_least(self, 1, "test_examples", "risk_examples", "validation_examples")
        check_seed(self, "master_seed")
        check_least(self, 1, "test_hardest", most=MOST_LEVELS)
        check_rates("learning_rates", self.learning_rates)
        for name in ("mixtures", "losses", "learning_rates"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} must be distinct, got {getattr(self, name)}")
        check_positive(self, "compute")
        check_least(self, 0, "window_width")
        if self.num_members > MOST_MEMBERS:
            raise ValueError(
                f"base_seeds, seeds and the grid make {self.num_members:.3g} members, "
                f"must be at most {MOST_MEMBERS}"
            )
        if self.test_hardest < 1.5 * max(self.difficulties):
            raise ValueError(
                f"test_hardest must be at least 1.5 times the hardest of difficulties, "
                f"{max(self.difficulties)}, got {self.test_hardest}"
            )
        if not 1 <= self.pretrain.hardest <= self.test_hardest:
            raise ValueError(
                f"pretrain.hardest must be between 1 and test_hardest = {self.test_hardest}, "
                f"got {self.pretrain.hardest}"
            )

    @property
    def test_levels(self) -> range:
        """Difficulty of each test slice."""
        return range(1, self.test_hardest + 1)

    def mixture(self, kind: MixtureKind, difficulty: int) -> Mixture:
        """Training mixture of a cell.

        Raises:
          ValueError: if the kind is unknown.
        """
        from synth.task import Mixture

        if kind not in get_args(MixtureKind):
            raise ValueError(f"mixture must be one of {get_args(MixtureKind)}, got {kind!r}")
        if kind == "window":
            return Mixture.window(difficulty, width=self.window_width)
        if kind == "above":
            return Mixture.uniform(range(difficulty, max(self.difficulties) + 1))
        return Mixture.exact(difficulty) if kind == "exact" else Mixture.up_to(difficulty)

    @property
    def num_members(self) -> int:
        """Members of the whole grid."""
        axes = (self.mixtures, self.difficulties, self.data_sizes, self.losses, self.learning_rates)
        return self.base_seeds * self.seeds * math.prod(len(axis) for axis in axes)

    @property
    def compute_name(self) -> str:
        """Compute of each cell as it stands in the table."""
        return f"{self.compute:g} {self.compute_unit}"

    @property
    def members(self) -> list[Member]:
        """Every member; seeds vary slowest, so that early results cover whole curves."""
        return [
            Member(*member)
            for member in itertools.product(
                range(self.base_seeds),
                range(self.seeds),
                self.mixtures,
                self.difficulties,
                self.data_sizes,
                self.losses,
                self.learning_rates,
            )
        ]


def sweep_config(config: dict[str, Any]) -> SweepConfig:
    """The configuration in a manifest; fields that it does not state get defaults here.

    `open_run` compares configurations as they are, so that `experiments.storage.migration` must
    state a new field.

    Raises:
      ValueError: if a field is unknown or out of range.
    """
    return from_record(SweepConfig, config)
