"""The grid, its data, its chunks, and the numbers that come out, checked by other roads."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.storage import checkpoint
from experiments.storage.results import COLUMNS, read_manifest, read_table
from experiments.sweep.draws import STREAMS, Draws
from experiments.sweep.grid import Member, PretrainConfig, SweepConfig
from experiments.sweep.mapping import MemberMap
from experiments.sweep.plan import Chunk, Group, group, plan
from experiments.sweep.programs import Outcome, Sweep
from experiments.sweep.rows import base_rows, chunk_rows
from experiments.sweep.tune import tune
from synth.decoder import initialise
from synth.task import TextExample, TextTask, check_difficulty
from synth.tasks import make_task
from tests.experiments.tiny import TINY, tiny
from tests.xla_flags import XLA_FLAGS

KEYS = ["base_seed", "seed", "train_mixture", "loss", "difficulty", "data_size", "learning_rate"]


def draws_of(config: SweepConfig) -> Draws:
    return Draws(config, make_task(config.task, config.task_options, hardest=config.test_hardest))


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Trained members' rows in one order, so that tables of other chunk plans can be compared."""
    trained = table.loc[table["train_mixture"] != "none"]
    return trained.sort_values(by=[*KEYS, "metric", "slice"]).reset_index(drop=True)


def assert_same_results(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal risks, and losses up to rounding."""
    found, expected = ordered(found), ordered(expected)
    is_loss = (expected["metric"] == "final_loss").to_numpy()
    assert 0 < is_loss.sum() < len(is_loss)
    pd.testing.assert_frame_equal(found.loc[~is_loss], expected.loc[~is_loss])
    np.testing.assert_allclose(
        found.loc[is_loss, "value"], expected.loc[is_loss, "value"], rtol=1e-3
    )


def run_chunk(sweep: Sweep, chunk: Chunk, bases: list) -> tuple[pd.DataFrame, list[Outcome]]:
    """Rows of a chunk's members, and what each left behind."""
    outcomes = sweep.finetune_chunk(chunk, bases)
    return chunk_rows(sweep, chunk, outcomes), outcomes


@pytest.fixture(scope="module")
def table(finished_run) -> pd.DataFrame:
    return read_table(finished_run)


@pytest.fixture(scope="module")
def bases(finished_run):
    return [checkpoint.load(finished_run / "bases" / "base-0")[1]]


# The grid.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mixtures": ()},
            "mixtures must be some of ('range', 'exact', 'window', 'above'), got ()",
        ),
        ({"mixtures": ("easy",)}, "got ('easy',)"),
        ({"losses": ("sft", "dpo")}, "losses must be some of ('sft', 'dft'), got ('sft', 'dpo')"),
        ({"data_unit": "bytes"}, "data_unit must be one of ('examples', 'tokens'), got 'bytes'"),
        ({"compute_unit": "flops"}, "compute_unit must be one of ('steps', 'epochs', 'tokens')"),
        ({"mapping": "pmap"}, "mapping must be one of ('auto', 'map', 'vmap'), got 'pmap'"),
        ({"difficulties": ()}, "difficulties must be distinct integers of at least 1, increasing"),
        ({"difficulties": (2, 1)}, "increasing; got (2, 1)"),
        ({"difficulties": (0, 1)}, "increasing; got (0, 1)"),
        ({"data_sizes": (3, 3)}, "data_sizes must be distinct integers of at least 1"),
        ({"learning_rates": ()}, "learning_rates must be positive, got ()"),
        ({"learning_rates": (1e-3, 0.0)}, "learning_rates must be positive, got (0.001, 0.0)"),
        ({"compute": 0.0}, "compute must be positive, got 0.0"),
        ({"window_width": -1}, "window_width must be at least 0, got -1"),
        ({"test_hardest": 2}, "at least 1.5 times the hardest of difficulties, 2, got 2"),
        (
            {"pretrain": PretrainConfig(hardest=5)},
            "pretrain.hardest must be between 1 and test_hardest = 4, got 5",
        ),
        *[
            ({name: 0}, f"{name} must be at least 1, got 0")
            for name in (
                "base_seeds",
                "seeds",
                "test_examples",
                "risk_examples",
                "validation_examples",
                "chunk_members",
            )
        ],
    ],
)
def test_configuration_refuses(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(**changes)


def test_members_are_the_whole_grid_with_seeds_slowest():
    config = tiny(
        base_seeds=2, mixtures=("range", "exact"), losses=("sft", "dft"), learning_rates=(1.0, 2.0)
    )
    members = config.members
    assert len(members) == len(set(members)) == config.num_members == 2 * 2 * 2 * 2 * 2 * 2 * 2
    assert len({member.name for member in members}) == len(members)
    assert members[0] == Member(0, 0, "range", 1, 3, "sft", 1.0)
    seeds = [(member.base_seed, member.seed) for member in members]
    assert seeds == sorted(seeds)
    cells = [dataclasses.astuple(member)[2:] for member in members]
    assert cells[: len(cells) // 4] == cells[len(cells) // 4 : len(cells) // 2]
    assert members[0].name == "0_0_range_1_3_sft_1.0"


def test_mixtures_of_cells():
    config = tiny(difficulties=(2, 4), test_hardest=6, window_width=1)
    assert config.mixture("range", 4).levels == (1, 2, 3, 4)
    assert config.mixture("exact", 4).levels == (4,)
    assert config.mixture("window", 4).levels == (3, 4)
    assert config.mixture("above", 2).levels == (2, 3, 4)
    assert config.mixture("above", 4).levels == (4,)
    assert list(config.test_levels) == [1, 2, 3, 4, 5, 6]
    assert tiny(compute=2.5, compute_unit="epochs").compute_name == "2.5 epochs"


def test_a_task_that_ends_before_the_test_levels_is_refused():
    with pytest.raises(ValueError, match="reaches difficulty 3, the sweep tests up to test_hardes"):
        Sweep(tiny(task_options={"hardest": 3}))


# The data.


def test_a_smaller_data_size_is_a_prefix_of_a_larger_one():
    small, large = draws_of(tiny(data_sizes=(3,))), draws_of(tiny(data_sizes=(3, 12)))
    member = TINY.members[0]
    twin = dataclasses.replace(member, data_size=12)
    whole = large.training_pool(twin)
    for drawn in (small.training_pool(member), large.training_pool(member)):
        rows = drawn.num_examples
        for ours, theirs in zip(
            (drawn.tokens, drawn.loss_mask, drawn.difficulty),
            (whole.tokens, whole.loss_mask, whole.difficulty),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs[:rows])
    assert large.num_examples(member, whole) == 3
    assert large.num_examples(twin, whole) == 12


def test_every_stream_has_its_own_key():
    config = tiny(mixtures=("range", "exact", "window", "above"), base_seeds=2, seeds=2)
    draws, found = draws_of(config), []
    for base_seed, seed in itertools.product(range(2), range(2)):
        for stream in STREAMS:
            root = draws.stream(stream, base_seed, seed)
            if stream in ("test", "validation"):
                found += [jax.random.fold_in(root, level) for level in config.test_levels]
    cells = {(m.base_seed, m.seed, m.mixture, m.difficulty): m for m in config.members}
    for member in cells.values():
        found += [draws.cell_key(stream, member) for stream in ("train", "in_distribution")]
        root = draws.cell_key("optimise", member)
        found += [jax.random.fold_in(root, size) for size in config.data_sizes]
    found += [jax.random.fold_in(draws.key("bases"), seed) for seed in range(2)]
    found.append(draws.key("lengths"))
    distinct = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in found}
    assert len(distinct) == len(found) > 100
    other = draws_of(dataclasses.replace(config, master_seed=1))
    again = {
        tuple(np.asarray(jax.random.key_data(other.cell_key("train", member))).tolist())
        for member in cells.values()
    }
    assert not again & distinct


def test_fresh_draws_are_not_the_training_draws():
    draws = draws_of(tiny(risk_examples=12, difficulties=(2,)))
    member = draws.config.members[-1]
    train, fresh = draws.training_pool(member), draws.in_distribution_pool(member)
    assert train.tokens.shape == fresh.tokens.shape
    assert (np.asarray(train.tokens) != np.asarray(fresh.tokens)).any(axis=1).mean() > 0.5


def test_test_slices_hold_one_level_each():
    draws = draws_of(tiny(test_hardest=8))
    assert [len(bucket) for bucket in draws.buckets] == [6, 2]
    pools = draws.slice_pools("test", 0, 1)
    levels = draws.by_slice([np.asarray(part.difficulty) for part in pools])
    assert [set(part.tolist()) for part in levels] == [{level} for level in range(1, 9)]
    assert {part.size for part in levels} == {TINY.test_examples}
    # Easy slices are not padded to the length of the hardest.
    assert pools[0].tokens.shape[1] == draws.task.max_length(6) < pools[1].tokens.shape[1]


# Groups and chunks. An example of level d has 5 d + 4 tokens in this layout.


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"compute": 20.0}, 20),
        ({"compute": 20.3}, 21),
        # 3 epochs of 12 examples, 8 in a step.
        ({"compute": 3.0, "compute_unit": "epochs"}, 5),
        ({"compute": 0.01, "compute_unit": "epochs"}, 1),
        # 1000 tokens are 71.4 examples of 14 tokens.
        ({"compute": 1000.0, "compute_unit": "tokens"}, 9),
        # 100 tokens of data are 7.1 examples: 3 epochs are 21.4 examples.
        (
            {
                "compute": 3.0,
                "compute_unit": "epochs",
                "data_unit": "tokens",
                "data_sizes": (50, 100),
            },
            3,
        ),
        (
            {
                "compute": 1000.0,
                "compute_unit": "tokens",
                "data_unit": "tokens",
                "data_sizes": (50, 100),
            },
            9,
        ),
    ],
)
def test_compute_of_a_group(changes, steps):
    config = tiny(mixtures=("exact",), difficulties=(2,), **changes)
    sweep, member = Sweep(config), config.members[1]
    rows = 12 if config.data_unit == "examples" else math.ceil(1.5 * 100 / 14) + 16
    assert group(sweep.draws, member) == Group(length=14, steps=steps, rows=rows, loss="sft")


def test_a_token_budget_buys_the_longest_affordable_prefix():
    config = tiny(data_unit="tokens", data_sizes=(14, 40, 200))
    draws, bought = draws_of(config), collections.defaultdict(list)
    for member in config.members:
        drawn = draws.training_pool(member)
        lengths = np.asarray((drawn.tokens != 0).sum(axis=1))
        count = draws.num_examples(member, drawn)
        assert 1 <= count < len(lengths)
        assert lengths[:count].sum() <= member.data_size < lengths[: count + 1].sum()
        bought[member.data_size].append(count)
    assert bought[40][0] == 4  # level 1 alone, 9 tokens each
    assert max(bought[14]) < max(bought[40]) < min(bought[200])


def test_a_token_budget_below_one_example_is_refused():
    config = tiny(data_unit="tokens", data_sizes=(10, 40), difficulties=(2,), mixtures=("exact",))
    draws, member = draws_of(config), config.members[0]
    with pytest.raises(
        ValueError, match=r"budget of 10 tokens, too small for one example at diff.* 2 \(14 tok"
    ):
        draws.num_examples(member, draws.training_pool(member))


@pytest.mark.parametrize("chunk_members", [1, 3, 100])
def test_chunks_hold_each_member_once(chunk_members):
    config = tiny(seeds=5, losses=("sft", "dft"), chunk_members=chunk_members)
    sweep = Sweep(config)
    chunks = plan(sweep.draws)
    planned = [member for chunk in chunks for member in chunk.members]
    assert collections.Counter(planned) == collections.Counter(config.members)
    assert max(len(chunk.members) for chunk in chunks) <= chunk_members
    assert len({chunk.name for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert {group(sweep.draws, member) for member in chunk.members} == {chunk.group}
    groups = [chunk.group for chunk in chunks]
    assert len(set(groups)) == 4
    assert len(chunks) == 4 * math.ceil(10 / chunk_members)
    # Groups take turns, so that the first results cover every difficulty.
    assert set(groups[:4]) == set(groups)
    assert plan(Sweep(config).draws) == chunks


# The table.


def test_table_is_tidy(table):
    assert list(table.columns) == list(COLUMNS)
    assert not table.duplicated([*KEYS, "metric", "slice"]).any()
    assert table.drop(columns=["slice", "value"]).notna().all(axis=None)
    members = table.groupby(KEYS).ngroups
    assert members == TINY.num_members + TINY.seeds
    assert set(table["status"]) == {"ok"}
    # The checks of this file need right and wrong answers.
    risks = table.loc[table["metric"] == "risk", "value"]
    assert risks.between(0, 1).all()
    assert risks[(risks > 0) & (risks < 1)].nunique() > 2


def test_one_trace_for_each_program(finished_run):
    manifest = read_manifest(finished_run)
    (session,) = manifest["sessions"]
    assert session["traces"] == session["programs_traced"] == 2
    assert len(manifest["chunks"]) == 4


@pytest.mark.slow  # compiles three programs
def test_members_of_one_length_share_a_program_whatever_their_steps(bases):
    """Three epochs of 8 and of 32 examples are 3 and 12 steps; alone, 3 steps give the same."""
    sizes = (8, 32)
    epochs = tiny(difficulties=(2,), data_sizes=sizes, compute=3.0, compute_unit="epochs")
    together, alone = Sweep(epochs), Sweep(dataclasses.replace(epochs, data_sizes=sizes[:1]))
    first, second = plan(together.draws)
    assert [first.group.steps, second.group.steps] == [3, 12]
    shared, _ = [run_chunk(together, chunk, bases)[0] for chunk in (first, second)]
    assert list(together.traces.values()) == [1]
    (chunk,) = plan(alone.draws)
    assert_same_results(shared, run_chunk(alone, chunk, bases)[0])


def test_risks_follow_from_the_predictions(finished_run, table):
    for member in TINY.members:
        with np.load(finished_run / "predictions" / f"{member.name}.npz") as file:
            predictions = {name: file[name] for name in file.files}
        rows = table[
            (
                table[["seed", "difficulty", "data_size"]].to_numpy()
                == [member.seed, member.difficulty, member.data_size]
            ).all(axis=1)
        ]
        values = {
            (row.metric, None if pd.isna(row.slice) else int(row.slice)): (
                row.value,
                row.num_examples,
            )
            for row in rows.itertuples()
        }

        def wrong(outcomes):
            return sum(not outcome for outcome in outcomes) / len(outcomes)

        train = predictions["train"][: min(member.data_size, TINY.risk_examples)]
        assert values["train_risk", None] == (wrong(train), len(train))
        fresh = predictions["in_distribution"]
        assert values["in_distribution_risk", None] == (wrong(fresh), TINY.risk_examples)
        slices = [predictions[f"test_{level}"] for level in range(1, 5)]
        for level, part in enumerate(slices, start=1):
            assert values["risk", level] == (wrong(part), TINY.test_examples)
        assert abs(values["test_risk", None][0] - np.mean([wrong(part) for part in slices])) < 1e-12


def test_gaps_add_up_in_the_table(table):
    wide = ordered(table)
    wide = wide[wide["slice"].isna()].pivot(index=KEYS, columns="metric", values="value")
    assert len(wide) == TINY.num_members
    total = wide["train_risk"] + wide["generalization_gap"] + wide["extrapolation_gap"]
    assert np.abs((total - wide["test_risk"]).to_numpy()).max() <= 1e-12
    assert np.abs(wide["generalization_gap"].to_numpy()).max() > 0


def test_overlap_and_novel_risk_by_brute_force(finished_run, table):
    draws = draws_of(TINY)

    def problems(drawn):
        return [
            draws.task.decode(tokens[~mask])
            for tokens, mask in zip(
                np.asarray(drawn.tokens), np.asarray(drawn.loss_mask), strict=True
            )
        ]

    seen_somewhere = 0
    for member in TINY.members:
        trained = problems(draws.training_pool(member))[: member.data_size]
        (bucket,) = draws.slice_pools("test", member.base_seed, member.seed)
        tested = np.array(problems(bucket)).reshape(4, TINY.test_examples)
        with np.load(finished_run / "predictions" / f"{member.name}.npz") as file:
            correct = [file[f"test_{level}"] for level in range(1, 5)]
        rows = table[
            (table["seed"] == member.seed)
            & (table["difficulty"] == member.difficulty)
            & (table["data_size"] == member.data_size)
        ].set_index(["metric", "slice"])["value"]
        novel_risks = []
        for level in range(1, 5):
            seen = [problem in trained for problem in tested[level - 1]]
            seen_somewhere += sum(seen)
            assert rows["overlap", level] == np.mean(seen)
            errors = [
                not right
                for right, known in zip(correct[level - 1], seen, strict=True)
                if not known
            ]
            if errors:
                assert abs(rows["risk_novel", level] - np.mean(errors)) < 1e-12
                novel_risks.append(np.mean(errors))
            else:
                assert math.isnan(rows["risk_novel", level])
        mean = table[
            (table["seed"] == member.seed)
            & (table["difficulty"] == member.difficulty)
            & (table["data_size"] == member.data_size)
            & (table["metric"] == "test_risk_novel")
        ]["value"].item()
        assert abs(mean - np.mean(novel_risks)) < 1e-12
    assert seen_somewhere > 20
    assert table.loc[table["metric"] == "risk_novel", "value"].isna().any()


# Other ways to run the same members.


@pytest.fixture(scope="module")
def vmapped(bases):
    """Difficulty 2 in one chunk of four under `jax.vmap`, two members on each device."""
    strict = dataclasses.replace(TINY.pretrain, max_risk=0.5)
    sweep = Sweep(tiny(difficulties=(2,), mapping="vmap", chunk_members=4, pretrain=strict))
    (chunk,) = plan(sweep.draws)
    return sweep, *run_chunk(sweep, chunk, bases)


def test_vmap_equals_map(vmapped, finished_run, table):
    _, rows, outcomes = vmapped
    assert_same_results(rows, table[table["difficulty"] == 2])
    for member, outcome in zip(plan(vmapped[0].draws)[0].members, outcomes, strict=True):
        _, kept = checkpoint.load(finished_run / "members" / member.name)
        for ours, theirs in zip(
            jax.tree.leaves(outcome.parameters), jax.tree.leaves(kept), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_a_base_that_fails_its_gate_stops_the_sweep(vmapped, bases):
    sweep = vmapped[0]
    passed = base_rows(sweep, sweep.evaluate_bases(bases))
    assert passed["metric"].tolist().count("test_risk") == TINY.seeds
    untrained = initialise(sweep.decoder, jax.random.key(5))
    with pytest.raises(
        ValueError, match=r"base 0 errs on \d+% of its own levels 1 to 1, more than pretrain.max_ri"
    ):
        base_rows(sweep, sweep.evaluate_bases([untrained]))


@pytest.mark.slow
def test_chunk_size_and_number_of_devices_change_nothing(bases, table):
    sweep = Sweep(tiny(difficulties=(2,), chunk_members=3))
    sweep.members = MemberMap("auto", devices=jax.devices()[:1])
    chunks = plan(sweep.draws)
    # The second chunk holds one member, filled up to three.
    assert [len(chunk.members) for chunk in chunks] == [3, 1]
    rows = pd.concat([run_chunk(sweep, chunk, bases)[0] for chunk in chunks])
    assert_same_results(rows, table[table["difficulty"] == 2])
    assert list(sweep.traces.values()) == [1]


@pytest.mark.slow
def test_a_process_with_one_device_gives_the_same_table(tmp_path, finished_run, table):
    script = """
import sys
from pathlib import Path
import jax
from experiments.sweep.study import run_sweep
from tests.experiments.tiny import TINY
assert jax.local_device_count() == 1
run_sweep(TINY, Path(sys.argv[1]), recipe="tiny", preset="test")
"""
    flags = f"{XLA_FLAGS} --xla_force_host_platform_device_count=1"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"XLA_FLAGS": flags},
        check=True,
    )
    assert_same_results(read_table(tmp_path / "run"), table)


# Learning rates.


@pytest.fixture(scope="module")
def tuned(bases):
    """Difficulty 2 again, each member beside a twin with an absurd learning rate."""
    config = tiny(difficulties=(2,), learning_rates=(5e-3, 1e30), validation_examples=16)
    sweep = Sweep(config)
    return tune(pd.concat([run_chunk(sweep, chunk, bases)[0] for chunk in plan(sweep.draws)]))


def test_a_diverged_member_is_flagged_and_the_others_are_unaffected(tuned, table):
    absurd = tuned["learning_rate"] == 1e30
    assert set(tuned.loc[absurd, "status"]) == {"diverged"}
    assert tuned.loc[absurd, "value"].isna().all()
    assert set(tuned.loc[~absurd, "status"]) == {"ok"}
    measured = tuned[~absurd & (tuned["metric"] != "validation_risk")]
    assert_same_results(measured, table[table["difficulty"] == 2])


def test_validation_risk_is_measured_where_rates_are_tuned(tuned, table):
    validation = tuned[(tuned["metric"] == "validation_risk") & (tuned["status"] == "ok")]
    assert len(validation) == 4
    assert validation["value"].between(0, 1).all()
    assert set(validation["num_examples"]) == {4 * 16}
    assert "validation_risk" not in set(table["metric"])


def rates_table(risks: dict[float, list[float]], *, difficulty: int = 2) -> pd.DataFrame:
    """Rows of one cell: validation and test risk for each learning rate and seed."""
    rows = []
    for rate, values in risks.items():
        for seed, value in enumerate(values):
            member = {
                "train_mixture": "range",
                "loss": "sft",
                "difficulty": difficulty,
                "data_size": 3,
                "compute": "3 epochs",
                "learning_rate": rate,
                "seed": seed,
                "status": "diverged" if math.isnan(value) else "ok",
            }
            # The test risk would choose the other way round.
            for metric, number in {"validation_risk": value, "test_risk": 1 - value}.items():
                rows.append(member | {"metric": metric, "value": number})
    return pd.DataFrame(rows)


def statuses(tuned_table: pd.DataFrame) -> dict:
    grouped = tuned_table[tuned_table["metric"] == "test_risk"].groupby(
        ["difficulty", "learning_rate"]
    )["status"]
    return {key: list(group) for key, group in grouped}


def test_the_rate_with_the_lowest_mean_validation_risk_is_kept_for_each_cell():
    found = tune(
        pd.concat(
            [
                rates_table({0.1: [0.2, 0.6], 0.2: [0.3, 0.3]}),
                rates_table({0.1: [0.1, 0.2], 0.2: [0.3, 0.3]}, difficulty=4),
            ],
            ignore_index=True,
        )
    )
    assert statuses(found) == {
        (2, 0.1): ["not_selected"] * 2,
        (2, 0.2): ["ok"] * 2,
        (4, 0.1): ["ok"] * 2,
        (4, 0.2): ["not_selected"] * 2,
    }
    # Both metrics of a member share its status.
    members = found.groupby(["difficulty", "learning_rate", "seed"])
    assert set(members["status"].nunique()) == {1}


def test_a_rate_with_a_diverged_member_is_not_chosen_while_another_is_left():
    found = tune(rates_table({0.1: [0.0, math.nan], 0.2: [0.9, 0.9]}))
    assert statuses(found) == {(2, 0.1): ["not_selected", "diverged"], (2, 0.2): ["ok", "ok"]}
    lost = tune(rates_table({0.1: [math.nan] * 2, 0.2: [math.nan] * 2}))
    assert set(lost["status"]) == {"diverged"}


def test_tuning_leaves_bases_and_single_rates_alone(table):
    assert tune(table) is table
    untouched = rates_table({0.1: [0.2], 0.2: [0.3]})
    base = untouched.assign(train_mixture="none", metric="test_risk", learning_rate=0.0)
    found = tune(pd.concat([untouched, base], ignore_index=True))
    assert set(found.loc[found["train_mixture"] == "none", "status"]) == {"ok"}


def test_of_tables_with_several_computes_the_pair_is_chosen():
    """One epoch at the rate that loses at three epochs is the best pair of all."""
    longer = rates_table({0.1: [0.3], 0.2: [0.4]})
    shorter = rates_table({0.1: [0.5], 0.2: [0.2]}).assign(compute="1 epochs")
    found = tune(pd.concat([longer, shorter], ignore_index=True))
    kept = found.loc[found["status"] == "ok", ["compute", "learning_rate"]].drop_duplicates()
    assert kept.to_numpy().tolist() == [["1 epochs", 0.2]]


# Tasks on the host.


class Echo(TextTask):
    """Repeat a word of `difficulty` letters."""

    name = "echo"
    hardest = 3

    @property
    def vocabulary(self):
        return ("<pad>", ">", ".", "a", "b")

    def max_length(self, difficulty: int) -> int:
        check_difficulty(difficulty, self.hardest)
        return 2 * difficulty + 2

    def sample(self, generator, difficulty):
        word = " ".join(generator.choice(["a", "b"], difficulty))
        return TextExample(word + " >", word + " .")

    def encode(self, text):
        return [self.vocabulary.index(word) for word in text.split()]


@pytest.fixture(scope="module")
def text_sweep():
    pretraining = dataclasses.replace(TINY.pretrain, steps=4)
    config = tiny(
        difficulties=(2,), data_sizes=(3,), test_hardest=3, base_seeds=2, seeds=1, compute=4.0
    )
    return Sweep(dataclasses.replace(config, pretrain=pretraining), task=Echo())


@pytest.mark.slow
def test_a_text_task_goes_through_a_sweep(text_sweep):
    bases = text_sweep.pretrain_bases([0, 1])
    table = pd.concat(
        [
            base_rows(text_sweep, text_sweep.evaluate_bases(bases)),
            *(run_chunk(text_sweep, chunk, bases)[0] for chunk in plan(text_sweep.draws)),
        ]
    )
    assert table.groupby(KEYS).ngroups == 4
    risks = table.loc[table["metric"] == "risk"]
    assert set(risks["slice"]) == {1, 2, 3}
    assert set(risks["value"] * TINY.test_examples) <= set(range(TINY.test_examples + 1))
    assert np.isfinite(table.loc[table["metric"] == "final_loss", "value"]).all()
    differ = [
        np.abs(ours - theirs).max()
        for ours, theirs in zip(*map(jax.tree.leaves, bases), strict=True)
    ]
    assert max(differ) > 0.1


@pytest.mark.slow
def test_a_base_does_not_depend_on_which_others_are_trained_with_it(text_sweep):
    """Otherwise a run that was killed between two bases would not resume to the same numbers."""
    together, alone = text_sweep.pretrain_bases([0, 1])[1], text_sweep.pretrain_bases([1])[0]
    for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
