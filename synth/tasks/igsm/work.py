"""Solve a drawn problem: the binary operations for each needed parameter, and a canonical order."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from synth.tasks.igsm.graph import Drawn

Sign = Literal["+", "-", "*"]
_CALCULATE: dict[Sign, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


class Operand(NamedTuple):
    """A number, a parameter, or the result of an earlier step of the same parameter.

    Attributes:
      kind: which of the three.
      index: the number itself, the parameter, or the position of the step.
    """

    kind: Literal["number", "parameter", "step"]
    index: int


class Step(NamedTuple):
    """One binary operation."""

    sign: Sign
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Work:
    """The calculation of one parameter.

    Attributes:
      parameter: the parameter.
      steps: operations; the last result is its value.
      only: without steps, the operand whose value it has; else None.
    """

    parameter: int
    steps: tuple[Step, ...]
    only: Operand | None

    def values(self, drawn: Drawn) -> list[int]:
        """Result of each step."""
        results: list[int] = []
        for step in self.steps:
            left = value(step.left, drawn, results)
            right = value(step.right, drawn, results)
            results.append(_CALCULATE[step.sign](left, right) % drawn.modulus)
        return results


def value(operand: Operand, drawn: Drawn, results: list[int]) -> int:
    """Value of an operand, given the results of the parameter's steps so far."""
    if operand.kind == "number":
        return operand.index
    return drawn.values[operand.index] if operand.kind == "parameter" else results[operand.index]


def work(drawn: Drawn, parameter: int) -> Work:
    """Calculation of a parameter from its dependencies; made once and kept in `drawn.works`.

    Sums are taken from the left, products before them.
    """
    if parameter not in drawn.works:
        drawn.works[parameter] = _work(drawn, parameter)
    return drawn.works[parameter]


def _work(drawn: Drawn, parameter: int) -> Work:
    steps: list[Step] = []

    def apply(sign: Sign, left: Operand, right: Operand) -> Operand:
        steps.append(Step(sign, left, right))
        return Operand("step", len(steps) - 1)

    def total(operands: list[Operand], sign: Sign = "+") -> Operand:
        result = operands[0]
        for operand in operands[1:]:
            result = apply(sign, result, operand)
        return result

    if drawn.structure.is_abstract(parameter):
        # A sum of counts, or of counts times the counts below.
        only = None
        for term in drawn.structure.terms(parameter):
            operands = [Operand("parameter", each) for each in term]
            product = apply("*", *operands) if len(operands) == 2 else operands[0]
            only = product if only is None else apply("+", only, product)
        only = only or Operand("number", 0)
    else:
        # The term first, then the constant that precedes it in the sentence.
        rule = drawn.rules[parameter]
        operands = [Operand("parameter", operand) for operand in rule.operands]
        if rule.constant is None:
            only = total(operands, "-" if rule.minus else "+")
        else:
            only = Operand("number", rule.constant)
            if operands:
                rest = total(operands, "-" if rule.minus else "+")
                only = apply("*" if rule.times else "+", only, rest)
    return Work(parameter, tuple(steps), None if steps else only)


def dependencies(drawn: Drawn, parameter: int) -> list[int]:
    """Parameters that a parameter is computed from, in the order in which its rule names them."""
    if drawn.structure.is_abstract(parameter):
        return [each for term in drawn.structure.terms(parameter) for each in term]
    return list(drawn.rules[parameter].operands)


def canonical_order(drawn: Drawn) -> list[int]:
    """Order the needed parameters by a rule that a reader of the text can follow.

    Repeat: take the first needed sentence of the text whose dependencies are known. Abstract
    parameters have no sentence; each comes right before the first parameter that uses it.
    """
    known: dict[int, None] = {}
    structure, waiting = drawn.structure, set(drawn.order)
    queue = [edge for edge in drawn.sentences if edge in waiting]

    def is_known(parameter: int) -> bool:
        if parameter in known or not structure.is_abstract(parameter):
            return parameter in known
        return all(is_known(each) for each in dependencies(drawn, parameter))

    def derive(parameter: int) -> None:
        if parameter not in known:
            for each in dependencies(drawn, parameter):
                derive(each)
            known[parameter] = None

    while queue:
        edge = next(e for e in queue if all(map(is_known, dependencies(drawn, e))))
        derive(edge)
        queue.remove(edge)
    derive(drawn.query)
    return list(known)
