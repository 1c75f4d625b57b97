"""The least time of a training step: its products at the speed of their own shapes, and its bytes.

The share of the peak compares a step with large products. But the products of a toy are small, and
no program multiplies small matrices at the speed of large ones. This is a nearer limit, measured on
the machine for the step that `synth.finetune.loss_and_gradient` takes as it is:

- every product that JAX traces, forward and backward, at its own shape, in the fastest of eight
  layouts (either factor transposed, or the product), operands in the cache, nothing else between;
- element-wise work as the bytes that it cannot avoid: of each product it reads the result once and
  writes the operands once, parameters apart; and AdamW reads parameters, gradients and two moments
  and writes all but the gradients. Bytes move as fast as XLA adds one to an array in the cache.

Not counted, though a step must do it: arithmetic of exponentials, roots and random positions.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from synth.config import DecoderConfig
from synth.decoder import initialise, num_parameters
from synth.finetune import CACHED_BYTES, loss_and_gradient

FLOAT_BYTES = 4
ADAMW_ARRAYS = 7
"""Arrays of the parameters' size that AdamW reads or writes."""
TRIALS = 5
TRIAL_FLOPS = 2e8
"""Operations of a trial of one layout: some milliseconds."""


@dataclass(frozen=True)
class Product:
    """A batch of matrix products [rows, inner] × [inner, columns]."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Operations: two for each pair of numbers that meet."""
        return 2 * self.batch * self.rows * self.inner * self.columns

    @property
    def bytes(self) -> int:
        """Of both operands and the result."""
        numbers = self.rows * self.inner + self.inner * self.columns + self.rows * self.columns
        return FLOAT_BYTES * self.batch * numbers


def step_products(decoder: DecoderConfig, batch_size: int, length: int) -> Counter[Product]:
    """Every product of a training step, and how often it takes place.

    Args:
      decoder: shape of the model.
      batch_size: sequences of the step.
      length: tokens of each.
    """
    traced = jax.make_jaxpr(
        lambda parameters, tokens, loss_mask, key: loss_and_gradient(
            decoder, parameters, [(tokens, loss_mask)], key, "sft"
        )
    )(
        jax.eval_shape(lambda: initialise(decoder, jax.random.key(0))),
        jax.ShapeDtypeStruct((batch_size, length), jnp.int32),
        jax.ShapeDtypeStruct((batch_size, length), bool),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    found: Counter[Product] = Counter()
    for product, times in _products(traced.jaxpr):
        found[product] += times
    return found


def _products(jaxpr: Any, times: int = 1) -> Iterator[tuple[Product, int]]:
    """Products of a jaxpr; one inside a scan takes place in each of its steps."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), (batched, _) = equation.params["dimension_numbers"]
            left, right = (variable.aval.shape for variable in equation.invars)
            batch = math.prod(left[axis] for axis in batched)
            inner = math.prod(left[axis] for axis in summed)
            rows, columns = (math.prod(shape) // batch // inner for shape in (left, right))
            yield Product(batch, rows, inner, columns), times
        inside = times * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for inner_jaxpr in jaxprs_in_params(equation.params):
            yield from _products(inner_jaxpr, inside)


def elementwise_bytes(products: Mapping[Product, int], decoder: DecoderConfig) -> int:
    """Bytes that element-wise work of a step moves at least, see the module's docstring.

    Args:
      products: of the step.
      decoder: shape of the model.
    """
    shapes = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    size = FLOAT_BYTES * num_parameters(shapes)
    activations = sum(
        times * (product.bytes - _weight_bytes(product)) for product, times in products.items()
    )
    return activations + ADAMW_ARRAYS * size


def _weight_bytes(product: Product) -> int:
    """Bytes of weights or their gradient in a product, whose longest axis is that of the tokens."""
    if product.batch > 1:
        return 0
    tokens = max(product.rows, product.inner, product.columns)
    return FLOAT_BYTES * product.rows * product.inner * product.columns // tokens


def fastest(product: Product) -> Callable[[int], Any]:
    """A function that makes a product so many times, in the layout that is the fastest here."""
    repeats = max(1, round(TRIAL_FLOPS / product.flops))
    timed = []
    for layout in itertools.product((False, True), repeat=3):
        run = repeated(product, *layout)
        run(1)
        timed.append((min(_seconds(run, repeats) for _ in range(TRIALS)), len(timed), run))
    return min(timed)[-1]


def _seconds(run: Callable[[int], Any], repeats: int) -> float:
    start = time.perf_counter()
    run(repeats)
    return time.perf_counter() - start


def repeated(
    product: Product, is_left_turned: bool, is_right_turned: bool, is_swapped: bool
) -> Callable[[int], Any]:
    """A function that makes a product so many times in one layout."""
    left = "bir" if is_left_turned else "bri"
    right = "bci" if is_right_turned else "bic"
    result = "bcr" if is_swapped else "brc"
    sizes = {"b": product.batch, "r": product.rows, "i": product.inner, "c": product.columns}
    operands = [jnp.ones([sizes[axis] for axis in axes]) for axes in (left, right)]

    def once(_: Any, carry: Any) -> Any:
        # The barrier makes the operands new in each round, so that no product is left out.
        first, second, _ = jax.lax.optimization_barrier(carry)
        if is_swapped:
            made = jnp.einsum(f"{right},{left}->{result}", second, first)
        else:
            made = jnp.einsum(f"{left},{right}->{result}", first, second)
        return first, second, made

    nothing = jnp.zeros([sizes[axis] for axis in result])
    program = jax.jit(
        lambda times, *operands: jax.lax.fori_loop(0, times, once, (*operands, nothing))[2]
    )
    return lambda times: jax.block_until_ready(program(times, *operands))


def moved(num_bytes: int) -> Callable[[int], Any]:
    """A function that reads and writes so many bytes in the cache, so many times.

    Args:
      num_bytes: read and written together.
    """
    numbers = jnp.zeros(CACHED_BYTES // FLOAT_BYTES)
    rounds = num_bytes / (2 * CACHED_BYTES)
    program = jax.jit(
        lambda times, x: jax.lax.fori_loop(
            0, times, lambda _, x: jax.lax.optimization_barrier(x + 1.0), x
        )
    )
    return lambda times: jax.block_until_ready(program(round(times * rounds), numbers))


def prepare(decoder: DecoderConfig, batch_size: int, length: int) -> Callable[[int], None]:
    """A function that does what the roofline counts of so many steps.

    Args:
      decoder: shape of the model.
      batch_size: sequences of a step.
      length: tokens of each.
    """
    products = step_products(decoder, batch_size, length)
    parts = [(fastest(product), times) for product, times in products.items()]
    parts.append((moved(elementwise_bytes(products, decoder)), 1))

    def run(steps: int) -> None:
        for part, times in parts:
            part(steps * times)

    return run
