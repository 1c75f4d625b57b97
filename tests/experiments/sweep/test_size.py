"""Sweeps that cannot fit into memory, or into 32 bits, are refused before any work."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from experiments.storage.memory import OutOfMemoryError
from experiments.sweep import size
from experiments.sweep.plan import plan
from experiments.sweep.programs import Sweep
from experiments.sweep.size import check_size, needs
from experiments.sweep.study import run_sweep
from synth.decoder import initialise
from tests.experiments.tiny import TINY, tiny

BIG = dataclasses.replace(TINY.optimiser, batch_size=10**9)


def needed(config) -> dict[str, int]:
    sweep = Sweep(config)
    return {need.field: need.bytes for need in needs(sweep, plan(sweep.draws))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser": BIG}, "batch_size = 1000000000 needs at least"),
        (
            {"pretrain": dataclasses.replace(TINY.pretrain, optimiser=BIG)},
            "pretrain.batch_size = 1000000000 needs at least",
        ),
        ({"data_sizes": (8, 10**9)}, r"data_sizes = \(8, 1000000000\) needs at least"),
        (
            {"data_sizes": (80, 2 * 10**9), "data_unit": "tokens"},
            r"data_sizes = \(80, 2000000000\)",
        ),
        ({"risk_examples": 10**9}, "risk_examples = 1000000000 needs at least"),
        ({"test_examples": 10**9}, "test_examples = 1000000000 needs at least"),
        (
            {"validation_examples": 10**9, "learning_rates": (0.1, 0.2)},
            "validation_examples = 1000000000 needs at least",
        ),
        (
            {"decoder": dataclasses.replace(TINY.decoder, hidden_size=2**20)},
            "decoder = .*hidden_size=1048576.* needs at least .* GiB of memory at once",
        ),
        (
            {"decoder": dataclasses.replace(TINY.decoder, num_layers=10**9)},
            "decoder = .*num_layers=1000000000.* needs at least",
        ),
    ],
)
def test_what_cannot_fit_is_refused_before_any_work(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(size, "available_memory", lambda: 10 * 2**30)
    with pytest.raises(OutOfMemoryError, match=message):
        run_sweep(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute": 1e300}, "compute must buy at most 2147483647 optimiser steps"),
        ({"compute": 1e308, "compute_unit": "epochs"}, "which buys inf at data_size 3"),
        ({"compute": 1e30, "compute_unit": "tokens"}, "got 1e\\+30 tokens, which buys"),
        ({"test_hardest": 2**31}, "test_hardest must be at most 10000, got 2147483648"),
        ({"chunk_members": 2**31 - 1}, "chunk_members must be at most 1000000, got 2147483647"),
        ({"base_seeds": 2**31}, "base_seeds must be at most 2147483647, got 2147483648"),
        ({"base_seeds": 2**31 - 1}, "make 1.72e\\+10 members, must be at most 1000000"),
        ({"compute": float("inf")}, "compute must be a finite number, got inf"),
    ],
)
def test_what_cannot_be_counted_is_refused_before_any_work(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_sweep(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_limit_is_a_limit():
    sweep = Sweep(TINY)
    chunks = plan(sweep.draws)
    most = max(needs(sweep, chunks), key=lambda need: need.bytes)
    check_size(sweep, chunks, memory=most.bytes)
    with pytest.raises(OutOfMemoryError, match=rf"^{most.field} = "):
        check_size(sweep, chunks, memory=most.bytes - 1)


def test_a_system_that_tells_nothing_refuses_nothing(monkeypatch):
    monkeypatch.setattr(size, "available_memory", lambda: None)
    sweep = Sweep(tiny(risk_examples=10**9))
    check_size(sweep, plan(sweep.draws))


def test_numbers_are_lower_bounds_of_what_is_held():
    sweep = Sweep(TINY)
    found = needed(TINY)
    member = sweep.config.members[-1]
    pool = sweep.draws.training_pool(member)
    assert found["data_sizes"] == pool.tokens.size * 4 + pool.loss_mask.size
    tests = sweep.draws.slice_pools("test", 0, 0)
    assert found["test_examples"] == sum(part.tokens.size * 5 for part in tests)
    shapes = jax.eval_shape(lambda: initialise(sweep.decoder, jax.random.key(0)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert 0.8 * parameters < size.num_parameters(sweep.decoder) <= parameters
    assert TINY.save_members
    assert "chunk_members" not in needed(tiny(save_members=False))
    assert found["chunk_members"] == 2 * 4 * size.num_parameters(sweep.decoder)
    assert found["base_seeds"] == 4 * size.num_parameters(sweep.decoder)


@pytest.mark.parametrize(
    ("field", "twice"),
    [
        ("risk_examples", {"risk_examples": 16}),
        ("test_examples", {"test_examples": 32}),
        ("data_sizes", {"data_sizes": (3, 24)}),
        ("batch_size", {"optimiser": dataclasses.replace(TINY.optimiser, batch_size=16)}),
    ],
)
def test_numbers_grow_with_their_field(field, twice):
    assert needed(tiny(**twice))[field] == 2 * needed(TINY)[field]
