"""The plan of a sweep: members -> groups of equal shapes -> chunks.

Members whose arrays have the same shapes form a *group*, which is one compiled program. A group
runs in *chunks*, the unit of resume: all of one size, but the last.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from experiments.sweep.draws import Draws
from experiments.sweep.grid import Member
from synth.arguments import LARGEST
from synth.config import Loss


@dataclass(frozen=True)
class Group:
    """The arrays' shapes and the static settings that members of one compiled program share."""

    length: int
    steps: int
    rows: int
    loss: Loss


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
    """The compiled program that a member runs in."""
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
