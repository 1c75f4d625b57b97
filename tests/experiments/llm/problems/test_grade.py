r"""Graders on texts as models write them: boxes, numbers, letters, whole solutions."""

from __future__ import annotations

import doctest
import re
import sys
import time
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.llm.problems import answers
from experiments.llm.problems.answers import chosen_letter, equivalent, last_box, normalised
from experiments.llm.problems.config import Grader, GraderConfig
from experiments.llm.problems.data import Problems
from experiments.llm.problems.grade import GRADERS, check_solutions, grade, references
from synth.tasks import igsm


def problems_of(rows: list[tuple[str, str, str]]) -> Problems:
    """Problems of (problem, solution, answer)."""
    return Problems(
        prompts=[[{"role": "user", "content": problem}] for problem, _, _ in rows],
        solutions=[solution for _, solution, _ in rows],
        answers=[answer for _, _, answer in rows],
        ops=[None] * len(rows),
    )


def judge(cases: list[tuple[str, str]], **config: Any) -> list[bool]:
    """Verdicts on (stated answer, response), one response a problem."""
    problems = problems_of([("?", "no solution", answer) for answer, _ in cases])
    correct = grade(problems, [[response] for _, response in cases], GraderConfig(**config))
    assert correct.shape == (len(cases), 1)
    assert correct.dtype == bool
    return correct[:, 0].tolist()


def test_examples_of_the_docstrings():
    assert doctest.testmod(answers).failed == 0


def test_every_grader_has_a_name():
    assert get_args(Grader) == tuple(GRADERS)


# Boxes.

balanced = st.recursive(
    st.text("ab 1+\\frac", max_size=4).map(lambda text: text.replace("\\", "\\{")),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "{" + "}{".join(parts) + "}"),
    max_leaves=8,
)


@given(before=balanced, inside=balanced, after=st.text("ab}{ \n.", max_size=8))
def test_last_box_is_found_by_matching_braces(before, inside, after):
    text = f"\\boxed{{{before}}} {before} \\boxed{{{inside}}}{after}"
    assert last_box(text) == inside


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"It is \boxed{\frac{1}{2}}. That was all.", r"\frac{1}{2}"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{x : x > 1\right.}", r"\left\{x : x > 1\right."),
        (r"\boxed {7}", "7"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{4} but \boxed{\frac{5}{", None),
        ("the answer is 4", None),
        ("", None),
    ],
)
def test_last_box(text, box):
    assert last_box(text) == box


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("\\frac{1}{2}", "1/2"),
        ("\\dfrac12", "\\tfrac{1}{2}"),
        ("-\\frac{3}{4}", "\\frac{-3}{4}"),
        ("−3", "-3"),
        ("1,234", "1234"),
        ("1{,}234", "1\\!,234"),
        ("\\$ 18", "18"),
        ("18.", "$18$"),
        ("50\\%", "50"),
        ("90^\\circ", "90^{\\circ}"),
        ("12\\text{ cm}", "12"),
        ("12\\,\\text{cm}^2", "12"),
        ("x = 5", "5"),
        ("\\left(1, 2\\right)", "(1,2)"),
        ("\\text{(A)}", "(A)"),
        ("2220_{5}", "2220_5"),
        ("\\sqrt2", "\\sqrt{2}"),
        (".5", "0.5"),
        ("2 \\pi r", "2\\pi{} r"),
    ],
)
def test_normalised_strings_are_equal(first, second):
    assert normalised(first) == normalised(second)
    assert judge([(first, f"so \\boxed{{{second}}}.")]) == [True]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("\\frac{1}{2}", "0.5"),
        ("(1,234)", "(1234)"),
        ("2220_5", "2220"),
        ("3", "-3"),
        ("\\frac{12}{3}", "\\frac{1}{23}"),
        ("x^{12}", "x^12"),
        ("ab", "a\\frac{b}"),
        ("5", ""),
    ],
)
def test_normalised_strings_differ(first, second):
    assert judge([(first, f"so \\boxed{{{second}}}.")]) == [False]


def test_boxed_takes_the_last_box_and_nothing_else():
    right = [("4", r"\boxed{3} \boxed{4} and on"), ("4", "\\boxed{\n4\n}")]
    wrong = [("4", r"\boxed{4} \boxed{3}"), ("4", "4"), ("4", ""), ("4", r"\boxed{4} \boxed{4")]
    assert judge(right) == [True] * len(right)
    assert judge(wrong) == [False] * len(wrong)


def test_reference_is_the_answer_else_the_last_box_of_the_solution():
    problems = problems_of(
        [("?", r"\boxed{1}", "2"), ("?", r"\boxed{1} \boxed{3}", ""), ("?", "", r"\boxed{4}")]
    )
    config = GraderConfig("boxed")
    assert references(problems, config) == ["2", "3", "4"]
    responses = [[rf"\boxed{{{n}}}" for n in range(1, 5)]] * 3
    np.testing.assert_array_equal(
        grade(problems, responses, config), np.array([2, 3, 4])[:, None] == np.arange(1, 5)
    )


# math-verify.


def test_math_verify_on_what_strings_cannot_decide():
    cases = [
        (r"\frac{1}{2}", r"\boxed{0.5}", True),
        (r"\frac{\sqrt{3}}{3}", r"\boxed{\frac{1}{\sqrt{3}}}", True),
        (r"x^2+2x+1", r"\boxed{(x+1)^2}", True),
        (r"-3", "\\boxed{−3.0}", True),
        (
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
            r"\boxed{\begin{pmatrix}1\\ 4/2\end{pmatrix}}",
            True,
        ),
        # Two boxes close to each other.
        ("7", r"\boxed{7} \boxed{8}", False),
        ("7", r"\boxed{8} \boxed{7}", True),
        # The base is a part of the numeral.
        ("2220_5", r"\boxed{2220}", False),
        ("2220", r"\boxed{2220_5}", False),
        ("2220_5", r"\boxed{2220_6}", False),
        ("2220_5", r"\boxed{2220_{5}}", True),
        ("1/2", r"\boxed{1/3}", False),
        ("5", r"\boxed{\frac{}", False),
        ("5", r"\boxed{\frac}", False),
        ("5", r"\boxed{}", False),
        ("5", "five, 5", False),
    ]
    verdicts = judge([case[:2] for case in cases], name="math-verify", processes=1)
    assert verdicts == [right for *_, right in cases]


def test_an_answer_without_end_is_wrong_and_told_of():
    cases = [("1", r"\boxed{9^{9^{9^{9}}}}"), ("0.5", r"\boxed{1/2}")]
    with pytest.warns(UserWarning, match=re.escape("longer than 1 s for 1 responses")) as told:
        verdicts = judge([*cases, cases[1]], name="math-verify", timeout=1, processes=1)
    assert verdicts == [False, True, True]
    assert "rows [0]" in str(told[0].message)


# GSM8K.


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("3 * 6 = 18\n#### 18", True),
        ("#### $18.00", True),
        ("#### 18 dollars, of 20", True),
        ("#### 17 or #### 18", True),
        ("#### 18\nSo 20 are left.", True),
        ("#### 17, or 18", False),
        # Without the mark the last number is the answer.
        ("First 20, then 18.", True),
        ("She earns \\$18", True),
        ("It is \\boxed{18}.", True),
        ("18 of 20", False),
        ("#### eighteen, not 18", True),
        ("-18", False),
        ("20-18", True),
        ("no number", False),
        ("", False),
    ],
)
def test_gsm8k(response, right):
    problems = problems_of([("?", "She has 20 - 2 = <<20-2=18>>18.\n#### 18", "")])
    assert grade(problems, [[response]], GraderConfig("gsm8k")).item() == right


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("#### 1,234,567", "1234567"),
        ("#### −5", "#### -5"),
        ("#### -5", "is −5.0."),
        ("#### .5", "0.50"),
    ],
)
def test_gsm8k_writes_numbers_in_many_ways(reference, response):
    problems = problems_of([("?", reference, "")])
    assert grade(problems, [[response]], GraderConfig("gsm8k")).item()


@pytest.mark.parametrize(
    ("solution", "answer", "number"),
    [
        ("#### 1", "#### 2, or 3", 2),
        ("#### 1", "2 or 3", 3),
        ("#### 1", "unknown", 1),
        ("#### 1", "", 1),
    ],
)
def test_gsm8k_takes_the_stated_answer_before_the_solution(solution, answer, number):
    assert references(problems_of([("?", solution, answer)]), GraderConfig("gsm8k")) == [number]


# Multiple choice.


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{(B)}", "B"),
        (r"\boxed{\text{(B) a banana}}", "B"),
        (r"The answer is (C). No: \boxed{B}", "B"),
        ("The answer is (B).", "B"),
        ("the answer is B because C is wrong", "B"),
        ("Answer: **B**", "B"),
        ("The correct answer is option J.", "J"),
        ("The answer is (A). Wait, the answer is (B)", "B"),
        (r"\boxed{42}, so the answer is (B)", "B"),
        ("The answer is A banana", None),
        ("The answer is I think 5", None),
        (r"\boxed{B, C}", None),
        ("The answer is Banana", None),
        ("The answer is (K)", None),
        ("**Answer:** B", "B"),
        ("**Answer**: (b)", "B"),
        ("The correct option is B.", "B"),
        ("The correct choice is: **(B)**", "B"),
        ("The answer is (b).", "B"),
        (r"\boxed{b}", "B"),
        (r"\boxed{\text{(b) a banana}}", "B"),
        # The response is only a letter.
        ("B", "B"),
        (" (B).\n", "B"),
        ("**B**", "B"),
        ("(b)", "B"),
        ("b", "B"),
        ("I", "I"),
        ("(B) a banana", "B"),
        ("B. a banana", "B"),
        ("Answer: A cat sat", None),
        ("The correct option is a banana", None),
        ("The incorrect option is B", None),
        ("A cat sat.", None),
        ("I think so.", None),
        ("a banana", None),
        ("e.g. this", None),
        ("(A) red (B) blue", None),
        ("A. red\nB. blue", None),
        ("A. red is wrong: the answer is (B)", "B"),
        ("AB", None),
        ("", None),
    ],
)
def test_multiple_choice(response, letter):
    for truth in "ABCIJ":
        assert judge([(truth, response)], name="multiple-choice") == [truth == letter]


def test_multiple_choice_reference_in_the_solution():
    problems = problems_of([("?", "It is red. The answer is (D).", ""), ("?", "", "(E) blue")])
    assert references(problems, GraderConfig("multiple-choice")) == ["D", "E"]
    problems = problems_of([("?", "A. red is wrong. The answer is (D).", ""), ("?", "C", "")])
    assert references(problems, GraderConfig("multiple-choice")) == ["D", "C"]


# iGSM.


@pytest.fixture(scope="module")
def igsm_rows():
    return [
        (one.problem, f"{one.solution} So the final answer is \\boxed{{{one.answer}}}.", "")
        for one in igsm.problems(4, 3, seed=0)
    ]


def test_igsm_judges_the_whole_solution(igsm_rows):
    problems = problems_of(igsm_rows)
    right = [solution for _, solution, _ in igsm_rows]
    # Wrong: the final answer alone, another solution, a cut one, one with a slip, an empty one.
    boxes = [solution[solution.index("So the final") :] for solution in right]
    slips = [
        re.sub(r"= (\d+)\.", lambda number: f"= {(int(number[1]) + 1) % 23}.", solution, count=1)
        for solution in right
    ]
    cut = [solution[: len(solution) // 2] for solution in right]
    responses = zip(right, boxes, right[1:] + right[:1], cut, slips, [""] * 3, strict=True)
    correct = grade(problems, [list(samples) for samples in responses], GraderConfig("igsm"))
    np.testing.assert_array_equal(correct, [[True] + [False] * 5] * 3)


def test_igsm_with_another_modulus_is_refused(igsm_rows):
    with pytest.raises(ValueError, match=re.escape("(is the modulus right?); rows 0, 2 lack")):
        references(problems_of(igsm_rows), GraderConfig("igsm", modulus=5))


# Solutions as responses.


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("boxed", ("?", r"It is \boxed{5}.", "5")),
        ("math-verify", ("?", r"It is \boxed{5}.", "5")),
        ("gsm8k", ("?", "It is 5.", "5")),
        ("multiple-choice", ("?", "B", "B")),
        ("multiple-choice", ("?", "(b)", "(b)")),
        ("multiple-choice", ("?", "(B) a banana", "(B) a banana")),
    ],
)
def test_solutions_that_a_grader_accepts(name, row):
    assert check_solutions(problems_of([row] * 3), GraderConfig(name)) == 1


@pytest.mark.parametrize("name", ["boxed", "math-verify", "multiple-choice"])
def test_a_grader_that_accepts_no_solution_is_refused(name):
    problems = problems_of([("?", "It is\n#### 5", "B")] * 300)
    message = f"grader '{name}' accepts 0% of the first 200 .* 8, 9 and 190 more.*another grader"
    with pytest.raises(ValueError, match=message):
        check_solutions(problems, GraderConfig(name))


def test_a_grader_that_accepts_few_solutions_is_doubtful():
    rows = [("?", r"\boxed{5}", "5"), ("?", "5", "5")]
    with pytest.warns(UserWarning, match=r"'boxed' accepts 50% of the first 4 .* rows 1, 3\)"):
        assert check_solutions(problems_of(rows * 2), GraderConfig()) == 0.5
    assert check_solutions(problems_of([*rows[:1] * 9, rows[1]]), GraderConfig()) == 0.9


# Refusals.


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("boxed", ("?", "it is 5", "")),
        ("math-verify", ("?", r"\boxed{5", " ")),
        ("gsm8k", ("?", "5 ####", "five")),
        ("igsm", ("How much is 5?", "5.", "5")),
        ("multiple-choice", ("?", "The answer is (B).", "1")),
    ],
)
def test_problems_without_what_a_grader_needs(name, row):
    good = {"gsm8k": ("?", "#### 1", "2"), "multiple-choice": ("?", "", "A")}
    rows = [row] * 12
    rows[1] = good.get(name, ("?", "", "1"))
    if name == "igsm":
        one = next(iter(igsm.problems(2, 1, seed=0)))
        rows[1] = (one.problem, one.solution, "")
    expected = re.escape("rows 0, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 1 more lack it")
    with pytest.raises(ValueError, match=f"grader '{name}' needs .*{expected}"):
        grade(problems_of(rows), [[""]] * 12, GraderConfig(name))


def test_math_verify_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ImportError, match=re.escape("needs: pip install 'sweetspot-sft[llm]'")):
        references(problems_of([("?", "", "1")]), GraderConfig("math-verify"))


def test_responses_must_fit_the_problems():
    problems = problems_of([("?", "", "1")] * 2)
    with pytest.raises(ValueError, match=re.escape("each of 2 problems, got [1] for 1")):
        grade(problems, [["a"]], GraderConfig())
    with pytest.raises(ValueError, match=re.escape("each of 2 problems, got [1, 2] for 2")):
        grade(problems, [["a"], ["a", "b"]], GraderConfig())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "exact"}, "grader must be one of ('boxed', 'math-verify', 'gsm8k', 'igsm', "),
        ({"modulus": 1}, "modulus must be at least 2, got 1"),
        ({"timeout": 0}, "timeout must be positive, got 0"),
        ({"processes": 0}, "processes must be at least 1, got 0"),
    ],
)
def test_configs_out_of_range(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GraderConfig(**fields)


def test_no_problems():
    assert grade(problems_of([]), [], GraderConfig("math-verify")).shape == (0, 0)
    assert check_solutions(problems_of([]), GraderConfig("math-verify")) == 1


@pytest.mark.parametrize("ending", ["!", "\n!", "option"])
def test_a_run_of_blanks_takes_no_time(ending):
    began = time.monotonic()
    assert chosen_letter("the answer is" + " " * 5_000 + ending) is None
    assert chosen_letter("the answer is" + " " * 5_000 + "(B)") == "B"
    assert time.monotonic() - began < 2


def test_answers_without_end_are_not_given_to_math_verify():
    assert not equivalent(("2", "1" * 100_000))
