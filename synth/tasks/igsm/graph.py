"""An iGSM problem without words: its items, which quantity depends on which, and every value.

Our own code for the published construction (Ye, Xu, Li and Allen-Zhu 2024, Physics of Language
Models Part 2.1, arXiv 2407.20311, appendix A), with the defaults of its public generator.

A *structure graph* has layers of items; an edge says that one item has some of another. A
*parameter* is the number on an edge (*instance*: "each A's B") or the number of all items of a
category below an item (*abstract*: "each A's C", never stated, always derived). The *dependency
graph* says from which constant and which parameters each instance is computed. A parameter with k
inputs costs max(k - 1, 1) operations; the op count of a problem is the sum over the parameters
that the question needs.

Parameters are integers here: an instance is the number of its edge, an abstract one is
``num_edges + item * depth + layer`` of its category. So every abstract parameter is larger than
every instance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Style = Literal["light", "heavy"]


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
