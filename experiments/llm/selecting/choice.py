"""The rows that a budget buys: a prefix of the order in which a scan draws its own.

The order is that of `experiments.llm.scan.levels`: of the same pool, selection, level and seed, a
scan's member trains on the first rows of it. So a larger budget holds all rows of a smaller one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from experiments.engine import cost
from experiments.llm.difficulty.selection import Selection, selected
from experiments.llm.selecting.config import SelectConfig, Unit
from experiments.llm.selecting.pool import Pool
from experiments.llm.selecting.scanned import Scanned
from experiments.llm.text.loader import nested
from experiments.storage import checkpoint


@dataclass(frozen=True)
class Price:
    """What each problem of a pool takes of a budget.

    Attributes:
      unit: of the budget.
      each: amount of each problem, in that unit.
      assumption: how hours were computed; empty for other units.
    """

    unit: Unit
    each: Float[np.ndarray, " kept"]
    assumption: str = ""

    def told(self, places: Int[np.ndarray, " places"]) -> str:
        """The amount of some problems, in words."""
        amount = self.each[places].sum()
        return (
            f"{amount:,.4g} GPU-hours" if self.unit == "gpu-hours" else f"{amount:,.0f} {self.unit}"
        )


def price(config: SelectConfig, pool: Pool, scan: Scanned | None) -> Price:
    """What each problem takes of a budget.

    Hours are those of the training alone, of all parameters or of the scan's adapters: operations
    of `experiments.engine.cost`, at the share of the peak that it assumes.

    Raises:
      ValueError: if the device is not known.
    """
    if config.budget_unit == "examples":
        return Price("examples", np.ones(len(pool.rows)))
    assert pool.lengths is not None  # `read_pool` encodes for the other units
    if config.budget_unit == "tokens":
        return Price("tokens", pool.lengths.astype(float))
    assert pool.model is not None  # as with the lengths
    # Hours of one device for so many passes over each example, one example a row.
    device, epochs = cost.named_device(config.device), passes(config, scan)
    adapters = None if scan is None else scan.config.training.lora
    decoder = dataclasses.replace(checkpoint.read_config(pool.model), lora=adapters)
    lengths, which = np.unique(pool.lengths, return_inverse=True)
    hours = [
        cost.device_hours(cost.finetuning_flops(decoder, 1, epochs, length), 0, device=device)
        for length in lengths.tolist()
    ]
    trained = "all parameters" if adapters is None else f"adapters of rank {adapters.rank}"
    return Price(
        "gpu-hours",
        np.array(hours)[which],
        f"{epochs:g} epochs of training {trained} at {cost.TRAINING_UTILISATION:.0%} of the "
        f"{cost.PEAKS[device] / 1e12:g} TFLOP/s of one {device} in bfloat16, without padding, "
        f"evaluation and starting",
    )


def passes(config: SelectConfig, scan: Scanned | None) -> float:
    """Epochs that a budget in hours pays: stated, or the scan's, or 1."""
    if config.epochs is not None:
        return config.epochs
    if scan is not None and scan.config.training.compute_unit == "epochs":
        return scan.config.training.compute
    return 1.0


def in_units_of(scan: Scanned, config: SelectConfig, pool: Pool, each: Price) -> int:
    """The budget in the unit of a scan's data sizes, converted by the pool's mean example."""
    unit = scan.config.data_unit
    if unit == config.budget_unit:
        return int(config.budget)
    counted = (
        np.ones(len(pool.rows)) if unit == "examples" or pool.lengths is None else pool.lengths
    )
    return max(1, int(config.budget * counted.sum() / each.each.sum()))


def choose(
    config: SelectConfig, pool: Pool, each: Price, selection: Selection, level: int
) -> Int[np.ndarray, " chosen"]:
    """Choose problems at a level until the budget is spent, and put them in order.

    Args:
      config: of the choice.
      pool: the problems.
      each: what each problem takes of the budget.
      selection, level: what to train on.

    Returns:
      Places of the chosen problems in the pool's arrays, in the order of the file.

    Raises:
      ValueError: if the level has no problems, the budget buys none, or it is larger than the pool
        and this is not accepted.
    """
    places = np.flatnonzero(np.isin(pool.levels, selected(selection, level, pool.stated)))
    if not len(places):
        raise ValueError(
            f"level must have problems, but {level} ({selection}) has none; levels of the pool "
            f"are {pool.stated}"
        )
    # The scan's order, as far as the budget reaches.
    order = nested(places, len(places), seed=config.seed, stream=f"{selection} {level}")
    spent = each.each[order].cumsum()
    if config.budget > spent[-1] * (1 + 1e-12) and not config.take_all:
        examples = "" if each.unit == "examples" else f" in {len(order):,} examples"
        raise ValueError(
            f"budget must be at most what the pool holds at level {level} ({selection}), "
            f"{each.told(order)}{examples}; got {config.budget:,.12g} {config.budget_unit}. "
            f"--take-all writes all of them"
        )
    number = int(np.searchsorted(spent, config.budget * (1 + 1e-12), side="right"))
    if not number:
        raise ValueError(
            f"budget must buy at least one example, the first of the order takes "
            f"{each.told(order[:1])}; got {config.budget:,.12g} {config.budget_unit}"
        )
    chosen = order[:number]
    if config.order == "random":
        return chosen
    # Equally hard ones stay in the order of the draw.
    return chosen[np.lexsort((np.arange(number), pool.hardness[chosen], pool.levels[chosen]))]
