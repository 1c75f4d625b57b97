"""Recover the structure of an iGSM problem from its text: the items, their layers, the categories.

An abstract parameter "A's C" counts the items of category C below A. It is never stated, and no
sentence says which items belong to C. The text determines the following:

1. *Splitting.* "A's B" is cut into its two names. If several cuts are possible ("Sam's Club's
   Milk"), the one whose names occur most often in other parameters is taken, then the one with the
   longest first name.
2. *Depth.* The items of A are those B for which the problem states "A's B". Every item below the
   top layer has an owner in the layer directly above, and every edge is stated. So the depth of an
   item is its distance from an item without an owner, whichever that is. If that puts an item in
   two layers, one name stands for two items (the reference has "Popcorn" among its products and
   among its ingredients): one that has items itself, and a lower one that has none.
3. *Category.* A category names one layer, two categories name two, and the layer lies below every
   item of which the category is counted. Layers that would make the problem circular are excluded.

Point 3 leaves more than one possibility only if there are three layers or more and a category is
counted below an item that has two layers below it. Then each possibility is a `World`, and a
solution is right if it is right in one of them, unless the caller states the items of the category.
(The same holds in the rare case of two possibilities in point 2.)
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
"""Most ways to give the categories their layers; a text with more is refused."""
_MOST_OWNERS = 8
"""Most owners of an item that are tried as owners of its lower namesake, at once."""

_MOST_EDGES = 300_000
"""Most edges that are followed in the search for namesakes; a text that needs more is refused."""
_MOST_FORMULAS = 300_000
"""Most formulas in all meanings of a text together; one with more is refused."""


class InconsistentError(ValueError):
    """No structure of layers fits what the problem states."""


@dataclass(frozen=True)
class Formula:
    """Expression of a parameter: ``constant sign (sum of terms, or first term minus second)``.

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
        """Value of the expression modulo `modulus`, given a function to the parameters' values."""
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
      problem: its statements and question.
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
        """Expression of the parameter "A's B"; None if the problem has no such parameter."""
        if name not in self._formulas:
            self._formulas[name] = self._build_formula(name)
        return self._formulas[name]

    def _build_formula(self, name: str) -> Formula | None:
        # A stated parameter.
        if statement := self.problem.statements.get(name):
            return Formula(
                statement.sign,
                statement.constant,
                statement.is_difference,
                tuple((operand,) for operand in statement.operands),
            )
        # A category of a layer below the owner. In the next layer it counts the owner's items; else
        # it is a sum over these, of the number of each times the count below it.
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
        """Every parameter: those stated, then the abstract ones."""
        derived = [
            f"{owner}{OF}{category}"
            for category, layer in self.layer.items()
            for owner, depth in self.depth.items()
            if depth < layer
        ]
        return [*self.problem.statements, *derived]

    def needed(self, name: str) -> list[str] | None:
        """A parameter and everything that it is computed from, in an order of computation.

        None if the dependencies are circular or one of them is no parameter of the problem.
        """
        # Depth first, without recursion: texts may be deeper than Python's stack.
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
        """Value of a parameter modulo `modulus`; None if it cannot be computed."""
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
    """List the meanings of the categories under which the problem is consistent; at least one.

    Args:
      problem: its statements and question.
      categories: for the categories that are known, the names of all items that belong to each.

    Raises:
      InconsistentError: if there is none.
    """
    derived = _derived(problem)
    if not derived:
        return [World(problem)]
    # Owner and item of every parameter. An edge that is used must be stated.
    cuts = _cut(problem, derived)
    items = {cuts[name][1] for name in problem.statements}
    for name in derived:
        if cuts[name][1] in items:
            raise InconsistentError(f"{name!r} is used but not stated")
    children: dict[str, tuple[str, ...]] = {}
    for name in problem.statements:
        owner, item = cuts[name]
        children[owner] = (*children.get(owner, ()), item)
    # All assignments of layers to items and categories, circular ones left out.
    possible = []
    for depth, deepest in _layerings(children):
        meanings = _meanings([cuts[name] for name in derived], depth, deepest, categories)
        possible += [World(problem, children, depth, layer) for depth, layer in meanings]
        if len(possible) > _MOST_MEANINGS:
            raise InconsistentError(f"too many ways to give {derived[:3]} and others a layer")
    if len(possible) * (len(problem.statements) + len(derived)) > _MOST_FORMULAS:
        raise InconsistentError(f"too many ways to give {derived[:3]} and others a layer")
    if len(possible) > 1:
        possible = [world for world in possible if _computable(world, derived)]
    if not possible:
        raise InconsistentError(f"no layers fit what is said of {derived}")
    return possible


def _derived(problem: ProblemText) -> list[str]:
    """Abstract parameters: those that are used or asked for, but not stated."""
    used = [name for each in problem.statements.values() for name in each.operands]
    return [
        name for name in dict.fromkeys([*used, problem.query]) if name not in problem.statements
    ]


def _cut(problem: ProblemText, derived: list[str]) -> dict[str, tuple[str, str]]:
    """Cut every parameter into its two names (point 1 of the module)."""
    possible: dict[str, list[tuple[str, str]]] = {}
    for name in (*problem.statements, *derived):
        pieces = name.split(OF)
        possible[name] = [
            (OF.join(pieces[:place]), OF.join(pieces[place:])) for place in range(1, len(pieces))
        ]
    possible[problem.query] = [(problem.owner, problem.item)]
    if all(len(cuts) == 1 for cuts in possible.values()):
        return {name: cuts[0] for name, cuts in possible.items()}
    # Count each name over all possible cuts of all parameters: true names recur.
    support = Counter(name for cuts in possible.values() for cut in cuts for name in cut)
    return {
        name: max(cuts, key=lambda cut: (support[cut[0]] + support[cut[1]], len(cut[0])))
        for name, cuts in possible.items()
    }


def _layerings(children: Mapping[str, tuple[str, ...]]) -> list[tuple[dict[str, int], int]]:
    """Layer of every item with an owner or items, and the deepest layer (point 2 of the module).

    Returns:
      Pairs of layer by item and deepest layer; more than one if it is ambiguous which item has a
      namesake.

    Raises:
      InconsistentError: if the items do not form layers.
    """
    depth = _depths(children, frozenset())
    if depth is not None:
        return [(depth, max(depth.values(), default=0))]
    # One name stands for two items: try each name, and each set of owners of the lower one. These
    # owners must lie in one layer, and the lower item below the upper one.
    layerings = []
    num_edges, followed = sum(map(len, children.values())), 0
    for name in children:
        owners = [owner for owner, items in children.items() if name in items]
        for size in range(1, min(len(owners), _MOST_OWNERS) + 1):
            for lower in itertools.combinations(owners, size):
                followed += num_edges
                if followed > _MOST_EDGES or len(layerings) > _MOST_MEANINGS:
                    raise InconsistentError("too many items may be two of one name")
                depth = _depths(children, frozenset((owner, name) for owner in lower))
                if depth is not None:
                    layers = {depth[owner] + 1 for owner in lower}
                    if len(layers) == 1 and max(layers) > depth[name]:
                        layerings.append((depth, max(*depth.values(), *layers)))
    if not layerings:
        raise InconsistentError("the items do not form layers")
    return layerings


def _depths(
    children: Mapping[str, tuple[str, ...]], left_out: frozenset[tuple[str, str]]
) -> dict[str, int] | None:
    """Layer of every item, or None if there are no such layers.

    Args:
      children: the items of each owner.
      left_out: edges (owner, item) that lead to another item of the same name.
    """
    # Breadth first from the items without an owner; an item reached at two depths has no layer.
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
    # Items that were not reached own themselves in a circle.
    return depth if len(depth) == len(had | set(edges)) else None


def _meanings(
    derived: list[tuple[str, str]],
    depth: Mapping[str, int],
    deepest: int,
    categories: Mapping[str, Collection[str]] | None,
) -> list[tuple[dict[str, int], dict[str, int]]]:
    """List the ways to give each category a layer of its own (point 3 of the module).

    Args:
      derived: owner and category of each abstract parameter.
      depth: layer of each item.
      deepest: the lowest layer.
      categories: for the categories that are known, the names of all items that belong to each.

    Returns:
      Pairs of `depth`, completed by owners that no statement mentions, and layer by category.
    """
    # An owner that no statement mentions has neither items nor an owner: it is in the top layer.
    depth = {**{owner: 0 for owner, _ in derived}, **depth}
    lowest: dict[str, int] = {}
    for owner, category in derived:
        lowest[category] = max(lowest.get(category, 1), depth[owner] + 1)
    choices = [list(range(start, deepest + 1)) for start in lowest.values()]
    # A known category cannot name a layer with items of another one.
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
    """True if every parameter has a formula and none depends on itself."""
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
    # Topological sort: all parameters become ready unless some depend on each other in a circle.
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
