"""The roofline: products and bytes of a step, and that each layout makes the same product."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from experiments.benchmarks import roofline
from experiments.benchmarks.engines import DECODER, SHAPES
from experiments.benchmarks.roofline import Product
from experiments.engine.cost import training_flops


@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_a_step_have_its_operations(shape):
    products = roofline.step_products(DECODER, shape.batch_size, shape.length)
    read = shape.length - 1
    total = sum(times * product.flops for product, times in products.items())
    assert total == training_flops(DECODER, shape.batch_size * read, read)


def test_bytes_of_element_wise_work_by_hand():
    # Ten tokens times weights of 4 × 3; two heads of 5 × 2 times 2 × 6.
    products = {Product(1, 10, 4, 3): 2, Product(2, 5, 2, 6): 1}
    assert [product.flops for product in products] == [240, 240]
    parameters = roofline.elementwise_bytes({}, DECODER)
    assert parameters == 7 * 4 * 27_744
    activations = 2 * (10 * 4 + 10 * 3) + 2 * (5 * 2 + 2 * 6 + 5 * 6)
    assert roofline.elementwise_bytes(products, DECODER) - parameters == 4 * activations


@pytest.mark.parametrize("layout", list(itertools.product((False, True), repeat=3)))
def test_every_layout_makes_the_product_as_often_as_asked(layout):
    product = Product(2, 3, 4, 5)
    run = roofline.repeated(product, *layout)
    shape = (2, 5, 3) if layout[2] else (2, 3, 5)
    # Both factors are ones.
    np.testing.assert_array_equal(run(3), np.full(shape, 4.0))
    np.testing.assert_array_equal(run(0), np.zeros(shape))


def test_so_many_bytes_are_moved():
    twice = 2 * roofline.CACHED_BYTES
    moved = np.asarray(roofline.moved(3 * twice)(2))
    assert moved.nbytes == roofline.CACHED_BYTES
    np.testing.assert_array_equal(moved, 6.0)
