"""What a study will cost, in numbers that its configuration tells: the work of each of its parts.

A study that can be planned has a `Workload`. `experiments.engine.forecast` adds up the work of the
parts that are missing, lets the workload time some of its programs, and tells the rest from these.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.engine.study import Part


@dataclass(frozen=True)
class Program:
    """Something that begins once (most often: is compiled) and then works at one speed.

    Attributes:
      kind: what it does, in words. Of two programs of a kind, the speed of one tells about the
        other's.
      name: tells programs of a kind apart.
      size: measure by which programs of a kind are near each other, such as tokens of a sequence.
      utilisation: share of a named device's peak that it is assumed to reach; None for work of the
        host, which takes as long beside any device.
      is_compiled: whether it counts among the compiled programs.
    """

    kind: str
    name: str = ""
    size: float = 0.0
    utilisation: float | None = None
    is_compiled: bool = True


@dataclass(frozen=True)
class Work:
    """Some work of a part, done by one program.

    Attributes:
      program: see above.
      amount: how much, in the unit of `Speed.rate`. Devices that work side by side count once.
      flops: floating-point operations, of all devices together.
      tokens: tokens that are trained on or generated, without padding.
    """

    program: Program
    amount: float
    flops: float = 0.0
    tokens: float = 0.0


@dataclass(frozen=True)
class Speed:
    """A program as it was timed.

    Attributes:
      first: seconds before it works at its speed, most often those of its compilation.
      rate: amount of work in a second, in a unit that the workload chooses.
      memory: bytes that it takes on all devices of this machine together; None if not known.
    """

    first: float
    rate: float
    memory: float | None = None


class Workload(abc.ABC):
    """The work of a study.

    Attributes:
      num_devices: devices that share the work.
      assumptions: what the numbers rest on, one sentence each.
    """

    num_devices: int = 1
    assumptions: Sequence[str] = ()

    @abc.abstractmethod
    def work(self, part: Part) -> Sequence[Work]:
        """The work of one part; nothing for a part that takes no time worth telling."""

    @abc.abstractmethod
    def disk(self, part: Part) -> float:
        """Bytes that a part leaves on disk."""

    @abc.abstractmethod
    def measure(self, program: Program) -> Speed:
        """Time a program on a little of its work, with shapes as in the run."""

    def counts(self) -> Mapping[str, int]:
        """Further numbers for the table, such as problems."""
        return {}

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold what the methods need meanwhile, such as a temporary directory."""
        yield
