"""Solutions of reasoning-gym's problems: what the assistant is trained to write.

Most tasks state an answer alone, which is then the whole solution. Some state worked steps, or an
example where many answers are right. Plain arithmetic gets its steps here. `SOLUTIONS` is the only
list of tasks whose solution is more than the stated answer.

Nothing here imports JAX, because problems are drawn in worker processes.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

Entry = Mapping[str, Any]
"""A problem as reasoning-gym draws it: ``question``, ``answer`` and ``metadata``."""

_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_EXACT = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


class NoStepsError(ValueError):
    """The steps of a problem cannot be written, or do not end in its answer."""


def solution(task: str, entry: Entry) -> str:
    """Return the solution of a problem.

    Args:
      task: name of the reasoning-gym task that drew it.
      entry: the problem.

    Returns:
      The solution; ``""`` if the task states none.

    Raises:
      NoStepsError: if the task's worked steps do not end in its own answer.
    """
    written = SOLUTIONS.get(task)
    return written(entry) if written is not None else entry["answer"] or ""


def _stated_steps(entry: Entry) -> str:
    """Steps of GSM-symbolic, which end in ``#### ANSWER`` as those of GSM8K do."""
    steps = entry["metadata"]["answer_cot"].rstrip()
    if not steps.endswith(f"#### {entry['answer']}"):
        raise NoStepsError("the stated steps do not end in the answer")
    return steps


def _arithmetic(entry: Entry) -> str:
    """Steps of an expression of whole numbers, one operation a step, in the order of evaluation.

    ``12 + 7 - 5`` becomes ``12 + 7 - 5: 12 + 7 = 19. 19 - 5 = 14. #### 14``.
    """
    expression, steps = entry["metadata"]["expression"].strip(), []
    value = _reduced(ast.parse(expression, mode="eval").body, steps)
    if str(value) != entry["answer"]:
        raise NoStepsError(f"the steps end in {value}, not in {entry['answer']}")
    return " ".join([f"{expression}:", *steps, f"#### {value}"])


def _reduced(node: ast.expr, steps: list[str]) -> int:
    """Value of a part of an expression; what it took is appended to the steps."""
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            value = _reduced(inner, steps)
            if not isinstance(inner, ast.Constant):
                steps.append(f"-({value}) = {-value}.")
            return -value
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _SIGNS:
            first, second = _reduced(left, steps), _reduced(right, steps)
            value = _result(type(sign), first, second)
            steps.append(f"{first} {_SIGNS[type(sign)]} {second} = {value}.")
            return value
    raise NoStepsError(f"{ast.unparse(node)} is no arithmetic of whole numbers")


def _result(sign: type[ast.operator], first: int, second: int) -> int:
    """Result of one operation on whole numbers; a division must leave nothing."""
    if sign is not ast.Div:
        return _EXACT[sign](first, second)
    if not second or first % second:
        raise NoStepsError(f"{first} / {second} is no whole number")
    return first // second


def _metadata(name: str) -> Callable[[Entry], str]:
    """One right answer of a task with many, as its metadata state it."""
    return lambda entry: entry["metadata"][name]


def _colours(entry: Entry) -> str:
    """A colour for each vertex, as the JSON that the task asks for."""
    return json.dumps(entry["metadata"]["possible_answer"])


SOLUTIONS: dict[str, Callable[[Entry], str]] = {
    "basic_arithmetic": _arithmetic,
    "chain_sum": _arithmetic,
    "graph_color": _colours,
    "gsm_symbolic": _stated_steps,
    "products": _arithmetic,
    "propositional_logic": _metadata("example_answer"),
    "rubiks_cube": _metadata("example_correct_answer"),
}
"""How the solution of a task is written, where it is not the stated answer."""
