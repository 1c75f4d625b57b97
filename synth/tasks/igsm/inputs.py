"""Draw the inputs of the sentences of an iGSM problem, of the needed ones and of distractors."""

from __future__ import annotations

from random import Random

from synth.tasks.igsm.choices import pick, sample, shuffled
from synth.tasks.igsm.graph import Rule, Structure

MAX_INPUTS = 4
"""Inputs of one sentence, its constant counted."""

CONSTANT = -1
"""Stands for the constant among the inputs."""


def spread(structure: Structure, order: list[int], num_extra: int, rng: Random) -> list[int] | None:
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
        index = pick(open_, rng)
        extra[index] += 1
        if extra[index] == room[index]:
            open_.remove(index)
    return extra


def add_inputs(
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
        candidates = [CONSTANT, *(each for each in order[:index] if each not in given)]
        missing = wanted - len(given)
        if wanted < index + 1 and missing > 0 and rng.random() < 0.5:
            given.append(CONSTANT)
            del candidates[0]
            missing -= 1
        given += sample(candidates, missing, rng)


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


def draw_distractors(
    structure: Structure, order: list[int], inputs: dict[int, list[int]], rng: Random
) -> list[int]:
    """Draw the inputs of the unneeded sentences, and return these in a random order.

    With probability 1/2 a distractor depends on other distractors of this kind only; otherwise it
    depends on any parameters that are known so far.
    """
    needed = set(order)
    stated = [parameter for parameter in order if not structure.is_abstract(parameter)]
    rest = [edge for edge in range(len(structure.edges)) if edge not in needed]
    rest = shuffled(rest, rng)
    derivable = _Derivable(structure, stated)
    alone: list[int] = []
    for edge in rest:
        is_alone = rng.random() < 0.5
        candidates = alone if is_alone else derivable.known
        wanted, most = 1, min(len(candidates) + 1, MAX_INPUTS)
        while wanted < most and rng.random() > 0.5:
            wanted += 1
        if wanted == len(candidates) + 1 or rng.random() < 0.5:
            inputs[edge] = [CONSTANT, *sample(candidates, wanted - 1, rng)]
        else:
            inputs[edge] = sample(candidates, wanted, rng)
        derivable.state(edge)
        if is_alone:
            alone.append(edge)
    return rest


def draw_rule(parameters: list[int], modulus: int, rng: Random) -> Rule:
    """Draw the constant and the operators of a statement with these inputs."""
    operands = tuple(parameter for parameter in parameters if parameter != CONSTANT)
    constant, times = None, False
    if len(operands) < len(parameters):
        times = bool(operands) and rng.random() < 0.5
        least = 1 if times else 0
        constant = least + int(rng.random() * (modulus - least))
    minus = len(operands) == 2 and rng.random() < 0.5
    return Rule(operands, constant, times, minus)
