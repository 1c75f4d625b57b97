"""A slow judge of iGSM solutions: regular expressions, substitution of text, and `eval`.

Nothing here imports `synth`. A problem becomes one Python expression for each parameter. A solution
becomes such expressions too, with symbols replaced by their definitions. Two expressions are the
same if they agree for random integers in place of the parameters. Only solutions in the format of
the reference generator are read.

The text of a problem does not say which items belong to a category. This judge learns it from the
solution that the reference generator gives, which shows the parameters of each abstract one.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np

_GENERATOR = np.random.default_rng(20240729)
_PROBES: dict[str, np.ndarray] = {}
"""Random integers for each parameter, whichever problem it occurs in."""


def _probe(name: str) -> np.ndarray:
    if name not in _PROBES:
        _PROBES[name] = _GENERATOR.integers(1, 5000, size=3)
    return _PROBES[name]


@functools.cache
def _calculate(numbers: str) -> int:
    return eval(numbers) % 23


@dataclass(frozen=True)
class Truth:
    """A problem as expressions.

    Attributes:
      expressions: by parameter, a Python expression in ``P['name of a parameter']``.
      query: the parameter asked for.
    """

    expressions: dict[str, str]
    query: str

    def value(self, name: str, known: dict[str, int] | None = None) -> int:
        """Value of a parameter modulo 23."""
        known = {} if known is None else known
        if name not in known:
            needed = {each: self.value(each, known) for each in parameters(self.expressions[name])}
            known[name] = eval(self.expressions[name], {"P": needed}) % 23
        return known[name]


def parameters(expression: str) -> set[str]:
    """Names in a Python expression."""
    return {name for _, name in re.findall(r"P\[(['\"])(.+?)\1\]", expression)}


def truth(problem: str, reference_solution: str) -> Truth:
    """Read the statements of a problem, and the abstract parameters from a correct solution."""
    stated = dict(re.findall(r"The number of each (.+?) equals (.+?)\.(?= |$)", problem))
    expressions = {name: _python(sentence) for name, sentence in stated.items()}
    names: dict[str, str] = {}
    for sentence in reference_solution.removesuffix(".").split(". "):
        match = re.fullmatch(r"Define (.+) as (\w); (.+)", sentence)
        assert match
        name, symbol, steps = match.groups()
        names[symbol] = name
        if name not in stated:
            used = {
                names[letter] for letter in re.findall(r"\b[A-Za-z]\b", steps) if letter in names
            }
            expressions[name] = _abstract(name, stated, used - {name})
    item, owner = re.findall(r"How many (.+) does (.+) have\?", problem)[0]
    return Truth(expressions, f"{owner}'s {item}")


def _python(sentence: str) -> str:
    """ "3 more than the sum of each X and each Y" as "3 + (P['X'] + P['Y'])"."""
    if sentence.isdigit():
        return sentence
    names = re.findall(r"each (.+?)(?=, each | and each |$)", sentence)
    sign = " - " if "the difference of" in sentence else " + "
    term = "(" + sign.join(f"P[{name!r}]" for name in names) + ")"
    if match := re.match(r"(\d+) more than", sentence):
        return f"{match[1]} + {term}"
    if match := re.match(r"(\d+) times as much as", sentence):
        return f"{match[1]} * {term}"
    return term


def _abstract(name: str, stated: dict[str, str], used: set[str]) -> str:
    owner, category = name.rsplit("'s ", 1)
    counts = [count for count in stated if count.startswith(f"{owner}'s ")]
    below = {count: f"{count[len(owner) + 3 :]}'s {category}" for count in counts}
    if used == set(counts):
        return " + ".join(f"P[{count!r}]" for count in counts) or "0"
    assert used == set(counts) | set(below.values()), f"{name} is made of {used}"
    return " + ".join(f"P[{count!r}] * P[{below[count]!r}]" for count in counts)


def is_right(truth: Truth, solution: str, *, needs_operators: bool = True) -> bool:
    """Return whether a solution is right.

    Args:
      truth: the problem.
      solution: in the format of the reference, perhaps with a closing boxed answer.
      needs_operators: constants and operators must be those of the problem; if false, only the set
        of parameters used and the answer must be right.
    """
    boxed = re.search(r" So the final answer is \\boxed\{(\d+)\}\.$", solution)
    if boxed:
        solution = solution[: boxed.start()]
    meaning: dict[str, str] = {}
    value: dict[str, int] = {}
    defined: list[str] = []
    result = -1
    for sentence in solution.removesuffix(".").split(". "):
        # A sentence defines one parameter of the problem, for the first time.
        match = re.fullmatch(r"Define (.+) as (\w); (.+)", sentence)
        if not match or match[1] not in truth.expressions or match[1] in defined:
            return False
        name, symbol, steps = match.groups()
        used: set[str] = set()
        # Each step uses known symbols, and all of its sides agree.
        for step in steps.split("; "):
            target, *sides = step.removeprefix("so ").split(" = ")
            letters = re.findall(r"[A-Za-z]", " ".join(sides))
            if target in meaning or any(letter not in meaning for letter in letters):
                return False
            result = int(sides[-1])
            plugged = re.sub(r"[A-Za-z]", lambda m: str(value[m[0]]), sides[0])
            if len(sides) == 3 and plugged != sides[1]:
                return False
            if any(_calculate(side) != result for side in (plugged, *sides[1:])):
                return False
            expression = re.sub(r"[A-Za-z]", lambda m: meaning[m[0]], sides[0])
            used |= parameters(expression)
            if target != symbol:
                meaning[target], value[target] = f"({expression})", result
        # The last step is the parameter's, and its expression is the one stated.
        expected = truth.expressions[name]
        if target != symbol:
            return False
        if used != parameters(expected):
            return False
        if needs_operators:
            point = {each: _probe(each) for each in used}
            if np.any(eval(expression, {"P": point}) != eval(expected, {"P": point})):
                return False
        meaning[symbol], value[symbol] = f"P[{name!r}]", result
        defined.append(name)
    if defined[-1] != truth.query or (boxed and int(boxed[1]) != result):
        return False
    return needs_operators or result == truth.value(truth.query)
