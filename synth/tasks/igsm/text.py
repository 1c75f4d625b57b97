"""Write an iGSM problem in words: sentences, question, and a solution at any level of detail.

Wording and levels are those of the reference generator (arXiv 2407.20311, appendix A)::

    The number of each Tool Rack's Wrench equals 3 more than the sum of each …'s … and each …'s ….
    How many Wrench does Tool Rack have?
    Define Tool Rack's Wrench as x; a = p + q = 3 + 4 = 7; so x = 3 + a = 3 + 7 = 10.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from synth.tasks.igsm.graph import Drawn, Rule
from synth.tasks.igsm.names import Names
from synth.tasks.igsm.work import Operand, Step, canonical_order, value, work

Definition = Literal["named", "symbol", "name only"]
Question = Literal["last", "first"]


class OutOfSymbolsError(ValueError):
    """A solution needs more than the 52 letters."""


@dataclass(frozen=True)
class Detail:
    """The style and completeness of a solution.

    Attributes:
      definition: ``named`` "Define A's B as x", ``symbol`` "Define x", or ``name only`` "A's B".
      hints: whether the calculation is given in symbols ("a + b").
      calculations: whether it is given in numbers ("3 + 4").
      canonical: take the order of `synth.tasks.igsm.work.canonical_order` and the letters a, b, c …
        in turn, so that a problem has one solution; otherwise take the order in which it was drawn
        and random letters, as the reference does.

    Raises:
      ValueError: if `definition` is unknown.
    """

    definition: Definition = "named"
    hints: bool = True
    calculations: bool = True
    canonical: bool = False

    def __post_init__(self) -> None:
        if self.definition not in get_args(Definition):
            raise ValueError(
                f"definition must be one of {get_args(Definition)}, got {self.definition!r}"
            )

    @classmethod
    def level(cls, level: int) -> Detail:
        """One of the reference's twelve levels; 0 is the most detailed and the paper's.

        Raises:
          ValueError: if the level is not 0 to 11.
        """
        if not 0 <= level <= 11:
            raise ValueError(f"detail level must be between 0 and 11, got {level}")
        definition = get_args(Definition)[level % 3]
        return cls(definition, hints=level // 3 % 2 == 0, calculations=level // 6 == 0)


class Wording:
    """Writes one problem, given the names of its items."""

    def __init__(self, drawn: Drawn, names: Names):
        self.drawn, self.names = drawn, names
        self._parameters: dict[int, str] = {}

    def item(self, item: int) -> str:
        structure = self.drawn.structure
        return self.names.items[structure.layer[item]][structure.place[item]]

    def owner_and_owned(self, parameter: int) -> tuple[str, str]:
        """The two names of a parameter: of the item that has, and of what it has."""
        structure = self.drawn.structure
        if structure.is_abstract(parameter):
            item, layer = structure.owner_and_layer(parameter)
            return self.item(item), self.names.categories[layer]
        item, child = structure.edges[parameter]
        return self.item(item), self.item(child)

    def parameter(self, parameter: int) -> str:
        if parameter not in self._parameters:
            owner, owned = self.owner_and_owned(parameter)
            self._parameters[parameter] = f"{owner}'s {owned}"
        return self._parameters[parameter]

    def sentence(self, edge: int) -> str:
        """The sentence that states an instance parameter."""
        stated = self._right_side(self.drawn.rules[edge])
        return f"The number of each {self.parameter(edge)} equals {stated}."

    def _right_side(self, rule: Rule) -> str:
        operands = [f"each {self.parameter(operand)}" for operand in rule.operands]
        if not operands:
            return str(rule.constant)
        if len(operands) == 1:
            term = operands[0]
        else:
            kind = "difference" if rule.minus else "sum"
            term = f"the {kind} of {', '.join(operands[:-1])} and {operands[-1]}"
        if rule.constant is None:
            return term
        return f"{rule.constant} {'times as much as' if rule.times else 'more than'} {term}"

    @property
    def question(self) -> str:
        owner, owned = self.owner_and_owned(self.drawn.query)
        return f"How many {owned} does {owner} have?"

    def problem(self, question: Question = "last") -> str:
        """All sentences and the question."""
        sentences = [self.sentence(edge) for edge in self.drawn.sentences]
        return " ".join(
            [self.question, *sentences] if question == "first" else [*sentences, self.question]
        )

    def solution(self, detail: Detail, rng: Random) -> str:
        """One sentence for each needed parameter, the one that is asked for last.

        Args:
          detail: style and completeness.
          rng: source of the letters, unless `detail` is canonical.

        Raises:
          OutOfSymbolsError: if there are not enough letters.
        """
        letters = list(string.ascii_letters)
        if not detail.canonical:
            rng.shuffle(letters)
        order = canonical_order(self.drawn) if detail.canonical else self.drawn.order
        writer = _Writer(self, detail, iter(letters))
        return " ".join(writer.sentence(parameter) for parameter in order)


class _Writer:
    """Writes a solution sentence by sentence.

    Attributes:
      called: the letter, or the name, of each parameter defined so far.
    """

    def __init__(self, wording: Wording, detail: Detail, letters: Iterator[str]):
        self.wording, self.detail, self.letters = wording, detail, letters
        self.called: dict[int, str] = {}

    def sentence(self, parameter: int) -> str:
        """Define a parameter and calculate it, with a letter for each intermediate result."""
        worked = work(self.wording.drawn, parameter)
        results = worked.values(self.wording.drawn)
        symbols = [self._letter() for _ in worked.steps[1:]]
        introduction, name = self._introduce(parameter)
        if worked.only is None:
            equations = [
                self._equation(called, step, symbols, results, result)
                for called, step, result in zip(
                    [*symbols, name], worked.steps, results, strict=True
                )
            ]
        else:
            equations = [self._copy(name, worked.only)]
        self.called[parameter] = name
        *parts, last = equations
        return "; ".join([introduction, *parts, f"so {last}"]) + "."

    def _letter(self) -> str:
        letter = next(self.letters, None)
        if letter is None:
            raise OutOfSymbolsError(
                f"the solution of a problem with {len(self.wording.drawn.order)} needed parameters "
                f"needs more than the 52 letters"
            )
        return letter

    def _introduce(self, parameter: int) -> tuple[str, str]:
        name = self.wording.parameter(parameter)
        if self.detail.definition == "name only":
            return name, name
        letter = self._letter()
        if self.detail.definition == "symbol":
            return f"Define {letter}", letter
        return f"Define {name} as {letter}", letter

    def _copy(self, name: str, only: Operand) -> str:
        number = str(value(only, self.wording.drawn, []))
        if only.kind == "parameter" and self.detail.hints:
            return f"{name} = {self.called[only.index]} = {number}"
        return f"{name} = {number}"

    def _equation(
        self, name: str, step: Step, symbols: list[str], results: list[int], result: int
    ) -> str:
        sides, operands, sign = [name], (step.left, step.right), f" {step.sign} "
        if self.detail.hints:
            sides.append(sign.join(self._symbol(operand, symbols) for operand in operands))
        if self.detail.calculations:
            numbers = (value(operand, self.wording.drawn, results) for operand in operands)
            sides.append(sign.join(map(str, numbers)))
        return " = ".join([*sides, str(result)])

    def _symbol(self, operand: Operand, symbols: list[str]) -> str:
        if operand.kind == "number":
            return str(operand.index)
        if operand.kind == "parameter":
            return self.called[operand.index]
        return symbols[operand.index]
