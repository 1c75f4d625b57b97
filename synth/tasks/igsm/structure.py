"""The sizes of an iGSM problem, and its structure graph."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from random import Random

from synth.tasks.igsm.choices import pick, sample
from synth.tasks.igsm.graph import Settings, Structure


@dataclass(frozen=True, slots=True)
class Sizes:
    """The first draws: budgets in operations, and the shape of the structure graph.

    Attributes:
      abstract_ops: most operations of the abstract parameters and everything they depend on.
      least_ops: operations of all needed parameters before inputs are added.
      ops: the op count asked for.
      depth: number of layers.
      narrow, wide: items of a layer, at first and at most.
      edges: edges of the graph.
      growth: probability that a graph that could stop growing grows on.
    """

    abstract_ops: int
    least_ops: int
    ops: int
    depth: int
    narrow: int
    wide: int
    edges: int
    growth: float


@functools.cache
def _size_weights(num_ops: int, most: int) -> tuple[float, float, float]:
    """Probabilities of the sizes 2, 3 and 4: harder problems are deeper and wider."""
    relative = (num_ops - 1) / (most - 1)
    weights = [math.exp(-((relative - at) ** 2)) for at in (0.2, 0.5, 0.8)]
    total = sum(weights)
    return tuple(weight / total for weight in weights)  # type: ignore[return-value]


def draw_sizes(settings: Settings, num_ops: int, rng: Random) -> Sizes:
    """Draw the budgets and the shape for a problem with `num_ops` operations."""
    most, light = settings.edges(num_ops), settings.style == "light"
    abstract_ops = rng.randint(1, num_ops)
    if light:
        abstract_ops = max(abstract_ops, rng.randint(1, num_ops))
    least_ops = rng.randint(abstract_ops, num_ops)
    # Layers must hold the edges, so with `min_edge` both depend on `max_edge` and not on op.
    followed = num_ops if settings.min_edge is None else most
    depth, one, other = rng.choices((2, 3, 4), _size_weights(followed, most), k=3)
    narrow, wide = min(one, other), max(one, other)
    if settings.min_edge is not None:
        edges = rng.randint(settings.min_edge, most)
    elif light:
        fewest = min((depth - 1) * narrow, most)
        edges = min(rng.randint(fewest, most), rng.randint(fewest, most))
    elif rng.random() < 0.5:
        edges = rng.randint(0, most)
    else:
        edges = rng.randint(min(num_ops, most), most)
    edges = min(max(edges, (depth - 1) * narrow), (depth - 1) * wide * wide)
    return Sizes(abstract_ops, least_ops, num_ops, depth, narrow, wide, edges, rng.random())


def is_hopeless(sizes: Sizes) -> bool:
    """True if no attempt can succeed, so that none need be made.

    This is so if all neighbouring items are connected, there are three layers or more, and the
    budget takes every parameter. Then only abstract parameters of the top layer can be asked for.
    Each of their inputs is an input of another one too, so the backward order gets stuck after the
    first.
    """
    width, gaps = sizes.narrow, sizes.depth - 1
    if gaps < 2 or width != sizes.wide or sizes.edges < gaps * width**2:
        return False
    ops = (width * (width - 1 + (2 * width - 1) * farther) for farther in range(gaps))
    return sizes.abstract_ops >= sizes.edges + sum(ops)


@functools.cache
def layout(
    widths: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Layer and place of each item; then the abstract parameters, less the number of edges.

    The last are grouped by the distance from their item's layer to their category's, from 1 on.
    """
    depth = len(widths)
    layer = tuple(i for i, width in enumerate(widths) for _ in range(width))
    place = tuple(j for width in widths for j in range(width))
    by_distance = tuple(
        tuple(item * depth + i + distance for item, i in enumerate(layer) if i + distance < depth)
        for distance in range(1, depth)
    )
    return layer, place, by_distance


def draw_structure(sizes: Sizes, rng: Random) -> Structure:
    """Draw layers of items and the edges between them."""
    # Widen layers one item at a time, at least until they have room for the edges.
    widths = [sizes.narrow] * sizes.depth
    while True:
        capacity = sum(upper * lower for upper, lower in itertools.pairwise(widths))
        if capacity >= sizes.edges and (
            sum(widths[1:]) == sizes.edges or rng.random() >= sizes.growth
        ):
            break
        free = [i for i, width in enumerate(widths) if width < sizes.wide]
        if not free:
            break
        widths[pick(free, rng)] += 1

    # Every item below the top gets one parent; further edges are drawn from all other pairs.
    layer, place, _ = layout(tuple(widths))
    start, present, absent = 0, [], []
    for upper, lower in itertools.pairwise(widths):
        below = start + upper
        for item in range(below, below + lower):
            parent = start + int(rng.random() * upper)
            present.append((parent, item))
            absent += [(other, item) for other in range(start, below) if other != parent]
        start = below
    edges = sorted(present + sample(absent, max(0, sizes.edges - len(present)), rng))
    children: list[list[int]] = [[] for _ in layer]
    for index, (item, _) in enumerate(edges):
        children[item].append(index)
    return Structure(tuple(widths), layer, place, tuple(edges), tuple(map(tuple, children)))
