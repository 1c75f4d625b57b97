"""Slow, obvious versions of the code under test: NumPy in float64, loops, dictionaries.

Nothing here imports `synth`, so that both cannot share an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


def _rms_norm(x, gain, eps):
    return x / math.sqrt(float(np.mean(x * x)) + eps) * gain


def _llama3_frequency(frequency, rope):
    """Keep a fast frequency, divide a slow one by the factor, and interpolate linearly between."""
    turns = rope.original_max_positions / (2 * math.pi / frequency)
    if turns > rope.high_frequency_factor:
        return frequency
    if turns < rope.low_frequency_factor:
        return frequency / rope.factor
    share = turns - rope.low_frequency_factor
    share /= rope.high_frequency_factor - rope.low_frequency_factor
    return (1 - share) * frequency / rope.factor + share * frequency


def _rotate(x, position, theta, rope):
    """Turn each pair (i, i + half) of a head's vector by position × theta^(-i / half)."""
    half = len(x) // 2
    turned = np.empty_like(x)
    for i in range(half):
        frequency = theta ** (-i / half)
        angle = position * (frequency if rope is None else _llama3_frequency(frequency, rope))
        turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        turned[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return turned


def decoder_logits(decoder, parameters, tokens, positions) -> np.ndarray:
    """Next-token logits [length, vocab] of one sequence, token by token and head by head.

    Args:
      decoder: anything with the fields of `synth.config.DecoderConfig`.
      parameters: nested dict of arrays, laid out as `synth.decoder.initialise` does.
      tokens, positions: integers, one for each token.
    """

    def array(*path: str) -> np.ndarray:
        leaf: Any = parameters
        for key in path:
            leaf = leaf[key]
        return np.asarray(leaf, np.float64)

    def project(layer: int, name: str, x: np.ndarray) -> np.ndarray:
        y = x @ array("layers", name, "kernel")[layer]
        biased = "bias" in parameters["layers"][name]
        return y + array("layers", name, "bias")[layer] if biased else y

    size, eps = decoder.head_size, decoder.rms_norm_eps
    shared = decoder.num_heads // decoder.num_kv_heads
    stream = [array("embedding")[int(token)] for token in tokens]
    for layer in range(decoder.num_layers):
        queries, keys, values = [], [], []
        for x, position in zip(stream, positions, strict=True):
            h = _rms_norm(x, array("layers", "attention_norm", "gain")[layer], eps)
            query = project(layer, "query", h).reshape(decoder.num_heads, size)
            key = project(layer, "key", h).reshape(decoder.num_kv_heads, size)
            if decoder.qk_norm:
                gain = array("layers", "query_norm", "gain")[layer]
                query = np.stack([_rms_norm(head, gain, eps) for head in query])
                gain = array("layers", "key_norm", "gain")[layer]
                key = np.stack([_rms_norm(head, gain, eps) for head in key])
            rotation = (int(position), decoder.rope_theta, decoder.rope_scaling)
            queries.append([_rotate(head, *rotation) for head in query])
            keys.append([_rotate(head, *rotation) for head in key])
            values.append(project(layer, "value", h).reshape(decoder.num_kv_heads, size))
        for now in range(len(stream)):
            heads = []
            for head in range(decoder.num_heads):
                group = head // shared
                scores = [
                    queries[now][head] @ keys[past][group] / math.sqrt(size)
                    for past in range(now + 1)
                ]
                weights = np.exp(np.array(scores) - max(scores))
                weights /= weights.sum()
                heads.append(sum(weights[past] * values[past][group] for past in range(now + 1)))
            stream[now] = stream[now] + project(layer, "output", np.concatenate(heads))
        for now, x in enumerate(stream):
            h = _rms_norm(x, array("layers", "mlp_norm", "gain")[layer], eps)
            gate = project(layer, "gate", h)
            gate = gate / (1 + np.exp(-gate))
            stream[now] = x + project(layer, "down", gate * project(layer, "up", h))
    head = array("embedding").T if decoder.tied_head else array("head")
    return np.stack([_rms_norm(x, array("norm", "gain"), eps) @ head for x in stream])


@dataclass(frozen=True)
class ChainAnswer:
    """Solution of a chain problem, as `solve_chain` works it out.

    Attributes:
      solution: the canonical solution, as text.
      answer: value that is asked for.
      num_operations: operations that the answer needs.
      defined: every variable with a line, in the order of the text.
      needed: the variables that the answer needs, in order of computation.
    """

    solution: str
    answer: int
    num_operations: int
    defined: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


def _calculate(left: int, sign: str, right: int, modulus: int) -> int:
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return result % modulus


def split_chain(text: str) -> tuple[str, str]:
    """Split a decoded chain example into its problem, which ends with a colon, and its solution."""
    problem, _, solution = text.partition(" : ")
    return problem + " :", solution


def solve_chain(problem: str, modulus: int) -> ChainAnswer:
    """Solve a chain problem of either layout from its text.

    Raises:
      ValueError: if the text is not a problem with one possible order of computation.
    """
    words = problem.split()
    if words[0] != "|" or words[-1] != ":":
        raise ValueError(f"a problem stands between | and :, got {problem!r}")
    words = words[1:-1]
    return _solve_lines(words, modulus) if "?" in words else _solve_running(words, modulus)


def _solve_running(words: list[str], modulus: int) -> ChainAnswer:
    value, worked = int(words[0]), []
    for sign, constant in zip(words[1::2], words[2::2], strict=True):
        value = _calculate(value, sign, int(constant), modulus)
        worked += [sign, constant, str(value)]
    return ChainAnswer(" ".join([*worked, "."]), value, len(worked) // 3)


def _solve_lines(words: list[str], modulus: int) -> ChainAnswer:
    *statements, question = " ".join(words).split(" ; ")
    definitions: dict[str, list[str]] = {}
    for statement in statements:
        name, equals, *expression = statement.split()
        if equals != "=" or name in definitions or len(expression) not in (1, 3):
            raise ValueError(f"not a definition: {statement!r}")
        definitions[name] = expression
    mark, asked = question.split()
    if mark != "?":
        raise ValueError(f"not a question: {question!r}")

    # Collect the variables that the question depends on.
    needed, waiting = set(), [asked]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [word for word in definitions[name] if word in definitions]

    # Compute them one by one; the next one must be unique.
    values: dict[str, int] = {}
    worked: list[str] = []
    operations = 0
    while asked not in values:
        ready = [
            name
            for name in needed - set(values)
            if all(word in values for word in definitions[name] if word in definitions)
        ]
        if len(ready) != 1:
            raise ValueError(f"the order of computation is not unique: {sorted(ready)}")
        name, expression = ready[0], definitions[ready[0]]
        numbers = [str(values.get(word, word)) for word in expression]
        if len(expression) == 1:
            values[name] = int(numbers[0])
            worked += [name, "=", numbers[0], ";"]
        else:
            operations += 1
            values[name] = _calculate(int(numbers[0]), numbers[1], int(numbers[2]), modulus)
            worked += [name, "=", *numbers, "=", str(values[name]), ";"]
    return ChainAnswer(
        " ".join([*worked, "."]), values[asked], operations, tuple(definitions), tuple(values)
    )


def adamw(
    parameter: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    step: int,
    *,
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step of AdamW (Loshchilov and Hutter 2019, algorithm 2, decay times learning rate).

    Args:
      parameter, gradient: values and gradient before the step.
      first, second: running means of the gradient and of its square; zeros at first.
      step: number of this step, counted from 1.

    Returns:
      The new parameter, first and second.
    """
    first = b1 * first + (1 - b1) * gradient
    second = b2 * second + (1 - b2) * gradient**2
    mean = first / (1 - b1**step)
    spread = np.sqrt(second / (1 - b2**step))
    return (
        parameter - learning_rate * (mean / (spread + eps) + weight_decay * parameter),
        first,
        second,
    )


def clip_by_global_norm(gradients: dict[str, np.ndarray], limit: float) -> dict[str, np.ndarray]:
    """Scale all gradients together so that their joint Euclidean norm is at most `limit`."""
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    scale = limit / norm if norm > limit else 1.0
    return {name: gradient * scale for name, gradient in gradients.items()}


def epochs(order: np.ndarray, num_examples: int) -> list[list[int]]:
    """Cut a sequence of drawn rows into epochs of `num_examples` draws; the last may be short."""
    rows = [int(row) for row in np.asarray(order).reshape(-1)]
    return [rows[i : i + num_examples] for i in range(0, len(rows), num_examples)]


GROUP_LETTERS: dict[str, dict[str, str]] = {
    "S3": {"a": "213", "b": "231", "c": "132", "d": "312"},
    "S5": {"a": "21345", "b": "23451", "c": "12354", "d": "51234"},
    "A5": {"a": "23145", "b": "23451", "c": "31245", "d": "51234"},
    "Z60": {"a": "1", "b": "7", "c": "59", "d": "53"},
}
"""Elements of the letters of group words: images of 1, 2, 3 …, or numbers modulo 60."""


def solve_group_word(problem: str, group: str) -> str:
    """Solve a group word by applying one letter after the other to the product so far."""
    bar, element, *word, colon = problem.split()
    if (bar, colon) != ("|", ":"):
        raise ValueError(f"a problem stands between | and :, got {problem!r}")
    worked = []
    for letter in word:
        by = GROUP_LETTERS[group][letter]
        if group == "Z60":
            element = str((int(element) + int(by)) % 60)
        else:
            # Replace each image by its image under the letter.
            takes = {str(place): image for place, image in enumerate(by, start=1)}
            element = "".join(takes[place] for place in element)
        worked += [letter, element]
    return " ".join([*worked, "."])


@dataclass(frozen=True)
class ExpressionAnswer:
    """Solution of an expression, its value, and the number of its operators."""

    solution: str
    value: int
    num_operators: int


def solve_expression(problem: str, modulus: int) -> ExpressionAnswer:
    """Evaluate a fully parenthesised expression from left to right with a stack."""
    bar, *words, colon = problem.split()
    if (bar, colon) != ("|", ":"):
        raise ValueError(f"a problem stands between | and :, got {problem!r}")
    stack: list[str] = []
    worked: list[str] = []
    for word in words:
        if word != ")":
            stack.append(word)
            continue
        opening, left, sign, right = stack[-4:]
        if opening != "(":
            raise ValueError(f"no opening parenthesis before {left} {sign} {right}: {problem!r}")
        value = _calculate(int(left), sign, int(right), modulus)
        stack[-4:] = [str(value)]
        worked += [left, sign, right, "=", str(value), ";"]
    (value,) = stack
    return ExpressionAnswer(" ".join([*worked, "."]), int(value), len(worked) // 6)


@dataclass(frozen=True)
class DyckAnswer:
    """Solution of a prefix of a bracket word, its greatest depth and the depth at its end."""

    solution: str
    greatest_depth: int
    final_depth: int


def solve_dyck(problem: str) -> DyckAnswer:
    """Read a prefix with a stack of the closing brackets it needs, and close them all."""
    bar, *letters, colon = problem.split()
    if (bar, colon) != ("|", ":"):
        raise ValueError(f"a problem stands between | and :, got {problem!r}")
    partner = {"(": ")", "[": "]", "{": "}", "<": ">"}
    waiting: list[str] = []
    depths = [0]
    for letter in letters:
        if letter in partner:
            waiting.append(partner[letter])
        elif letter != "-" and waiting.pop() != letter:
            raise ValueError(f"{letter} closes nothing in {problem!r}")
        depths.append(len(waiting))
    return DyckAnswer(" ".join([*reversed(waiting), "."]), max(depths), depths[-1])


def dyck_words(length: int, depth: int, kinds: str) -> list[str]:
    """Enumerate the words of `length` letters that end at `depth` and go no deeper.

    Args:
      kinds: opening brackets in use.
    """
    closing = {"(": ")", "[": "]", "{": "}", "<": ">"}
    words = []
    waiting: list[tuple[list[str], list[str]]] = [([], [])]
    while waiting:
        word, stack = waiting.pop()
        if len(word) == length:
            words += [" ".join(word)] if len(stack) == depth else []
            continue
        waiting.append(([*word, "-"], stack))
        if stack:
            waiting.append(([*word, stack[-1]], stack[:-1]))
        if len(stack) < depth:
            waiting += [([*word, kind], [*stack, closing[kind]]) for kind in kinds]
    return words


def solve_parity(problem: str, scratchpad: bool) -> str:
    """Solve a parity problem by counting the ones."""
    bar, *bits, colon = problem.split()
    if (bar, colon) != ("|", ":"):
        raise ValueError(f"a problem stands between | and :, got {problem!r}")
    odd = ["01"[bits[:end].count("1") % 2] for end in range(1, len(bits) + 1)]
    if not scratchpad:
        return f"{odd[-1]} ."
    return " ".join([word for pair in zip(bits, odd, strict=True) for word in pair] + ["."])


@dataclass(frozen=True)
class AdditionAnswer:
    """Solution of a sum, and the number of digits of each number."""

    solution: str
    num_digits: int


def solve_addition(problem: str, base: int, scratchpad: bool) -> AdditionAnswer:
    """Add two numbers, interleaved or with a plus sign in between, as Python integers."""
    bar, *words, colon = problem.split()
    if (bar, colon) != ("|", ":"):
        raise ValueError(f"a problem stands between | and :, got {problem!r}")
    if "+" in words:
        sign = words.index("+")
        left, right = words[:sign], words[sign + 1 :]
    else:
        left, right = words[::2], words[1::2]

    def value(digits: list[str]) -> int:
        return sum(int(digit) * base**place for place, digit in enumerate(digits))

    def digit(number: int, place: int) -> str:
        return str(number // base**place % base)

    worked = []
    for place, pair in enumerate(zip(left, right, strict=True)):
        # The sum of the digits up to this place gives this digit and the carry.
        lower = value(left[: place + 1]) + value(right[: place + 1])
        worked += [*pair, digit(lower, place), digit(lower, place + 1)]
    if not scratchpad:
        total = value(left) + value(right)
        worked = [digit(total, place) for place in range(len(left) + 1)]
    return AdditionAnswer(" ".join([*worked, "."]), len(left))


@dataclass(frozen=True)
class PointerAnswer:
    """Solution of a pointer problem, the number of hops, and the nodes on the start's cycle."""

    solution: str
    num_hops: int
    cycle_size: int


def solve_pointer(problem: str, chain_of_thought: bool) -> PointerAnswer:
    """Solve a pointer problem by following its arrows in a dictionary.

    Raises:
      ValueError: if the text is not a problem over a permutation.
    """
    *arrows, question = problem.removeprefix("| ").split(" ; ")
    *register, start, colon = question.split()
    hops = register.count("+")
    if colon != ":" or register != ["+"] * hops + ["-"] * (len(register) - hops):
        raise ValueError(f"not a question: {question!r}")
    leads = dict(arrow.split() for arrow in arrows)
    if len(leads) != len(arrows) or set(leads.values()) != set(leads):
        raise ValueError(f"not a permutation: {problem!r}")
    path = [start]
    while len(path) <= hops:
        path.append(leads[path[-1]])
    cycle = [leads[start]]
    while cycle[-1] != start:
        cycle.append(leads[cycle[-1]])
    worked = [*path, *register[hops:]] if chain_of_thought else [path[-1]]
    return PointerAnswer(" ".join([*worked, "."]), hops, len(cycle))


def total_bound(sample_risk, kl, *, num_examples, delta, test, train, variant) -> float:
    """The total bound of one cell: theorem, then the worst test risk that it leaves possible.

    The largest p with kl(risk ‖ p) <= c is found by halving an interval, xi as a sum over all
    counts in the log domain, and the worst case by trying the corners of the linear programme.
    """
    xi = sum(
        math.exp(
            math.lgamma(num_examples + 1)
            - math.lgamma(k + 1)
            - math.lgamma(num_examples - k + 1)
            + (k * math.log(k / num_examples) if k else 0.0)
            + (num_examples - k) * (math.log1p(-k / num_examples) if k < num_examples else 0.0)
        )
        for k in range(num_examples + 1)
    )
    if variant == "literal":
        rate = (kl + math.log(2 * math.sqrt(num_examples) / delta)) / (2 * num_examples)
        distance = sum(abs(p - q) for p, q in zip(test, train, strict=True)) / 2
        return min(1.0, min(1.0, sample_risk + math.sqrt(rate)) + distance)

    def binary_kl(p: float) -> float:
        one = sample_risk * math.log(sample_risk / p) if sample_risk else 0.0
        right = 1 - sample_risk
        return one + (right * math.log(right / (1 - p)) if right else 0.0)

    low, high, radius = sample_risk, 1.0, (kl + math.log(xi / delta)) / num_examples
    for _ in range(100):
        middle = (low + high) / 2
        if middle < 1 and binary_kl(middle) <= radius:
            low = middle
        else:
            high = middle
    # Corners: risks of 0 and 1, for "monotone" steps alone; a constraint mixes at most two of them.
    count = len(test)
    if variant == "monotone":
        corners = [[float(level >= start) for level in range(count)] for start in range(count + 1)]
    else:
        corners = [[float(bits >> level & 1) for level in range(count)] for bits in range(2**count)]
    points = [
        tuple(sum(r * p for r, p in zip(each, mixture, strict=True)) for mixture in (train, test))
        for each in corners
    ]
    worst = max(power for size, power in points if size <= high + 1e-15)
    for size, power in points:
        for other, larger in points:
            if size < high < other:
                share = (high - size) / (other - size)
                worst = max(worst, (1 - share) * power + share * larger)
    return min(1.0, worst)
