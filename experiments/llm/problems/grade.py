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
=================== ==============================================================================

The reference is the stated answer, or else the answer that the same rule reads from the reference
solution. A response that was cut off is graded like any other; a box that is not closed is no
answer.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True)
class Rule:
    """One way of grading.

    Attributes:
      needs: requirement on problems, in words.
      reference: finds the reference in problem, solution, stated answer and config; None if the
        problem does not meet the requirement.
      accepts: decides from reference, response and config whether the response is right.
    """

    needs: str
    reference: Callable[[str, str, str, GraderConfig], Any | None]
    accepts: Callable[[Any, str, GraderConfig], bool]


def _boxed_reference(problem: str, solution: str, answer: str, config: GraderConfig) -> str | None:
    return last_box(answer) or answer.strip() or last_box(solution) or None


def _boxed(reference: str, response: str, config: GraderConfig) -> bool:
    box = last_box(response)
    return bool(box) and normalised(box) == normalised(reference)


def _number_reference(problem: str, solution: str, answer: str, config: GraderConfig) -> Any | None:
    candidates = (marked_number(answer), last_number(answer), marked_number(solution))
    return next((number for number in candidates if number is not None), None)


def _number(reference: Any, response: str, config: GraderConfig) -> bool:
    number = marked_number(response)
    return (last_number(response) if number is None else number) == reference


def _igsm_reference(problem: str, solution: str, answer: str, config: GraderConfig) -> str | None:
    return problem if _igsm(problem, solution, config) else None


def _igsm(problem: str, response: str, config: GraderConfig) -> bool:
    return igsm.verify(
        problem,
        response,
        mode=config.mode,
        modulus=23 if config.modulus is None else config.modulus,
        categories=igsm.CATEGORIES,
    ).ok


def _letter_reference(problem: str, solution: str, answer: str, config: GraderConfig) -> str | None:
    return bare_letter(answer) if answer.strip() else chosen_letter(solution)


def _letter(reference: str, response: str, config: GraderConfig) -> bool:
    return chosen_letter(response) == reference


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
    rule = GRADERS[config.name]
    values = [
        rule.reference(problem, solution, answer, config)
        for problem, solution, answer in zip(
            problems.problems, problems.solutions, problems.answers, strict=True
        )
    ]
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

    Answers on which ``math-verify`` does not finish count as wrong, and a warning counts them.

    Args:
      problems: the problems that were asked.
      responses: responses to each problem, equally many to each.
      config: of the grader.

    Raises:
      ImportError, ValueError: see `references`; or if the responses do not fit the problems.
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
    # Every verdict goes to all responses with its pair.
    lost: dict[str, list[int]] = {"timeout": [], "crash": []}
    for verdict, where in zip(verdicts, places.values(), strict=True):
        if verdict is True:
            correct[tuple(np.transpose(where))] = True
        # An answer that is no mathematics raises an error: it stays wrong, without a warning.
        elif isinstance(verdict, Lost) and verdict.reason in lost:
            lost[verdict.reason] += [row for row, _ in where]
    if any(lost.values()):
        warnings.warn(
            f"math-verify took longer than {config.timeout:g} s for {len(lost['timeout'])} "
            f"responses and ended its process at {len(lost['crash'])}, which count as wrong: rows "
            f"{sorted({row for rows in lost.values() for row in rows})}",
            stacklevel=3,
        )
