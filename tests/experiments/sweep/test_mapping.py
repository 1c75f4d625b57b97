"""Members over devices: each result back at its member, and nothing run at empty places."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.sweep.mapping import MemberMap


def square(tree, *shared):
    return {"square": tree["x"] ** 2 + sum(shared), "x": tree["x"]}


def members(count: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array([number, -number], np.float32)} for number in range(count)]


@pytest.mark.parametrize("mapping", ["map", "vmap"])
@pytest.mark.parametrize(("count", "places"), [(1, 0), (2, 2), (3, 8), (5, 6), (8, 8)])
def test_results_come_back_in_the_order_of_the_members(mapping, count, places):
    over = MemberMap(mapping)
    stacked = over.stack(members(count), places=places)
    assert len(stacked.is_used) % over.mesh.size == 0
    assert len(stacked.is_used) >= max(places, count)
    assert int(np.sum(stacked.is_used)) == count
    results = over.unstack(jax.jit(over.over(square))(stacked, jnp.float32(0.5)), count)
    assert [result["x"][0] for result in results] == list(range(count))
    assert [result["square"][1] for result in results] == [n**2 + 0.5 for n in range(count)]


@pytest.mark.parametrize("devices", [1, 2])
def test_devices_share_the_members_of_a_small_chunk_equally(devices):
    over = MemberMap("map", devices=jax.devices()[:devices])
    is_used = np.asarray(over.stack(members(6), places=8).is_used)
    assert is_used.reshape(devices, -1).sum(axis=1).tolist() == [6 // devices] * devices


@pytest.mark.parametrize(("mapping", "runs"), [("map", 3), ("vmap", 8)])
def test_empty_places_are_not_run_one_after_the_other(mapping, runs):
    """Under `vmap` all places run together, and cost what the largest chunk costs."""
    seen = []

    def noting(tree):
        jax.debug.callback(lambda x: seen.append(float(x[0])), tree["x"])
        return tree["x"] + 1

    over = MemberMap(mapping)
    jax.block_until_ready(jax.jit(over.over(noting))(over.stack(members(3), places=8)))
    jax.effects_barrier()
    assert len(seen) == runs
    assert set(seen) == {0.0, 1.0, 2.0}


def test_members_are_mapped_in_equal_chunks():
    over, sizes = MemberMap("map"), []

    def noting(tree):
        sizes.append(tree["x"].shape)
        return tree["x"] * 2

    results = over.map(noting, members(5), at_once=3)
    assert [result[0] for result in results] == [0, 2, 4, 6, 8]
    # Chunks of three and two have one shape, and so one program, traced once.
    assert sizes == [(2,)]
