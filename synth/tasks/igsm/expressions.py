"""Expressions compared by fingerprints, and read from numbers alone.

A fingerprint of a polynomial in parameters is its value modulo `PRIME`, if every parameter is the
number `point` of its name. Different polynomials over the integers agree there with probability
1e-17, so that comparing two numbers compares two expressions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

from synth.tasks.igsm.layers import Formula
from synth.tasks.igsm.parse import Definition, Expression
from synth.tasks.igsm.verdict import MOST_TRIALS, MistakeError, Reason, Work

PRIME = 2**61 - 1
"""Fingerprints are taken modulo this number."""
MOST_TERMS = 8
"""Most terms of an expression whose intermediate values are looked for among its parts."""


def point(name: str) -> int:
    """Pseudo-random number for a parameter in fingerprints, of 56 bits."""
    return int.from_bytes(blake2b(name.encode(), digest_size=7).digest(), "little")


def combine(operands: list[int], signs: tuple[str, ...]) -> int:
    """Value of a chain of operations, products first."""
    total, product, sign = 0, operands[0], 1
    for operation, operand in zip(signs, operands[1:], strict=True):
        if operation == "*":
            product *= operand
        else:
            total += sign * product
            product, sign = operand, 1 if operation == "+" else -1
    return total + sign * product


def explain(
    formula: Formula, definition: Definition, values: Mapping[str, int], modulus: int, work: Work
) -> None:
    """Check a definition that has only numbers.

    A number may stand for the constant, for a parameter of that value, or for an earlier result of
    the sentence, which must be some part of the expression. The definition is right if it is the
    stated expression under one of these readings.

    Args:
      formula: the stated expression.
      definition: the sentence.
      values: of the parameters defined, by name.
      modulus: of all arithmetic.
      work: counts the operations.

    Raises:
      MistakeError: if it is not right.
    """
    # Fingerprints of the things that a number may stand for, by the number.
    readings: dict[int, set[int]] = {}

    def add(value: int, fingerprint: int) -> None:
        readings.setdefault(value, set()).add(fingerprint)

    if formula.constant is not None:
        add(formula.constant, formula.constant)
    for name in formula.inputs:
        add(values[name], point(name))
    # An intermediate result adds readings: the parts of the expression that have its value.
    *intermediates, last = definition.steps
    if intermediates:
        work.add(8 * 2 ** min(len(formula.terms), MOST_TERMS))
    parts = _parts(formula, values, modulus) if intermediates else {}
    for step in intermediates:
        work.add(1 + len(parts))
        fingerprints = [each for each, value in parts.items() if value == step.result]
        if not fingerprints:
            raise MistakeError(Reason.VALUE, f"no part of the expression is {step.result}")
        if step.numeric:
            possible = _fingerprints(step.numeric, readings, work)
            fingerprints = [each for each in fingerprints if each in possible]
        for fingerprint in fingerprints:
            add(step.result, fingerprint)
    # The last step must be the whole expression.
    if last.numeric:
        if formula.evaluate(point, PRIME) not in _fingerprints(last.numeric, readings, work):
            raise MistakeError(Reason.EXPRESSION, "the numbers are not in the stated expression")
    elif last.result != (right := formula.evaluate(values.__getitem__, modulus)):
        raise MistakeError(Reason.VALUE, f"{last.result} is given, {right} right")


def _fingerprints(expression: Expression, readings: Mapping[int, set[int]], work: Work) -> set[int]:
    """Fingerprints of an expression of numbers, under all readings of the numbers."""
    choices = [readings.get(int(operand), set()) for operand in expression.operands]
    number = math.prod(len(each) for each in choices)
    work.add(len(choices) * min(number, MOST_TRIALS))
    if number > MOST_TRIALS:
        raise MistakeError(Reason.UNVERIFIABLE, f"more than {MOST_TRIALS} readings of the numbers")
    return {combine(list(each), expression.signs) % PRIME for each in itertools.product(*choices)}


def _parts(formula: Formula, values: Mapping[str, int], modulus: int) -> dict[int, int]:
    """Values of the parts of an expression, by fingerprint.

    A part is any number of the terms (both of a difference), with or without the constant.
    """
    value_by_fingerprint: dict[int, int] = {}
    if len(formula.terms) > MOST_TERMS:
        raise MistakeError(Reason.UNVERIFIABLE, f"more than {MOST_TERMS} operands")
    sizes = [2] if formula.is_difference else range(1, len(formula.terms) + 1)
    for size in sizes:
        for terms in itertools.combinations(formula.terms, size):
            for constant, sign in {(None, None), (formula.constant, formula.sign)}:
                part = replace(formula, terms=terms, constant=constant, sign=sign)
                value = part.evaluate(values.__getitem__, modulus)
                value_by_fingerprint[part.evaluate(point, PRIME)] = value
    return value_by_fingerprint
