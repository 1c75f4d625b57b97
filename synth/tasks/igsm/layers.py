"""Find the hidden structure of an iGSM problem in its text: who has what, and which layer is what.

An abstract parameter "A's C" counts the things of category C below A. It is never stated, and
nowhere does a text say what belongs to C. What can be known:

1. *Splitting.* "A's B" is cut into its two names. Where several cuts are possible ("Sam's Club's
   Milk"), the one whose names fit most other parameters is taken, then the one with the longest
   first name.
2. *Depth.* The items of A are those B for which the problem states "A's B". Every item below the
   top layer has an owner in the layer directly above, and every edge is stated, so depth is the
   distance from an item that nobody owns, in each connected part alike. If that puts an item in
   two layers, one name stands for two items (the reference has "Popcorn" among its products and
   among its ingredients): one that has things, and a lower one that has nothing.
3. *Category.* A category names one layer, two categories name two, and the layer lies below every
   item of which it is asked. Layers under which the problem would be circular are out.

Point 3 leaves more than one possibility only if there are three layers or more and a category is
asked of an item with two layers below it. Then each possibility is a `World`, and a solution is
judged right if it is right in one of them, unless the caller says what belongs to a category.
(The same goes for the rare case of two possibilities in point 2.)
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from synth.tasks.igsm.parse import OF, ProblemText

_MOST_MEANINGS = 10_000
_MOST_OWNERS = 8
"""Limits on the search in texts that no generator wrote."""


class InconsistentError(ValueError):
    """No structure of layers fits what the problem states."""


@dataclass(frozen=True)
class Formula:
    """How a parameter is computed: ``constant sign (terms added, or first term minus second)``.

    Attributes:
      sign: ``+``, ``*`` or None.
      constant: the number before the sign, or the value itself if there are no terms; else None.
      is_difference: whether the second of two terms is subtracted.
      terms: products of parameters, by name.
    """

    sign: str | None
    constant: int | None
    is_difference: bool
    terms: tuple[tuple[str, ...], ...]

    def evaluate(self, lookup: Callable[[str], int], modulus: int) -> int:
        """Value under a value for each parameter."""
        if not self.terms:
            return (self.constant or 0) % modulus
        products = []
        for term in self.terms:
            product = lookup(term[0])
            for name in term[1:]:
                product *= lookup(name)
            products.append(product)
        total = products[0] - products[1] if self.is_difference else sum(products)
        if self.constant is not None:
            total = self.constant * total if self.sign == "*" else self.constant + total
        return total % modulus

    @cached_property
    def inputs(self) -> set[str]:
        """Names of the parameters needed."""
        return {name for term in self.terms for name in term}


@dataclass(frozen=True)
class World:
    """A problem with one possible meaning of its categories.

    Attributes:
      problem: what is stated.
      children: the items of each owner.
      depth: layer of each item, 0 at the top.
      layer: the layer that each category names.
    """

    problem: ProblemText
    children: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    depth: Mapping[str, int] = field(default_factory=dict)
    layer: Mapping[str, int] = field(default_factory=dict)
    _formulas: dict[str, Formula | None] = field(default_factory=dict, repr=False)

    def formula(self, name: str) -> Formula | None:
        """How "A's B" is computed; None if the problem has no such parameter."""
        if name not in self._formulas:
            self._formulas[name] = self._find(name)
        return self._formulas[name]

    def _find(self, name: str) -> Formula | None:
        if statement := self.problem.statements.get(name):
            return Formula(
                statement.sign,
                statement.constant,
                statement.is_difference,
                tuple((operand,) for operand in statement.operands),
            )
        for category, layer in self.layer.items():
            owner = name.removesuffix(OF + category)
            if owner != name and owner in self.depth and self.depth[owner] < layer:
                counts = [(child, f"{owner}{OF}{child}") for child in self.children.get(owner, ())]
                if layer == self.depth[owner] + 1:
                    return Formula(None, None, False, tuple((count,) for _, count in counts))
                below = tuple((count, f"{child}{OF}{category}") for child, count in counts)
                return Formula(None, None, False, below)
        return None

    def names(self) -> list[str]:
        """Every parameter, stated and derived."""
        derived = [
            f"{owner}{OF}{category}"
            for category, layer in self.layer.items()
            for owner, depth in self.depth.items()
            if depth < layer
        ]
        return [*self.problem.statements, *derived]

    def needed(self, name: str) -> list[str] | None:
        """A parameter and all that it is computed from, in an order of computation.

        None if that is circular or a parameter is missing.
        """
        order: dict[str, None] = {}
        on_the_way: set[str] = set()
        stack = [name]
        while stack:
            top = stack[-1]
            formula = self.formula(top)
            if formula is None:
                return None
            missing = [each for each in formula.inputs if each not in order]
            if not missing:
                order[top] = None
                stack.pop()
            elif top in on_the_way:
                return None
            else:
                on_the_way.add(top)
                stack.extend(missing)
        return list(order)

    def value(self, name: str, modulus: int) -> int | None:
        """Value of a parameter by what the problem states; None if it cannot be computed."""
        order = self.needed(name)
        if order is None:
            return None
        values: dict[str, int] = {}
        for each in order:
            formula = self.formula(each)
            assert formula, "everything needed has a formula"
            values[each] = formula.evaluate(values.__getitem__, modulus)
        return values[name]


def worlds(
    problem: ProblemText, categories: Mapping[str, Collection[str]] | None = None
) -> list[World]:
    """Every meaning of the categories under which the problem makes sense; at least one.

    Args:
      problem: what is stated.
      categories: names of the items of a category, as far as known: all items of its layer.

    Raises:
      InconsistentError: if there is none.
    """
    derived = _derived(problem)
    if not derived:
        return [World(problem)]
    cuts = _cut(problem, derived)
    items = {cuts[name][1] for name in problem.statements}
    for name in derived:
        if cuts[name][1] in items:
            raise InconsistentError(f"{name!r} is used but not stated")
    children: dict[str, tuple[str, ...]] = {}
    for name in problem.statements:
        owner, item = cuts[name]
        children[owner] = (*children.get(owner, ()), item)
    found = [
        World(problem, children, depth, layer)
        for depth, deepest in _layerings(children)
        for depth, layer in _meanings([cuts[name] for name in derived], depth, deepest, categories)
    ]
    if len(found) > 1:
        found = [world for world in found if _computable(world, derived)]
    if not found:
        raise InconsistentError(f"no layers fit what is said of {derived}")
    return found


def _derived(problem: ProblemText) -> list[str]:
    """Parameters that are used or asked for, but not stated."""
    used = [name for each in problem.statements.values() for name in each.operands]
    return [
        name for name in dict.fromkeys([*used, problem.query]) if name not in problem.statements
    ]


def _cut(problem: ProblemText, derived: list[str]) -> dict[str, tuple[str, str]]:
    """The two names of every parameter."""
    possible: dict[str, list[tuple[str, str]]] = {}
    for name in (*problem.statements, *derived):
        pieces = name.split(OF)
        possible[name] = [
            (OF.join(pieces[:place]), OF.join(pieces[place:])) for place in range(1, len(pieces))
        ]
    possible[problem.query] = [(problem.owner, problem.item)]
    if all(len(cuts) == 1 for cuts in possible.values()):
        return {name: cuts[0] for name, cuts in possible.items()}
    # The name of an item is the same on both sides, the name of a category is on the second only.
    support = Counter(name for cuts in possible.values() for cut in cuts for name in cut)
    return {
        name: max(cuts, key=lambda cut: (support[cut[0]] + support[cut[1]], len(cut[0])))
        for name, cuts in possible.items()
    }


def _layerings(children: Mapping[str, tuple[str, ...]]) -> list[tuple[dict[str, int], int]]:
    """Layer of every item that has or is had, and the deepest layer; more than one if ambiguous.

    Raises:
      InconsistentError: if the items do not form layers.
    """
    depth = _depths(children, frozenset())
    if depth is not None:
        return [(depth, max(depth.values(), default=0))]
    found = []
    for name in children:
        owners = [owner for owner, items in children.items() if name in items]
        for size in range(1, min(len(owners), _MOST_OWNERS) + 1):
            for lower in itertools.combinations(owners, size):
                depth = _depths(children, frozenset((owner, name) for owner in lower))
                if depth is not None:
                    layers = {depth[owner] + 1 for owner in lower}
                    if len(layers) == 1 and max(layers) > depth[name]:
                        found.append((depth, max(*depth.values(), *layers)))
    if not found:
        raise InconsistentError("the items do not form layers")
    return found


def _depths(
    children: Mapping[str, tuple[str, ...]], left_out: frozenset[tuple[str, str]]
) -> dict[str, int] | None:
    """Layer of every item, or None if there are no such layers.

    Args:
      children: the items of each owner.
      left_out: edges that lead to another item of the same name.
    """
    edges = {
        owner: [item for item in items if (owner, item) not in left_out]
        for owner, items in children.items()
    }
    had = {item for items in edges.values() for item in items}
    depth = {owner: 0 for owner in edges if owner not in had}
    queue = list(depth)
    for owner in queue:
        for item in edges.get(owner, ()):
            if item not in depth:
                depth[item] = depth[owner] + 1
                queue.append(item)
            elif depth[item] != depth[owner] + 1:
                return None
    # What was not reached has itself in a circle.
    return depth if len(depth) == len(had | set(edges)) else None


def _meanings(
    derived: list[tuple[str, str]],
    depth: Mapping[str, int],
    deepest: int,
    categories: Mapping[str, Collection[str]] | None,
) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Every way to give each category a layer of its own, below all items that it is asked of.

    Args:
      derived: owner and category of each parameter that is used and not stated.
      depth: layer of each item.
      deepest: the lowest layer.
      categories: names of the items of a category, as far as known.

    Returns:
      Pairs of `depth`, completed by owners that nothing else mentions, and layer by category.
    """
    # Such an owner is an item of the top layer that has nothing.
    depth = {**{owner: 0 for owner, _ in derived}, **depth}
    lowest: dict[str, int] = {}
    for owner, category in derived:
        lowest[category] = max(lowest.get(category, 1), depth[owner] + 1)
    choices = [list(range(start, deepest + 1)) for start in lowest.values()]
    if categories:
        items = [{name for name in depth if depth[name] == layer} for layer in range(deepest + 1)]
        choices = [
            [layer for layer in layers if items[layer] <= set(categories.get(category, depth))]
            for category, layers in zip(lowest, choices, strict=True)
        ]
    if math.prod(len(layers) for layers in choices) > _MOST_MEANINGS:
        raise InconsistentError(f"too many ways to give {list(lowest)} a layer each")
    return [
        (depth, dict(zip(lowest, layers, strict=True)))
        for layers in itertools.product(*choices)
        if len(set(layers)) == len(layers)
    ]


def _computable(world: World, derived: list[str]) -> bool:
    """Whether no parameter depends on itself."""
    inputs: dict[str, set[str]] = {}
    stack = [*world.problem.statements, *derived]
    while stack:
        name = stack.pop()
        if name not in inputs:
            formula = world.formula(name)
            if formula is None:
                return False
            inputs[name] = formula.inputs
            stack.extend(formula.inputs)
    waiting = {name: len(needed) for name, needed in inputs.items()}
    users: dict[str, list[str]] = {}
    for name, needed in inputs.items():
        for each in needed:
            users.setdefault(each, []).append(name)
    ready = [name for name, number in waiting.items() if not number]
    for name in ready:
        for user in users.get(name, ()):
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return len(ready) == len(inputs)
