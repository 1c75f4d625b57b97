"""Blocks of a decoder's parameters that a posterior moves, few coordinates or many.

Each is a function of the centre (the parameters at which the prior stands), so that it can be
called inside a program in which the centre is traced. A random matrix that a block uses is drawn
from a fixed key: it is part of the prior, and does not depend on the data. Coordinates are in
float32, even if the centre is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from synth.decoder import Parameters
from theory.posterior import Block

PRIOR_SEED = 0x53706F74
"""Seed of random matrices. No recipe has it as master seed: they share no key with a sample."""
KERNELS = ("query", "key", "value", "output", "gate", "up", "down")


def selection(centre: Parameters, names: tuple[str, ...]) -> Block:
    """Every parameter array that has one of `names` in its path; all arrays if there are none."""
    paths, structure = jax.tree_util.tree_flatten_with_path(centre)
    leaves = [leaf for _, leaf in paths]
    chosen = [
        index
        for index, (path, _) in enumerate(paths)
        if not names or {str(part.key) for part in path} & set(names)
    ]
    splits = [sum(leaves[index].size for index in chosen[:end]) for end in range(len(chosen) + 1)]

    def apply(vector: Float[Array, " size"]) -> Parameters:
        moved = list(leaves)
        for index, start, end in zip(chosen, splits, splits[1:], strict=False):
            leaf = leaves[index]
            moved[index] = leaf.astype(vector.dtype) + vector[start:end].reshape(leaf.shape)
        return jax.tree.unflatten(structure, moved)

    return Block(splits[-1], apply)


def within(block: Block, size: int) -> Block:
    """A random subspace of a block, spanned by columns of length 1 in expectation."""
    columns = jax.random.normal(jax.random.key(PRIOR_SEED), (block.size, size)) / math.sqrt(
        block.size
    )

    def apply(vector: Float[Array, " size"]) -> Parameters:
        return block.apply(columns @ vector)

    return Block(size, apply)


def subspace(centre: Parameters, size: int) -> Block:
    """A random subspace of all parameters."""
    return within(selection(centre, ()), size)


def lora(centre: Parameters, rank: int, names: tuple[str, ...]) -> Block:
    """LoRA with its first factor frozen: ``kernel + A B``, A random, B the coordinates.

    Reference:
      Hu et al. (2021), arXiv 2106.09685. With A frozen the update is linear in B, and the zero
      vector is the centre.
    """
    pairs = adapters(centre, rank, names)

    def apply(vector: Float[Array, " size"]) -> Parameters:
        layers = dict(pairs.apply(vector)["layers"])
        for name in names:
            update = jnp.matmul(layers[name]["lora_a"], layers[name]["lora_b"])
            kernel = centre["layers"][name]["kernel"].astype(vector.dtype)
            layers[name] = centre["layers"][name] | {"kernel": kernel + update}
        return centre | {"layers": layers}

    return Block(pairs.size, apply)


def adapters(centre: Parameters, rank: int, names: tuple[str, ...]) -> Block:
    """`lora` with both factors beside the kernels.

    For a decoder with ``Lora(rank, alpha=rank, kernels=names)``, whose scale is 1.
    The kernels stay as they are, so that many vectors at a time share one copy of them.
    """
    layers, first, shapes = centre["layers"], {}, {}
    for number, name in enumerate(names):
        depth, inputs, outputs = layers[name]["kernel"].shape
        key = jax.random.fold_in(jax.random.key(PRIOR_SEED), number)
        first[name] = jax.random.normal(key, (depth, inputs, rank)) / math.sqrt(inputs)
        shapes[name] = (depth, rank, outputs)

    def apply(vector: Float[Array, " size"]) -> Parameters:
        adapted, start = dict(layers), 0
        for name, shape in shapes.items():
            end = start + math.prod(shape)
            second = vector[start:end].reshape(shape)
            adapted[name] = layers[name] | {"lora_a": first[name], "lora_b": second}
            start = end
        return centre | {"layers": adapted}

    return Block(sum(map(math.prod, shapes.values())), apply)


BLOCKS: dict[str, Callable[[Parameters], Block]] = {
    "gains": lambda centre: selection(centre, ("gain",)),
    "gains-biases": lambda centre: selection(centre, ("gain", "bias")),
    "lora": lambda centre: lora(centre, 1, KERNELS),
    "subspace": lambda centre: subspace(centre, 200),
    "full": lambda centre: selection(centre, ()),
}
"""Blocks by name: parameters of the prior's centre in, block out."""
