"""Write iGSM problems in words of a closed vocabulary, in two forms.

``words`` is the text of `synth.tasks.igsm.text`; each name and each fixed phrase is one word.
``terse`` has one word for each parameter: ``A1>B2`` is the number of items B2 (of the second
layer) that item A1 (of the first) has, and ``A1>C`` is the number of all items of layer C below A1.
Its solution gives each operation in names, then in numbers:
``A1>B : A1>B1 + A1>B2 = 2 + 4 = 1 ;``.
"""

from __future__ import annotations

import functools
import itertools
import string
from random import Random
from typing import Literal

from synth.tasks.igsm.graph import Drawn
from synth.tasks.igsm.names import CHAINS, Names, draw_names
from synth.tasks.igsm.text import Detail, Question, Wording
from synth.tasks.igsm.work import Operand, canonical_order, value, work

Form = Literal["words", "terse"]
LENGTHS: dict[Form, tuple[int, int]] = {"words": (160, 26), "terse": (66, 15)}
"""Tokens in which nearly all problems fit: a constant, and a number for each operation."""
DEPTH = WIDTH = 4
"""The most layers of a problem, and the most items of a layer."""

_PHRASES = (
    "The number of each",
    "equals",
    "more than",
    "times as much as",
    "the sum of",
    "the difference of",
    "each",
    "and",
    "How many",
    "does",
    "have?",
    "Define",
    "as",
    "so",
)


@functools.cache
def vocabulary(form: Form, modulus: int) -> tuple[str, ...]:
    """Every word of a form; the first is padding."""
    numbers = tuple(str(number) for number in range(modulus))
    if form == "words":
        marks = ("<pad>", "|", ":", "<end>", "'s", ",", ".", ";", "=", "+", "-", "*")
        categories = [category for chain in CHAINS for category in chain]
        names = {name for category in categories for kind in category.kinds for name in kind}
        names |= {category.name for category in categories}
        return (*marks, *map(_merged, (*_PHRASES, *sorted(names))), *string.ascii_letters, *numbers)
    marks = ("<pad>", "|", ":", ".", ";", ",", "?", "=", "+", "-", "*", "(", ")")
    places = range(WIDTH)
    instances = (
        f"{_item(layer, place)}>{_item(layer + 1, other)}"
        for layer, place, other in itertools.product(range(DEPTH - 1), places, places)
    )
    abstract = (
        f"{_item(layer, place)}>{_layer(below)}"
        for layer, place in itertools.product(range(DEPTH - 1), places)
        for below in range(layer + 1, DEPTH)
    )
    return (*marks, *numbers, *instances, *abstract)


@functools.cache
def ids(form: Form, modulus: int) -> dict[str, int]:
    """Token id of each word."""
    return {word: index for index, word in enumerate(vocabulary(form, modulus))}


def write(drawn: Drawn, form: Form, question: Question, rng: Random) -> tuple[str, str]:
    """Write problem and canonical solution, with start and end marks, words joined by spaces."""
    return _words(drawn, question, rng) if form == "words" else _Terse(drawn).both(question)


def _merged(text: str) -> str:
    return text.replace(" ", "_")


def _words(drawn: Drawn, question: Question, rng: Random) -> tuple[str, str]:
    names = draw_names(drawn.structure.widths, rng)
    one_word = Names(names.categories, tuple(tuple(map(_merged, items)) for items in names.items))
    wording = Wording(drawn, one_word)
    solution = wording.solution(Detail(canonical=True), rng)
    return f"| {_spaced(wording.problem(question))} :", f"{_spaced(solution)} <end>"


def _spaced(text: str) -> str:
    """Set punctuation apart, and join each fixed phrase to one word."""
    text += " "
    for mark in ("'s ", ", ", ". ", "; "):
        text = text.replace(mark, f" {mark}")
    for phrase in _PHRASES:
        text = text.replace(phrase, _merged(phrase))
    return text.strip()


def _layer(layer: int) -> str:
    return string.ascii_uppercase[layer]


def _item(layer: int, place: int) -> str:
    return f"{_layer(layer)}{place + 1}"


class _Terse:
    """Writes one problem in the terse form."""

    def __init__(self, drawn: Drawn):
        self.drawn = drawn

    def both(self, question: Question) -> tuple[str, str]:
        """Problem and solution."""
        sentences = [self._sentence(edge) for edge in self.drawn.sentences]
        asked = f"? {self._name(self.drawn.query)}"
        parts = [asked, ";", *sentences] if question == "first" else [*sentences, asked]
        steps = [self._step(parameter) for parameter in canonical_order(self.drawn)]
        return " ".join(["|", *parts, ":"]), " ".join([*steps, "."])

    def _name(self, parameter: int) -> str:
        structure = self.drawn.structure

        def item(index: int) -> str:
            return _item(structure.layer[index], structure.place[index])

        if structure.is_abstract(parameter):
            owner, layer = structure.owner_and_layer(parameter)
            return f"{item(owner)}>{_layer(layer)}"
        owner, child = structure.edges[parameter]
        return f"{item(owner)}>{item(child)}"

    def _sentence(self, edge: int) -> str:
        rule = self.drawn.rules[edge]
        term = (" - " if rule.minus else " + ").join(map(self._name, rule.operands))
        if rule.times and len(rule.operands) > 1:
            term = f"( {term} )"
        constant = [] if rule.constant is None else [str(rule.constant)]
        right = (" * " if rule.times else " + ").join([*constant, *filter(None, [term])])
        return f"{self._name(edge)} = {right} ;"

    def _step(self, parameter: int) -> str:
        worked = work(self.drawn, parameter)
        results = worked.values(self.drawn)
        if worked.only is not None:
            equations = [self._equation(" ", [worked.only], [])]
        else:
            equations = [
                self._equation(f" {step.sign} ", [step.left, step.right], results, result)
                for step, result in zip(worked.steps, results, strict=True)
            ]
        return f"{self._name(parameter)} : {' , '.join(equations)} ;"

    def _equation(
        self, sign: str, operands: list[Operand], results: list[int], result: int | None = None
    ) -> str:
        """An operation in names, in numbers (unless these are the same), and its result."""
        numbers = [str(value(operand, self.drawn, results)) for operand in operands]
        names = [
            self._name(operand.index) if operand.kind == "parameter" else number
            for operand, number in zip(operands, numbers, strict=True)
        ]
        sides = dict.fromkeys([sign.join(names), sign.join(numbers)])
        return " = ".join([*sides, *([] if result is None else [str(result)])])
