r"""Judge a solution of an iGSM problem, both given as text.

A solution is a sequence of definitions (see `synth.tasks.igsm.parse` for the grammar). In mode
``strict``, each definition must satisfy three conditions:

- The parameter exists, is defined once, and comes after everything that it is computed from.
- It uses exactly the parameters that the problem names, with its constants and operators. The
  steps together must equal the stated expression as a polynomial in the parameters, so operands
  of + and * may be swapped and sums taken in any order.
- A number in place of a symbol is the symbol's value, and both sides of every "=" agree modulo
  `modulus`. Every number is reduced.

The last definition must be of the parameter asked for, and the closing answer, if there is one,
must be its value. Definitions that the question does not need are allowed if they are right.
``compatible`` makes the checks of the reference generator's verifier: it compares the *set* of
parameters used, but neither constants nor operators, and the answer must be right.

Solutions may leave out parts of the text, and then less can be checked:

- *Names* ("Define x"): the text does not say which parameter x is. The solution is right if some
  assignment of parameters to symbols passes all checks.
- *The symbolic part* ("so x = 3 + 8 = 11", "so x = 11"), if no step has one: the text does not say
  which parameters were used. In ``strict`` they must be defined before, and the numbers must be
  their values in the stated expression; if there are no numbers either, only the value is compared.
  An intermediate value must be that of some part of the expression. In ``compatible`` nothing
  would be left to check, so such a solution is refused, unless it consists of constants.
- *The numeric part*: everything is still checked.

A problem does not state which items belong to a category: see `synth.tasks.igsm.layers`.

References:
  Ye, Xu, Li and Allen-Zhu (2024), Physics of Language Models Part 2.1, arXiv 2407.20311.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, get_args

from synth.tasks.igsm.expressions import PRIME, combine, explain, point
from synth.tasks.igsm.layers import Formula, InconsistentError, World, worlds
from synth.tasks.igsm.parse import (
    Definition,
    Expression,
    SolutionText,
    Step,
    UnreadableError,
    is_number,
    read_problem,
    read_solution,
)
from synth.tasks.igsm.verdict import (
    MOST_TRIALS,
    ExhaustedError,
    Failure,
    MistakeError,
    Reason,
    Verdict,
    Work,
)

Mode = Literal["strict", "compatible"]


def verify(
    problem: str,
    solution: str,
    *,
    mode: Mode = "strict",
    modulus: int = 23,
    categories: Mapping[str, Collection[str]] | None = None,
) -> Verdict:
    r"""Judge a solution of an iGSM problem.

    Args:
      problem: its sentences with the question first, last or anywhere; other text may precede
        or follow.
      solution: its sentences, with or without a closing "So the final answer is \boxed{a}.";
        without one the last value is the answer. Any white space between words.
      mode: ``strict``, or ``compatible`` with the verifier of the reference generator, which
        compares neither constants nor operators with the problem.
      modulus: of all arithmetic, at least 2.
      categories: names of all items of each category, as far as the caller knows them; those of
        our own problems are `synth.tasks.igsm.CATEGORIES`. A category that is not given, and whose
        layer the problem leaves open, may name any layer that makes the solution right. In one of
        eight problems of the reference this allows several answers.

    Raises:
      ValueError: if `mode` or `modulus` is out of range; never because of a text.

    Example:
      >>> problem = "The number of each Zoo's Owl equals 4. How many Owl does Zoo have?"
      >>> verify(problem, "Define Zoo's Owl as x; so x = 4.").ok
      True
      >>> print(verify(problem, "Define Zoo's Owl as x; so x = 5.").reason)
      the value is wrong
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {get_args(Mode)}, got {mode!r}")
    if modulus < 2:
        raise ValueError(f"modulus must be at least 2, got {modulus}")
    # Read both texts.
    try:
        stated = read_problem(problem)
        claimed = read_solution(solution)
    except UnreadableError as error:
        return Verdict(
            False, Reason.UNREADABLE, error.sentence, error.place, error.index, str(error)
        )
    for statement in stated.statements.values():
        if statement.constant is not None and statement.constant >= modulus:
            detail = f"{statement.constant} is not below {modulus}"
            place = "problem"
            return Verdict(
                False, Reason.UNREDUCED, statement.sentence, place, statement.index, detail
            )
    # Judge in every possible world; of several failures report the one that got furthest.
    try:
        possible = worlds(stated, categories)
    except InconsistentError as error:
        return Verdict(False, Reason.INCONSISTENT, None, "problem", None, str(error))
    failures = []
    work = Work()
    for world in possible:
        try:
            failure = _Judge(world, claimed, mode, modulus, work).failure()
        except ExhaustedError as error:
            return Verdict(False, Reason.UNVERIFIABLE, detail=str(error))
        if failure is None:
            return Verdict(True, Reason.RIGHT)
        failures.append(failure)
    return max(failures, key=lambda failure: failure.position).verdict


class _Meaning(NamedTuple):
    """Meaning of a symbol or a number: a polynomial in parameters.

    Attributes:
      value: its value, modulo the modulus.
      fingerprint: see `synth.tasks.igsm.expressions`.
      parameters: the set of parameters in it, as an integer with one bit for each.
    """

    value: int
    fingerprint: int
    parameters: int


@dataclass(frozen=True)
class _Scope:
    """The definitions so far.

    Attributes:
      meanings: meaning of each symbol and each name.
      values: value of each parameter, by name.
    """

    meanings: dict[str, _Meaning] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)

    def copy(self) -> _Scope:
        return _Scope(dict(self.meanings), dict(self.values))


class _Judge:
    """Checks one solution in one world.

    Attributes:
      bits: the bit of each parameter in sets.
      trials: comparisons of nameless definitions with parameters made so far.
      dead_ends: pairs of a definition's number and the parameters defined before it from which no
        assignment of names succeeds.
    """

    def __init__(
        self, world: World, solution: SolutionText, mode: Mode, modulus: int, work: Work
    ) -> None:
        self.world = world
        self.solution = solution
        self.is_strict = mode == "strict"
        self.modulus = modulus
        self.work = work
        self.bits: dict[str, int] = {}
        self.trials = 0
        self.dead_ends: set[tuple[int, frozenset[str]]] = set()

    @cached_property
    def needed(self) -> list[str]:
        """Parameters that the question needs, in an order of computation."""
        return self.world.needed(self.world.problem.query) or []

    def failure(self) -> Failure | None:
        """The first failed check, or None."""
        formula = self.world.formula(self.world.problem.query)
        if not self.is_strict and not self.solution.is_symbolic and formula and formula.inputs:
            return _failure(self.solution.definitions[-1], _left_out())
        failure = self._check_from(0, _Scope())
        if failure:
            return failure
        # All definitions are right: compare the answer, which the last value is by default.
        query, last = self.world.problem.query, self.solution.definitions[-1]
        value = last.steps[-1].result
        answer = value if self.solution.answer is None else self.solution.answer
        sentence, index = self.solution.closing, len(self.solution.definitions)
        if sentence is None:
            sentence, index = last.sentence, last.index
        expected = value if self.is_strict else self.world.value(query, self.modulus)
        if answer == value == expected:
            return None
        detail = f"{answer} is given, {value} computed"
        if value != expected:
            detail += f", {expected} right"
        verdict = Verdict(False, Reason.ANSWER, sentence, "solution", index, detail)
        return Failure(index, verdict)

    def _check_from(self, start: int, scope: _Scope) -> Failure | None:
        """Check the definitions from number `start` on, and add them to `scope`."""
        definitions = self.solution.definitions
        for index in range(start, len(definitions)):
            definition = definitions[index]
            self.work.add(1 + len(scope.meanings) // 8)
            try:
                meaning = self._read_steps(definition, scope)
                if definition.name is not None:
                    self._match(definition.name, definition, meaning, scope)
                    self._define(definition.name, definition, meaning, scope)
                else:
                    return self._identify(definition, meaning, scope)
            except MistakeError as wrong:
                return _failure(definition, wrong)
        return None

    def _identify(self, definition: Definition, meaning: _Meaning, scope: _Scope) -> Failure | None:
        """Search for a parameter of a nameless definition with which the rest passes too.

        Returns:
          None if there is one; else the failure of the assignment that got furthest.
        """
        detail = "no parameter that can be computed here is computed like this"
        furthest = _failure(definition, MistakeError(Reason.UNIDENTIFIED, detail))
        left = len(self.solution.definitions) - definition.index
        if sum(name not in scope.values for name in self.needed) > left:
            detail = "too few definitions are left for what the question needs"
            return _failure(definition, MistakeError(Reason.UNIDENTIFIED, detail))
        # Without symbols the rest depends only on which parameters are defined, and not on the
        # definition that gave each of them, so that a failed state need not be tried again.
        place = (definition.index, frozenset(scope.values))
        if place in self.dead_ends:
            return furthest
        # Try what the question needs first, as most solutions define nothing else.
        for name in dict.fromkeys([*self.needed, *self.world.names()]):
            if name in scope.values:
                continue
            self.trials += 1
            self.work.add(4 + len(scope.meanings) // 8)
            if self.trials > MOST_TRIALS:
                detail = f"more than {MOST_TRIALS} ways to give the symbols their parameters"
                return _failure(definition, MistakeError(Reason.UNVERIFIABLE, detail))
            branch = scope.copy()
            try:
                self._match(name, definition, meaning, branch)
                self._define(name, definition, meaning, branch)
            except MistakeError:
                continue
            failure = self._check_from(definition.index + 1, branch)
            if failure is None:
                return None
            furthest = max(furthest, failure, key=lambda each: each.position)
        if not self.solution.is_symbolic:
            self.dead_ends.add(place)
        return furthest

    def _read_steps(self, definition: Definition, scope: _Scope) -> _Meaning:
        """Check the steps of one sentence, each by itself; return the meaning of the last."""
        own = definition.symbol or definition.name
        *intermediates, last = definition.steps
        if last.target != own:
            raise MistakeError(Reason.TARGET, f"{last.target!r} stands where {own!r} should")
        taken = {own, *scope.meanings}
        if own in scope.meanings:
            raise MistakeError(Reason.TWICE, f"{own!r} stands for something already")
        parameters = 0
        for step in intermediates:
            if step.target in taken:
                raise MistakeError(Reason.TWICE, f"{step.target!r} stands for something already")
            meaning = scope.meanings[step.target] = self._read_step(step, scope)
            taken.add(step.target)
            parameters |= meaning.parameters
        meaning = self._read_step(last, scope)
        # A step whose result is not used still counts its parameters as used.
        return meaning._replace(parameters=meaning.parameters | parameters)

    def _read_step(self, step: Step, scope: _Scope) -> _Meaning:
        """Check references, numbers and arithmetic of one step; return its meaning."""
        self.work.add(1)
        if step.result >= self.modulus:
            raise MistakeError(Reason.UNREDUCED, f"{step.result} is not below {self.modulus}")
        expression = step.symbolic or step.numeric
        if expression is None:
            return _Meaning(step.result, step.result, 0)
        self.work.add(len(expression.operands))
        operands = [_look_up(operand, scope, self.modulus) for operand in expression.operands]
        value = combine([each.value for each in operands], expression.signs)
        if (value - step.result) % self.modulus:
            detail = f"{step.result} is given, {value % self.modulus} right"
            raise MistakeError(Reason.ARITHMETIC, detail)
        if step.symbolic and step.numeric:
            _compare_numbers(operands, step.symbolic.signs, step.numeric)
        parameters = 0
        for each in operands:
            parameters |= each.parameters
        fingerprint = combine([each.fingerprint for each in operands], expression.signs)
        return _Meaning(step.result, fingerprint % PRIME, parameters)

    def _match(self, name: str, definition: Definition, meaning: _Meaning, scope: _Scope) -> None:
        """Compare a definition with the formula that the problem states for a parameter."""
        if name in scope.values:
            raise MistakeError(Reason.TWICE, f"{name!r} is defined already")
        formula = self.world.formula(name)
        if formula is None:
            raise MistakeError(
                Reason.UNKNOWN, f"{name!r} is neither stated nor a count of a category"
            )
        is_last = definition is self.solution.definitions[-1]
        if is_last and name != self.world.problem.query:
            raise MistakeError(
                Reason.QUERY, f"{self.world.problem.query!r} is asked for, not {name!r}"
            )
        if not self.solution.is_symbolic:
            self._match_numbers(formula, definition, scope)
            return
        expected = 0
        for each in formula.inputs:
            expected |= self._bit(each)
        if meaning.parameters != expected:
            raise MistakeError(Reason.DEPENDENCIES, f"it should be {sorted(formula.inputs)}")
        if self.is_strict and meaning.fingerprint != formula.evaluate(point, PRIME):
            raise MistakeError(Reason.EXPRESSION, f"of {name!r}")

    def _match_numbers(self, formula: Formula, definition: Definition, scope: _Scope) -> None:
        """Compare by numbers, in a solution without symbolic parts."""
        if formula.inputs and not self.is_strict:
            raise _left_out()
        missing = sorted(formula.inputs - set(scope.values))
        if missing:
            raise MistakeError(Reason.UNDEFINED, f"{missing} are not defined yet")
        if self.is_strict:
            explain(formula, definition, scope.values, self.modulus, self.work)

    def _define(self, name: str, definition: Definition, meaning: _Meaning, scope: _Scope) -> None:
        """Enter a parameter into the scope: from here on its name and symbol stand for itself."""
        scope.values[name] = meaning.value
        parameter = _Meaning(meaning.value, point(name), self._bit(name))
        scope.meanings[name] = parameter
        if definition.symbol:
            scope.meanings[definition.symbol] = parameter

    def _bit(self, name: str) -> int:
        if name not in self.bits:
            self.bits[name] = 1 << len(self.bits)
        return self.bits[name]


def _look_up(operand: str, scope: _Scope, modulus: int) -> _Meaning:
    """Meaning of a number or of something defined before."""
    if is_number(operand):
        number = int(operand)
        if number >= modulus:
            raise MistakeError(Reason.UNREDUCED, f"{number} is not below {modulus}")
        return _Meaning(number, number, 0)
    meaning = scope.meanings.get(operand.removeprefix("each "))
    if meaning is None:
        raise MistakeError(Reason.UNDEFINED, f"{operand!r} is not defined yet")
    return meaning


def _compare_numbers(operands: list[_Meaning], signs: tuple[str, ...], numeric: Expression) -> None:
    """Check that numbers are the values of the symbols that they stand for."""
    numbers = [int(operand) for operand in numeric.operands]
    values = [each.value for each in operands]
    if numbers != values or numeric.signs != signs:
        raise MistakeError(Reason.NUMBER, f"{numbers} stand where {values} should")


def _left_out() -> MistakeError:
    detail = "without symbols only constants and operators could be compared"
    return MistakeError(Reason.UNVERIFIABLE, detail)


def _failure(definition: Definition, wrong: MistakeError) -> Failure:
    verdict = Verdict(
        False, wrong.reason, definition.sentence, "solution", definition.index, str(wrong)
    )
    return Failure(definition.index, verdict)
