"""Chain against an interpreter that reads the text, and its counts against brute force."""

import functools
import math
import re

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from synth.task import Mixture, pool
from synth.tasks.chain import Chain
from tests.reference import solve_chain, split_chain

TASKS = {
    "default": Chain(hardest=4),
    "constants": Chain(hardest=5, second_operand="constant", num_symbols=8),
    "variables": Chain(hardest=4, second_operand="variable", num_symbols=8, modulus=7),
    "in-order": Chain(
        hardest=3, shuffled=False, num_distractors=0, num_symbols=4, operators=("-", "+")
    ),
    "many-distractors": Chain(hardest=2, num_distractors=6, num_symbols=60, modulus=11),
    "hardest-1": Chain(hardest=1, operators=("*",), num_distractors=1, modulus=2),
    "running": Chain(hardest=6, layout="running"),
    "running-large": Chain(hardest=2, layout="running", modulus=97, operators=("*", "-")),
}
NUM_EXAMPLES = 60
LINES = [name for name, task in TASKS.items() if task.layout == "lines"]


@functools.cache
def compiled_pool(task, mixture, num_examples):
    """`pool` as a function of the key; LLVM's optimiser would take most of the tests' time."""
    return jax.jit(
        lambda key: pool(task, key, mixture, num_examples),
        compiler_options={"xla_backend_optimization_level": 0},
    )


def draw(task, seed=7):
    """Tokens, masks and levels of examples over all levels of a task, as NumPy arrays."""
    drawn = compiled_pool(task, Mixture.up_to(task.hardest), NUM_EXAMPLES)(jax.random.key(seed))
    return tuple(np.asarray(field) for field in (drawn.tokens, drawn.loss_mask, drawn.difficulty))


@pytest.fixture(scope="module", params=TASKS)
def drawn(request):
    """A task, and (problem, solution, difficulty) of examples over all its levels."""
    task = TASKS[request.param]
    tokens, _, levels = draw(task)
    return task, [
        (*split_chain(task.decode(row)), int(level))
        for row, level in zip(tokens, levels, strict=True)
    ]


def test_solution_is_what_the_interpreter_finds(drawn):
    task, examples = drawn
    for problem, solution, difficulty in examples:
        answer = solve_chain(problem, task.modulus)
        assert solution == answer.solution
        assert answer.num_operations == difficulty


def test_solution_mask_starts_after_the_colon(drawn):
    task, _ = drawn
    tokens, masks, _ = draw(task)
    for row, mask in zip(tokens, masks, strict=True):
        problem, solution = split_chain(task.decode(row))
        assert task.decode(row[~mask]) == problem
        assert task.decode(row[mask]) == solution


@pytest.mark.parametrize("drawn", LINES, indirect=True)
def test_distractors_are_there_and_never_needed(drawn):
    task, examples = drawn
    for problem, _, difficulty in examples:
        answer = solve_chain(problem, task.modulus)
        assert len(answer.needed) == difficulty + 1
        assert len(answer.defined) == difficulty + 1 + task.num_distractors


@pytest.mark.parametrize("drawn", LINES, indirect=True)
def test_lines_are_shuffled_or_in_order(drawn):
    task, examples = drawn
    answers = [solve_chain(problem, task.modulus) for problem, _, _ in examples]
    in_order = [answer.defined[: len(answer.needed)] == answer.needed for answer in answers]
    assert not all(in_order) if task.shuffled else all(in_order)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constants", {"constant"}),
        ("variables", {"variable"}),
        ("default", {"constant", "variable"}),
    ],
)
def test_second_operands_are_of_the_stated_kind(name, expected):
    task = TASKS[name]
    kinds = set()
    for row in draw(task)[0]:
        problem = split_chain(task.decode(row))[0]
        needed = solve_chain(problem, task.modulus).needed
        for defined, operand in re.findall(r"(\w+) = \w+ [-+*] (\w+) ;", problem):
            if defined in needed:
                kinds.add("constant" if operand.isdecimal() else "variable")
    assert kinds == expected


def test_every_choice_occurs():
    task = TASKS["default"]
    used = np.unique(draw(task)[0])
    assert used.tolist() == list(range(len(task.vocabulary)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "in-order",
            r"\| (\w) = \d ; (\w) = \1 [-+] (\d|\1) ; (\w) = \2 [-+] (\d|\1|\2) ; \? \4 : "
            r"\1 = \d ; \2 = \d [-+] \d = \d ; \4 = \d [-+] \d = \d ; \.",
        ),
        ("running", r"\| \d( [-+*] \d){2} :( [-+*] \d \d){2} \."),
    ],
)
def test_text_has_the_documented_form(name, text):
    task = TASKS[name]
    tokens, _, levels = draw(task)
    matches = [bool(re.fullmatch(text, task.decode(row))) for row in tokens]
    assert any(matches)
    assert matches == (levels == 2).tolist()


@pytest.mark.parametrize(
    ("problem", "solution"),
    [
        (
            "| a = 3 ; c = b * 2 ; b = a + 4 ; ? c :",
            "a = 3 ; b = 3 + 4 = 2 ; c = 2 * 2 = 4 ; .",
        ),
        ("| 3 + 4 * 2 :", "+ 4 2 * 2 4 ."),
    ],
)
def test_interpreter_reproduces_the_documented_examples(problem, solution):
    assert solve_chain(problem, 5).solution == solution


@hypothesis.given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(TASKS)))
def test_any_key_gives_a_correct_example(seed, name):
    task = TASKS[name]
    tokens, _, levels = draw(task, seed)
    for row, difficulty in zip(tokens, levels, strict=True):
        problem, solution = split_chain(task.decode(row))
        answer = solve_chain(problem, task.modulus)
        assert (solution, answer.num_operations) == (answer.solution, int(difficulty))


TINY = {
    "running": (Chain(hardest=2, layout="running", modulus=2, operators=("+", "*")), 2, 32),
    "constant": (
        Chain(
            hardest=2,
            modulus=2,
            operators=("+",),
            num_symbols=3,
            num_distractors=0,
            shuffled=False,
            second_operand="constant",
        ),
        2,
        6 * 8,
    ),
    "variable": (
        Chain(
            hardest=2,
            modulus=2,
            operators=("-", "*"),
            num_symbols=3,
            num_distractors=0,
            second_operand="variable",
        ),
        2,
        6 * 2 * 2 * 4 * 6,
    ),
    "either-easier-than-hardest": (
        Chain(hardest=2, modulus=2, operators=("+",), num_symbols=4, num_distractors=1),
        1,
        24 * 2 * 3 * 4 * 6,
    ),
    "two-distractors": (
        Chain(
            hardest=1,
            modulus=2,
            operators=("+",),
            num_symbols=4,
            num_distractors=2,
            second_operand="variable",
        ),
        1,
        24 * 2 * 16 * 24 // 2,
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_number_of_problems_equals_a_count(name):
    task, difficulty, by_hand = TINY[name]
    stated = math.exp(task.log_num_problems(difficulty))
    # Enough draws to miss a problem with probability exp(-8), were all equally likely; with either
    # operand the rarest problem has three quarters of the mean probability.
    rarest = 0.75 if task.second_operand == "either" else 1.0
    num_draws = math.ceil(stated / rarest * (math.log(stated) + 8))
    examples = compiled_pool(task, Mixture.exact(difficulty), num_draws)(jax.random.key(7))
    tokens, mask = np.asarray(examples.tokens), np.asarray(examples.loss_mask)
    examples_as_bytes = tokens.astype(np.uint8)
    problems = np.where(mask, np.uint8(0), examples_as_bytes)
    row = np.dtype((np.void, tokens.shape[1]))
    num_problems = len(np.unique(problems.view(row)))
    assert num_problems == by_hand == round(stated)
    # A solution is a function of its problem.
    assert len(np.unique(examples_as_bytes.view(row))) == num_problems


def test_lengths_and_counts_are_checked():
    task = Chain(hardest=3)
    for question in (task.max_length, task.log_num_problems):
        for difficulty in (0, 4):
            with pytest.raises(ValueError, match=f"between 1 and 3, got {difficulty}"):
                question(difficulty)
    assert [task.max_length(d) for d in (1, 2, 3)] == [39, 53, 67]
    assert [Chain(layout="running").max_length(d) for d in (1, 2)] == [9, 14]


def test_vocabulary_names_every_symbol_once():
    task = Chain(num_symbols=60)
    assert task.vocabulary[-60:][:2] == ("a", "b")
    assert task.vocabulary[-34:][:2] == ("a1", "b1")
    assert len(set(task.vocabulary)) == len(task.vocabulary) == 4 + 3 + 5 + 3 + 60
    assert len(Chain(layout="running").vocabulary) == 4 + 3 + 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hardest": 0}, "hardest must be at least 1, got 0"),
        ({"modulus": 1}, "modulus must be at least 2, got 1"),
        ({"operators": ()}, "operators must be distinct and not empty, got ()"),
        ({"operators": ("+", "+")}, "operators must be distinct and not empty, got ('+', '+')"),
        ({"operators": ("+", "/")}, "operators must be out of ('+', '-', '*'), got ('+', '/')"),
        ({"layout": "tree"}, "layout must be one of ('lines', 'running'), got 'tree'"),
        (
            {"second_operand": "both"},
            "second_operand must be one of ('constant', 'variable', 'either'), got 'both'",
        ),
        ({"num_distractors": -1}, "num_distractors must be at least 0, got -1"),
        (
            {"num_symbols": 14},
            "num_symbols must be at least hardest + 1 + num_distractors = 15, got 14",
        ),
    ],
)
def test_fields_are_validated(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Chain(**options)


def test_lists_of_operators_are_accepted_and_running_needs_no_symbols():
    assert Chain(operators=["+", "-"]).operators == ("+", "-")  # pyright: ignore
    assert Chain(layout="running", num_symbols=1).max_length(2) == 14
