"""Worked steps of reasoning-gym's problems: each step is true, and the last states the answer."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from experiments.llm.problems.answers import final_answer
from experiments.llm.problems.gym.drawing import draw, entry_of
from experiments.llm.problems.gym.solutions import NoStepsError, solution

pytest.importorskip("reasoning_gym", reason="reasoning-gym is no part of the default tests")
# A package that it needs takes a C compiler, so that it is installed for slow tests alone.
pytestmark = pytest.mark.slow

STEP = re.compile(r"(-?\d+) ([-+*/]) (-?\d+) = (-?\d+)\.|-\((-?\d+)\) = (-?\d+)\.")


def entry(expression: str, answer: str) -> dict[str, object]:
    return {"question": "?", "answer": answer, "metadata": {"expression": expression}}


def check_steps(text: str) -> int:
    """Check every step of a solution by exact fractions; return their number."""
    _, _, steps = text.partition(": ")
    steps, _, answer = steps.rpartition("#### ")
    found = [*STEP.finditer(steps)]
    assert "".join(step[0] + " " for step in found) == steps
    for first, sign, second, result, negated, value in (step.groups() for step in found):
        if sign is None:
            assert -int(negated) == int(value)
            continue
        a, b = Fraction(first), Fraction(second)
        done = {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__}
        assert done[sign](b) == int(result)
    if found:
        assert found[-1][4 if found[-1][2] else 6] == answer
    return len(found)


def test_chains_are_worked_from_left_to_right():
    assert (
        solution("chain_sum", entry("12 + 7 - 5", "14"))
        == "12 + 7 - 5: 12 + 7 = 19. 19 - 5 = 14. #### 14"
    )
    assert solution("chain_sum", entry("-3 - -4", "1")) == "-3 - -4: -3 - -4 = 1. #### 1"
    assert solution("chain_sum", entry("5", "5")) == "5: #### 5"


def test_products_come_before_sums_and_brackets_first():
    assert (
        solution("basic_arithmetic", entry("2 + 3 * -( 4 - 9 )", "17"))
        == "2 + 3 * -( 4 - 9 ): 4 - 9 = -5. -(-5) = 5. 3 * 5 = 15. 2 + 15 = 17. #### 17"
    )


@pytest.mark.parametrize(
    ("expression", "answer"),
    [("7 / 2", "3"), ("7 / 0", "0"), ("1 + 1", "3"), ("2 ** 3", "8"), ("x + 1", "2")],
)
def test_steps_that_do_not_end_in_the_answer_are_refused(expression, answer):
    with pytest.raises(NoStepsError):
        solution("basic_arithmetic", entry(expression, answer))


@pytest.mark.parametrize(
    ("source", "least"),
    [
        ("chain_sum?terms=6&allow_negation=true", 500),
        ("chain_sum", 500),
        ("products?max_terms=4", 500),
        # Divisions that leave something are rounded down by the library, and left out here.
        ("basic_arithmetic", 480),
        ("basic_arithmetic?whitespace=no_space&format_style=natural", 480),
    ],
)
def test_the_last_number_is_the_answer_in_500_draws(source, least):
    drawn = draw((source, 0, 500))
    worked = [(text, answer) for _, text, answer, _ in drawn if text]
    assert len(worked) >= least
    for text, answer in worked:
        assert final_answer(text) == answer
        check_steps(text)
    if source == "chain_sum?terms=6&allow_negation=true":
        assert {check_steps(text) for text, _ in worked} == {5}


def test_word_problems_keep_the_steps_that_end_in_their_answer():
    drawn = draw(("gsm_symbolic?size=500", 0, 500))
    worked = [(text, answer) for _, text, answer, _ in drawn if text]
    assert 400 < len(worked) < 500
    assert all(text.endswith(f"\n#### {answer}") for text, answer in worked)
    # What is left out states 8.0 as the result and 8 as the answer.
    place = next(index for index, (_, text, _, _) in enumerate(drawn) if not text)
    left_out = entry_of("gsm_symbolic?size=500", place)
    assert not left_out["metadata"]["answer_cot"].endswith(f"#### {left_out['answer']}")


def test_other_tasks_have_the_answer_alone():
    ((problem, text, answer, origin),) = draw(("spell_backward?seed=3&size=1", 0, 1))
    assert text == answer != ""
    assert answer[::-1] in problem
    assert origin == "spell_backward?seed=3&size=1#0"
