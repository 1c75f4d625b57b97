"""Mixtures, pools, the registry, and the contract of every task in `TASKS`."""

import dataclasses
import functools
import math
import re
from collections import defaultdict

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from synth.task import (
    PADDING,
    ArrayTask,
    Example,
    Mixture,
    Task,
    TextExample,
    TextTask,
    check_difficulty,
    pool,
    prompt_keys,
)
from synth.tasks import TASKS, make_task
from synth.tasks.chain import Chain


class Countdown(ArrayTask):
    """``d d-1 .. 1``: the problem is d, the solution the rest; ids are 1 + number."""

    name = "countdown"
    hardest = 6

    @property
    def vocabulary(self):
        return ("<pad>", *(str(number) for number in range(7)))

    def max_length(self, difficulty: int) -> int:
        check_difficulty(difficulty, self.hardest)
        return difficulty + 1

    def sample(self, key, difficulty):
        index = jnp.arange(self.max_length(self.hardest))
        tokens = jnp.where(index <= difficulty, 1 + difficulty - index, PADDING)
        return Example(tokens, (index > 0) & (index <= difficulty))


@dataclasses.dataclass(frozen=True)
class Reverse(TextTask):
    """Write a word of `difficulty` letters backwards."""

    name = "reverse"
    hardest: int = 5
    letters: str = "abc"
    stated_surplus: int = 2

    @property
    def vocabulary(self):
        return ("<pad>", ">", ".", *self.letters)

    def max_length(self, difficulty: int) -> int:
        check_difficulty(difficulty, self.hardest)
        return 2 * difficulty + self.stated_surplus

    def sample(self, generator, difficulty):
        word = " ".join(generator.choice(list(self.letters), difficulty))
        return TextExample(word + " >", word[::-1] + " .")

    def encode(self, text):
        return [self.vocabulary.index(word) for word in text.split()]


REVERSE = Reverse(letters="xyz")
CALLED: list[str] = []
"""What the functions below were called with."""


def not_a_task(size: int = 1) -> int:
    CALLED.append("not_a_task")
    return size


def unannotated(letters="abc"):
    CALLED.append("unannotated")
    return Reverse(letters=letters)


def unresolved(letters: str = "abc") -> "NoSuchName":  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
    CALLED.append("unresolved")
    return Reverse(letters=letters)


def liar() -> Task:
    return 1  # pyright: ignore[reportReturnType]


def reverse_of(letters: str = "abc") -> Task:
    return Reverse(letters=letters)


def as_arrays(drawn):
    """A pool as NumPy arrays."""
    return tuple(np.asarray(field) for field in (drawn.tokens, drawn.loss_mask, drawn.difficulty))


def assert_same(one, other):
    for ours, theirs in zip(as_arrays(one), as_arrays(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Mixtures.


@pytest.mark.parametrize(
    ("levels", "probabilities", "message"),
    [
        ((), (), "levels and probabilities must have the same length of at least 1, got 0 and 0"),
        ((1, 2), (1.0,), "must have the same length of at least 1, got 2 and 1"),
        ((0, 1), (0.5, 0.5), "distinct integers of at least 1, increasing; got (0, 1)"),
        ((2, 1), (0.5, 0.5), "distinct integers of at least 1, increasing; got (2, 1)"),
        ((2, 2), (0.5, 0.5), "distinct integers of at least 1, increasing; got (2, 2)"),
        ((1, 2), (1.0, 0.0), "probabilities must all be positive, got (1.0, 0.0)"),
        ((1, 2), (1.5, -0.5), "probabilities must all be positive, got (1.5, -0.5)"),
        ((1, 2), (0.5, math.nan), "probabilities must all be positive, got (0.5, nan)"),
        ((1, 2), (0.5, 0.6), "probabilities must sum to 1 (within 1e-6), got (0.5, 0.6) with"),
    ],
)
def test_mixture_refuses(levels, probabilities, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Mixture(levels, probabilities)


def test_mixture_refuses_levels_that_are_not_integers():
    with pytest.raises(ValueError, match=re.escape("levels must be integers, got (1.5,)")):
        Mixture((1.5,), (1.0,))  # pyright: ignore[reportArgumentType]


def test_mixture_constructors():
    assert Mixture.exact(4) == Mixture((4,), (1.0,))
    assert Mixture.up_to(4) == Mixture((1, 2, 3, 4), (0.25,) * 4)
    assert Mixture.window(5, width=1) == Mixture((4, 5), (0.5, 0.5))
    assert Mixture.window(2, width=5) == Mixture.up_to(2)
    assert Mixture.window(3, width=0) == Mixture.exact(3)
    assert Mixture.uniform([2, 7]).hardest == 7
    assert Mixture.geometric(4, ratio=1.0) == Mixture.up_to(4)
    assert Mixture.geometric(3, ratio=0.5) == Mixture((1, 2, 3), (4 / 7, 2 / 7, 1 / 7))
    for ratio in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="ratio must be above 0 and at most 1, got"):
            Mixture.geometric(3, ratio=ratio)
    with pytest.raises(ValueError, match="width must be at least 0, got -1"):
        Mixture.window(3, width=-1)
    for empty in (lambda: Mixture.up_to(0), lambda: Mixture.uniform(())):
        with pytest.raises(ValueError, match="same length of at least 1, got 0 and 0"):
            empty()
    with pytest.raises(ValueError, match="at least 1, increasing"):
        Mixture.exact(0)


@hypothesis.given(
    st.lists(st.integers(1, 9), min_size=1, unique=True).map(sorted), st.integers(9, 12)
)
def test_log_probabilities_are_dense_and_normalised(levels, hardest):
    weights = np.arange(1.0, len(levels) + 1)
    mixture = Mixture(tuple(levels), tuple(weights / weights.sum()))
    dense = mixture.log_probabilities(hardest)
    assert dense.shape == (hardest,)
    assert [level for level in range(1, hardest + 1) if np.isfinite(dense[level - 1])] == levels
    np.testing.assert_allclose(np.exp(dense[np.isfinite(dense)]), mixture.probabilities, 1e-6)
    with pytest.raises(ValueError, match=f"mixture reaches difficulty {levels[-1]}, the task acc"):
        mixture.log_probabilities(levels[-1] - 1)


# Pools, over a task on device and one on the host.


@pytest.fixture(
    scope="module",
    params=[Countdown(), Chain(hardest=4, layout="running"), Reverse()],
    ids=["countdown", "chain", "text"],
)
def task(request):
    return request.param


MIXTURE = Mixture((1, 2, 4), (0.5, 0.2, 0.3))


def test_smaller_pool_is_a_prefix(task):
    large, small = (
        as_arrays(pool(task, jax.random.key(0), MIXTURE, 40)),
        as_arrays(pool(task, jax.random.key(0), MIXTURE, 7)),
    )
    for ours, theirs in zip(small, large, strict=True):
        np.testing.assert_array_equal(ours, theirs[:7])


def test_padding_changes_nothing(task):
    short = pool(task, jax.random.key(0), MIXTURE, 40)
    assert short.tokens.shape == (40, task.max_length(4))
    assert short.num_examples == 40
    wide = pool(task, jax.random.key(0), MIXTURE, 40, length=short.tokens.shape[1] + 9)
    assert wide.tokens.shape == wide.loss_mask.shape == (40, task.max_length(4) + 9)
    np.testing.assert_array_equal(wide.tokens[:, : task.max_length(4)], short.tokens)
    np.testing.assert_array_equal(wide.loss_mask[:, : task.max_length(4)], short.loss_mask)
    assert not np.asarray(wide.tokens[:, task.max_length(4) :]).any()
    assert not np.asarray(wide.loss_mask[:, task.max_length(4) :]).any()
    np.testing.assert_array_equal(wide.num_tokens, short.num_tokens)
    assert prompt_keys(wide) == prompt_keys(short)


def test_pool_depends_on_its_key_alone(task):
    assert_same(
        pool(task, jax.random.key(0), MIXTURE, 40), pool(task, jax.random.key(0), MIXTURE, 40)
    )
    streams = [
        jax.random.key(1),
        *jax.random.split(jax.random.key(0)),
        jax.random.fold_in(jax.random.key(0), 1),
    ]
    base = pool(task, jax.random.key(0), MIXTURE, 40)
    for key in streams:
        other = pool(task, key, MIXTURE, 40)
        # 40 draws of 3 levels agree by chance with probability below 1e-15.
        assert (np.asarray(other.difficulty) != np.asarray(base.difficulty)).any()
        equal = np.asarray(other.difficulty) == np.asarray(base.difficulty)
        if not isinstance(task, Countdown):
            assert (np.asarray(other.tokens)[equal] != np.asarray(base.tokens)[equal]).any()


@pytest.mark.parametrize(
    "task", [Countdown(), Chain(hardest=6, layout="running"), Reverse()], ids=lambda t: t.name
)
def test_difficulties_follow_the_mixture(task):
    drawn = np.asarray(pool(task, jax.random.key(0), MIXTURE, 4000).difficulty)
    counts = np.bincount(drawn, minlength=7)[list(MIXTURE.levels)]
    assert counts.sum() == 4000
    expected = 4000 * np.array(MIXTURE.probabilities)
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_text_task_goes_through_pool():
    task = Reverse()
    drawn = pool(task, jax.random.key(0), Mixture.up_to(3), 30)
    for tokens, mask, difficulty in zip(*as_arrays(drawn), strict=True):
        *word, arrow = task.decode(tokens[~mask]).split()
        *reversed_word, end = task.decode(tokens[mask]).split()
        assert (arrow, end) == (">", ".")
        assert len(word) == difficulty
        assert reversed_word == word[::-1]
    assert set(np.asarray(drawn.difficulty)) == {1, 2, 3}


def test_text_task_that_understates_its_length_is_refused():
    with pytest.raises(
        ValueError, match="task 'reverse' drew an example of 4 tokens at difficulty 1, but states"
    ):
        pool(Reverse(stated_surplus=1), jax.random.key(0), Mixture.exact(1), 3)


def test_array_pool_can_be_drawn_inside_a_compiled_function():
    task = Countdown()
    inside = jax.jit(lambda key: pool(task, key, MIXTURE, 20))(jax.random.key(0))
    assert_same(inside, pool(task, jax.random.key(0), MIXTURE, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_examples": 0}, "num_examples must be at least 1, got 0"),
        ({"mixture": Mixture.exact(7)}, "mixture reaches difficulty 7, the task accepts 1 to 6"),
        ({"length": 4}, "length must be at least 5 tokens for difficulty 4, got 4"),
    ],
)
def test_pool_refuses(options, message):
    arguments = {"mixture": MIXTURE, "num_examples": 3, **options}
    with pytest.raises(ValueError, match=re.escape(message)):
        pool(Countdown(), jax.random.key(0), **arguments)


def test_pool_refuses_other_tasks():
    class Neither(Task):
        name = "neither"
        hardest = 2

        @property
        def vocabulary(self):
            return ("<pad>",)

        def max_length(self, difficulty):
            return 1

    with pytest.raises(TypeError, match="must be an ArrayTask or a TextTask, got Neither"):
        pool(Neither(), jax.random.key(0), Mixture.exact(1), 1)
    assert Neither().log_num_problems(1) is None


@pytest.mark.parametrize("difficulty", [0, 4, -1])
def test_check_difficulty(difficulty):
    assert check_difficulty(3, 3) is None
    with pytest.raises(ValueError, match=f"difficulty must be between 1 and 3, got {difficulty}"):
        check_difficulty(difficulty, 3)


def test_prompt_keys_identify_problems_only():
    drawn = pool(Countdown(), jax.random.key(0), Mixture.up_to(6), 60)
    levels = defaultdict(set)
    for prompt, difficulty in zip(prompt_keys(drawn), np.asarray(drawn.difficulty), strict=True):
        levels[prompt].add(int(difficulty))
    assert sorted(levels.values(), key=min) == [{1}, {2}, {3}, {4}, {5}, {6}]


# The registry.


def test_make_task_builds_by_name_and_by_import_path():
    assert make_task("chain", {"hardest": 3}) == Chain(hardest=3)
    assert make_task("chain-running") == Chain(layout="running")
    assert make_task(f"{__name__}:Reverse", {"letters": "xy"}) == Reverse(letters="xy")
    assert make_task(f"{__name__}:reverse_of", {"letters": "xy"}) == Reverse(letters="xy")
    assert make_task(f"{__name__}:REVERSE", hardest=3) is REVERSE


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chian", {}, "task must be one of ['addition', 'chain', 'chain-running'"),
        ("chian", {}, "or a 'module:attribute', got 'chian'"),
        ("chain", {"modulos": 7}, "task 'chain' has no field ['modulos']; it accepts ['hardest',"),
        ("chain", {"modulus": 1}, "modulus must be at least 2, got 1"),
        ("no_such_module:Task", {}, "task 'no_such_module:Task' cannot be imported"),
        ("synth.tasks.chain:Chian", {}, "cannot be imported as module:attribute (module"),
        (":Task", {}, "task ':Task' cannot be imported"),
        (f"{__name__}:liar", {}, "must build a synth.task.Task, got int"),
        (f"{__name__}:REVERSE", {"letters": "xy"}, "is built already, its options must be none"),
    ],
)
def test_make_task_refuses(name, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_task(name, options)


@pytest.mark.parametrize("attribute", ["not_a_task", "unannotated", "unresolved", "SMALL"])
def test_make_task_calls_nothing_that_does_not_promise_a_task(attribute):
    CALLED.clear()
    with pytest.raises(ValueError, match=r"must be a synth\.task\.Task, a class of them, or"):
        make_task(f"{__name__}:{attribute}")
    assert CALLED == []


@pytest.mark.parametrize("options", [{}, {"command": "exit 3"}, {"cmd": "exit 3"}])
@pytest.mark.parametrize("name", ["os:system", "os:popen", "subprocess:Popen", "builtins:exec"])
def test_make_task_runs_no_command(name, options):
    with pytest.raises(ValueError, match=r"must be a synth\.task\.Task"):
        make_task(name, options)


# The contract, over every task in `TASKS`.

SMALL = {
    "addition": {"hardest": 2, "base": 2},
    "chain": {"hardest": 2, "num_symbols": 3, "num_distractors": 0, "modulus": 2, "operators": "+"},
    "chain-running": {"hardest": 2},
    "dyck": {"hardest": 2, "length": 5},
    "expressions": {"hardest": 2, "modulus": 2, "operators": "+"},
    "group-words": {"hardest": 2, "group": "S3"},
    "group-words-cyclic": {"hardest": 2, "start": "identity"},
    "parity": {"hardest": 4},
    "parity-scratchpad": {"hardest": 4},
    "pointer": {"hardest": 2, "num_nodes": 3},
}
"""Options with so few problems that draws repeat; a task that is absent has default options."""

NUM_EXAMPLES = 96


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A task of `TASKS` with a pool over all its levels, as NumPy arrays."""

    task: Task
    mixture: Mixture
    is_small: bool
    tokens: np.ndarray
    loss_mask: np.ndarray
    difficulty: np.ndarray


@pytest.fixture(scope="module", params=TASKS)
def contract(request):
    task = make_task(request.param, SMALL.get(request.param))
    mixture = Mixture.up_to(min(task.hardest, 3))
    drawn = pool(task, jax.random.key(0), mixture, NUM_EXAMPLES)
    return Drawn(task, mixture, request.param in SMALL, *as_arrays(drawn))


def test_contract_padding_is_token_zero_and_vocabulary_is_distinct(contract):
    vocabulary = contract.task.vocabulary
    assert vocabulary[PADDING] == "<pad>"
    assert len(set(vocabulary)) == len(vocabulary)
    assert contract.task.name == contract.task.name.strip().lower() != ""


def test_contract_deterministic_in_key(contract):
    again = as_arrays(pool(contract.task, jax.random.key(0), contract.mixture, NUM_EXAMPLES))
    for ours, theirs in zip(
        again, (contract.tokens, contract.loss_mask, contract.difficulty), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    other = as_arrays(pool(contract.task, jax.random.key(1), contract.mixture, NUM_EXAMPLES))
    assert (other[0] != contract.tokens).any()


def test_contract_tokens_and_masks(contract):
    assert contract.tokens.dtype == np.int32
    assert contract.loss_mask.dtype == bool
    assert contract.tokens.min() >= 0
    assert contract.tokens.max() < len(contract.task.vocabulary)
    for tokens, mask in zip(contract.tokens, contract.loss_mask, strict=True):
        used = int((tokens != PADDING).sum())
        first = int(np.argmax(mask))
        assert 0 < first < used
        np.testing.assert_array_equal(tokens != PADDING, np.arange(len(tokens)) < used)
        # One run of true, from the first solution token to the last token that is not padding.
        index = np.arange(len(tokens))
        np.testing.assert_array_equal(mask, (index >= first) & (index < used))


def test_contract_lengths(contract):
    task, used = contract.task, (contract.tokens != PADDING).sum(axis=1)
    stated = [task.max_length(level) for level in range(1, task.hardest + 1)]
    assert stated == sorted(stated)
    for level in contract.mixture.levels:
        longest = used[contract.difficulty == level].max()
        if isinstance(task, ArrayTask):
            assert longest == task.max_length(level)
        else:
            assert longest <= task.max_length(level)
    for level in (0, task.hardest + 1):
        with pytest.raises(ValueError, match=f"between 1 and {task.hardest}, got {level}"):
            task.max_length(level)


def test_contract_difficulty_may_be_traced(contract):
    task = contract.task
    if not isinstance(task, ArrayTask):
        pytest.skip("a text task is not compiled")
    levels = (1, contract.mixture.hardest)
    keys = jax.random.split(jax.random.key(0), len(levels))
    # LLVM's optimiser would take most of the time.
    fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    traced = fast(jax.vmap(task.sample))(keys, jnp.array(levels))
    # Here the level is a constant of the program.
    known = fast(
        lambda keys: [task.sample(k, jnp.asarray(n)) for k, n in zip(keys, levels, strict=True)]
    )(keys)
    for i, (level, concrete) in enumerate(zip(levels, known, strict=True)):
        np.testing.assert_array_equal(traced.tokens[i], concrete.tokens)
        np.testing.assert_array_equal(traced.loss_mask[i], concrete.loss_mask)
        assert concrete.tokens.shape == (task.max_length(task.hardest),)
        assert not np.asarray(concrete.tokens)[task.max_length(level) :].any()


def test_contract_decoded_text_encodes_to_the_same_tokens(contract):
    task = contract.task
    for tokens, mask in zip(contract.tokens, contract.loss_mask, strict=True):
        for part in (tokens[~mask], tokens[mask]):
            part = part[part != PADDING].tolist()
            text = task.decode(part)
            if isinstance(task, TextTask):
                assert task.encode(text) == part
            else:
                assert [task.vocabulary.index(word) for word in text.split()] == part


def test_contract_same_problem_has_the_same_solution(contract):
    task = contract.task
    drawn = pool(task, jax.random.key(0), Mixture.exact(1), NUM_EXAMPLES)
    solutions = defaultdict(set)
    tokens = np.where(np.asarray(drawn.loss_mask), np.asarray(drawn.tokens), PADDING)
    for prompt, solution in zip(prompt_keys(drawn), tokens, strict=True):
        solutions[prompt].add(solution[solution != PADDING].tobytes())
    assert all(len(different) == 1 for different in solutions.values())
    if contract.is_small:
        assert len(solutions) < NUM_EXAMPLES
    log_problems = task.log_num_problems(1)
    if log_problems is not None:
        assert len(solutions) <= math.exp(log_problems) * (1 + 1e-9)


def test_contract_number_of_problems_grows(contract):
    task = contract.task
    known = [task.log_num_problems(level) for level in range(1, task.hardest + 1)]
    counts = [count for count in known if count is not None]
    assert len(counts) in (0, len(known))
    assert counts == sorted(counts)
