r"""Symbolic iGSM on device: follow a chain of operations modulo p.

Knob: `difficulty`, the number of operations that the answer needs. Length grows with it.

Two layouts of the same idea:

- ``lines``: a computation graph. Variable :math:`x_0` is a constant; each later one applies an
  operator to its predecessor and to a second operand, a constant or an earlier variable. So the
  last variable, which is asked for, needs every operation. Lines that define unneeded variables
  (distractors) may be mixed in, and the lines shuffled. The solution computes the needed variables
  in order.
- ``running``: a start value and a sequence of (operator, constant) pairs; the solution restates
  each pair and gives the running value. This is the shortest layout, used on CPUs.

Worked examples (modulo 5, difficulty 2)::

    lines    | a = 3 ; c = b * 2 ; b = a + 4 ; ? c : a = 3 ; b = 3 + 4 = 2 ; c = 2 * 2 = 4 ; .
    running  | 3 + 4 * 2 : + 4 2 * 2 4 .

What is known: the op count is the knob of iGSM (Ye et al. 2024, arXiv 2407.20311).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from synth.task import PADDING, ArrayTask, Example, check_difficulty, join

OPERATIONS = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
}
Layout = Literal["lines", "running"]
SecondOperand = Literal["constant", "variable", "either"]


@dataclass(frozen=True)
class Chain(ArrayTask):
    """A chain of operations modulo `modulus`; difficulty is the number of operations.

    Attributes:
      hardest: largest difficulty.
      modulus: size of the number range, at least 2.
      operators: distinct signs out of ``+ - *``.
      layout: ``lines`` (a shuffled computation graph) or ``running`` (a sequence of operations).
        The fields below matter for ``lines`` only.
      num_symbols: names to choose variables from, at least ``hardest + 1 + num_distractors``.
      num_distractors: lines that define a variable that the answer does not need.
      shuffled: lines stand in random order; if false, in order of computation.
      second_operand: a ``constant``, an earlier ``variable``, or ``either`` with equal probability.

    Raises:
      ValueError: if a field is out of range.
    """

    name: ClassVar[str] = "chain"

    hardest: int = 12
    modulus: int = 5
    operators: tuple[str, ...] = ("+", "-", "*")
    layout: Layout = "lines"
    num_symbols: int = 26
    num_distractors: int = 2
    shuffled: bool = True
    second_operand: SecondOperand = "either"

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(self.operators))
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")
        if self.modulus < 2:
            raise ValueError(f"modulus must be at least 2, got {self.modulus}")
        if not self.operators or len(set(self.operators)) < len(self.operators):
            raise ValueError(f"operators must be distinct and not empty, got {self.operators}")
        if set(self.operators) - set(OPERATIONS):
            raise ValueError(f"operators must be out of {tuple(OPERATIONS)}, got {self.operators}")
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout must be one of {get_args(Layout)}, got {self.layout!r}")
        if self.second_operand not in get_args(SecondOperand):
            raise ValueError(
                f"second_operand must be one of {get_args(SecondOperand)}, "
                f"got {self.second_operand!r}"
            )
        if self.num_distractors < 0:
            raise ValueError(f"num_distractors must be at least 0, got {self.num_distractors}")
        needed = self.hardest + 1 + self.num_distractors
        if self.layout == "lines" and self.num_symbols < needed:
            raise ValueError(
                f"num_symbols must be at least hardest + 1 + num_distractors = {needed}, "
                f"got {self.num_symbols}"
            )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, markers, operators, numbers and (for ``lines``) variable names."""
        markers = ("<pad>", "|", ":", ".")
        numbers = tuple(str(value) for value in range(self.modulus))
        if self.layout == "running":
            return (*markers, *self.operators, *numbers)
        names = tuple(_symbol_name(index) for index in range(self.num_symbols))
        return (*markers, *self.operators, *numbers, "=", ";", "?", *names)

    def max_length(self, difficulty: int) -> int:
        """Tokens at `difficulty`: 5 d + 4 (running) or 14 d + 6 m + 13 (lines, m distractors)."""
        check_difficulty(difficulty, self.hardest)
        if self.layout == "running":
            return 5 * difficulty + 4
        return 14 * difficulty + 6 * self.num_distractors + 13

    def log_num_problems(self, difficulty: int) -> float:
        """Natural log of the number of distinct problems with `difficulty` operations."""
        check_difficulty(difficulty, self.hardest)
        signs, d, m = len(self.operators), difficulty, self.num_distractors
        if self.layout == "running":
            return math.log(self.modulus) + d * math.log(signs * self.modulus)
        choices = {
            "constant": [self.modulus] * d,
            "variable": list(range(1, d + 1)),
            "either": [self.modulus + earlier for earlier in range(1, d + 1)],
        }[self.second_operand]
        lines = d + 1 + m
        log_names = math.lgamma(self.num_symbols + 1) - math.lgamma(self.num_symbols - lines + 1)
        log_distractors = m * math.log((d + 1) * signs * self.modulus)
        # Once lines are shuffled, the order in which distractors were drawn makes no difference.
        log_orders = math.lgamma(lines + 1) - math.lgamma(m + 1) if self.shuffled else 0.0
        log_chain = math.log(self.modulus) + sum(math.log(signs * count) for count in choices)
        return log_names + log_chain + log_distractors + log_orders

    def sample(self, key: PRNGKeyArray, difficulty: Int[Array, ""]) -> Example:
        """Draw one problem with `difficulty` operations (uniform over each free choice)."""
        draw = self._running if self.layout == "running" else self._lines
        problem, solution = draw(key, jnp.asarray(difficulty))
        return join(problem, solution, self.max_length(self.hardest))

    def _id(self, text: str) -> int:
        return self.vocabulary.index(text)

    def _ids(self, *texts: str) -> list[int]:
        return [self._id(text) for text in texts]

    def _running(
        self, key: PRNGKeyArray, difficulty: Int[Array, ""]
    ) -> tuple[Int[Array, " problem"], Int[Array, " solution"]]:
        # One draw gives operator and constant, since each call of the generator compiles slowly.
        signs = len(self.operators)
        drawn = jax.random.randint(key, (self.hardest + 1,), 0, signs * self.modulus)
        operators, constants = drawn[1:] // self.modulus, drawn % self.modulus

        def step(value, operation):
            value = _apply(self, operation[0], value, operation[1])
            return value, value

        _, values = jax.lax.scan(step, constants[0], (operators, constants[1:]))
        number, sign = self._id("0"), self._id(self.operators[0])
        pairs = jnp.stack([operators + sign, constants[1:] + number], axis=1)
        steps = jnp.concatenate([pairs, values[:, None] + number], axis=1)
        needed = jnp.arange(self.hardest) < difficulty
        problem = _frame([*self._ids("|"), constants[0] + number], pairs, needed, self._ids(":"))
        return problem, _frame([], steps, needed, self._ids("."))

    def _lines(
        self, key: PRNGKeyArray, difficulty: Int[Array, ""]
    ) -> tuple[Int[Array, " problem"], Int[Array, " solution"]]:
        # The chain: its names, operands and values. Node 0 is the constant.
        key_names, key_chain, key_distractors, key_order = jax.random.split(key, 4)
        nodes, extra = self.hardest + 1, self.num_distractors
        names = jax.random.permutation(key_names, self.num_symbols)[: nodes + extra]
        names = names + self._id("?") + 1
        number, sign = self._id("0"), self._id(self.operators[0])
        operators, constants, other = _operands(self, key_chain)

        def step(values, index):
            chosen = jnp.where(other[index] >= 0, values[other[index]], constants[index])
            value = _apply(self, operators[index], values[index - 1], chosen)
            return values.at[index].set(value), (values[index - 1], chosen, value)

        start = jnp.zeros(nodes, int).at[0].set(constants[0])
        _, (left, right, value) = jax.lax.scan(step, start, jnp.arange(1, nodes))

        # The problem: a line for each node, needed ones and distractors, six tokens wide.
        right_token = jnp.where(other >= 0, names[other], constants + number)
        equals, semicolon = jnp.full(nodes, self._id("=")), jnp.full(nodes, self._id(";"))
        signs = operators + sign
        chain = jnp.stack(
            [names[:nodes], equals, jnp.roll(names[:nodes], 1), signs, right_token, semicolon],
            axis=1,
        )
        leaf = jnp.stack([names[0], equals[0], constants[0] + number, semicolon[0]])
        chain = chain.at[0].set(jnp.array([*leaf, PADDING, PADDING]))
        needed = jnp.arange(nodes) <= difficulty
        lines = jnp.concatenate([chain, self._distractors(key_distractors, names, difficulty)])
        in_lines = jnp.concatenate([needed, jnp.ones(extra, bool)])
        if self.shuffled:
            order = jax.random.permutation(key_order, nodes + extra)
            lines, in_lines = lines[order], in_lines[order]
        question = [self._id("?"), names[difficulty], self._id(":")]
        problem = _frame(self._ids("|"), lines, in_lines, question)

        # The solution: a line for each needed operation, with numbers in place of names.
        worked = jnp.stack(
            [
                names[1:nodes],
                equals[1:],
                left + number,
                signs[1:],
                right + number,
                equals[1:],
                value + number,
                semicolon[1:],
            ],
            axis=1,
        )
        return problem, _frame(list(leaf), worked, needed[1:], self._ids("."))

    def _distractors(
        self, key: PRNGKeyArray, names: Int[Array, " names"], difficulty: Int[Array, ""]
    ) -> Int[Array, "distractors 6"]:
        """Lines that define an unneeded variable from a needed one and a constant."""
        key_operand, key_operator, key_constant = jax.random.split(key, 3)
        shape = (self.num_distractors,)
        operand = jax.random.randint(key_operand, shape, 0, difficulty + 1)
        operator = jax.random.randint(key_operator, shape, 0, len(self.operators))
        constant = jax.random.randint(key_constant, shape, 0, self.modulus)
        return jnp.stack(
            [
                names[self.hardest + 1 :],
                jnp.full(shape, self._id("=")),
                names[operand],
                operator + self._id(self.operators[0]),
                constant + self._id("0"),
                jnp.full(shape, self._id(";")),
            ],
            axis=1,
        )


def _apply(
    chain: Chain, operator: Int[Array, ""], left: Int[Array, ""], right: Int[Array, ""]
) -> Int[Array, ""]:
    results = jnp.stack([OPERATIONS[sign](left, right) for sign in chain.operators])
    return results[operator] % chain.modulus


def _operands(
    chain: Chain, key: PRNGKeyArray
) -> tuple[Int[Array, " nodes"], Int[Array, " nodes"], Int[Array, " nodes"]]:
    """Operator, constant and second variable of each node; the variable is -1 for none."""
    key_operators, key_constants, key_variables, key_either = jax.random.split(key, 4)
    nodes = jnp.arange(chain.hardest + 1)
    operators = jax.random.randint(key_operators, nodes.shape, 0, len(chain.operators))
    constants = jax.random.randint(key_constants, nodes.shape, 0, chain.modulus)
    variables = jax.random.randint(key_variables, nodes.shape, 0, jnp.maximum(nodes, 1))
    if chain.second_operand == "constant":
        use_variable = jnp.zeros(nodes.shape, bool)
    elif chain.second_operand == "variable":
        use_variable = jnp.ones(nodes.shape, bool)
    else:
        use_variable = jax.random.bernoulli(key_either, 0.5, nodes.shape)
    return operators, constants, jnp.where(use_variable & (nodes > 0), variables, -1)


def _symbol_name(index: int) -> str:
    """Name of a variable: a .. z, then a1 .. z1, and so on."""
    round_, letter = divmod(index, 26)
    return chr(ord("a") + letter) + (str(round_) if round_ else "")


def _frame(
    start: list, rows: Int[Array, "rows width"], needed: Bool[Array, " rows"], end: list
) -> Int[Array, " slots"]:
    """Start tokens, the needed rows and end tokens, with `PADDING` in all slots of other rows."""
    body = jnp.where(needed[:, None], rows, PADDING).reshape(-1)
    return jnp.concatenate([jnp.array(start, body.dtype), body, jnp.array(end, body.dtype)])
