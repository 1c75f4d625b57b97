"""Blocks of a decoder: what each moves, and that zero is where the prior stands."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.certify.blocks import BLOCKS, KERNELS, adapters, lora, selection, subspace, within
from synth.config import DecoderConfig, Lora
from synth.decoder import Parameters, initialise, logits, num_parameters

DECODER = DecoderConfig(
    vocab_size=5,
    hidden_size=8,
    intermediate_size=12,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    qk_norm=True,
)
SHAPES = jax.eval_shape(lambda key: initialise(DECODER, key), jax.random.key(0))
PATHS = {
    jax.tree_util.keystr(keys, simple=True, separator="/"): leaf.shape
    for keys, leaf in jax.tree_util.tree_leaves_with_path(SHAPES)
}


def leaves(parameters: Parameters) -> dict[str, np.ndarray]:
    """Arrays by path."""
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }


def filled(make) -> Parameters:
    """Parameters of the decoder's shapes, each array made from its shape."""
    return jax.tree.map(lambda leaf: jnp.asarray(make(leaf.shape), leaf.dtype), SHAPES)


def vector(size: int) -> jax.Array:
    """Coordinates that tell themselves apart."""
    return jnp.arange(1, size + 1, dtype=jnp.float32)


@pytest.fixture(scope="module")
def centre() -> Parameters:
    generator = np.random.default_rng(0)
    return filled(generator.standard_normal)


@pytest.fixture(scope="module")
def origin() -> Parameters:
    """A centre from which what is added can be read off without rounding."""
    return filled(np.zeros)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_zero_vector_is_the_centre(name, centre):
    block = BLOCKS[name](centre)
    found = block.apply(jnp.zeros(block.size))
    assert jax.tree.structure(found) == jax.tree.structure(centre)
    for path, leaf in leaves(found).items():
        np.testing.assert_array_equal(leaf, leaves(centre)[path], err_msg=path)


def test_the_centre_itself_is_left_alone(centre):
    before = leaves(centre)
    for make in BLOCKS.values():
        block = make(centre)
        moved = leaves(block.apply(vector(block.size)))
        assert any((moved[path] != leaf).any() for path, leaf in before.items())
    for path, leaf in leaves(centre).items():
        np.testing.assert_array_equal(leaf, before[path])


def test_sizes(centre):
    sizes = {name: make(centre).size for name, make in BLOCKS.items()}
    count = {path: int(np.prod(shape)) for path, shape in PATHS.items()}
    gains = sum(size for path, size in count.items() if path.endswith("/gain"))
    biases = sum(size for path, size in count.items() if path.endswith("/bias"))
    # One row of B for each layer and output of the seven kernels.
    rows = sum(2 * shape[2] for path, shape in PATHS.items() if path.endswith("/kernel"))
    # Two norms of width 8 and two of width 4 in each of two layers, and the last one.
    assert gains == 2 * (8 + 8 + 4 + 4) + 8
    assert sizes == {
        "gains": gains,
        "gains-biases": gains + biases,
        "lora": rows,
        "subspace": 200,
        "full": sum(count.values()),
    }
    assert sizes["full"] == num_parameters(centre)


@pytest.mark.parametrize(
    ("name", "ends"),
    [("gains", ("gain",)), ("gains-biases", ("gain", "bias")), ("full", ("",))],
)
def test_a_selection_moves_each_of_its_numbers_by_one_coordinate(name, ends, origin):
    block = BLOCKS[name](origin)
    moved = leaves(block.apply(vector(block.size)))
    own = {path: leaf for path, leaf in moved.items() if path.endswith(ends)}
    assert all((leaf == 0).all() for path, leaf in moved.items() if path not in own)
    coordinates = np.concatenate([leaf.reshape(-1) for leaf in own.values()])
    np.testing.assert_array_equal(np.sort(coordinates), vector(block.size))


def test_a_selection_adds_to_the_centre(centre):
    block = selection(centre, ("bias",))
    moved = leaves(block.apply(jnp.full(block.size, 0.5)))
    for path, leaf in leaves(centre).items():
        expected = leaf + np.float32(0.5) if path.endswith("/bias") else leaf
        np.testing.assert_array_equal(moved[path], expected)


def test_lora_adds_a_product_to_each_kernel_and_moves_nothing_else(centre, origin):
    rank = 2
    kernels = {path: shape for path, shape in PATHS.items() if path.endswith("/kernel")}
    assert sorted(path.split("/")[1] for path in kernels) == sorted(KERNELS)
    block, bare = lora(centre, rank, KERNELS), lora(origin, rank, KERNELS)
    assert block.size == sum(2 * rank * outputs for _, _, outputs in kernels.values())
    coordinates = jax.random.normal(jax.random.key(1), (block.size,))
    moved, added = leaves(block.apply(coordinates)), leaves(bare.apply(coordinates))
    start = 0
    for name in KERNELS:
        path = f"layers/{name}/kernel"
        depth, _, outputs = kernels[path]
        shape = (depth, rank, outputs)
        end = start + depth * rank * outputs
        # A, read off one column at a time: a B with a single 1 in each layer picks it.
        columns = []
        for row in range(rank):
            single = np.zeros(shape, np.float32)
            single[:, row, 0] = 1
            chosen = jnp.zeros(block.size).at[start:end].set(single.reshape(-1))
            columns.append(leaves(bare.apply(chosen))[path][:, :, 0])
        first = np.stack(columns, axis=2)
        # Columns of length 1 in expectation, all different.
        assert 0.2 < np.square(first).sum(axis=1).mean() < 3
        assert len(np.unique(first)) == first.size
        second = np.asarray(coordinates[start:end]).reshape(shape)
        np.testing.assert_allclose(added[path], first @ second, rtol=1e-5, atol=1e-6)
        expected = leaves(centre)[path] + added[path]
        np.testing.assert_allclose(moved[path], expected, rtol=1e-5, atol=1e-6)
        start = end
    assert start == block.size
    for path, leaf in leaves(centre).items():
        if path not in kernels:
            np.testing.assert_array_equal(moved[path], leaf)


def test_a_subspace_is_linear_and_has_its_dimension(origin):
    size = 4
    block = subspace(origin, size)
    assert block.size == size

    def flat(coordinates: jax.Array) -> np.ndarray:
        return np.concatenate(
            [leaf.reshape(-1) for leaf in leaves(block.apply(coordinates)).values()]
        )

    columns = np.stack([flat(row) for row in jnp.eye(size)], axis=1)
    assert columns.shape == (num_parameters(origin), size)
    assert np.linalg.matrix_rank(columns) == size
    np.testing.assert_allclose(np.linalg.norm(columns, axis=0), 1.0, rtol=0.1)
    # Nearly orthogonal, and every parameter moves.
    overlap = columns.T @ columns - np.diag(np.square(columns).sum(axis=0))
    assert np.abs(overlap).max() < 0.15
    assert (columns != 0).all()
    coordinates = np.array([0.5, -2.0, 3.0, 1.0], np.float32)
    np.testing.assert_allclose(flat(jnp.asarray(coordinates)), columns @ coordinates, atol=1e-6)


def test_adapters_compute_what_lora_does(centre):
    rank, names = 2, ("query", "down")
    beside, inside = adapters(centre, rank, names), lora(centre, rank, names)
    assert beside.size == inside.size
    coordinates = 0.3 * jax.random.normal(jax.random.key(1), (beside.size,))
    adapted = dataclasses.replace(DECODER, lora=Lora(rank, rank, ("query", "down")))
    moved = beside.apply(coordinates)
    read = jax.jit(logits, static_argnums=0)
    inputs = (jnp.array([0, 3, 1, 4, 2]), jnp.arange(5))
    found = read(adapted, moved, *inputs)
    expected = read(DECODER, inside.apply(coordinates), *inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - read(DECODER, centre, *inputs)).max() > 0.1
    for name in names:
        assert moved["layers"][name]["kernel"] is centre["layers"][name]["kernel"]


def test_a_subspace_within_a_block_moves_it_along_few_columns(origin):
    outer = selection(origin, ("bias",))
    inner = within(outer, 3)
    assert inner.size == 3

    def flat(coordinates: jax.Array) -> np.ndarray:
        moved = leaves(inner.apply(coordinates))
        assert all((leaf == 0).all() for path, leaf in moved.items() if not path.endswith("bias"))
        own = [leaf.reshape(-1) for path, leaf in moved.items() if path.endswith("bias")]
        return np.concatenate(own)

    columns = np.stack([flat(row) for row in jnp.eye(3)], axis=1)
    assert columns.shape == (outer.size, 3)
    assert np.linalg.matrix_rank(columns) == 3
    np.testing.assert_allclose(np.linalg.norm(columns, axis=0), 1.0, rtol=0.3)
    np.testing.assert_allclose(
        flat(jnp.array([1.0, -2.0, 0.5])), columns @ np.array([1.0, -2.0, 0.5]), atol=1e-6
    )


@pytest.mark.parametrize(("name", "end"), [("gains", "gain"), ("lora", "kernel")])
def test_small_moves_are_not_lost_on_a_bfloat16_centre(name, end, centre):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), centre)
    block = BLOCKS[name](half)
    moved = leaves(block.apply(jnp.full(block.size, 1e-5)))
    for path, leaf in leaves(half).items():
        step = np.abs(moved[path].astype(np.float32) - leaf.astype(np.float32))
        assert ((step > 0).mean() > 0.9) == path.endswith(end)
        assert step.max() < 1e-4


def test_blocks_can_be_built_around_a_traced_centre(centre):
    def moved(centre):
        blocks = {name: make(centre) for name, make in BLOCKS.items()}
        return {
            name: block.apply(0.01 * jnp.sin(vector(block.size))) for name, block in blocks.items()
        }

    for (path, found), expected in zip(
        leaves(jax.jit(moved)(centre)).items(), leaves(moved(centre)).values(), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=path)


def test_a_decoder_without_biases_has_none_to_move():
    bare = jax.eval_shape(
        lambda key: initialise(dataclasses.replace(DECODER, qkv_bias=False), key),
        jax.random.key(0),
    )
    centre = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), bare)
    assert BLOCKS["gains-biases"](centre).size == BLOCKS["gains"](centre).size
