"""Task families drawn on device.

Solutions are compared with interpreters that read the text, draws with counts, and the documented
examples with both.
"""

import functools
import importlib
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats

from synth.task import ArrayTask, Mixture, pool
from synth.tasks.addition import Addition
from synth.tasks.dyck import Dyck
from synth.tasks.expressions import Expressions
from synth.tasks.group_words import GroupWords
from synth.tasks.parity import Parity
from synth.tasks.pointer import Pointer
from tests import reference

NUM_EXAMPLES = 150


@functools.cache
def compiled_pool(task: ArrayTask, mixture: Mixture, num_examples: int):
    """`pool` as a function of the key; LLVM's optimiser would take most of the tests' time."""
    return jax.jit(
        lambda key: pool(task, key, mixture, num_examples),
        compiler_options={"xla_backend_optimization_level": 0},
    )


def solve(task: Any, problem: str) -> tuple[str, int]:
    """Solution and level of a problem, by the interpreter of the task's family."""
    if isinstance(task, GroupWords):
        return reference.solve_group_word(problem, task.group), len(problem.split()) - 3
    if isinstance(task, Expressions):
        answer = reference.solve_expression(problem, task.modulus)
        return answer.solution, answer.num_operators
    if isinstance(task, Parity):
        return reference.solve_parity(problem, task.scratchpad), len(problem.split()) - 2
    if isinstance(task, Addition):
        answer = reference.solve_addition(problem, task.base, task.scratchpad)
        return answer.solution, answer.num_digits
    if isinstance(task, Pointer):
        answer = reference.solve_pointer(problem, task.chain_of_thought)
        # No shorter walk ends at the same node.
        assert answer.cycle_size > task.hardest
        return answer.solution, answer.num_hops
    assert isinstance(task, Dyck)
    answer = reference.solve_dyck(problem)
    assert answer.greatest_depth == answer.final_depth
    return answer.solution, answer.final_depth


TASKS: dict[str, ArrayTask] = {
    "S3": GroupWords(hardest=5, group="S3", num_generators=4),
    "S5": GroupWords(hardest=3, group="S5", num_generators=4, start="identity"),
    "A5": GroupWords(hardest=6, num_generators=4),
    "Z60": GroupWords(hardest=4, group="Z60", num_generators=4),
    "expressions": Expressions(hardest=7),
    "expressions-large": Expressions(hardest=3, modulus=31, operators=("*", "-")),
    "expressions-hardest-1": Expressions(hardest=1, modulus=2, operators=("+",)),
    "dyck": Dyck(hardest=6),
    "dyck-one-kind": Dyck(hardest=3, num_kinds=1, length=8),
    "dyck-four-kinds": Dyck(hardest=5, num_kinds=4, length=40),
    "parity": Parity(hardest=9),
    "parity-scratchpad": Parity(hardest=9, scratchpad=True),
    "addition": Addition(hardest=5),
    "addition-interleaved": Addition(hardest=5, base=16, interleaved=True),
    "addition-at-once": Addition(hardest=4, base=2, scratchpad=False),
    "addition-at-once-interleaved": Addition(hardest=3, scratchpad=False, interleaved=True),
    "pointer": Pointer(hardest=7),
    "pointer-one-cycle": Pointer(hardest=5, num_nodes=6),
    "pointer-at-once": Pointer(hardest=4, num_nodes=9, chain_of_thought=False),
}


@pytest.fixture(scope="module", params=TASKS)
def drawn(request):
    """A task, and (problem, solution, level) of examples over all its levels."""
    task = TASKS[request.param]
    drawn = compiled_pool(task, Mixture.up_to(task.hardest), NUM_EXAMPLES)(jax.random.key(7))
    fields = (np.asarray(each) for each in (drawn.tokens, drawn.loss_mask, drawn.difficulty))
    return task, [
        (task.decode(tokens[~mask]), task.decode(tokens[mask]), int(level))
        for tokens, mask, level in zip(*fields, strict=True)
    ]


def test_solution_and_level_are_what_the_interpreter_finds(drawn):
    task, examples = drawn
    assert {level for *_, level in examples} == set(range(1, task.hardest + 1))
    for problem, solution, level in examples:
        assert solve(task, problem) == (solution, level)
        assert len(f"{problem} {solution}".split()) == task.max_length(level)


def test_every_token_occurs(drawn):
    task, examples = drawn
    used = {word for problem, solution, _ in examples for word in f"{problem} {solution}".split()}
    # Numbers and elements of several characters are too many for all of them to occur.
    names = {word for word in task.vocabulary if len(word) == 1}
    assert names <= used <= set(task.vocabulary)


# Each family draws all its problems with the same probability.

TINY: dict[str, tuple[ArrayTask, int, int]] = {
    "group-words": (GroupWords(hardest=3, group="S3"), 2, 6 * 2**2),
    "group-words-identity": (GroupWords(hardest=3, start="identity", num_generators=3), 3, 3**3),
    "expressions": (Expressions(hardest=4, modulus=2, operators=("+",)), 3, 5 * 2**4),
    "expressions-signs": (Expressions(hardest=3, modulus=2, operators=("-", "*")), 2, 2 * 4 * 8),
    "dyck-easy": (Dyck(hardest=2, length=5), 1, len(reference.dyck_words(5, 1, "(["))),
    "dyck-hard": (Dyck(hardest=3, length=5), 3, len(reference.dyck_words(5, 3, "(["))),
    "dyck-three-kinds": (
        Dyck(hardest=2, length=5, num_kinds=3),
        2,
        len(reference.dyck_words(5, 2, "([{")),
    ),
    "parity": (Parity(hardest=6), 5, 2**5),
    "addition": (Addition(hardest=3, base=3), 2, 3**4),
    "addition-interleaved": (
        Addition(hardest=2, base=5, interleaved=True, scratchpad=False),
        1,
        25,
    ),
    # 3 starts, 6 orders of the pairs; 2 permutations have the start on a cycle of 2 or of 3.
    "pointer": (Pointer(hardest=1, num_nodes=3), 1, 3 * 6 * (2 + 2)),
    "pointer-one-cycle": (Pointer(hardest=2, num_nodes=3, chain_of_thought=False), 2, 3 * 6 * 2),
}


@pytest.mark.parametrize("name", TINY)
def test_every_problem_is_drawn_equally_often(name):
    task, difficulty, by_hand = TINY[name]
    stated = task.log_num_problems(difficulty)
    assert stated is not None
    assert math.exp(stated) == pytest.approx(by_hand, rel=1e-9)
    drawn = compiled_pool(task, Mixture.exact(difficulty), 30 * by_hand)(jax.random.key(7))
    tokens = np.asarray(drawn.tokens)
    problems = np.where(np.asarray(drawn.loss_mask), 0, tokens)
    distinct, counts = np.unique(problems, axis=0, return_counts=True)
    assert len(distinct) == len(np.unique(tokens, axis=0)) == by_hand
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


# Documentation and fields.

DOCUMENTED: dict[tuple[str, str], ArrayTask] = {
    ("group_words", "S3"): GroupWords(group="S3"),
    ("group_words", "S5"): GroupWords(group="S5"),
    ("group_words", "A5"): GroupWords(group="A5"),
    ("group_words", "Z60"): GroupWords(group="Z60"),
    ("expressions", ""): Expressions(),
    ("dyck", ""): Dyck(hardest=2, length=8),
    ("parity", "at once"): Parity(),
    ("parity", "scratchpad"): Parity(scratchpad=True),
    ("addition", "apart"): Addition(),
    ("addition", "interleaved"): Addition(interleaved=True),
    ("addition", "without scratchpad"): Addition(scratchpad=False),
    ("pointer", "path"): Pointer(hardest=3, num_nodes=5),
    ("pointer", "answer"): Pointer(hardest=3, num_nodes=5, chain_of_thought=False),
}


@pytest.mark.parametrize(("module", "label"), DOCUMENTED)
def test_documented_example_is_true(module, label):
    task = DOCUMENTED[module, label]
    documentation = importlib.import_module(f"synth.tasks.{module}").__doc__
    assert documentation is not None
    (text,) = re.findall(rf"^    {label} *(\| .* : .*)$", documentation, re.MULTILINE)
    problem, solution = re.fullmatch(r"(.* :) (.*)", text).groups()  # pyright: ignore
    assert solve(task, problem) == (solution, 2)
    assert set(text.split()) <= set(task.vocabulary)
    assert len(text.split()) == task.max_length(2)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (GroupWords, {"hardest": 0}, "hardest must be at least 1, got 0"),
        (GroupWords, {"group": "S4"}, "group must be one of ('S3', 'S5', 'A5', 'Z60'), got 'S4'"),
        (GroupWords, {"num_generators": 1}, "num_generators must be between 2 and 4, got 1"),
        (GroupWords, {"num_generators": 5}, "num_generators must be between 2 and 4, got 5"),
        (GroupWords, {"start": "a"}, "start must be one of ('uniform', 'identity'), got 'a'"),
        (Expressions, {"hardest": 0}, "hardest must be at least 1, got 0"),
        (Expressions, {"modulus": 1}, "modulus must be at least 2, got 1"),
        (Expressions, {"operators": ()}, "operators must be distinct and not empty, got ()"),
        (Expressions, {"operators": "++"}, "distinct and not empty, got ('+', '+')"),
        (Expressions, {"operators": "+/"}, "must be out of ('+', '-', '*'), got ('+', '/')"),
        (Dyck, {"hardest": 0}, "hardest must be at least 1, got 0"),
        (Dyck, {"num_kinds": 0}, "num_kinds must be between 1 and 4, got 0"),
        (Dyck, {"num_kinds": 5}, "num_kinds must be between 1 and 4, got 5"),
        (Dyck, {"length": 34}, "length must be at least 35 for 2 kinds and hardest = 12, so that"),
        (Dyck, {"length": 34}, "no level has fewer problems than the one before; got 34"),
        (Dyck, {"num_kinds": 1}, "length must be at least 90 for 1 kinds and hardest = 12, so"),
        (Parity, {"hardest": 0}, "hardest must be at least 1, got 0"),
        (Addition, {"hardest": 0}, "hardest must be at least 1, got 0"),
        (Addition, {"base": 1}, "base must be at least 2, got 1"),
        (Pointer, {"hardest": 0}, "hardest must be at least 1, got 0"),
        (Pointer, {"num_nodes": 12}, "num_nodes must be between 13 and 52 for hardest = 12, got"),
        (Pointer, {"num_nodes": 53}, "between 13 and 52 for hardest = 12, got 53"),
        (Pointer, {"hardest": 49}, "between 50 and 52 for hardest = 49, got 53"),
        (Pointer, {"hardest": 52}, "hardest must be at most 51, got 52"),
    ],
)
def test_fields_are_validated(build: Callable[..., ArrayTask], options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**options)


@pytest.mark.parametrize("name", TASKS)
def test_lengths_and_counts_are_checked(name):
    task = TASKS[name]
    for question in (task.max_length, task.log_num_problems):
        for difficulty in (0, task.hardest + 1):
            with pytest.raises(ValueError, match=f"between 1 and {task.hardest}, got {difficulty}"):
                question(difficulty)
