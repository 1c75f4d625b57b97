"""Read the text of an iGSM problem and of a solution. What is read is not judged here.

A problem::

    The number of each A's B equals 3 more than the sum of each C's D and each E's F.
    How many B does A have?

and a solution, sentence by sentence ("Define …", or the name alone, then steps)::

    Define A's B as x; y = a + b = 3 + 4 = 7; so x = 3 + y = 3 + 7 = 10.
    A's B; y = C's D + E's F = 3 + 4 = 7; so A's B = 3 + y = 3 + 7 = 10.
    Define x; so x = 3 + 7 = 10.
    A's B = 3 + 7 = 10.
    So the final answer is \\boxed{10}.

Names are whatever stands between the fixed words: they may hold possessives, hyphens, digits,
"and". They may not hold a full stop or a semicolon followed by a space, " = ", " equals " or,
where names stand for symbols, a sign between spaces.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Literal

Place = Literal["problem", "solution"]
OF = "'s "
"""What stands between the two names of a parameter."""

_WORDS = re.compile(r"The number of |How many | equals ")
_STATEMENT = re.compile(r"The number of (?:each )?(.+?) equals (.+)\.")
_QUESTION = re.compile(r"How many (.+) does (?:each )?(.+) have\?")
_EXPRESSION = re.compile(r"([0-9]{1,9})(?: (more than|times as much as) (.+))?")
_TERM = re.compile(r"(?:the (sum|difference) of )?(.+)")
_SEPARATOR = re.compile(r",? and |, ")
_DEFINE = re.compile(r"Define (?:(?:each )?(.+'s .+) as ([A-Za-z])|([A-Za-z]))")
_SIGN = re.compile(r" ([-+*]) ")
_CLOSING = re.compile(
    r"(?:(?:So|Thus|Hence|Therefore),? )?the (?:final )?answer(?: is|:) "
    r"\$?(?:\\boxed\{([0-9]{1,9})\}|([0-9]{1,9}))\$?"
    r"|\$?\\boxed\{([0-9]{1,9})\}\$?",
    re.IGNORECASE,
)


class UnreadableError(ValueError):
    """A sentence is outside the grammar.

    Attributes:
      place: whether it is in the problem or in the solution.
      sentence: the sentence itself; None if something is missing altogether.
      index: its number in its text, from 0; None with `sentence`.
    """

    def __init__(
        self, message: str, place: Place, sentence: str | None = None, index: int | None = None
    ) -> None:
        super().__init__(message)
        self.place: Place = place
        self.sentence = sentence
        self.index = index


@dataclass(frozen=True)
class Statement:
    """One sentence of a problem: how to compute a parameter.

    Attributes:
      name: the parameter, as "A's B".
      sign: ``+`` for "more than", ``*`` for "times as much as", None without either.
      constant: the number stated, or None.
      is_difference: whether the operands are subtracted, not added.
      operands: names of parameters; none if the sentence gives just a number.
      sentence, index: the text and its number in the problem.
    """

    name: str
    sign: str | None
    constant: int | None
    is_difference: bool
    operands: tuple[str, ...]
    sentence: str
    index: int


@dataclass(frozen=True)
class ProblemText:
    """What a problem states, by the name of the parameter, and the two halves of its question."""

    statements: dict[str, Statement]
    owner: str
    item: str

    @property
    def query(self) -> str:
        return f"{self.owner}{OF}{self.item}"


@dataclass(frozen=True)
class Expression:
    """Operands (numbers, symbols or names) and the signs between them."""

    operands: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A chain of equations, ``target = symbolic = numeric = result``; the middle may be absent."""

    target: str
    symbolic: Expression | None
    numeric: Expression | None
    result: int


@dataclass(frozen=True)
class Definition:
    """One sentence of a solution: the steps to a parameter, the last one giving its value.

    Attributes:
      name: the parameter, or None in the style "Define x".
      symbol: the letter that stands for it from here on, or None if its name does.
      steps: at least one.
      sentence, index: the text and its number in the solution.
    """

    name: str | None
    symbol: str | None
    steps: tuple[Step, ...]
    sentence: str
    index: int


@dataclass(frozen=True)
class SolutionText:
    """The sentences of a solution, and the answer if a closing sentence gives one."""

    definitions: tuple[Definition, ...]
    answer: int | None
    closing: str | None

    @property
    def is_symbolic(self) -> bool:
        """Whether any step says in symbols or names what it computes."""
        return any(step.symbolic for each in self.definitions for step in each.steps)


def read_problem(text: str) -> ProblemText:
    """Read a problem; text around it (an instruction before or after) is passed over.

    Raises:
      UnreadableError: if a sentence amid the problem, or with its fixed words, is outside the
        grammar, a parameter is stated twice, or there is not exactly one question.
    """
    sentences = _sentences(text, r"(?<=[.?]) ")
    matches = [_match_sentence(sentence) for sentence in sentences]
    read = [index for index, match in enumerate(matches) if match]
    raw: dict[str, tuple[str, int]] = {}
    question: tuple[str, str] | None = None
    for index, (sentence, match) in enumerate(zip(sentences, matches, strict=True)):
        if match is None:
            if _WORDS.search(sentence) or (read and read[0] < index < read[-1]):
                raise UnreadableError("cannot be read", "problem", sentence, index)
            continue
        first, second = match.groups()
        if match.re is _QUESTION:
            if question:
                raise UnreadableError("asks a second question", "problem", sentence, index)
            question = (second, first)
        elif OF not in first:
            raise UnreadableError("names no parameter", "problem", sentence, index)
        elif first in raw:
            raise UnreadableError(
                "states a parameter for the second time", "problem", sentence, index
            )
        else:
            raw[first] = (second, index)
    if question is None:
        raise UnreadableError("the problem asks no question", "problem")
    statements = {
        name: _read_statement(name, expression, raw, sentences[index], index)
        for name, (expression, index) in raw.items()
    }
    return ProblemText(statements, *question)


def read_solution(text: str) -> SolutionText:
    """Read a solution.

    Raises:
      UnreadableError: if a sentence is outside the grammar, or nothing is defined.
    """
    sentences = _sentences(text, r"(?<=\.) ")
    answer = closing = None
    if sentences and (match := _CLOSING.fullmatch(sentences[-1].removesuffix("."))):
        answer, closing = int(match[match.lastindex or 0]), sentences.pop()
    if not sentences:
        raise UnreadableError("the solution defines nothing", "solution")
    definitions = tuple(
        _read_definition(sentence, index) for index, sentence in enumerate(sentences)
    )
    return SolutionText(definitions, answer, closing)


def is_number(text: str) -> bool:
    """Whether an operand is a number; one of more than nine digits is not."""
    return text.isdecimal() and text.isascii() and len(text) < 10


def _sentences(text: str, boundary: str) -> list[str]:
    text = " ".join(text.split())
    return re.split(boundary, text) if text else []


def _match_sentence(sentence: str) -> re.Match[str] | None:
    """A statement or a question, cut free from an introduction such as "Problem: "."""
    for pattern, start in ((_STATEMENT, "The number of "), (_QUESTION, "How many ")):
        position = sentence.find(start)
        if position >= 0 and (match := pattern.fullmatch(sentence, position)):
            return match
    return None


def _read_statement(
    name: str, expression: str, stated: dict[str, tuple[str, int]], sentence: str, index: int
) -> Statement:
    sign = constant = None
    if match := _EXPRESSION.fullmatch(expression):
        constant = int(match[1])
        if match[2] is None:
            return Statement(name, None, constant, False, (), sentence, index)
        sign = "+" if match[2] == "more than" else "*"
        expression = match[3]
    term = _TERM.fullmatch(expression)
    assert term, "the pattern takes any text but the empty one"
    operands = _read_operands(term[2], stated, term[1])
    if operands is None:
        raise UnreadableError("cannot be read", "problem", sentence, index)
    return Statement(name, sign, constant, term[1] == "difference", operands, sentence, index)


def _read_operands(
    text: str, stated: dict[str, tuple[str, int]], combination: str | None
) -> tuple[str, ...] | None:
    """Take a list of parameters apart; names may hold "and" and need not follow "each".

    Of all ways to do so, the one with the fewest names that no sentence states, then the fewest
    names; None if there is none.
    """
    accepted = {None: (1, 1), "difference": (2, 2), "sum": (2, len(text))}[combination]
    pieces = _SEPARATOR.split(text)
    if accepted[0] <= len(pieces) <= accepted[1] and all(OF in piece for piece in pieces):
        names = tuple(piece.removeprefix("each ") for piece in pieces)
        if all(name in stated or piece != name for name, piece in zip(names, pieces, strict=True)):
            return names
    places = [match.span() for match in _SEPARATOR.finditer(text)]
    # "each" starts a name, so a separator before it is one for certain.
    certain = {place for place in places if text.startswith("each ", place[1])}
    optional = [place for place in places if place not in certain]
    best: tuple[int, int, tuple[str, ...]] | None = None
    for kept in itertools.product((False, True), repeat=min(len(optional), 10)):
        cuts = sorted(certain | set(itertools.compress(optional, kept)))
        starts = [0, *(end for _, end in cuts)]
        ends = [*(start for start, _ in cuts), len(text)]
        names = tuple(text[a:b].removeprefix("each ") for a, b in zip(starts, ends, strict=True))
        if accepted[0] <= len(names) <= accepted[1] and all(OF in name for name in names):
            rank = (sum(name not in stated for name in names), len(names), names)
            best = rank if best is None else min(best, rank)
    return best[2] if best else None


def _read_definition(sentence: str, index: int) -> Definition:
    head, *clauses = sentence.removesuffix(".").split("; ")
    name = symbol = None
    if match := _DEFINE.fullmatch(head):
        name, symbol = match[1], match[2] or match[3]
    elif " = " in head:
        # The name stands in front of its value alone.
        clauses = [head, *clauses]
        name = clauses[-1].removeprefix("so ").split(" = ")[0]
    else:
        name = head.removeprefix("each ")
    steps = tuple(step for clause in clauses if (step := _read_step(clause)))
    is_named = name is None or (OF in name and not name.startswith("Define "))
    if not is_named or not steps or len(steps) < len(clauses):
        raise UnreadableError("cannot be read", "solution", sentence, index)
    return Definition(name, symbol, steps, sentence, index)


def _read_step(clause: str) -> Step | None:
    target, *sides = clause.removeprefix("so ").split(" = ")
    if not sides or not is_number(sides[-1]):
        return None
    symbolic = numeric = None
    for side in sides[:-1]:
        pieces = _SIGN.split(side)
        expression = Expression(tuple(pieces[::2]), tuple(pieces[1::2]))
        is_numeric = all(is_number(operand) for operand in expression.operands)
        if numeric or (symbolic and not is_numeric) or not all(expression.operands):
            return None
        if not is_numeric:
            symbolic = expression
        elif expression.signs:
            numeric = expression
        else:
            return None
    return Step(target, symbolic, numeric, int(sides[-1]))
