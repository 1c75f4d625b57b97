"""Random choices from lists.

`Random.choice`, `sample` and `shuffle` check their arguments, which takes longer than the draw.
"""

from __future__ import annotations

from random import Random
from typing import TypeVar

T = TypeVar("T")


def pick(items: list[int], rng: Random) -> int:
    """Draw one item."""
    return items[int(rng.random() * len(items))]


def sample(items: list[T], count: int, rng: Random) -> list[T]:
    """Draw `count` items without replacement, in a random order."""
    pool, size = items.copy(), len(items)
    for place in range(count):
        other = place + int(rng.random() * (size - place))
        pool[place], pool[other] = pool[other], pool[place]
    return pool[:count]


def shuffled(items: list[int], rng: Random) -> list[int]:
    """Return the items in a random order."""
    return sorted(items, key=lambda _: rng.random())
