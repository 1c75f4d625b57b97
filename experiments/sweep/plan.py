"""The plan of a sweep: members -> groups of equal shapes and steps -> chunks.

Members whose arrays have the same shapes share one compiled program; those that also take the same
number of steps form a *group*. A group runs in *chunks*, the unit of resume: all of one size, but
the last.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

from experiments.sweep.draws import Draws
from experiments.sweep.grid import Member
from synth.arguments import LARGEST
from synth.config import Loss


class Shapes(NamedTuple):
    """The arrays' shapes and the loss that members of one compiled program share."""

    length: int
    rows: int
    loss: Loss


@dataclass(frozen=True)
class Group:
    """The program and the number of steps that members which run together share."""

    length: int
    steps: int
    rows: int
    loss: Loss

    @property
    def shapes(self) -> Shapes:
        """Of the program, which groups of any number of steps share."""
        return Shapes(self.length, self.rows, self.loss)


@dataclass(frozen=True)
class Chunk:
    """The members of one part.

    Attributes:
      name: of the part.
      group: the program that they run in.
      members: at most `SweepConfig.chunk_members`.
      largest: members of the largest chunk of the group.
    """

    name: str
    group: Group
    members: tuple[Member, ...]
    largest: int


def group(draws: Draws, member: Member) -> Group:
    """The group that a member runs in."""
    return Group(
        length=draws.task.max_length(draws.mixture(member).hardest),
        steps=_steps(draws, member),
        rows=draws.rows(member),
        loss=member.loss,
    )


def _steps(draws: Draws, member: Member) -> int:
    """Optimiser steps that the compute of a cell buys, at least 1.

    Raises:
      ValueError: if they are more than 32 bits hold.
    """
    config = draws.config
    steps = _bought(draws, member)
    if steps > LARGEST:
        raise ValueError(
            f"compute must buy at most {LARGEST} optimiser steps, got {config.compute_name}, which "
            f"buys {steps:.3g} at data_size {member.data_size}"
        )
    return max(1, math.ceil(steps))


def _bought(draws: Draws, member: Member) -> float:
    """Optimiser steps that the compute of a cell buys, as a number that need not be whole."""
    config = draws.config
    if config.compute_unit == "steps":
        return config.compute
    mean_tokens = draws.mean_tokens(draws.mixture(member))
    if config.compute_unit == "tokens":
        examples = config.compute / mean_tokens
    elif config.data_unit == "tokens":
        examples = config.compute * member.data_size / mean_tokens
    else:
        examples = config.compute * member.data_size
    return examples / config.optimiser.batch_size


def most_steps(draws: Draws) -> dict[Shapes, int]:
    """Steps of the longest fine-tuning in each compiled program."""
    most: dict[Shapes, int] = {}
    # Seeds and learning rates change nothing, so that one of each is enough.
    few = dataclasses.replace(draws.config, base_seeds=1, seeds=1, learning_rates=(1.0,))
    for member in few.members:
        own = group(draws, member)
        most[own.shapes] = max(own.steps, most.get(own.shapes, 0))
    return most


def plan(draws: Draws) -> list[Chunk]:
    """Chunks in the order in which they run: groups take turns."""
    by_group: dict[Group, list[Member]] = {}
    for member in draws.config.members:
        by_group.setdefault(group(draws, member), []).append(member)
    size = draws.config.chunk_members
    queues = [
        [
            Chunk(
                f"group{number:02d}-{start // size:03d}",
                each,
                tuple(members[start:][:size]),
                largest=min(size, len(members)),
            )
            for start in range(0, len(members), size)
        ]
        for number, (each, members) in enumerate(by_group.items())
    ]
    turns = itertools.zip_longest(*queues)
    return [chunk for turn in turns for chunk in turn if chunk is not None]
