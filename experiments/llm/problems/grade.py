r"""Graders, which decide whether a response is right; `GRADERS` is the only list of them.

=================== ==============================================================================
``boxed``           the last ``\boxed{}`` is the reference's, as strings after
                    `experiments.llm.problems.answers.normalised`
``math-verify``     the same, or math-verify finds both mathematically equal; but a numeral with a
                    base, ``2220_5``, is only equal to itself (math-verify drops the base)
``gsm8k``           the number after the last ``####``, or without one the last number of the
                    response, is that of the stated answer, else the one after ``####`` in the
                    solution
``igsm``            the whole solution passes `synth.tasks.igsm.verify`, which needs no reference
``multiple-choice`` the letter in the last box, else in the last "answer is (X)", else the one that
                    is the whole response, is the reference's
``reasoning-gym``   the scorer of the task that drew the problem gives (at least 0.99 of) its full
                    score to what follows the last ``####``, else to the last box, else to the whole
                    response
=================== ==============================================================================

The reference is the stated answer, or else the answer that the same rule reads from the reference
solution. A response that was cut off is graded like any other; a box that is not closed is no
answer.

Math-verify and the scorers of reasoning-gym run in processes with a time limit. What they do not
finish counts as wrong, with a warning that counts it, and so does what makes a scorer fail.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from experiments.distribution import install_hint
from experiments.llm.problems.answers import (
    bare_letter,
    check_equivalent,
    chosen_letter,
    equivalent,
    last_box,
    last_number,
    marked_number,
    normalised,
)
from experiments.llm.problems.config import Grader, GraderConfig
from experiments.llm.problems.gym.drawing import ORIGINS
from experiments.llm.problems.gym.library import ENVIRONMENT, check_installed, library
from experiments.llm.problems.gym.scoring import RIGHT, score
from experiments.llm.problems.workers import Lost, map_in_workers
from synth.tasks import igsm

if TYPE_CHECKING:
    from experiments.llm.problems.data import Problems

MOST_NAMED = 10
"""The most rows that an error names."""

MOST_CHECKED = 200
"""The most reference solutions that are graded to check a grader."""

FEW_ACCEPTED = 0.9
"""Share of accepted reference solutions below which a warning doubts the grader."""


class Stated(NamedTuple):
    """The value that is stated of a problem; ``""`` where there is none."""

    problem: str
    solution: str
    answer: str
    origin: str


@dataclass(frozen=True)
class Rule:
    """One way of grading.

    Attributes:
      needs: requirement on problems, in words.
      reference: finds the reference in what is stated of a problem; None if the problem does not
        meet the requirement.
      accepts: decides from reference, response and config whether the response is right.
    """

    needs: str
    reference: Callable[[Stated, GraderConfig], Any | None]
    accepts: Callable[[Any, str, GraderConfig], bool]


def _boxed_reference(stated: Stated, config: GraderConfig) -> str | None:
    return last_box(stated.answer) or stated.answer.strip() or last_box(stated.solution) or None


def _boxed(reference: str, response: str, config: GraderConfig) -> bool:
    box = last_box(response)
    return bool(box) and normalised(box) == normalised(reference)


def _number_reference(stated: Stated, config: GraderConfig) -> Any | None:
    answer, solution = stated.answer, stated.solution
    candidates = (marked_number(answer), last_number(answer), marked_number(solution))
    return next((number for number in candidates if number is not None), None)


def _number(reference: Any, response: str, config: GraderConfig) -> bool:
    number = marked_number(response)
    return (last_number(response) if number is None else number) == reference


def _igsm_reference(stated: Stated, config: GraderConfig) -> str | None:
    return stated.problem if _igsm(stated.problem, stated.solution, config) else None


def _igsm(problem: str, response: str, config: GraderConfig) -> bool:
    return igsm.verify(
        problem,
        response,
        mode=config.mode,
        modulus=23 if config.modulus is None else config.modulus,
        categories=igsm.CATEGORIES,
    ).ok


def _letter_reference(stated: Stated, config: GraderConfig) -> str | None:
    has_answer = bool(stated.answer.strip())
    return bare_letter(stated.answer) if has_answer else chosen_letter(stated.solution)


def _letter(reference: str, response: str, config: GraderConfig) -> bool:
    return chosen_letter(response) == reference


def _origin_reference(stated: Stated, config: GraderConfig) -> tuple[str, str] | None:
    return (stated.origin, stated.problem) if stated.origin else None


def _scored_later(reference: tuple[str, str], response: str, config: GraderConfig) -> bool:
    return False


_BOX = "an answer, or a solution with a \\boxed{} one"
GRADERS: dict[Grader, Rule] = {
    "boxed": Rule(_BOX, _boxed_reference, _boxed),
    "math-verify": Rule(_BOX, _boxed_reference, _boxed),
    "gsm8k": Rule("a number as answer, or after #### in the solution", _number_reference, _number),
    "igsm": Rule(
        "an iGSM problem whose own solution passes the verifier (is the modulus right?)",
        _igsm_reference,
        _igsm,
    ),
    "multiple-choice": Rule(
        "a letter A to J as answer, or without one in the solution", _letter_reference, _letter
    ),
    "reasoning-gym": Rule(
        f"problems that reasoning-gym drew (a column {ORIGINS!r})", _origin_reference, _scored_later
    ),
}
"""The only list of graders."""


def references(problems: Problems, config: GraderConfig) -> list[Any]:
    """Reference of each problem, which its responses are compared with.

    Raises:
      ImportError: if the grader needs a package that is not installed.
      ValueError: if problems lack what the grader needs; names their rows, from 0.
    """
    if config.name == "math-verify" and importlib.util.find_spec("math_verify") is None:
        raise ImportError(f"grader 'math-verify' needs: {install_hint('llm')}")
    if config.name == "reasoning-gym":
        check_installed()
    rule, origins = GRADERS[config.name], problems.origins or [""] * len(problems)
    columns = (problems.problems, problems.solutions, problems.answers, origins)
    values = [rule.reference(Stated(*row), config) for row in zip(*columns, strict=True)]
    if lacking := [row for row, reference in enumerate(values) if reference is None]:
        raise ValueError(
            f"grader {config.name!r} needs {rule.needs}; rows {_named(lacking)} lack it"
        )
    return values


def check_solutions(problems: Problems, config: GraderConfig) -> float:
    """Check that the grader accepts the reference solutions, which a model is trained to write.

    Args:
      problems: the first `MOST_CHECKED` of them are checked.
      config: of the grader.

    Returns:
      The share of solutions that are accepted, in [0, 1]; 1 if there are no problems. If it is
      below `FEW_ACCEPTED`, there is a warning too.

    Raises:
      ImportError, ValueError: see `references`; or if no solution is accepted.
    """
    if not len(problems):
        return 1.0
    first = problems.take(range(min(len(problems), MOST_CHECKED)))
    accepted = grade(first, [[solution] for solution in first.solutions], config)[:, 0]
    share = float(accepted.mean())
    if share < FEW_ACCEPTED:
        message = (
            f"grader {config.name!r} accepts {100 * share:.3g}% of the first {len(first)} "
            f"reference solutions themselves (not rows {_named(np.flatnonzero(~accepted).tolist())}"
            f"): choose another grader, or say with columns.solution where the solutions are"
        )
        if not accepted.any():
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
    return share


def _named(rows: Sequence[int]) -> str:
    """Name the first of these rows, and say how many more there are."""
    more = f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
    return ", ".join(map(str, rows[:MOST_NAMED])) + more


def grade(
    problems: Problems, responses: Sequence[Sequence[str]], config: GraderConfig
) -> Bool[np.ndarray, "problems samples"]:
    """Grade responses: true for each that is right.

    Answers on which ``math-verify`` or a scorer does not finish, or a scorer fails, count as wrong,
    and a warning counts them.

    Args:
      problems: the problems that were asked.
      responses: responses to each problem, equally many to each.
      config: of the grader.

    Raises:
      ImportError, ValueError: see `references`; if the responses do not fit the problems; or if
        reasoning-gym does not draw a problem again.
    """
    counts = sorted({len(samples) for samples in responses})
    if len(responses) != len(problems) or len(counts) > 1:
        raise ValueError(
            f"responses must be as many for each of {len(problems)} problems, got {counts} for "
            f"{len(responses)}"
        )
    rule, compared = GRADERS[config.name], references(problems, config)
    correct = np.array(
        [
            [rule.accepts(reference, text, config) for text in samples]
            for reference, samples in zip(compared, responses, strict=True)
        ],
        bool,
    ).reshape(len(problems), counts[0] if counts else 0)
    if config.name == "math-verify":
        _accept_equivalent(correct, compared, responses, config)
    if config.name == "reasoning-gym":
        _accept_scored(correct, compared, responses, config)
    return correct


def _accept_equivalent(
    correct: Bool[np.ndarray, "problems samples"],
    compared: Sequence[str],
    responses: Sequence[Sequence[str]],
    config: GraderConfig,
) -> None:
    """Mark answers as right that math-verify finds equal to their references."""
    # Equal pairs of reference and answer are decided once.
    places: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, sample in np.argwhere(~correct).tolist():
        if box := last_box(responses[row][sample]):
            places.setdefault((compared[row], box), []).append((row, sample))
    verdicts = map_in_workers(
        equivalent,
        list(places),
        timeout=config.timeout,
        processes=config.processes,
        prepare=check_equivalent,
    )
    lost = _accept(correct, verdicts, places.values())
    # An answer that is no mathematics raises an error: it stays wrong, without a warning.
    lost = {reason: rows for reason, rows in lost.items() if reason != "error"}
    _warn_of("math-verify", lost, config)


def _accept_scored(
    correct: Bool[np.ndarray, "problems samples"],
    compared: Sequence[tuple[str, str]],
    responses: Sequence[Sequence[str]],
    config: GraderConfig,
) -> None:
    """Mark responses as right to which the problem's own task gives the full score."""
    # Equal responses to a problem are scored once.
    places: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for row, samples in enumerate(responses):
        for sample, text in enumerate(samples):
            places.setdefault((*compared[row], text), []).append((row, sample))
    scores = map_in_workers(
        score,
        list(places),
        timeout=config.timeout,
        processes=config.processes,
        prepare=library,
        environment=ENVIRONMENT,
    )
    for value, where in zip(scores, places.values(), strict=True):
        if isinstance(value, str):
            raise ValueError(f"grader 'reasoning-gym', row {where[0][0]}: {value}")
    verdicts = [each if isinstance(each, Lost) else each >= RIGHT for each in scores]
    lost = _accept(correct, verdicts, places.values())
    details = [each.detail for each in scores if isinstance(each, Lost) and each.detail]
    _warn_of("the scorer of reasoning-gym", lost, config, *details[:1])


def _accept(
    correct: Bool[np.ndarray, "problems samples"],
    verdicts: Iterable[bool | Lost],
    places: Iterable[Sequence[tuple[int, int]]],
) -> dict[str, list[int]]:
    """Mark responses as right whose verdict is true; rows of those without one, by the reason.

    Args:
      correct: changed in place.
      verdicts, places: a verdict, and the rows and samples of all responses that it is for.
    """
    lost: dict[str, list[int]] = {}
    for verdict, where in zip(verdicts, places, strict=True):
        if verdict is True:
            correct[tuple(np.transpose(where))] = True
        elif isinstance(verdict, Lost):
            lost.setdefault(verdict.reason, []).extend(row for row, _ in where)
    return lost


def _warn_of(
    judge: str, lost: Mapping[str, Sequence[int]], config: GraderConfig, detail: str = ""
) -> None:
    """Count the responses that could not be judged, which are wrong."""
    if not any(lost.values()):
        return
    slow, dead, failed = (len(lost.get(reason, ())) for reason in ("timeout", "crash", "error"))
    told = f" and failed at {failed} ({' '.join(detail.split()):.200})" if failed else ""
    warnings.warn(
        f"{judge} took longer than {config.timeout:g} s for {slow} responses and ended "
        f"its process at {dead}{told}, which count as wrong: rows "
        f"{sorted({row for rows in lost.values() for row in rows})}",
        stacklevel=4,
    )
