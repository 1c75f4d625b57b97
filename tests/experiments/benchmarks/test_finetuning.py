"""The benchmark of fine-tuning: bars, tables, counts; the same step in both programs."""

import dataclasses
import importlib

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks import finetuning, smollm2
from experiments.benchmarks.finetuning import LIMIT, OURS, QUICK, SMALL, THEIRS, WORKS
from experiments.engine.cost import num_matrix_weights
from synth.config import Lora
from synth.decoder import initialise, num_parameters
from tests.experiments.benchmarks.test_benchmarks import MANIFEST

SECONDS = {OURS: 1.0, THEIRS: 1.05, LIMIT: 0.5}
MEMORY = {"ours": 4.5, "ours, remat": 10.0, THEIRS: 9.0}


def test_shapes_are_those_that_they_are_named_after():
    sizes = []
    for work in WORKS[:3]:
        decoder = finetuning._decoder(work.sizes)
        shapes = jax.eval_shape(lambda decoder=decoder: initialise(decoder, jax.random.key(0)))
        sizes.append(num_parameters(shapes))
    assert [round(size / 1e6, 1) for size in sizes] == [0.1, 26.2, 134.5]
    assert SMALL in WORKS
    assert {work.length * work.rows for work in WORKS[2:]} == {6 * 512}


def test_products_of_a_step():
    adapted = dataclasses.replace(SMALL, rank=16)
    weights = num_matrix_weights(finetuning._decoder(SMALL.sizes))
    assert 134e6 < weights < 135e6
    assert finetuning.product_flops(SMALL) == 6 * weights * 3072
    assert finetuning.product_flops(adapted) == 4 * weights * 3072


@pytest.fixture
def recorded():
    """A table in which ours is 1.05 times as fast everywhere, and its manifest."""
    rows = [
        {
            "work": work.name,
            "program": program,
            "repeat": repeat,
            # The whole machine drifts: ratios within a round do not.
            "seconds": seconds * (1 + repeat),
            "tokens": 600,
        }
        for work in WORKS
        for program, seconds in SECONDS.items()
        for repeat in range(3)
    ]
    table = pd.DataFrame(rows)
    verdicts = finetuning.verdicts(table, MEMORY, WORKS)
    return table, MANIFEST | {
        "agreement": {work.name: 2e-6 for work in WORKS},
        "memory": MEMORY,
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
    }


def test_bars_are_held_round_by_round(recorded):
    verdicts = finetuning.verdicts(recorded[0], MEMORY, WORKS)
    # bfloat16 has no bar.
    assert [verdict.bar for verdict in verdicts] == [1.0, 1.1, 1.0, 1.1, 1.0, 1.0]
    values = [1.05] * 4 + [2.0, 0.5]
    assert [verdict.value for verdict in verdicts] == pytest.approx(values)
    assert [verdict.passed for verdict in verdicts] == [True, False, True, False, True, False]
    assert verdicts[4].name.endswith("float32: 9 GB / peak memory of ours")
    assert len(finetuning.verdicts(recorded[0], {}, WORKS)) == 4


def test_markdown(recorded):
    text = finetuning.markdown(*recorded)
    rates = "300 (200–600) | 286 (190–571) | 600 (400–1,200)"
    assert f"| the same, LoRA of rank 16, float32 | {rates} | 1.05 (1.05–1.05) |" in text
    assert "differ by at most 2e-06 nats" in text
    assert "ours 4.5 GB, ours, remat 10.0 GB, transformers 9.0 GB" in text


def test_quick_runs_are_not_recorded():
    with pytest.raises(ValueError, match="record needs the full plan"):
        finetuning.run(quick=True, record=True)


@pytest.mark.slow
def test_quick_run_end_to_end(loop):
    table, manifest = finetuning.measure((QUICK,), 2)
    assert set(table["program"]) == {OURS, THEIRS, LIMIT}
    assert manifest["memory"] == {}
    text = finetuning.markdown(table, manifest)
    assert "Median (lowest–highest) of 2 interleaved repeats." in text
    assert f"| {QUICK.name}: times as fast as transformers | 1.00 |" in text


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_of_its_own(loop):
    held = np.ones(2**28)
    for measured in finetuning.peak_memories(QUICK).values():
        assert 0.1 < measured < held.nbytes / 1e9
    # This process holds more.
    assert finetuning.peak_memory(QUICK, OURS, steps=1) > held.nbytes / 1e9


@pytest.fixture(scope="module")
def loop():
    pytest.importorskip("torch", reason="the baseline is PyTorch: pip install '.[bench]'")
    return importlib.import_module("experiments.benchmarks.transformers_loop")


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"rank": 4}, {"dtype": "bfloat16"}])
def test_both_programs_take_the_same_steps(loop, fields):
    programs = finetuning.programs(dataclasses.replace(QUICK, **fields))
    for number in range(3):
        ours, theirs = (programs[name]() for name in (OURS, THEIRS))
        # Adapters are drawn by each program itself, so that only the first losses are equal.
        tolerance = 1e-3 if fields else 1e-5
        assert number or ours == pytest.approx(theirs, rel=tolerance)
        if "rank" not in fields:
            assert ours == pytest.approx(theirs, rel=5e-3 if fields else 1e-5)


@pytest.mark.slow
def test_adapters_of_the_baseline_are_beside_every_kernel_and_trained_alone(loop):
    model = loop.random_model(QUICK.sizes)
    loop.add_adapters(model, Lora(3))
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert len(trained) == 2 * 7 * 2
    assert all(".narrow." in name or ".wide." in name for name in trained)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 4])
def test_both_programs_begin_with_the_weights_of_a_folder(loop, tiny_folder, rank):
    (work,) = smollm2.quick_works(tiny_folder)
    programs = finetuning.programs(dataclasses.replace(work, rank=rank))
    ours, theirs = (programs[name]() for name in (OURS, THEIRS))
    assert ours == pytest.approx(theirs, rel=1e-5)
    # Weights at random would give another loss.
    random = finetuning.programs(dataclasses.replace(work, sizes=QUICK.sizes, checkpoint=None))
    assert abs(random[OURS]() - ours) > 1e-2


def test_works_of_the_real_model_have_the_bars_of_its_shape(tmp_path):
    named = smollm2.works(tmp_path)
    assert {work.checkpoint for work in named} == {tmp_path}
    assert [(work.rank, work.dtype, work.bar) for work in named] == [
        (work.rank, work.dtype, work.bar) for work in WORKS[2:]
    ]
    with pytest.raises(FileNotFoundError, match=r"checkpoint must be a folder .* got .*none"):
        smollm2.run(tmp_path / "none", quick=True)
