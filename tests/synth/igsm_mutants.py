"""Change iGSM solutions and problems in one place, and recompute what follows.

Only the format of the reference generator is handled, and nothing is imported from `synth`.
`tests.igsm_reference` judges which mutants are wrong.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

MODULUS = 23
LETTER = r"\b[A-Za-z]\b"


@dataclass
class Step:
    target: str
    symbolic: str | None
    numeric: str | None
    result: int

    def sides(self, *, symbolic: bool = True, numeric: bool = True) -> str:
        middle = [
            side
            for side, is_kept in ((self.symbolic, symbolic), (self.numeric, numeric))
            if side and is_kept
        ]
        return " = ".join([*middle, str(self.result)])


@dataclass
class Sentence:
    name: str
    symbol: str
    steps: list[Step] = field(default_factory=list)

    def letters(self) -> set[str]:
        return set(re.findall(LETTER, " ".join(step.symbolic or "" for step in self.steps)))


def read(solution: str) -> list[Sentence]:
    sentences = []
    for text in solution.removesuffix(".").split(". "):
        head, *clauses = text.split("; ")
        match = re.fullmatch(r"Define (.+) as (\w)", head)
        assert match
        sentence = Sentence(match[1], match[2])
        for clause in clauses:
            target, *sides = clause.removeprefix("so ").split(" = ")
            numeric = sides[1] if len(sides) == 3 else None
            symbolic = sides[0] if len(sides) > 1 else None
            sentence.steps.append(Step(target, symbolic, numeric, int(sides[-1])))
        sentences.append(sentence)
    return sentences


def write(sentences: list[Sentence]) -> str:
    return " ".join(
        "; ".join(
            [
                f"Define {sentence.name} as {sentence.symbol}",
                *(f"{step.target} = {step.sides()}" for step in sentence.steps[:-1]),
                *(f"so {step.target} = {step.sides()}" for step in sentence.steps[-1:]),
            ]
        )
        + "."
        for sentence in sentences
    )


def write_in_style(
    sentences: list[Sentence], style: str, *, symbolic: bool = True, numeric: bool = True
) -> str:
    """Other detail levels of the reference.

    Args:
      sentences: a solution.
      style: ``full`` (Define A's B as x), ``nameless`` (Define x), ``symbolless`` (A's B; …) or
        ``direct`` (A's B = …).
      symbolic, numeric: whether to keep "a + b" and "3 + 4".
    """
    names = {sentence.symbol: sentence.name for sentence in sentences}
    has_symbols = style in ("full", "nameless")
    texts = []
    for sentence in sentences:
        clauses = []
        for step in sentence.steps:
            text = f"{step.target} = {step.sides(symbolic=symbolic, numeric=numeric)}"
            if step is sentence.steps[-1] and style != "direct":
                text = f"so {text}"
            if not has_symbols:
                text = re.sub(LETTER, lambda m: names.get(m[0], m[0]), text)
            clauses.append(text)
        head = {
            "full": [f"Define {sentence.name} as {sentence.symbol}"],
            "nameless": [f"Define {sentence.symbol}"],
            "symbolless": [sentence.name],
            "direct": [],
        }[style]
        texts.append("; ".join([*head, *clauses]) + ".")
    return " ".join(texts)


@functools.cache
def _calculate(numbers: str) -> int:
    return eval(numbers) % MODULUS


def recompute(sentences: list[Sentence], *, after: Step | None = None) -> list[Sentence]:
    """Replace numbers by those that the symbolic parts imply, in all steps past `after`."""
    values: dict[str, int] = {}
    has_passed = after is None
    for sentence in sentences:
        for step in sentence.steps:
            if has_passed and step.symbolic:
                plugged = re.sub(LETTER, lambda m: str(values.get(m[0], 0)), step.symbolic)
                step.numeric = plugged if " " in plugged else None
                step.result = _calculate(plugged)
            has_passed = has_passed or step is after
            values[step.target] = step.result
    return sentences


def _other(number: int, random: Random) -> int:
    return random.choice([each for each in range(MODULUS) if each != number])


def _symbolic_steps(sentences: list[Sentence], pattern: str) -> list[tuple[Step, re.Match[str]]]:
    return [
        (step, match)
        for sentence in sentences
        for step in sentence.steps
        if step.symbolic
        for match in re.finditer(pattern, step.symbolic)
    ]


def _replace(step: Step, match: re.Match[str], text: str) -> None:
    assert step.symbolic
    step.symbolic = step.symbolic[: match.start()] + text + step.symbolic[match.end() :]


def constant(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """Another constant in the solution, and everything after it computed from that."""
    sentences = read(solution)
    leaves = [step for each in sentences for step in each.steps if not step.symbolic]
    places = [*leaves, *_symbolic_steps(sentences, r"\d+")]
    place = random.choice(places)
    if isinstance(place, Step):
        place.result = _other(place.result, random)
    else:
        step, match = place
        _replace(step, match, str(_other(int(match[0]), random)))
    return problem, write(recompute(sentences))


def first_leaf(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """Another first constant, and everything after it computed from that."""
    sentences = read(solution)
    sentences[0].steps[0].result = _other(sentences[0].steps[0].result, random)
    return problem, write(recompute(sentences))


def operator(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """Another operator in the solution, and everything after it computed from that."""
    sentences = read(solution)
    places = _symbolic_steps(sentences, r"(?<= )[-+*](?= )")
    if not places:
        return None
    step, match = random.choice(places)
    _replace(step, match, random.choice([sign for sign in "+-*" if sign != match[0]]))
    return problem, write(recompute(sentences))


def commuted(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """Operands exchanged in one step, and everything after it computed from that."""
    sentences = read(solution)
    places = _symbolic_steps(sentences, r"(\w+) ([-+*]) (\w+)")
    if not places:
        return None
    step, match = random.choice(places)
    _replace(step, match, f"{match[3]} {match[2]} {match[1]}")
    return problem, write(recompute(sentences))


def reference(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """Another symbol defined before, with or without the numbers that follow from it."""
    sentences = read(solution)
    places = _symbolic_steps(sentences, LETTER)
    if not places:
        return None
    step, match = random.choice(places)
    targets = [each.target for sentence in sentences for each in sentence.steps]
    earlier = [each for each in targets[: targets.index(step.target)] if each != match[0]]
    if not earlier:
        return None
    _replace(step, match, random.choice(earlier))
    return problem, write(sentences if random.random() < 0.3 else recompute(sentences))


def order(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """One sentence moved elsewhere."""
    sentences = read(solution)
    if len(sentences) < 2:
        return None
    moved = sentences.pop(random.randrange(len(sentences)))
    sentences.insert(random.randrange(len(sentences) + 1), moved)
    text = write(sentences)
    return None if text == solution else (problem, text)


def arithmetic(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """A wrong result (carried through or not), or a wrong number put in for a symbol."""
    sentences = read(solution)
    steps = [step for each in sentences for step in each.steps if step.symbolic]
    if not steps:
        return None
    step = random.choice(steps)
    if step.numeric and random.random() < 0.4:
        match = random.choice(list(re.finditer(r"\d+", step.numeric)))
        new = str(_other(int(match[0]), random))
        step.numeric = step.numeric[: match.start()] + new + step.numeric[match.end() :]
        return problem, write(sentences)
    step.result = _other(step.result, random)
    return problem, write(recompute(sentences, after=step) if random.random() < 0.5 else sentences)


def answer(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """A boxed number, another last value, or another question."""
    sentences = read(solution)
    choice = random.randrange(3)
    if choice == 0:
        return problem, f"{solution} So the final answer is \\boxed{{{random.randrange(MODULUS)}}}."
    if choice == 1:
        sentences[-1].steps[-1].result = _other(sentences[-1].steps[-1].result, random)
        return problem, write(sentences)
    names = re.findall(r"The number of each ((?:(?!'s ).)+)'s ((?:(?!'s ).)+) equals", problem)
    if not names:
        return None
    owner, item = random.choice(names)
    body = problem[: problem.index("How many ")]
    return f"{body}How many {item} does {owner} have?", solution


def dropped(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """One sentence or one step left out."""
    sentences = read(solution)
    places = [(each, step) for each in sentences for step in each.steps[:-1]]
    if places and random.random() < 0.4:
        sentence, step = random.choice(places)
        sentence.steps.remove(step)
    elif len(sentences) > 1:
        sentences.pop(random.randrange(len(sentences)))
    else:
        return None
    return problem, write(sentences)


def problem_constant(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """Another constant in the problem."""
    pattern = r"(?<= equals )\d+(?=\.| more than| times as much as)"
    match = random.choice(list(re.finditer(pattern, problem)) or [None])
    if match is None:
        return None
    new = str(_other(int(match[0]), random))
    return problem[: match.start()] + new + problem[match.end() :], solution


def problem_operator(problem: str, solution: str, random: Random) -> tuple[str, str] | None:
    """Another operator in the problem, or the operands of one exchanged."""
    name = r"each [^,.]+?"
    pattern = rf"more than|times as much as|the (sum|difference) of ({name}) and ({name})(?=\.)"
    match = random.choice(list(re.finditer(pattern, problem)) or [None])
    if match is None:
        return None
    if match[1] is None:
        new = "times as much as" if match[0] == "more than" else "more than"
    elif random.random() < 0.5:
        new = f"the {match[1]} of {match[3]} and {match[2]}"
    else:
        kind = "sum" if match[1] == "difference" else "difference"
        new = f"the {kind} of {match[2]} and {match[3]}"
    return problem[: match.start()] + new + problem[match.end() :], solution


Mutation = Callable[[str, str, Random], tuple[str, str] | None]
MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        constant,
        first_leaf,
        operator,
        commuted,
        reference,
        order,
        arithmetic,
        answer,
        dropped,
        problem_constant,
        problem_operator,
    )
}


def renamed(solution: str, random: Random) -> str:
    """Other letters for all symbols."""
    letters = list(string.ascii_letters)
    random.shuffle(letters)
    table = dict(zip(string.ascii_letters, letters, strict=True))
    sentences = read(solution)
    for sentence in sentences:
        sentence.symbol = table[sentence.symbol]
        for step in sentence.steps:
            step.target = table[step.target]
            step.symbolic = step.symbolic and re.sub(LETTER, lambda m: table[m[0]], step.symbolic)
    return write(sentences)


def all_commuted(solution: str, random: Random) -> str:
    """Operands of half of all sums and products exchanged."""
    sentences = read(solution)
    for step, match in _symbolic_steps(sentences, r"(\w+) ([+*]) (\w+)"):
        if random.random() < 0.5:
            _replace(step, match, f"{match[3]} {match[2]} {match[1]}")
    return write(recompute(sentences))


def reordered(solution: str, random: Random) -> str:
    """Another order in which every sentence comes after those that it needs."""
    waiting = read(solution)
    last = waiting.pop()
    symbols = {sentence.symbol for sentence in waiting}
    placed: list[Sentence] = []
    while waiting:
        known = {sentence.symbol for sentence in placed}
        ready = [each for each in waiting if not (each.letters() & symbols) - known]
        chosen = random.choice(ready)
        waiting.remove(chosen)
        placed.append(chosen)
    return write([*placed, last])
