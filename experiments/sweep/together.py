"""How many members run at once: as many as the memory holds, and half of them when it runs out.

A chunk is the unit of resume and is frozen in the manifest. Its members may run in several parts,
which only decides how much memory they take. Under `jax.lax.map` results do not depend on it, bit
for bit. Under `jax.vmap` they do in the last bits, as they do on the size of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from experiments.engine.progress import console
from experiments.errors import ExpectedError
from experiments.storage.memory import OutOfMemoryError, device_memory, is_out_of_memory

SHARE = 0.9
"""Part of the memory that programs may plan with: fragments and other arrays need the rest."""

M = TypeVar("M")
R = TypeVar("R")


class Together:
    """Runs members in parts of a size that memory holds, and remembers the size.

    Attributes:
      places: for each kind of work that has run, how many members run at once.
      fewest: the smallest number that memory made necessary; None while it holds all.

    Args:
      devices: share the members; a part has at least one member for each.
    """

    def __init__(self, devices: Sequence[Any]):
        self._devices = devices
        self._measured: set[tuple[Hashable, int]] = set()
        self.places: dict[Hashable, int] = {}
        self.fewest: int | None = None

    def run(
        self,
        kind: Hashable,
        members: Sequence[M],
        work: Callable[[Sequence[M], int], list[R]],
        *,
        most: int,
        memory: Callable[[int], int | None] = lambda places: None,
    ) -> list[R]:
        """Run the work on all members, and return its results in their order.

        Args:
          kind: work of one kind has one size.
          members: what to work on.
          work: function of some members, and of the places to stack them in; gives a result each.
          most: places to begin with.
          memory: bytes that the program of so many places takes on each device, None if not known.

        Raises:
          OutOfMemoryError: if the memory does not hold one member on each device.
        """
        results: list[R] = []
        while len(results) < len(members):
            places = min(self._round(most), self.places.setdefault(kind, self._round(most)))
            try:
                reason = self._refusal(kind, places, memory)
                if not reason:
                    results += work(members[len(results) :][:places], places)
            # XLA's error, or that of NumPy, which stacks the members.
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, ExpectedError) or not is_out_of_memory(error):
                    raise
                if places <= len(self._devices):
                    raise OutOfMemoryError(
                        f"memory ran out with {places} member(s) at once, one on each device: "
                        f"lower optimiser.batch_size, test_examples, risk_examples or the decoder"
                    ) from error
                reason = f"memory ran out with {places} members at once"
            # Here the failed call's arrays are free: its frames went with the error.
            if reason:
                self.places[kind] = self._round(places // 2)
                self.fewest = min(self.fewest or places, self.places[kind])
                console.print(f"{self.places[kind]} members run at once from here: {reason}.")
        return results

    def _round(self, places: int) -> int:
        """The next multiple of the devices."""
        return -(-places // len(self._devices)) * len(self._devices)

    def _refusal(
        self, kind: Hashable, places: int, memory: Callable[[int], int | None]
    ) -> str | None:
        """Say why a program would not fit, once for each kind and size; None if it may."""
        if places <= len(self._devices) or (kind, places) in self._measured:
            return None
        self._measured.add((kind, places))
        limit = device_memory(self._devices[0], sharing=len(self._devices))
        needed = None if limit is None else memory(places)
        if limit is None or needed is None or needed <= SHARE * limit:
            return None
        return (
            f"{places} would need {needed / 2**30:.1f} GiB on each device, which has "
            f"{limit / 2**30:.1f} GiB"
        )
