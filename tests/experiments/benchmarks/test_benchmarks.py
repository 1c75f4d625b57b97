"""Benchmarks: counts, bars, tables; the PyTorch loop is the same model; quick runs end to end."""

import dataclasses
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.extend.core import jaxprs_in_params

from experiments.benchmarks import (
    Verdict,
    bounds,
    engines,
    generation,
    grid,
    igsm,
    jax_loop,
    llm,
)
from experiments.engine.cost import training_flops
from experiments.storage.results import write_record
from synth.config import DecoderConfig, FinetuneConfig, Optimiser
from synth.decoder import initialise, num_parameters
from synth.finetune import TrainingData, epoch_order, finetune, loss_and_gradient
from synth.tasks.igsm import problems
from theory import BOUNDS
from theory.total import VARIANTS

ROOT = Path(__file__).parents[3]
SECONDS = {"ours": 1.0, "jax_pinned": 0.9, "torch": 3.0, "torch_pinned": 1.5}
MANIFEST = {
    "device": "Abacus",
    "cores": 2,
    "python": "3.11.7",
    "versions": {"jax": "0.10.2"},
    "commit": "abc123",
    "date": "2026-01-02",
    "repeats": 3,
}


@pytest.fixture
def recorded():
    """A table in which ours does 100 member-steps a second, and its manifest."""
    rows = [
        {
            "row": row,
            "shape": shape,
            "repeat": repeat,
            # The whole machine drifts: ratios within a round do not.
            "seconds": seconds * (1 + repeat / 2),
            "member_steps": 100,
            "flops": 10**10,
            "compile_seconds": math.nan if row.startswith("torch") else 7.0,
        }
        for shape in [shape.name for shape in grid.SHAPES]
        for row, seconds in SECONDS.items()
        for repeat in range(3)
    ]
    peak = {"row": "peak", "shape": grid.MATMUL, "seconds": 1.0, "member_steps": 0}
    rows += [peak | {"repeat": r, "flops": 10**11, "compile_seconds": 1.0} for r in range(3)]
    table = pd.DataFrame(rows)
    manifest = MANIFEST | {
        "steps": 40,
        "members": 8,
        "num_parameters": 27_744,
        "rows": {row.name: row.label for row in grid.ROWS},
        "parity": {grid.SHAPES[0].name: {"loss": 2e-7, "gradient": 3e-6}},
        "verdicts": [dataclasses.asdict(verdict) for verdict in grid.verdicts(table)],
        "notes": ["A note."],
    }
    return table, manifest


def test_shapes_and_decoder_are_those_of_the_study():
    assert [shape.name for shape in grid.SHAPES] == ["64 × 24 tokens", "32 × 64 tokens"]
    parameters = jax.eval_shape(lambda: initialise(grid.DECODER, jax.random.key(0)))
    assert num_parameters(parameters) == 27_744


def test_flops_of_a_small_decoder_by_hand():
    decoder = DecoderConfig(
        5, hidden_size=4, intermediate_size=6, num_layers=2, num_heads=2, num_kv_heads=1
    )
    # Seven tokens are read. Each meets, in a layer, queries 4 × 4, key and value 4 × 2 each,
    # output 4 × 4, three matrices of 4 × 6, and 7 keys and values of 2 heads of size 2; then 4 × 5.
    layer = 16 + 8 + 8 + 16 + 3 * 24 + 7 * 4 + 7 * 4
    assert training_flops(decoder, 3 * 7, 7) == 3 * (2 * (3 * 7 * (2 * layer + 20)))


def dot_flops(jaxpr) -> int:
    """Operations in every product of a jaxpr; a scan counts once for each of its steps."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            summed = math.prod(left[axis] for axis in contracted)
            total += 2 * summed * math.prod(equation.outvars[0].aval.shape)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(dot_flops(inner) for inner in jaxprs_in_params(equation.params))
    return total


@pytest.mark.parametrize(
    ("decoder", "batch_size", "length"),
    [
        *[(grid.DECODER, shape.batch_size, shape.length) for shape in grid.SHAPES],
        (dataclasses.replace(grid.DECODER, num_kv_heads=2, unroll=False, num_layers=3), 2, 9),
    ],
)
def test_flops_equal_the_products_that_jax_traces(decoder, batch_size, length):
    parameters = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    traced = jax.make_jaxpr(
        lambda parameters, tokens, loss_mask, key: loss_and_gradient(
            decoder, parameters, [(tokens, loss_mask)], key, "sft"
        )
    )(
        parameters,
        jax.ShapeDtypeStruct((batch_size, length), jnp.int32),
        jax.ShapeDtypeStruct((batch_size, length), bool),
        jax.eval_shape(lambda: jax.random.key(0)),
    )
    read = length - 1
    assert dot_flops(traced.jaxpr) == training_flops(decoder, batch_size * read, read)


def test_verdicts_compare_within_rounds(recorded):
    verdicts = grid.verdicts(recorded[0])
    *ratios, share = verdicts
    for verdict, ratio in zip(ratios, (1.5, 0.9, 3.0), strict=True):
        assert (verdict.lowest, verdict.value, verdict.highest) == pytest.approx((ratio,) * 3)
    assert [verdict.passed for verdict in verdicts] == [False, False, True, False]
    # 10 GFLOP in a second, then in 1.5 and 2, of a peak of 100 in a second.
    assert (share.lowest, share.value, share.highest) == pytest.approx((0.05, 0.1 / 1.5, 0.1))


def test_share_of_the_roofline_is_taken_within_rounds(recorded):
    table = recorded[0]
    limit = table[table["row"] == "ours"].assign(row="roofline")
    limit["seconds"] *= 0.6
    verdict = grid.verdicts(pd.concat([table, limit]))[-1]
    assert verdict.name == "share of the roofline"
    assert (verdict.lowest, verdict.value, verdict.highest) == pytest.approx((0.6,) * 3)
    assert not verdict.passed


@pytest.mark.parametrize(
    ("values", "passed"), [([1.9, 2.0, 2.1], True), ([1.999] * 3, False), ([1.9, 1.99, 9], False)]
)
def test_verdict_holds_the_median_against_the_bar(values, passed):
    assert Verdict.of("speed", 2.0, values).passed is passed


def test_bars_of_rows_that_were_not_measured_are_left_out(recorded):
    table = recorded[0]
    assert grid.verdicts(table[table["row"] != "ours"]) == []
    left = grid.verdicts(table[~table["row"].str.startswith("torch")])
    assert [verdict.bar for verdict in left] == [1.3, 0.35]


def test_rows_that_fit_a_platform():
    everything, notes = grid.choose_rows("cpu", has_torch=True)
    assert (everything, notes) == (grid.ROWS, [])
    rows, (note,) = grid.choose_rows("cpu", has_torch=False)
    assert {row.engine for row in rows} == {"map", "vmap", "jax", "matmul", "roofline"}
    assert "torch is not installed" in note
    rows, (note,) = grid.choose_rows("cpu", has_torch=True, compiles_torch=False)
    assert {"torch", "torch_pinned"} <= {row.name for row in rows}
    assert not {"compile_pinned", "vmap_pinned"} & {row.name for row in rows}
    assert "compile for minutes" in note
    rows, (note,) = grid.choose_rows("gpu", has_torch=True)
    assert [row.name for row in rows] == ["ours_vmap", "jax", "peak"]
    assert not any(row.pinned for row in rows)
    assert "On gpu members are mapped by `vmap`" in note


def test_markdown_of_grid(recorded):
    text = grid.markdown(*recorded)
    lines = text.splitlines()
    assert lines[2] == (
        "| **sweetspot**: `shard_map` over host devices, `lax.map` inside | 64 × 24 tokens | "
        "15.0 (10.0–20.0) | 67 | 6.7 (7%) | 7 |"
    )
    assert sum("32 × 64 tokens" in line for line in lines) == len(SECONDS)
    assert "| 45.0 (30.0–60.0) | 22 | 2.2 (2%) | – |" in text
    assert "one pinned process per core | 1.30 | 0.90 (0.90–0.90) | **fail** |" in text
    for part in ("27,744 parameters", "peak 100 GFLOP/s", "2e-07 nats", "Abacus", "A note."):
        assert part in lines[-1]


def test_markdown_of_generation():
    table = pd.DataFrame(
        {
            "task": ["chain", "chain-running"] * 3,
            "repeat": [0, 0, 1, 1, 2, 2],
            "seconds": [1.0, 0.5, 2.0, 0.5, 1.25, 0.5],
            "examples": 200_000,
            "tokens": [137, 44] * 3,
            "compile_seconds": 6.4,
        }
    )
    verdicts = [dataclasses.asdict(verdict) for verdict in generation.verdicts(table)]
    manifest = MANIFEST | {"difficulty": 8, "num_devices": 2, "verdicts": verdicts}
    text = generation.markdown(table, manifest)
    assert "| `lines` (default) | 137 | 160,000 (100,000–200,000) | 6 |" in text
    assert "| 100,000 | 160,000 (100,000–200,000) | pass |" in text


def test_markdown_of_bounds():
    table, manifest = bounds.measure(10, 2)
    assert set(table["bound"]) == set(BOUNDS) | {f"total, {name}" for name in VARIANTS}
    slowest = table.assign(seconds=1e-3)
    slowest.loc[slowest["bound"] == "occam", "seconds"] = 2e-3
    (verdict,) = bounds.verdicts(slowest)
    assert (verdict.value, verdict.passed, "occam" in verdict.name) == (5000, False, True)
    text = bounds.markdown(slowest, manifest)
    assert "| `occam` | 2.0 (2.0–2.0) |" in text
    assert "ms for 10 cells" in text


def igsm_table() -> pd.DataFrame:
    """1,000 problems a second at op 2, 500 at op 10; the second round is half as fast."""
    rows = [
        {"work": work, "difficulty": level, "processes": 1, "repeat": repeat}
        | {"seconds": seconds * (1 + repeat), "problems": 100}
        for repeat in range(2)
        for level, rate in ((2, 1000), (10, 500))
        for work, seconds in (("draw", 100 / rate), ("verify", 0.05))
    ]
    for processes, seconds in ((1, 3.0), (2, 2.0)):
        row = {"work": "scale", "difficulty": 10, "processes": processes, "problems": 4000}
        rows += [row | {"repeat": repeat, "seconds": seconds} for repeat in range(2)]
    return pd.DataFrame(rows)


def test_markdown_of_igsm():
    table = igsm_table()
    verdicts = igsm.verdicts(table)
    assert [verdict.value for verdict in verdicts] == pytest.approx([375, 375, 0.5])
    assert [verdict.passed for verdict in verdicts] == [False, False, True]
    manifest = MANIFEST | {
        "reference": {"10": 85},
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
    }
    text = igsm.markdown(table, manifest)
    assert "| 2 | 750 (500–1,000) | – | 0.75 (0.50–1.00) |" in text
    assert "| 10 | 375 (250–500) | 85 | 0.75 (0.50–1.00) |" in text
    assert "| slowest op count / fastest, op 2–10 | 0.33 | 0.50 (0.50–0.50) | pass |" in text
    assert "2 processes are 1.50 (1.50–1.50) times as fast as one" in text


def test_igsm_refuses_problems_that_the_verifier_finds_wrong(monkeypatch):
    monkeypatch.setattr(igsm, "PROCESSES", (1,))
    table, _ = igsm.measure(2, 3, 2, levels=(10,))
    assert table["work"].value_counts().to_dict() == {"draw": 2, "verify": 2, "scale": 2}
    monkeypatch.setattr(igsm, "verify", lambda *_: SimpleNamespace(ok=False))
    with pytest.raises(RuntimeError, match="a solution at op 10 is found wrong"):
        igsm.measure(2, 3, 1, levels=(10,))


def test_igsm_refuses_problems_that_depend_on_the_number_of_processes(monkeypatch):
    def other(level, count, *, seed, processes=1, **rest):
        return problems(level, count, seed=seed + processes, **rest)

    monkeypatch.setattr(igsm, "problems", other)
    with pytest.raises(RuntimeError, match="the number of processes changes the problems"):
        igsm.measure(2, 3, 1, levels=(10,))


def test_record_replaces_an_earlier_one(recorded, tmp_path):
    table, manifest = recorded
    for _ in range(2):
        paths = write_record(tmp_path, "grid", table, manifest)
    assert [path.name for path in paths] == ["grid.parquet", "grid.json"]
    read = pd.read_parquet(paths[0]), json.loads(paths[1].read_text())
    assert grid.markdown(*read) == grid.markdown(table, manifest)


@pytest.mark.parametrize("module", [grid, generation, bounds, igsm, llm])
def test_quick_runs_are_not_recorded(module):
    with pytest.raises(ValueError, match="record needs the full plan"):
        module.run(quick=True, record=True)


def test_importing_the_benchmarks_needs_no_torch():
    code = "import sys, experiments.benchmarks.grid, experiments.benchmarks.generation; "
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def torch_loop():
    pytest.importorskip("torch", reason="the baseline is PyTorch: pip install '.[bench]'")
    return importlib.import_module("experiments.benchmarks.torch_loop")


def make_member(batch_size: int):
    """Base, data and key of a member that trains on the benchmark's first shape."""
    work = jax.tree.map(lambda leaf: leaf[0], engines.make_work(grid.SHAPES[0], [3]))
    data = TrainingData(
        work.data.tokens[:batch_size], work.data.loss_mask[:batch_size], jnp.int32(batch_size)
    )
    # Biases and gains that differ from zero and one, so that each matters.
    leaves, structure = jax.tree.flatten(work.base)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy), data, jax.random.wrap_key_data(work.key)


@pytest.mark.slow  # compiles both models and their training
def test_plain_jax_model_is_the_same_model_and_learns():
    base, data, key = make_member(16)
    difference = jax_loop.parity(grid.DECODER, base, data, key)
    assert difference["loss"] <= 1e-5
    assert difference["gradient"] <= 1e-4
    config = FinetuneConfig(20, 1e-2, optimiser=Optimiser(batch_size=8))
    with jax.numpy_dtype_promotion("standard"):
        trained, losses = jax_loop.finetune(grid.DECODER, base, jax.device_get(data), config, 0)
    assert losses.shape == (20,)
    assert losses[-5:].mean() < losses[:5].mean() - 0.1
    moved = jax.tree.map(lambda own, other: np.abs(own - other).max(), trained, base)
    assert min(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"num_kv_heads": 2, "positions": "sequential"}, {"qkv_bias": False}]
)
def test_pytorch_model_is_the_same_model(torch_loop, changes):
    decoder = dataclasses.replace(grid.DECODER, **changes)
    base, data, key = make_member(16)
    if changes:
        base = initialise(decoder, jax.random.key(2))
    difference = torch_loop.parity(decoder, base, data, key)
    assert difference["loss"] <= 1e-5
    assert difference["gradient"] <= 1e-4


@pytest.mark.slow
def test_pytorch_training_takes_the_same_steps(torch_loop):
    base, data, key = make_member(32)
    config = FinetuneConfig(
        steps=6, optimiser=Optimiser(batch_size=8, warmup=0.4, weight_decay=0.1, clip=0.5)
    )
    _, expected = jax.jit(finetune, static_argnums=0)(grid.DECODER, base, data, config, key)
    # The batches and positions of `finetune`, by its own rule.
    key_order, key_positions = jax.random.split(key)
    order = np.array(epoch_order(key_order, data.num_examples, 32, 48)).reshape(6, 8)
    trainer = torch_loop.Trainer(torch_loop.load(grid.DECODER, base), config, torch_loop.loss)
    tokens, loss_mask = torch_loop.tensors(data.tokens, data.loss_mask)
    losses = [
        float(
            trainer.step(
                tokens[rows],
                loss_mask[rows],
                torch_loop.positions_of(
                    grid.DECODER, jax.random.fold_in(key_positions, step), 8, tokens.shape[1]
                ),
            )
        )
        for step, rows in enumerate(order)
    ]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=2e-4)
    assert abs(losses[-1] - losses[0]) > 0.01


@pytest.mark.slow
def test_pytorch_loop_learns_and_draws_positions_by_the_rule(torch_loop):
    base, data, _ = make_member(32)
    config = FinetuneConfig(30, 1e-2, optimiser=Optimiser(batch_size=16))
    _, losses = torch_loop.finetune(grid.DECODER, base, data, config)
    assert len(losses) == 30
    assert float(losses[-5:].mean()) < float(losses[:5].mean())
    positions = torch_loop.draw_positions(grid.DECODER, 500, 24).numpy()
    gaps = np.diff(positions)
    assert positions.shape == (500, 24)
    assert (positions[:, 0].min(), positions[:, 0].max()) == (0, grid.DECODER.position_start - 1)
    assert set(np.unique(gaps)) == set(range(1, grid.DECODER.position_gap + 1))
    with pytest.raises(ValueError, match="loss must be 'sft'"):
        torch_loop.finetune(grid.DECODER, base, data, dataclasses.replace(config, loss="dft"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grid", "generation", "bounds", "igsm", "llm"])
def test_quick_run_end_to_end(name):
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.benchmarks.{name}", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Median (lowest–highest) of 2 interleaved repeats." in done.stdout
    assert "| bar | at least | measured |" in done.stdout


def test_real_checkpoints_are_compared_round_by_round():
    seconds = {llm.OURS: 1.0, llm.THEIRS: 3.0, llm.LIMIT: 0.5}
    works = (llm.READING, llm.DECODING, llm.ANSWERING)
    factors = dict(zip(works, (1, 2, 3), strict=True))
    rows = [
        {
            "shape": shape.name,
            "work": work,
            "program": program,
            "repeat": repeat,
            # The whole machine drifts: ratios within a round do not.
            "seconds": taken * (1 + repeat) * (factors[work] if program == llm.THEIRS else 1),
            "tokens": 600,
        }
        for shape in llm.SHAPES
        for work in works
        for program, taken in seconds.items()
        for repeat in range(3)
    ]
    table = pd.DataFrame(rows)
    verdicts = llm.verdicts(table, llm.SHAPES)
    assert [(verdict.bar, verdict.value) for verdict in verdicts] == [
        (2.0, 9.0),
        (2.0, 6.0),
        (2.4, 9.0),
        (1.6, 6.0),
        (1.8, 9.0),
        (1.3, 6.0),
    ]
    assert all(verdict.lowest == verdict.highest == verdict.value for verdict in verdicts)
    agreement = {
        f"{shape.name}, {work}": value
        for shape in llm.SHAPES
        for work, value in zip(works, (1.0, 1.0, 0.99), strict=True)
    }
    answers = {
        f"{shape.name}, {work}": {"number": 9, "mean": 4.6, "longest": 8}
        for shape in llm.SHAPES
        for work in works
    }
    manifest = MANIFEST | {
        "num_devices": 2,
        "agreement": agreement,
        "answers": answers,
        "limit": "the weights alone",
        "verdicts": [dataclasses.asdict(verdict) for verdict in verdicts],
    }
    text = llm.markdown(table, manifest)
    rates = "300 (200–600) | 50 (33–100) | 600 (400–1,200)"
    assert f"| tiny: width 64, 2 layers | {llm.DECODING} | {rates} |" in text
    assert "Test sets: tiny, 9 answers of 5 tokens on average and 8 at most; 25M, 9" in text
    assert "The limit is the weights alone. Test sets: tiny" in text
    assert "99% of the answers are equal" in text


def test_what_decoding_cannot_do_without_is_counted():
    """By hand: every token goes through the layers once, and new ones alone have logits."""
    decoder = DecoderConfig(10, hidden_size=8, intermediate_size=6, num_layers=1)
    kernels, head = 4 * 8 * 8 + 3 * 8 * 6, 8 * 10
    # Answers of two tokens and a stop token, and of three without one: three new tokens each, of
    # which two are read, in two steps for both rows.
    decoding = llm.Decoding([[1, 2, 3], [4, 5, 6]], 2, 3, stop=(9,))
    cost = llm.Cost.of(decoder, decoding, [[1, 2], [3, 4, 5]])
    assert cost.products == 2 * ((3 + 2 + 3 + 2) * kernels + (3 + 3) * head)
    assert cost.products_decoding == 2 * (2 + 2) * (kernels + head)
    assert cost.read == 4 * 2 * (kernels + head)
    # One row for both takes twice as many steps, and one that ends early none of its own.
    one_row = dataclasses.replace(decoding, rows=1)
    assert llm.Cost.of(decoder, one_row, [[1, 2], [3, 4, 5]]).read == 2 * cost.read
    assert llm.Cost.of(decoder, decoding, [[], [3, 4, 5]]).read == cost.read
    # Prompts take the time of products; decoding that of products or reading, whichever is longer.
    prompts = cost.products - cost.products_decoding
    assert cost.seconds(1e3, 1e9) == pytest.approx(cost.products / 1e3)
    assert cost.seconds(1e3, 1e-3) == pytest.approx(prompts / 1e3 + cost.read / 1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("way", ["compiled", "together"])
def test_pytorch_at_its_best_learns_as_the_plain_loop_does(torch_loop, way):
    base, data, _ = make_member(32)
    config = FinetuneConfig(20, 1e-2, optimiser=Optimiser(batch_size=16, clip=0.5))
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    _, plain = torch_loop.finetune(grid.DECODER, base, data, config)
    torch.manual_seed(0)
    if way == "compiled":
        _, losses = torch_loop.finetune(grid.DECODER, base, data, config, is_compiled=True)
        # The same batches and positions: equal up to rounding.
        np.testing.assert_allclose(losses, plain, atol=1e-3)
    else:
        together = importlib.import_module("experiments.benchmarks.torch_members")
        _, losses = together.finetune(grid.DECODER, [base, base], [data, data], config)
        assert losses.shape == (20, 2)
        np.testing.assert_allclose(losses[-5:].mean(0), plain[-5:].mean(), atol=0.1)
        # Before the first step all members have the weights of the base.
        np.testing.assert_allclose(losses[0], plain[0], atol=0.3)
