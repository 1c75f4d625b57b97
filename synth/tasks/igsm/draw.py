"""Draw an iGSM problem.

The steps: sizes, structure graph, the parameters that the question will need, their order, the
inputs of each, and last the unneeded sentences (distractors) and all numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from synth.tasks.igsm.choices import pick, shuffled
from synth.tasks.igsm.graph import Drawn, Rule, Settings, Structure
from synth.tasks.igsm.inputs import add_inputs, draw_distractors, draw_rule, spread
from synth.tasks.igsm.needed import choose, order_backward
from synth.tasks.igsm.structure import draw_sizes, draw_structure, is_hopeless

ATTEMPTS = 1000
"""Structures tried with the same sizes before new sizes are drawn."""


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
        sizes = draw_sizes(settings, num_ops, rng)
        if is_hopeless(sizes):
            continue
        for _ in range(ATTEMPTS):
            structure = draw_structure(sizes, rng)
            chosen, least_ops = choose(structure, sizes, rng)
            ordered = order_backward(structure, chosen, rng)
            if ordered is not None:
                break
        else:
            continue
        order, inputs = ordered
        extra = spread(structure, order, num_ops - least_ops, rng)
        if extra is None:
            continue
        add_inputs(structure, order, inputs, extra, rng)
        return _finish(settings, structure, order, inputs, rng)


def draw_num_ops(settings: Settings, rng: Random) -> int:
    """Draw an op count by the style's law: the least of two for ``light``, nested for ``heavy``."""
    if settings.style == "light":
        return min(rng.randint(1, settings.max_op), rng.randint(1, settings.max_op))
    first = rng.randint(1, settings.max_op)
    return rng.randint(rng.randint(first, settings.max_op), settings.max_op)


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
        order.append(pick(ready, rng))
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
    distractors = draw_distractors(structure, order, inputs, rng)
    rules = [draw_rule(inputs[edge], settings.modulus, rng) for edge in range(len(structure.edges))]
    sentences = [edge for edge in order if not structure.is_abstract(edge)] + distractors
    if settings.shuffle == 5:
        sentences = shuffled(sentences, rng)
    elif settings.shuffle < 5:
        sentences = _computable(structure, rules, sentences, rng)
        sentences = _jittered(sentences, settings.shuffle, rng)
    value = _evaluate(structure, rules, settings.modulus)
    values = {parameter: value(parameter) for parameter in (*order, *distractors)}
    return Drawn(structure, tuple(rules), values, tuple(order), tuple(sentences), settings.modulus)
