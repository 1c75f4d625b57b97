"""Draw an iGSM problem: its items, which quantity depends on which, and every value.

Our own code for the published construction (Ye, Xu, Li and Allen-Zhu 2024, Physics of Language
Models Part 2.1, arXiv 2407.20311, appendix A), with the defaults of its public generator.

A *structure graph* has layers of items; an edge says that one item has some of another. A
*parameter* is the number on an edge (*instance*: "each A's B") or the number of all items of a
category below an item (*abstract*: "each A's C", never stated, always derived). The *dependency
graph* says from which constant and which parameters each instance is computed. A parameter with k
inputs costs max(k - 1, 1) operations; the op count of a problem is the sum over the parameters
that the question needs.

`draw` takes these steps: sizes, structure graph, the parameters that the question will need, their
order, the inputs of each, and last the unneeded sentences (distractors) and all numbers.

Parameters are integers here: an instance is the number of its edge, an abstract one is
``num_edges + item * depth + layer`` of its category. So every abstract parameter is larger than
every instance.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar, get_args

T = TypeVar("T")
Style = Literal["light", "heavy"]
MAX_INPUTS = 4
"""Inputs of one sentence, its constant counted."""
ATTEMPTS = 1000
"""Structures tried with the same sizes before new sizes are drawn."""


@dataclass(frozen=True)
class Settings:
    """The distribution that problems are drawn from.

    Attributes:
      style: ``light`` or ``heavy``, the reference's two distributions of sizes.
      max_op: largest op count where none is given.
      max_edge: most edges of the structure graph; None for ``floor(4 op / 3) + 1``, which ties the
        length of a problem to its op count, as the paper does.
      min_edge: fewest edges; None for the reference's rule, in which edges and layers grow with op.
      modulus: of all arithmetic.
      shuffle: order of the sentences: 5 is random; 0 to 4 is an order of computation in which
        sentences are moved by at most so many places; 6 is such an order, distractors last.

    Raises:
      ValueError: if a field is out of range.
    """

    style: Style = "heavy"
    max_op: int = 20
    max_edge: int | None = None
    min_edge: int | None = None
    modulus: int = 23
    shuffle: int = 5

    def __post_init__(self) -> None:
        if self.style not in get_args(Style):
            raise ValueError(f"style must be one of {get_args(Style)}, got {self.style!r}")
        if self.max_op < 1:
            raise ValueError(f"max_op must be at least 1, got {self.max_op}")
        if self.max_edge is not None and self.max_edge < 2:
            raise ValueError(f"max_edge must be at least 2, or None, got {self.max_edge}")
        if self.min_edge is not None and not 0 <= self.min_edge <= (self.max_edge or 0):
            raise ValueError(
                f"min_edge must be between 0 and max_edge = {self.max_edge}, or None, "
                f"got {self.min_edge}"
            )
        if self.modulus < 2:
            raise ValueError(f"modulus must be at least 2, got {self.modulus}")
        if not 0 <= self.shuffle <= 6:
            raise ValueError(f"shuffle must be between 0 and 6, got {self.shuffle}")

    def edges(self, num_ops: int) -> int:
        """Most edges of a problem with `num_ops` operations."""
        return 4 * num_ops // 3 + 1 if self.max_edge is None else self.max_edge

    def check(self, num_ops: int) -> None:
        """Raise ValueError unless problems with `num_ops` operations can be drawn."""
        if num_ops < 1:
            raise ValueError(f"num_ops must be at least 1, got {num_ops}")
        if num_ops > (most := 2 * self.edges(num_ops)):
            raise ValueError(
                f"num_ops must be at most 2 * max_edge = {most} for these settings, got {num_ops}"
            )


@dataclass(frozen=True, slots=True)
class Structure:
    """Layers of items and the edges between neighbouring layers.

    Attributes:
      widths: items of each layer.
      layer, place: layer of each item, and its place there.
      edges: pairs (item, item of the next layer).
      children: for each item its edges, by the item they lead to.
    """

    widths: tuple[int, ...]
    layer: tuple[int, ...]
    place: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    children: tuple[tuple[int, ...], ...]
    _terms: dict[int, list[tuple[int, ...]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def depth(self) -> int:
        return len(self.widths)

    def is_abstract(self, parameter: int) -> bool:
        return parameter >= len(self.edges)

    def abstract(self, item: int, layer: int) -> int:
        """Parameter for all items of a layer below an item."""
        return len(self.edges) + item * len(self.widths) + layer

    def owner_and_layer(self, parameter: int) -> tuple[int, int]:
        """Item and category's layer of an abstract parameter."""
        return divmod(parameter - len(self.edges), len(self.widths))

    def terms(self, parameter: int) -> list[tuple[int, ...]]:
        """Products whose sum is an abstract parameter: (count,) or (count, count below)."""
        if parameter not in self._terms:
            item, layer = self.owner_and_layer(parameter)
            if self.layer[item] + 1 == layer:
                terms = [(edge,) for edge in self.children[item]]
            else:
                below = len(self.edges) + layer
                terms = [
                    (edge, below + self.edges[edge][1] * len(self.widths))
                    for edge in self.children[item]
                ]
            self._terms[parameter] = terms
        return self._terms[parameter]


@dataclass(frozen=True, slots=True)
class Rule:
    """The statement of an instance parameter.

    Its value is ``constant (+ or *) (sum or difference of the operands)``; without operands it is
    the constant.

    Attributes:
      operands: parameters, in the order of the sentence.
      constant: a number, or None.
      times: whether the constant multiplies, rather than adds.
      minus: whether the two operands are subtracted, rather than added.
    """

    operands: tuple[int, ...]
    constant: int | None
    times: bool = False
    minus: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """One problem, without words.

    Attributes:
      structure: the items and what each has.
      rules: the statement of each instance parameter.
      values: value of each parameter that is needed or stated.
      order: the parameters that the question needs, in an order of computation; the last one is
        asked for.
      sentences: all instance parameters, in the order of the text.
      modulus: of all arithmetic.
      works: results that `synth.tasks.igsm.work.work` keeps here.
    """

    structure: Structure
    rules: tuple[Rule, ...]
    values: dict[int, int]
    order: tuple[int, ...]
    sentences: tuple[int, ...]
    modulus: int
    works: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def query(self) -> int:
        return self.order[-1]

    @property
    def answer(self) -> int:
        return self.values[self.order[-1]]

    @property
    def num_distractors(self) -> int:
        """Sentences that the question does not need."""
        needed = set(self.order)
        return sum(parameter not in needed for parameter in self.sentences)


@dataclass(frozen=True, slots=True)
class _Sizes:
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


def draw(settings: Settings, num_ops: int, rng: Random) -> Drawn:
    """Draw a problem whose question needs exactly `num_ops` operations.

    Args:
      settings: the distribution.
      num_ops: the op count, at least 1.
      rng: the only source of randomness.

    Raises:
      ValueError: if `num_ops` is below 1 or more than any problem of these settings can have.
    """
    settings.check(num_ops)
    while True:
        sizes = _draw_sizes(settings, num_ops, rng)
        if _is_hopeless(sizes):
            continue
        for _ in range(ATTEMPTS):
            structure = _draw_structure(sizes, rng)
            chosen, least_ops = _choose(structure, sizes, rng)
            ordered = _order(structure, chosen, rng)
            if ordered is not None:
                break
        else:
            continue
        order, inputs = ordered
        extra = _spread(structure, order, num_ops - least_ops, rng)
        if extra is None:
            continue
        _add_inputs(structure, order, inputs, extra, rng)
        return _finish(settings, structure, order, inputs, rng)


def draw_num_ops(settings: Settings, rng: Random) -> int:
    """Draw an op count by the style's law: the least of two for ``light``, nested for ``heavy``."""
    if settings.style == "light":
        return min(rng.randint(1, settings.max_op), rng.randint(1, settings.max_op))
    first = rng.randint(1, settings.max_op)
    return rng.randint(rng.randint(first, settings.max_op), settings.max_op)


# `Random.choice`, `sample` and `shuffle` check their arguments, which takes longer than the draw.


def _pick(items: list[int], rng: Random) -> int:
    return items[int(rng.random() * len(items))]


def _sample(items: list[T], count: int, rng: Random) -> list[T]:
    pool, size = items.copy(), len(items)
    for place in range(count):
        other = place + int(rng.random() * (size - place))
        pool[place], pool[other] = pool[other], pool[place]
    return pool[:count]


def _shuffled(items: list[int], rng: Random) -> list[int]:
    return sorted(items, key=lambda _: rng.random())


# Sizes and structure.


@functools.cache
def _size_weights(num_ops: int, most: int) -> tuple[float, float, float]:
    """Probabilities of the sizes 2, 3 and 4: harder problems are deeper and wider."""
    relative = (num_ops - 1) / (most - 1)
    weights = [math.exp(-((relative - at) ** 2)) for at in (0.2, 0.5, 0.8)]
    total = sum(weights)
    return tuple(weight / total for weight in weights)  # type: ignore[return-value]


def _draw_sizes(settings: Settings, num_ops: int, rng: Random) -> _Sizes:
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
    return _Sizes(abstract_ops, least_ops, num_ops, depth, narrow, wide, edges, rng.random())


def _is_hopeless(sizes: _Sizes) -> bool:
    """True if no attempt can succeed, so that none need be made.

    This is so if all neighbouring items are connected, there are three layers or more, and the
    budget takes every parameter. Then only abstract parameters of the top layer can be asked for.
    Each of their inputs is an input of another one too, so `_order` gets stuck after the first.
    """
    width, gaps = sizes.narrow, sizes.depth - 1
    if gaps < 2 or width != sizes.wide or sizes.edges < gaps * width**2:
        return False
    ops = (width * (width - 1 + (2 * width - 1) * farther) for farther in range(gaps))
    return sizes.abstract_ops >= sizes.edges + sum(ops)


@functools.cache
def _layout(
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


def _draw_structure(sizes: _Sizes, rng: Random) -> Structure:
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
        widths[_pick(free, rng)] += 1

    # Every item below the top gets one parent; further edges are drawn from all other pairs.
    layer, place, _ = _layout(tuple(widths))
    start, present, absent = 0, [], []
    for upper, lower in itertools.pairwise(widths):
        below = start + upper
        for item in range(below, below + lower):
            parent = start + int(rng.random() * upper)
            present.append((parent, item))
            absent += [(other, item) for other in range(start, below) if other != parent]
        start = below
    edges = sorted(present + _sample(absent, max(0, sizes.edges - len(present)), rng))
    children: list[list[int]] = [[] for _ in layer]
    for index, (item, _) in enumerate(edges):
        children[item].append(index)
    return Structure(tuple(widths), layer, place, tuple(edges), tuple(map(tuple, children)))


# The parameters that the question will need.


class _Costs:
    """The requirements and operations of abstract parameters.

    A set of parameters is an integer with one bit for each.
    """

    def __init__(self, structure: Structure):
        self.structure = structure
        self._needs: dict[int, int] = {}
        self._ops: dict[int, int] = {}

    def needs(self, parameter: int) -> int:
        """The parameter and everything that it is computed from, by structure alone."""
        if parameter not in self._needs:
            structure = self.structure
            item, layer = structure.owner_and_layer(parameter)
            needs, edges = 1 << parameter, structure.children[item]
            for edge in edges:
                needs |= 1 << edge
            num_inputs = len(edges)
            if structure.layer[item] + 1 < layer:
                num_inputs *= 2
                for edge in edges:
                    needs |= self.needs(structure.abstract(structure.edges[edge][1], layer))
            self._needs[parameter] = needs
            self._ops[parameter] = max(num_inputs - 1, 1)
        return self._needs[parameter]

    def ops(self, added: int) -> int:
        """Operations of a set of parameters, all of which `needs` has met."""
        num_edges = len(self.structure.edges)
        abstract = added >> num_edges
        total = (added & ((1 << num_edges) - 1)).bit_count()
        while abstract:
            index = abstract.bit_length() - 1
            total += self._ops[num_edges + index]
            abstract ^= 1 << index
        return total


def _choose(structure: Structure, sizes: _Sizes, rng: Random) -> tuple[list[int], int]:
    """Choose abstract parameters within their budget, then instances; return them with their ops.

    The parameters are in ascending order.
    """
    num_edges, chosen, costs = len(structure.edges), 0, _Costs(structure)
    *_, by_distance = _layout(structure.widths)
    # Spend the abstract budget: each time draw one candidate for each distance, nearest first, and
    # take the farthest before the first that costs too much.
    budget = sizes.abstract_ops
    while budget > 0:
        best = None
        for offsets in by_distance:
            free = [each for offset in offsets if not chosen >> (each := num_edges + offset) & 1]
            if not free:
                continue
            added = costs.needs(_pick(free, rng)) & ~chosen
            cost = costs.ops(added)
            if cost > budget:
                break
            best = cost, added
        if best is None:
            break
        budget -= best[0]
        chosen |= best[1]
    # Spend the rest on instances, of one operation each.
    rest = [edge for edge in range(num_edges) if not chosen >> edge & 1]
    wanted = sizes.least_ops - sizes.abstract_ops + budget
    taken = min(wanted, len(rest))
    for edge in _sample(rest, taken, rng):
        chosen |= 1 << edge
    parameters = [each for each in range(chosen.bit_length()) if chosen >> each & 1]
    return parameters, sizes.least_ops - wanted + taken


class _Backward:
    """Chosen parameters as they are placed backward, from the question to the constants.

    Attributes:
      inputs: parameters that each one is computed from; an instance gets its own late or never.
      uses: for each parameter, the number of unplaced ones that are computed from it.
      unplaced: in ascending order.
      free: those of `unplaced` that no unplaced one is computed from.
      pending: those of `unplaced` that a placed one is computed from, so that the question needs
        them.
    """

    def __init__(self, structure: Structure, chosen: list[int]):
        self.num_edges = len(structure.edges)
        self.inputs: dict[int, list[int]] = {parameter: [] for parameter in chosen}
        self.uses = dict.fromkeys(chosen, 0)
        for parameter in chosen:
            if structure.is_abstract(parameter):
                terms = structure.terms(parameter)
                self.inputs[parameter] = [each for term in terms for each in term]
                for each in self.inputs[parameter]:
                    self.uses[each] += 1
        self.unplaced = list(chosen)
        self.free = [parameter for parameter in chosen if not self.uses[parameter]]
        self.pending: set[int] = set()

    def place(self, parameter: int) -> None:
        """Place a free parameter, which may free its inputs."""
        self.unplaced.remove(parameter)
        self.free.remove(parameter)
        self.pending.discard(parameter)
        self.pending.update(self.inputs[parameter])
        for each in self.inputs[parameter]:
            self.uses[each] -= 1
            if not self.uses[each]:
                self.free.append(each)

    def ready(self) -> list[int]:
        """Parameters that may be placed next, each needed by one that is placed."""
        return [parameter for parameter in self.free if parameter in self.pending]

    def weights(self, candidates: list[int], bias: float) -> list[float]:
        """Weights for an instance's input: `bias` for an abstract one, and for one not pending."""
        return [
            (bias if each >= self.num_edges else 1.0) * (1.0 if each in self.pending else bias)
            for each in candidates
        ]


def _order(
    structure: Structure, chosen: list[int], rng: Random
) -> tuple[list[int], dict[int, list[int]]] | None:
    """Order the chosen parameters backward from a question so that it needs all of them.

    An instance may get one input here, which makes another parameter necessary. Some problems have
    many such instances and some few: their share is drawn first.

    Args:
      structure: the items.
      chosen: the parameters, in ascending order.
      rng: source of randomness.

    Returns:
      Order of computation, and inputs of each parameter; None if it got stuck.
    """
    share = rng.random()
    bias = math.exp(abs(rng.gauss(0.0, 1.0)))
    backward, order = _Backward(structure, chosen), []
    # Anything that nothing else is computed from can be the question.
    ready = backward.free
    while ready:
        order.append(_pick(ready, rng))
        backward.place(order[-1])
        if not backward.unplaced:
            return order[::-1], backward.inputs
        ready = backward.ready()
        # If nothing is ready, an input out of the free ones keeps the order going.
        if not structure.is_abstract(order[-1]) and (not ready or rng.random() < share):
            candidates = backward.unplaced if ready else backward.free
            drawn = rng.choices(candidates, backward.weights(candidates, bias))[0]
            backward.inputs[order[-1]].append(drawn)
            if not backward.uses[drawn] and drawn not in backward.pending:
                ready.append(drawn)
            backward.pending.add(drawn)
    return None


# Inputs of the needed sentences.

_CONSTANT = -1


def _spread(
    structure: Structure, order: list[int], num_extra: int, rng: Random
) -> list[int] | None:
    """Spread extra operations over the needed parameters; None if there are too many of them.

    Two inputs cost one operation, as one does; each further input is an extra operation. An
    instance has at most `MAX_INPUTS`, out of a constant and the parameters before it.
    """
    room = [
        0 if structure.is_abstract(parameter) else max(min(index + 1, MAX_INPUTS) - 2, 0)
        for index, parameter in enumerate(order)
    ]
    if num_extra > sum(room):
        return None
    extra = [0] * len(order)
    open_ = [index for index, space in enumerate(room) if space]
    for _ in range(num_extra):
        index = _pick(open_, rng)
        extra[index] += 1
        if extra[index] == room[index]:
            open_.remove(index)
    return extra


def _add_inputs(
    structure: Structure,
    order: list[int],
    inputs: dict[int, list[int]],
    extra: list[int],
    rng: Random,
) -> None:
    """Draw the inputs of each needed instance from a constant and the parameters before it."""
    for index, parameter in enumerate(order):
        if structure.is_abstract(parameter):
            continue
        given = inputs[parameter]
        wanted = extra[index] + 2 if extra[index] else (1 if rng.random() < 0.5 else 2)
        wanted = min(wanted, index + 1, MAX_INPUTS)
        candidates = [_CONSTANT, *(each for each in order[:index] if each not in given)]
        missing = wanted - len(given)
        if wanted < index + 1 and missing > 0 and rng.random() < 0.5:
            given.append(_CONSTANT)
            del candidates[0]
            missing -= 1
        given += _sample(candidates, missing, rng)


# Distractors, order of the text, values.


class _Derivable:
    """The parameters whose value follows from a growing set of stated instances.

    Attributes:
      parents: items of the layer above that have each item.
      missing: for each item, the edges below it that are not stated yet.
      known: parameters that follow, in the order in which they came to.
    """

    def __init__(self, structure: Structure, stated: list[int]):
        self.structure = structure
        self.parents: list[list[int]] = [[] for _ in structure.layer]
        for item, child in structure.edges:
            self.parents[child].append(item)
        self.missing = [len(edges) for edges in structure.children]
        self.known: list[int] = []
        self._reached: set[int] = set()
        for item in range(len(structure.layer)):
            if not self.missing[item]:
                self._derive(item)
        for parameter in stated:
            self.state(parameter)

    def state(self, edge: int) -> None:
        """Add a stated instance, and each abstract parameter that it completes."""
        self.known.append(edge)
        item = self.structure.edges[edge][0]
        self.missing[item] -= 1
        if not self.missing[item]:
            self._derive(item)

    def _derive(self, item: int) -> None:
        structure = self.structure
        below = [structure.edges[edge][1] for edge in structure.children[item]]
        for layer in range(structure.layer[item] + 1, structure.depth):
            parameter = structure.abstract(item, layer)
            is_next = layer == structure.layer[item] + 1
            if parameter in self._reached or not (
                is_next or all(structure.abstract(child, layer) in self._reached for child in below)
            ):
                continue
            self._reached.add(parameter)
            self.known.append(parameter)
        for parent in self.parents[item]:
            if not self.missing[parent]:
                self._derive(parent)


def _draw_distractors(
    structure: Structure, order: list[int], inputs: dict[int, list[int]], rng: Random
) -> list[int]:
    """Draw the inputs of the unneeded sentences, and return these in a random order.

    With probability 1/2 a distractor depends on other distractors of this kind only; otherwise it
    depends on any parameters that are known so far.
    """
    needed = set(order)
    stated = [parameter for parameter in order if not structure.is_abstract(parameter)]
    rest = [edge for edge in range(len(structure.edges)) if edge not in needed]
    rest = _shuffled(rest, rng)
    derivable = _Derivable(structure, stated)
    alone: list[int] = []
    for edge in rest:
        is_alone = rng.random() < 0.5
        candidates = alone if is_alone else derivable.known
        wanted, most = 1, min(len(candidates) + 1, MAX_INPUTS)
        while wanted < most and rng.random() > 0.5:
            wanted += 1
        if wanted == len(candidates) + 1 or rng.random() < 0.5:
            inputs[edge] = [_CONSTANT, *_sample(candidates, wanted - 1, rng)]
        else:
            inputs[edge] = _sample(candidates, wanted, rng)
        derivable.state(edge)
        if is_alone:
            alone.append(edge)
    return rest


def _rule(parameters: list[int], modulus: int, rng: Random) -> Rule:
    """Draw the constant and the operators of a statement with these inputs."""
    operands = tuple(parameter for parameter in parameters if parameter != _CONSTANT)
    constant, times = None, False
    if len(operands) < len(parameters):
        times = bool(operands) and rng.random() < 0.5
        least = 1 if times else 0
        constant = least + int(rng.random() * (modulus - least))
    minus = len(operands) == 2 and rng.random() < 0.5
    return Rule(operands, constant, times, minus)


def _computable(
    structure: Structure, rules: list[Rule], edges: list[int], rng: Random
) -> list[int]:
    """Order sentences at random so that each needs only earlier ones."""

    def stated(parameter: int) -> set[int]:
        if not structure.is_abstract(parameter):
            return {parameter}
        return {
            edge for term in structure.terms(parameter) for each in term for edge in stated(each)
        }

    waits = {
        edge: set().union(*(stated(operand) for operand in rules[edge].operands)) for edge in edges
    }
    order: list[int] = []
    while waits:
        ready = [edge for edge in waits if waits[edge].issubset(order)]
        order.append(_pick(ready, rng))
        del waits[order[-1]]
    return order


def _jittered(order: list[int], places: int, rng: Random) -> list[int]:
    """Move each element back by at most `places` places; ties are broken at random."""
    keys = [(index + rng.randint(0, places), rng.random()) for index in range(len(order))]
    return [order[index] for index in sorted(range(len(order)), key=keys.__getitem__)]


def _evaluate(structure: Structure, rules: list[Rule], modulus: int) -> Callable[[int], int]:
    """A function from a parameter to its value, which it keeps."""
    values: dict[int, int] = {}

    def value(parameter: int) -> int:
        if parameter in values:
            return values[parameter]
        if parameter >= len(structure.edges):
            total = 0
            for term in structure.terms(parameter):
                total += value(term[0]) * (value(term[1]) if len(term) == 2 else 1)
        else:
            rule = rules[parameter]
            total = -2 * value(rule.operands[1]) if rule.minus else 0
            for operand in rule.operands:
                total += value(operand)
            if rule.constant is not None:
                total = rule.constant * total if rule.times else rule.constant + total
        values[parameter] = total % modulus
        return values[parameter]

    return value


def _finish(
    settings: Settings,
    structure: Structure,
    order: list[int],
    inputs: dict[int, list[int]],
    rng: Random,
) -> Drawn:
    """Add distractors, constants and operators, the order of the text, and all values."""
    distractors = _draw_distractors(structure, order, inputs, rng)
    rules = [_rule(inputs[edge], settings.modulus, rng) for edge in range(len(structure.edges))]
    sentences = [edge for edge in order if not structure.is_abstract(edge)] + distractors
    if settings.shuffle == 5:
        sentences = _shuffled(sentences, rng)
    elif settings.shuffle < 5:
        sentences = _computable(structure, rules, sentences, rng)
        sentences = _jittered(sentences, settings.shuffle, rng)
    value = _evaluate(structure, rules, settings.modulus)
    values = {parameter: value(parameter) for parameter in (*order, *distractors)}
    return Drawn(structure, tuple(rules), values, tuple(order), tuple(sentences), settings.modulus)
