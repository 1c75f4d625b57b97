"""The interface of a task, and the pools of examples drawn from it.

Axes used throughout `synth`: ``examples`` (independent draws), ``length`` (tokens of a
padded sequence), ``levels`` (difficulties 1 .. hardest), ``members`` (fine-tuned models).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

PADDING = 0
"""Token id of padding in every vocabulary."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Example:
    """One problem with its canonical solution, padded on the right.

    Attributes:
      tokens: token ids, `PADDING` after the end marker.
      loss_mask: true where the token belongs to the solution (end marker included).
    """

    tokens: Int[Array, " length"]
    loss_mask: Bool[Array, " length"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pool:
    """Independent draws from one task and one mixture; a shorter pool is a prefix of a longer one.

    Attributes:
      tokens: token ids, `PADDING` after the end marker.
      loss_mask: true on solution tokens (end marker included).
      difficulty: level of each example.
    """

    tokens: Int[Array, "examples length"]
    loss_mask: Bool[Array, "examples length"]
    difficulty: Int[Array, " examples"]

    @property
    def num_examples(self) -> int:
        return self.tokens.shape[0]

    @property
    def num_tokens(self) -> Int[Array, " examples"]:
        """Length of each example in tokens, padding not counted."""
        return (self.tokens != PADDING).sum(axis=1)


@dataclass(frozen=True)
class Mixture:
    """A distribution over difficulties.

    Attributes:
      levels: distinct difficulties, each at least 1, in increasing order.
      probabilities: one positive probability for each level; they sum to 1 within 1e-6.

    Raises:
      ValueError: if a level or a probability is out of range or the sum is not 1.

    Example:
      >>> Mixture.up_to(3).levels
      (1, 2, 3)
      >>> Mixture.window(8, width=2).levels
      (6, 7, 8)
    """

    levels: tuple[int, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if any(int(level) != level for level in self.levels):
            raise ValueError(f"levels must be integers, got {self.levels}")
        object.__setattr__(self, "levels", tuple(int(level) for level in self.levels))
        object.__setattr__(self, "probabilities", tuple(float(p) for p in self.probabilities))
        if not self.levels or len(self.levels) != len(self.probabilities):
            raise ValueError(
                f"levels and probabilities must have the same length of at least 1, "
                f"got {len(self.levels)} and {len(self.probabilities)}"
            )
        if min(self.levels) < 1 or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(
                f"levels must be distinct integers of at least 1, increasing; got {self.levels}"
            )
        if not all(p > 0 for p in self.probabilities):
            raise ValueError(f"probabilities must all be positive, got {self.probabilities}")
        if abs(math.fsum(self.probabilities) - 1.0) > 1e-6:
            raise ValueError(
                f"probabilities must sum to 1 (within 1e-6), got {self.probabilities} "
                f"with sum {math.fsum(self.probabilities):.6g}"
            )

    @classmethod
    def uniform(cls, levels: Sequence[int]) -> Mixture:
        """Each of `levels` with the same probability."""
        levels = tuple(levels)
        return cls(levels, (1.0 / max(len(levels), 1),) * len(levels))

    @classmethod
    def exact(cls, difficulty: int) -> Mixture:
        """Only `difficulty`: the setting of the paper's iGSM runs."""
        return cls.uniform((difficulty,))

    @classmethod
    def window(cls, difficulty: int, *, width: int) -> Mixture:
        """Uniform on ``difficulty - width .. difficulty``, cut off at level 1."""
        if width < 0:
            raise ValueError(f"width must be at least 0, got {width}")
        return cls.uniform(tuple(range(max(1, difficulty - width), difficulty + 1)))

    @classmethod
    def up_to(cls, difficulty: int) -> Mixture:
        """Uniform on ``1 .. difficulty``."""
        return cls.uniform(tuple(range(1, difficulty + 1)))

    @classmethod
    def geometric(cls, difficulty: int, *, ratio: float) -> Mixture:
        """Levels ``1 .. difficulty``, each `ratio` times as likely as the one before.

        Raises:
          ValueError: if `ratio` is not in (0, 1], or a level's probability underflows to zero.
        """
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, got {ratio}")
        weights = np.float64(ratio) ** np.arange(difficulty)
        return cls(tuple(range(1, difficulty + 1)), tuple(weights / weights.sum()))

    @property
    def hardest(self) -> int:
        return self.levels[-1]

    def between(self, low: float, high: float) -> Mixture:
        """The mixture between two of its quantiles: what an equal share of its draws is, in order.

        Args:
          low, high: from 0 to 1, such as 0.5 and 1 for the harder half of its draws.

        Raises:
          ValueError: if they are no such interval.

        Example:
          >>> Mixture.up_to(4).between(0.5, 1.0).levels
          (3, 4)
        """
        if not 0 <= low < high <= 1:
            raise ValueError(f"low and high must be 0 <= low < high <= 1, got {low} and {high}")
        ends = np.cumsum(self.probabilities)
        ends[-1] = 1.0
        starts = np.concatenate([[0.0], ends[:-1]])
        inside = np.minimum(ends, high) - np.maximum(starts, low)
        # Rounding may leave a trace of a level that ends where the interval begins: drop it.
        is_in = inside > 1e-9
        levels = np.array(self.levels)[is_in]
        return Mixture(tuple(levels.tolist()), tuple(inside[is_in] / inside[is_in].sum()))

    def log_probabilities(self, hardest: int) -> Float[np.ndarray, " levels"]:
        """Log-probability of levels ``1 .. hardest`` in nats, minus infinity off the support.

        Raises:
          ValueError: if the mixture reaches beyond `hardest`.
        """
        if self.hardest > hardest:
            raise ValueError(
                f"mixture reaches difficulty {self.hardest}, the task accepts 1 to {hardest}"
            )
        dense = np.full(hardest, -np.inf, np.float32)
        dense[np.array(self.levels) - 1] = np.log(self.probabilities)
        return dense


class Task(abc.ABC):
    """A family of problems with a difficulty: the part that both kinds of task share.

    Attributes:
      name: short identifier, used in tables.
      vocabulary: one string for each token id; id 0 is padding.
      hardest: the largest difficulty; levels are 1 to `hardest`.
    """

    name: ClassVar[str]
    hardest: int

    @property
    @abc.abstractmethod
    def vocabulary(self) -> tuple[str, ...]: ...

    @abc.abstractmethod
    def max_length(self, difficulty: int) -> int:
        """Length in tokens of the longest example at any level up to `difficulty`.

        Raises:
          ValueError: if `difficulty` is not 1 to `hardest`.
        """

    def log_num_problems(self, difficulty: int) -> float | None:
        """Natural log of the number of distinct problems at one level; None if not known."""
        del difficulty
        return None

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of a token sequence, without padding."""
        return " ".join(self.vocabulary[int(token)] for token in tokens if int(token) != PADDING)


class ArrayTask(Task):
    """A task generated on device: `sample` is pure, jit-able and vmap-able."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw one example, padded to ``max_length(hardest)``; difficulty may be traced."""


@dataclass(frozen=True)
class TextExample:
    """A problem and its solution as text."""

    problem: str
    solution: str


class TextTask(Task):
    """A task generated as text on the host, with a closed vocabulary for the small decoder."""

    @abc.abstractmethod
    def sample(self, generator: np.random.Generator, difficulty: int) -> TextExample:
        """Draw one example as text."""

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a problem or a solution, its start or end marker included."""


def join(
    problem: Int[Array, "*problem"], solution: Int[Array, "*solution"], length: int
) -> Example:
    """Concatenate problem and solution, and move unused slots to the end.

    A task with traced difficulty fills arrays of static shape and leaves `PADDING` in the slots
    that the difficulty does not use; this closes the gaps.

    Args:
      problem: token ids of the problem in reading order, in an array of any rank.
      solution: token ids of the solution, end marker included.
      length: padded length in tokens; tokens beyond it are dropped.
    """
    problem, solution = problem.reshape(-1), solution.reshape(-1)
    slots = jnp.concatenate([problem, solution])
    used = slots != PADDING
    # A used slot goes to its number among the used ones; an unused slot goes out of bounds, where
    # the write is dropped.
    place = jnp.where(used, jnp.cumsum(used) - 1, length)
    tokens = jnp.full(length, PADDING, slots.dtype).at[place].set(slots, mode="drop")
    index = jnp.arange(length)
    start = (problem != PADDING).sum()
    return Example(tokens, (index >= start) & (index < used.sum()))


def check_difficulty(difficulty: int, hardest: int) -> None:
    """Raise ValueError unless ``1 <= difficulty <= hardest``."""
    if not 1 <= difficulty <= hardest:
        raise ValueError(f"difficulty must be between 1 and {hardest}, got {difficulty}")


def pool(
    task: Task,
    key: PRNGKeyArray,
    mixture: Mixture,
    num_examples: int,
    *,
    length: int | None = None,
) -> Pool:
    """Draw independent examples, with replacement, from a task under a mixture of difficulties.

    Example ``i`` depends on ``(task, key, mixture, i)`` alone, so a smaller pool is a prefix of a
    larger one and padding changes nothing. Different keys give independent pools.

    Args:
      task: an `ArrayTask` or a `TextTask`.
      key: a JAX key.
      mixture: distribution over difficulties, within the task's range.
      num_examples: number of draws, at least 1.
      length: padded length in tokens; default ``task.max_length(mixture.hardest)``.

    Raises:
      ValueError: if the mixture leaves the task's range, `num_examples` is below 1, `length` is
        too short for the mixture, or a `TextTask` draws an example longer than its `max_length`.
      TypeError: if `task` is neither kind of task.
    """
    log_probabilities = mixture.log_probabilities(task.hardest)
    shortest = task.max_length(mixture.hardest)
    length = shortest if length is None else length
    if num_examples < 1:
        raise ValueError(f"num_examples must be at least 1, got {num_examples}")
    if length < shortest:
        raise ValueError(
            f"length must be at least {shortest} tokens for difficulty {mixture.hardest}, "
            f"got {length}"
        )
    if isinstance(task, ArrayTask):
        drawn = _array_pool(task, key, log_probabilities, num_examples)
    elif isinstance(task, TextTask):
        drawn = _text_pool(task, key, log_probabilities, num_examples)
    else:
        raise TypeError(f"task must be an ArrayTask or a TextTask, got {type(task).__name__}")
    return Pool(_fit(drawn.tokens, length), _fit(drawn.loss_mask, length), drawn.difficulty)


def draw(
    task: ArrayTask, key: PRNGKeyArray, log_probabilities: Float[Array | np.ndarray, " levels"]
) -> tuple[Example, Int[Array, ""]]:
    """Draw one example, padded to ``max_length(hardest)``, and its difficulty.

    Args:
      task: on device.
      key: a JAX key; may be traced.
      log_probabilities: of levels 1 to `task.hardest`, see `Mixture.log_probabilities`.
    """
    key_difficulty, key_example = jax.random.split(key)
    difficulty = 1 + jax.random.categorical(key_difficulty, log_probabilities)
    return task.sample(key_example, difficulty), difficulty


def _fit(array: Array, length: int) -> Array:
    """Pad the last axis to `length`, or cut padding off it."""
    missing = max(0, length - array.shape[1])
    return jnp.pad(array[:, :length], ((0, 0), (0, missing)))


@jax.jit(static_argnums=(0, 3))
def _array_pool(
    task: ArrayTask, key: PRNGKeyArray, log_probabilities: Array, num_examples: int
) -> Pool:
    def numbered(index: Int[Array, ""]) -> tuple[Example, Int[Array, ""]]:
        return draw(task, jax.random.fold_in(key, index), log_probabilities)

    examples, difficulty = jax.vmap(numbered)(jnp.arange(num_examples))
    return Pool(examples.tokens, examples.loss_mask, difficulty)


def _text_pool(
    task: TextTask, key: PRNGKeyArray, log_probabilities: np.ndarray, num_examples: int
) -> Pool:
    probabilities = np.exp(log_probabilities.astype(np.float64))
    probabilities /= probabilities.sum()
    # Every example has a generator of its own, seeded by the key and the example's index.
    words = np.asarray(
        jax.vmap(lambda i: jax.random.key_data(jax.random.fold_in(key, i)))(
            jnp.arange(num_examples)
        )
    )
    length = task.max_length(int(np.flatnonzero(probabilities)[-1]) + 1)
    tokens = np.full((num_examples, length), PADDING, np.int32)
    loss_mask = np.zeros((num_examples, length), bool)
    difficulty = np.zeros(num_examples, np.int32)
    for i, entropy in enumerate(words):
        generator = np.random.default_rng(entropy.tolist())
        difficulty[i] = 1 + generator.choice(task.hardest, p=probabilities)
        text = task.sample(generator, int(difficulty[i]))
        problem, solution = task.encode(text.problem), task.encode(text.solution)
        end = len(problem) + len(solution)
        if end > length:
            raise ValueError(
                f"task {task.name!r} drew an example of {end} tokens at difficulty "
                f"{difficulty[i]}, but states max_length {length}"
            )
        tokens[i, :end] = problem + solution
        loss_mask[i, len(problem) : end] = True
    return Pool(jnp.asarray(tokens), jnp.asarray(loss_mask), jnp.asarray(difficulty))


def prompt_keys(drawn: Pool) -> list[bytes]:
    """Byte strings that identify the problem of each example, without its solution.

    Equal problems have equal keys whatever the padding, so that overlap between pools can be
    counted and risk on unseen problems reported.
    """
    tokens = np.asarray(drawn.tokens)
    prompts = np.where(np.asarray(drawn.loss_mask), PADDING, tokens).astype("<u4")
    return [prompt.tobytes().rstrip(b"\0") for prompt in prompts]
