"""Configuration of a choice of training rows: budget, level, measure, and order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from experiments.llm.difficulty.buckets import Missing
from experiments.llm.difficulty.scales import Direction, Measure, hard_is_high
from experiments.llm.difficulty.selection import Selection
from synth.arguments import check_choice, check_least, check_number, check_positive, check_seed
from synth.config import Loss

Unit = Literal["examples", "tokens", "gpu-hours"]
Order = Literal["random", "easy-to-hard"]


@dataclass(frozen=True)
class SelectConfig:
    """What to choose, and by what.

    Attributes:
      budget: how much to train on, in `budget_unit`.
      budget_unit: ``examples``; ``tokens`` of these examples, prompts included, each counted once;
        or ``gpu-hours`` of the whole training, see `device` and `epochs`.
      level: difficulty to train on; by default what the scan recommends for the budget.
      selection: ``exact`` trains on the level, ``range`` on it and all easier ones, ``above`` on it
        and all harder ones; by default the scan's, or else ``exact``.
      loss: which of the scan's losses the recommendation is for, where it compares several.
      accept_doubt: take the scan's level although it recommends nothing.
      measure: measure of difficulty without a scan; ``op`` takes the stated levels.
      harder: the harder values of ``column:NAME``, without a scan.
      missing: what becomes of problems that state no value of the measure, without a scan; by
        default an error.
      buckets: number of buckets of equal size; unused for ``op`` and with `edges`.
      edges: inner edges of the buckets, in place of equal sizes.
      measures: table of measured problems, one row for each of the pool, as `sweetspot llm
        difficulty` writes it.
      model: checkpoint whose tokenizer counts the tokens; by default the scan's.
      max_length: tokens of an example at most, longer ones are left out; by default the scan's.
      order: of the rows in the file: ``random``, or ``easy-to-hard`` by level and measure.
      seed: of the order in which rows are drawn. A larger budget holds all rows of a smaller one.
      take_all: write the whole pool if the budget is larger.
      device: whose hours a budget in ``gpu-hours`` counts.
      epochs: passes over the rows that such a budget pays; by default the scan's, or else 1.

    Raises:
      ValueError: if a field is out of range.
    """

    budget: float
    budget_unit: Unit = "examples"
    level: int | None = None
    selection: Selection | None = None
    loss: Loss | None = None
    accept_doubt: bool = False
    measure: Measure | None = None
    harder: Direction | None = None
    missing: Missing | None = None
    buckets: int = 3
    edges: tuple[float, ...] = ()
    measures: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    model: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    max_length: int | None = None
    order: Order = "random"
    seed: int = 0
    take_all: bool = False
    device: str = "H100"
    epochs: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "budget")
        check_choice(self, "budget_unit", get_args(Unit))
        check_choice(self, "order", get_args(Order))
        check_least(self, 2, "buckets")
        check_seed(self, "seed")
        if self.measure is not None:
            hard_is_high(self.measure, self.harder)
        for edge in self.edges:
            check_number("edges", edge)
        if self.budget_unit != "gpu-hours" and self.budget < 1:
            raise ValueError(
                f"budget must be at least one of its unit, {self.budget_unit}, got {self.budget:g}"
            )
        if self.budget_unit != "gpu-hours" and self.budget != int(self.budget):
            raise ValueError(
                f"budget must be a whole number of {self.budget_unit}, got {self.budget:g}"
            )
        if self.level is not None:
            check_least(self, 0, "level")
        if self.max_length is not None:
            check_least(self, 2, "max_length")
        if self.epochs is not None:
            check_positive(self, "epochs")
        if self.selection is not None:
            check_choice(self, "selection", get_args(Selection))
        if self.loss is not None:
            check_choice(self, "loss", get_args(Loss))
