"""Batches by step: every example once an epoch, the same from any start, packed or not."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

pytest.importorskip("grain", reason="pip install 'sweetspot-sft[llm]'")

from experiments.llm.text.encoding import Encoded, Report
from experiments.llm.text.loader import Batch, Loader, first_fit, nested, num_steps
from experiments.llm.training.loss import loss_sums
from synth.config import DecoderConfig
from tests.experiments.llm.tiny import random_parameters

FIELDS = ("tokens", "positions", "segments", "loss_mask")


def make(num_examples: int, *, shortest: int = 3, longest: int = 40) -> Encoded:
    """Examples of random tokens from 1; the first token of each is its own number plus 1."""
    generator = np.random.default_rng(7)
    lengths = generator.integers(shortest, longest + 1, num_examples)
    tokens = [generator.integers(1, 90, length).astype(np.int32) for length in lengths]
    for number, example in enumerate(tokens):
        example[0] = number + 1
    prompts = np.array([generator.integers(1, length) for length in lengths])
    report = Report(num_examples, {}, 0, longest, longest)
    return Encoded(tuple(tokens), prompts, np.arange(num_examples), report)


def unpacked(batch: Batch) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    """Tokens and loss mask of each example in a batch, cut out by its segments."""
    pieces = []
    flat = [getattr(batch, field).reshape(-1, batch.tokens.shape[-1]) for field in FIELDS]
    for tokens, positions, segments, loss_mask in zip(*flat, strict=True):
        assert not loss_mask[segments < 0].any(), "padding costs nothing"
        for segment in range(segments.max() + 1):
            place = np.flatnonzero(segments == segment)
            assert (np.diff(place) == 1).all()
            assert positions[place].tolist() == list(range(len(place)))
            pieces.append((tuple(tokens[place].tolist()), tuple(loss_mask[place].tolist())))
    return pieces


def same(first: Batch, second: Batch) -> bool:
    return all(
        np.array_equal(getattr(first, field), getattr(second, field))
        and getattr(first, field).dtype == getattr(second, field).dtype
        for field in FIELDS
    )


def numbers(loader: Loader) -> list[int]:
    """Numbers of the examples, step after step."""
    steps = range(loader.steps)
    return [example for step in steps for example in loader.examples(step)]


# Epochs.


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_holds_its_examples_and_nothing_else(packed):
    encoded = make(23)
    loader = Loader(encoded, batch_size=5, steps=9, seed=0, packed=packed)
    for step in range(9):
        expected = Counter(
            (
                tuple(encoded.tokens[number].tolist()),
                tuple(
                    place >= encoded.prompt_lengths[number]
                    for place in range(len(encoded.tokens[number]))
                ),
            )
            for number in loader.examples(step)
        )
        assert Counter(unpacked(loader[step])) == expected


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 12))
def test_every_example_comes_once_in_every_epoch(num_examples, batch_size, steps):
    shown = numbers(Loader(make(num_examples), batch_size=batch_size, steps=steps, seed=3))
    assert len(shown) == steps * batch_size
    for start in range(0, len(shown) - num_examples + 1, num_examples):
        assert sorted(shown[start : start + num_examples]) == list(range(num_examples))


def test_the_last_step_may_be_smaller():
    steps = num_steps(10, 2, 8)
    loader = Loader(make(10), batch_size=8, steps=steps, seed=0, num_examples=20)
    assert Counter(numbers(loader)) == dict.fromkeys(range(10), 2)
    assert [len(unpacked(batch)) for batch in loader.iterate()] == [8, 8, 4]


def test_orders_of_epochs_and_seeds_differ():
    encoded = make(50)
    orders = []
    for seed in range(4):
        shown = numbers(Loader(encoded, batch_size=50, steps=4, seed=seed))
        orders += [tuple(shown[start : start + 50]) for start in range(0, 200, 50)]
    # No order occurs twice, not even between the second epoch of a seed and the first of the next.
    assert len(set(orders)) == 16


@pytest.mark.parametrize(
    ("num_examples", "epochs", "batch_size", "steps"),
    [(100, 1, 16, 7), (96, 3, 16, 18), (10, 0.01, 4, 1), (30, 0.1, 3, 1), (5, 3, 16, 1)],
)
def test_number_of_steps(num_examples, epochs, batch_size, steps):
    assert num_steps(num_examples, epochs, batch_size) == steps


# Resume.


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("start", [0, 1, 4, 8, 9])
def test_iterating_from_a_step_is_a_slice_of_the_whole(packed, start):
    encoded = make(17)
    options = {"batch_size": 4, "steps": 9, "seed": 1, "packed": packed}
    whole = list(Loader(encoded, **options).iterate())
    rest = list(Loader(encoded, **options).iterate(start))
    assert (len(whole), len(rest)) == (9, 9 - start)
    assert all(map(same, rest, whole[start:]))
    assert all(same(Loader(encoded, **options)[step], whole[step]) for step in range(9))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3, 8])
def test_rows_that_a_step_computes(packed, accumulation):
    loader = Loader(
        make(30), batch_size=8, steps=12, seed=2, packed=packed, accumulation=accumulation
    )
    computed = []
    for batch in loader.iterate():
        (filled,) = np.nonzero(batch.loss_mask.any((1, 2)))
        # Micro-batches of padding alone are the last ones.
        assert list(filled) == list(range(len(filled)))
        computed.append(len(filled) * loader.rows)
    assert loader.mean_rows == np.mean(computed)
    assert (len(set(computed)) > 1) == (packed and accumulation == 8)


def digest() -> str:
    """Fingerprint of a loader's batches and a nested choice."""
    total = hashlib.sha256(nested(np.arange(90), 60, seed=1, stream="train").tobytes())
    loader = Loader(make(30), batch_size=8, steps=6, seed=2, packed=True, accumulation=2)
    for batch in loader.iterate():
        for field in FIELDS:
            total.update(np.ascontiguousarray(getattr(batch, field)).tobytes())
    return total.hexdigest()


def test_another_process_gets_the_same_batches():
    code = "from tests.experiments.llm.text.test_loader import digest; print(digest())"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == digest()


def test_a_loop_that_is_left_leaves_no_thread_at_work():
    iterator = Loader(make(20), batch_size=4, steps=10_000, seed=0).iterate()
    assert next(iterator).tokens.shape[1] == 4
    del iterator
    # A second iterator starts again.
    again = Loader(make(20), batch_size=4, steps=10_000, seed=0).iterate(9_999)
    assert len(list(again)) == 1


# Shapes.


@pytest.mark.parametrize("packed", [False, True])
def test_all_batches_have_one_shape(packed):
    loader = Loader(
        make(37, longest=50),
        batch_size=10,
        steps=8,
        seed=0,
        accumulation=2,
        packed=packed,
        row_multiple=3,
        length_multiple=16,
    )
    assert loader.rows % 3 == 0
    assert loader.length == 64
    for batch in loader.iterate():
        for field in FIELDS:
            assert getattr(batch, field).shape == (2, loader.rows, 64)
        assert [getattr(batch, field).dtype for field in FIELDS] == [np.int32] * 3 + [bool]


def test_packing_takes_fewer_rows_with_the_same_examples():
    encoded = make(64, shortest=5, longest=40)
    separate, packed = (
        Loader(encoded, batch_size=16, steps=12, seed=5, length=128, packed=packed)
        for packed in (False, True)
    )
    assert packed.rows <= separate.rows // 3
    for one, other in zip(separate.iterate(), packed.iterate(), strict=True):
        assert Counter(unpacked(one)) == Counter(unpacked(other))
        assert one.loss_mask.sum() == other.loss_mask.sum()


def test_packed_and_separate_batches_have_one_loss():
    decoder = DecoderConfig(
        vocab_size=97, num_layers=1, num_kv_heads=2, positions="sequential", max_positions=64
    )
    parameters = random_parameters(decoder, 0)
    encoded = make(12, longest=30)
    sums = []
    for packed in (False, True):
        loader = Loader(encoded, batch_size=8, steps=1, seed=0, packed=packed, length=64)
        fields = [jnp.asarray(getattr(loader[0], field)[0]) for field in FIELDS]
        tokens, positions, segments, loss_mask = fields
        sums.append(
            jax.jit(loss_sums, static_argnums=(0, 5))(
                decoder,
                parameters,
                tokens,
                positions,
                loss_mask,
                "sft",
                segments=segments if packed else None,
            )
        )
        assert (segments.max() > 0) == packed
    (separate, separate_weight), (packed, packed_weight) = sums
    assert float(packed_weight.sum()) == float(separate_weight.sum())
    np.testing.assert_allclose(packed.sum(), separate.sum(), rtol=1e-5)


# First fit.


def fewest_bins(lengths: list[int], capacity: int) -> int:
    """Fewest bins, by trying every assignment of items to bins."""
    for number in itertools.count(1):
        for places in itertools.product(range(number), repeat=len(lengths)):
            loads = np.bincount(places, weights=lengths, minlength=number)
            if loads.max() <= capacity:
                return number
    raise AssertionError


@given(st.lists(st.integers(1, 10), max_size=200), st.integers(10, 30))
def test_every_item_is_in_one_bin_and_no_bin_overflows(lengths, capacity):
    bins = first_fit(lengths, capacity)
    assert sorted(item for items in bins for item in items) == list(range(len(lengths)))
    assert all(0 < sum(lengths[item] for item in items) <= capacity for items in bins)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=6))
def test_few_bins_are_needed(lengths):
    assert len(first_fit(lengths, 10)) <= 11 / 9 * fewest_bins(lengths, 10) + 1


# Nested subsets.


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
def test_a_smaller_choice_is_a_prefix_of_a_larger_one(first, second, seed):
    rows = np.arange(100, 160)
    small, large = sorted([first, second])
    larger = nested(rows, large, seed=seed, stream="train")
    assert nested(rows, small, seed=seed, stream="train").tolist() == larger[:small].tolist()
    assert len(set(larger.tolist())) == large
    assert set(larger.tolist()) <= set(rows.tolist())


def test_seeds_and_streams_have_orders_of_their_own():
    orders = {
        tuple(nested(np.arange(50), 50, seed=seed, stream=stream).tolist())
        for seed in range(3)
        for stream in ("train", "test", "train-1")
    }
    assert len(orders) == 9


@pytest.mark.parametrize("size", [0, 6])
def test_more_rows_than_there_are_is_refused(size):
    with pytest.raises(
        ValueError, match=f"size must be from 1 to the number of rows, 5, got {size}"
    ):
        nested(np.arange(5), size, seed=0, stream="train")


# Arguments.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"accumulation": 0}, "accumulation must be at least 1, got 0"),
        ({"row_multiple": 0}, "row_multiple must be at least 1, got 0"),
        ({"length_multiple": 0}, "length_multiple must be at least 1, got 0"),
        ({"length": 10}, r"length must be at least the longest example's \d+, got 10"),
        ({"num_examples": 13}, "num_examples must be from 9 to 12 with 3 steps of 4, got 13"),
    ],
)
def test_arguments_of_the_loader_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Loader(make(20), **{"batch_size": 4, "steps": 3, "seed": 0} | change)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="encoded must hold examples, got none"):
        Loader(make(5).take([]), batch_size=4, steps=3, seed=0)


def test_steps_that_are_not_there_are_refused():
    loader = Loader(make(5), batch_size=4, steps=3, seed=0)
    with pytest.raises(IndexError, match="step must be from 0 to 2, got 3"):
        loader[3]
    with pytest.raises(ValueError, match="start must be from 0 to 3, got 4"):
        loader.iterate(4)
