"""Read the text of an iGSM problem and of a solution; `synth.tasks.igsm.verify` judges it.

A problem::

    The number of each A's B equals 3 more than the sum of each C's D and each E's F.
    How many B does A have?

and a solution, sentence by sentence ("Define …", or the name alone, then steps)::

    Define A's B as x; y = a + b = 3 + 4 = 7; so x = 3 + y = 3 + 7 = 10.
    A's B; y = C's D + E's F = 3 + 4 = 7; so A's B = 3 + y = 3 + 7 = 10.
    Define x; so x = 3 + 7 = 10.
    A's B = 3 + 7 = 10.
    So the final answer is \\boxed{10}.

A name is any text between the fixed words: it may hold possessives, hyphens, digits and "and". It
may not hold a full stop or a semicolon followed by a space, " = " or " equals "; nor a sign between
spaces, if the solution uses names in place of symbols.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Place = Literal["problem", "solution"]
OF = "'s "
"""The text between the two names of a parameter."""
_MOST_SEPARATORS = 100
"""Separators in one list of parameters; a sentence with more, if ambiguous, is unreadable."""

_MOST_CHARACTERS = 50_000
"""Characters of a text; a longer one is unreadable. Problems have some thousand."""
_MOST_IN_SENTENCE = 5_000
"""Characters of a sentence; a longer one is unreadable."""
_MOST_POSSESSIVES = 12
"""Most "'s" in one name, of which each might divide it; a name with more is unreadable."""

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
      sentence: the sentence itself; None if no sentence is wrong but one is missing.
      index: its number in its text, from 0; None if `sentence` is.
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
    """A problem: its statements by the name of the parameter, and its question.

    Attributes:
      statements: one for each instance parameter.
      owner, item: the question asks how many of the second the first has.
    """

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
    """A solution.

    Attributes:
      definitions: one for each sentence but the closing one.
      answer, closing: the number of the closing sentence, and that sentence; None without one.
    """

    definitions: tuple[Definition, ...]
    answer: int | None
    closing: str | None

    @property
    def is_symbolic(self) -> bool:
        """True if any step states its calculation in symbols or names."""
        return any(step.symbolic for each in self.definitions for step in each.steps)


def read_problem(text: str) -> ProblemText:
    """Read a problem; an instruction before or after it is ignored.

    Raises:
      UnreadableError: if a sentence outside the grammar stands between two of the problem's or
        holds its fixed words, if a parameter is stated twice, or if there is not exactly one
        question.
    """
    # Recognise the sentences of the problem; the first and the last one delimit it.
    sentences = _sentences(text, r"(?<=[.?]) ", "problem")
    matches = [_match_sentence(sentence) for sentence in sentences]
    read = [index for index, match in enumerate(matches) if match]
    # Collect the right side of each statement, and the question.
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
    for name in (*raw, OF.join(question)):
        if name.count(OF) > _MOST_POSSESSIVES:
            raise UnreadableError(f"a name has more than {_MOST_POSSESSIVES} owners", "problem")
    # Take the right sides apart, now that all names are known: they tell how to cut a list.
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
    sentences = _sentences(text, r"(?<=\.) ", "solution")
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
    """True if an operand is a number of at most nine digits."""
    return text.isdecimal() and text.isascii() and len(text) < 10


def _sentences(text: str, boundary: str, place: Place) -> list[str]:
    """Sentences of a text; refuses what no problem or solution is as long as."""
    if len(text) > _MOST_CHARACTERS:
        raise UnreadableError(f"more than {_MOST_CHARACTERS} characters", place)
    text = " ".join(text.split())
    sentences = re.split(boundary, text) if text else []
    for index, sentence in enumerate(sentences):
        if len(sentence) > _MOST_IN_SENTENCE:
            message = f"more than {_MOST_IN_SENTENCE} characters"
            raise UnreadableError(message, place, sentence[:100], index)
    return sentences


def _match_sentence(sentence: str) -> re.Match[str] | None:
    """Match a statement or a question, which an introduction such as "Problem: " may precede."""
    forms = ((_STATEMENT, "The number of ", "."), (_QUESTION, "How many ", " have?"))
    for pattern, start, end in forms:
        # Without its end a pattern would fail only after a try for each of its middles.
        position = sentence.find(start) if sentence.endswith(end) else -1
        if position >= 0 and (match := pattern.fullmatch(sentence, position)):
            return match
    return None


def _read_statement(
    name: str, expression: str, stated: dict[str, tuple[str, int]], sentence: str, index: int
) -> Statement:
    """Read the right side of a statement: a constant, a term, or a constant, a sign and a term."""
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
    if operands is None or any(each.count(OF) > _MOST_POSSESSIVES for each in operands):
        raise UnreadableError("cannot be read", "problem", sentence, index)
    return Statement(name, sign, constant, term[1] == "difference", operands, sentence, index)


def _read_operands(
    text: str, stated: dict[str, tuple[str, int]], combination: str | None
) -> tuple[str, ...] | None:
    """Split a list of parameters; names may hold "and" and need not follow "each".

    Args:
      text: the list.
      stated: parameters that a sentence of the problem states, by name.
      combination: "sum", "difference" or None, which decides how many names there may be.

    Returns:
      Of all ways to split, the one with the fewest names that no sentence states, and of those the
      one with the fewest names. None if no split has an accepted number of names, or if the text
      is ambiguous and has more than `_MOST_SEPARATORS` separators.
    """
    fewest, most = {None: (1, 1), "difference": (2, 2), "sum": (2, len(text))}[combination]
    # The usual case: every separator separates.
    pieces = _SEPARATOR.split(text)
    if fewest <= len(pieces) <= most and all(OF in piece for piece in pieces):
        names = tuple(piece.removeprefix("each ") for piece in pieces)
        if all(name in stated or piece != name for name, piece in zip(names, pieces, strict=True)):
            return names
    if len(pieces) > _MOST_SEPARATORS + 1:
        return None
    # Otherwise dynamic programming: the best split of the text before each separator, for 1, 2 and
    # more names, is made of the best splits of shorter texts and one name more.
    separators = [match.span() for match in _SEPARATOR.finditer(text)]
    starts = [0, *(end for _, end in separators)]
    ends = [*(start for start, _ in separators), len(text)]
    best: list[dict[int, tuple[int, int, tuple[str, ...]]]] = []
    for last, end in enumerate(ends):
        best.append({})
        for first in range(last, -1, -1):
            name = text[starts[first] : end].removeprefix("each ")
            before = best[first - 1].values() if first else [(0, 0, ())]
            for num_unstated, count, names in before if OF in name else ():
                split = num_unstated + (name not in stated), count + 1, (*names, name)
                kind = min(count + 1, 3)
                best[last][kind] = min(split, best[last].get(kind, split))
            # "each" starts a name, so no name goes on across it.
            if text.startswith("each ", starts[first]):
                break
    splits = [split for split in best[-1].values() if fewest <= split[1] <= most]
    return min(splits)[2] if splits else None


def _read_definition(sentence: str, index: int) -> Definition:
    """Read one sentence of a solution: its head (see the module), then its steps."""
    head, *clauses = sentence.removesuffix(".").split("; ")
    name = symbol = None
    # Without this end the pattern would fail only after a try for each possessive.
    if (head[-5:-1] == " as " or len(head) == 8) and (match := _DEFINE.fullmatch(head)):
        name, symbol = match[1], match[2] or match[3]
    elif " = " in head:
        # No head: the name is the target of the last step.
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
    """Read a chain of equations; None if it is outside the grammar."""
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
