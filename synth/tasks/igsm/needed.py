"""The parameters that the question of an iGSM problem needs, and an order of computation."""

from __future__ import annotations

import math
from random import Random

from synth.tasks.igsm.choices import pick, sample
from synth.tasks.igsm.graph import Structure
from synth.tasks.igsm.structure import Sizes, layout


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


def choose(structure: Structure, sizes: Sizes, rng: Random) -> tuple[list[int], int]:
    """Choose abstract parameters within their budget, then instances; return them with their ops.

    The parameters are in ascending order.
    """
    num_edges, chosen, costs = len(structure.edges), 0, _Costs(structure)
    *_, by_distance = layout(structure.widths)
    # Spend the abstract budget: each time draw one candidate for each distance, nearest first, and
    # take the farthest before the first that costs too much.
    budget = sizes.abstract_ops
    while budget > 0:
        best = None
        for offsets in by_distance:
            free = [each for offset in offsets if not chosen >> (each := num_edges + offset) & 1]
            if not free:
                continue
            added = costs.needs(pick(free, rng)) & ~chosen
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
    for edge in sample(rest, taken, rng):
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


def order_backward(
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
        order.append(pick(ready, rng))
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
