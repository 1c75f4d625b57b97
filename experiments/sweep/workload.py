"""The work of a sweep: training of bases, fine-tuning and measuring of members, drawing of data."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence

import jax

from experiments.engine.cost import SIMULATOR_UTILISATION, decoding_flops, training_flops
from experiments.engine.study import Part
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.sweep.grid import Member
from experiments.sweep.plan import Chunk, Group
from experiments.sweep.pretraining import base_program, base_strata
from experiments.sweep.programs import Sweep
from synth.decoder import Parameters, initialise
from synth.task import ArrayTask

STEPS = 12
"""Optimiser steps of a program that is timed."""

ROWS_BYTES, METRIC_BYTES, MANIFEST_BYTES = 11_500, 14, 4_000
"""Measured: bytes of a table's file without rows, of a row, and of a manifest without members."""

MEMBER_BYTES = 60
"""Bytes of a member's name in the manifest."""


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes, until its arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


class Operations:
    """Operations and tokens of a sweep's programs.

    Args:
      sweep: the sweep's programs and draws, none of which it runs.
    """

    def __init__(self, sweep: Sweep):
        self._sweep = sweep

    def base_step(self) -> tuple[float, float]:
        """Operations of a step of a base's training, and its tokens without padding."""
        pretraining, sweep = self._sweep.config.pretrain, self._sweep
        rows = pretraining.optimiser.batch_size
        flops = sum(
            training_flops(sweep.decoder, count * length, length)
            for count, mixture in base_strata(sweep)
            for length in [sweep.task.max_length(mixture.hardest)]
        )
        return flops, rows * sweep.draws.mean_tokens(pretraining.mixture)

    def of_member(self, group: Group) -> float:
        """Operations of one member: its steps, and its measurement on its own mixture."""
        config, decoder = self._sweep.config, self._sweep.decoder
        tokens = group.steps * config.optimiser.batch_size * group.length
        measured = min(config.risk_examples, group.rows) + config.risk_examples
        return training_flops(decoder, tokens, group.length) + decoding_flops(
            decoder, measured * group.length, group.length
        )

    def of_slices(self, examples: int) -> float:
        """Operations of one member on the test or validation draws of all levels."""
        sweep = self._sweep
        return sum(
            decoding_flops(sweep.decoder, len(levels) * examples * length, length)
            for levels in sweep.draws.buckets
            for length in [sweep.task.max_length(levels[-1])]
        )


class SweepWorkload(Workload):
    """Work by part; amounts are operations of one member, while others run beside it.

    Args:
      sweep: the sweep's programs and draws, none of which it runs.
      chunks: the chunks by the name of their part.
      trains_bases: false if the bases of another run are used.
    """

    assumptions = (
        "Tokens are those that bases and members are trained on.",
        "On a named device the simulator's programs are taken to reach "
        f"{SIMULATOR_UTILISATION:.0%} of the peak: 28%, as on CPU cores, of half the bfloat16 "
        "peak; this was not measured there.",
    )

    def __init__(self, sweep: Sweep, chunks: dict[str, Chunk], *, trains_bases: bool = True):
        self._sweep, self._chunks, self._trains_bases = sweep, chunks, trains_bases
        self._devices = sweep.members.mesh.size
        self._kinds: dict[Program, Group] = {}
        self._operations = Operations(sweep)

    # Programs.

    def _program(self, kind: str, name: str, size: float) -> Program:
        return Program(kind, name, size, SIMULATOR_UTILISATION)

    @property
    def _bases(self) -> Program:
        length = self._sweep.task.max_length(self._sweep.config.pretrain.hardest)
        return self._program("base training", f"{length} tokens", length)

    @property
    def _evaluation(self) -> Program:
        return self._program("evaluation", "test", 0)

    @property
    def _validation(self) -> Program:
        return self._program("evaluation", "validation", 1)

    @property
    def _drawing(self) -> Program:
        return Program("drawing data", is_compiled=False)

    def _finetuning(self, group: Group) -> Program:
        program = self._program("fine-tuning", str(group.shapes), group.length)
        self._kinds[program] = group
        return program

    # Work.

    def work(self, part: Part) -> Sequence[Work]:
        """Operations of bases, of their evaluation, or of a chunk, and examples to draw."""
        config = self._sweep.config
        if part.name == "pretrain" and not self._trains_bases:
            return []
        if part.name == "pretrain":
            steps, tokens = self._operations.base_step()
            total = config.pretrain.steps * steps
            rounds = self._rounds(config.base_seeds)
            trained = config.base_seeds * config.pretrain.steps * tokens
            work = [
                Work(self._bases, rounds * total, config.base_seeds * total, trained),
            ]
            if not isinstance(self._sweep.task, ArrayTask):
                drawn = config.pretrain.steps * config.pretrain.optimiser.batch_size
                work.append(Work(self._drawing, min(config.pretrain.text_examples, drawn)))
            return work
        if part.name == "bases":
            pairs = config.base_seeds * config.seeds
            flops = self._operations.of_slices(config.test_examples)
            drawn = pairs * config.test_examples * len(config.test_levels)
            return [
                Work(self._evaluation, self._rounds(pairs) * flops, pairs * flops),
                Work(self._drawing, drawn),
            ]
        return self._of_chunk(self._chunks[part.name])

    def _of_chunk(self, chunk: Chunk) -> list[Work]:
        config, group, count = self._sweep.config, chunk.group, len(chunk.members)
        rounds, own = self._rounds(count), self._operations.of_member(group)
        tokens = sum(
            group.steps
            * config.optimiser.batch_size
            * self._sweep.draws.mean_tokens(self._sweep.draws.mixture(member))
            for member in chunk.members
        )
        test = self._operations.of_slices(config.test_examples)
        work = [
            Work(self._finetuning(group), rounds * own, count * own, tokens),
            Work(self._evaluation, rounds * test, count * test),
        ]
        if len(config.learning_rates) > 1:
            flops = self._operations.of_slices(config.validation_examples)
            work.append(Work(self._validation, rounds * flops, count * flops))
        # Data sizes, losses and rates of a cell share its pools.
        cells = {(m.base_seed, m.seed, m.mixture, m.difficulty) for m in chunk.members}
        shared = len(config.data_sizes) * len(config.losses) * len(config.learning_rates)
        drawn = max(len(cells), count / shared) * (group.rows + config.risk_examples)
        return [*work, Work(self._drawing, drawn * min(1.0, count / shared / len(cells)))]

    def _rounds(self, count: int) -> int:
        """How often the devices begin a member each, or all of their members at once."""
        return math.ceil(count / self._devices) if self._sweep.members.mapping == "map" else 1

    # Disk.

    def disk(self, part: Part) -> float:
        """Bytes of checkpoints, of rows in parts and in the table, and of the manifest."""
        config = self._sweep.config
        slices = len(config.test_levels)
        if part.name == "pretrain":
            return config.base_seeds * self._checkpoint_bytes
        if part.name == "bases":
            rows = config.base_seeds * config.seeds * (2 * slices + 8)
            return 2 * ROWS_BYTES + 2 * rows * METRIC_BYTES + MANIFEST_BYTES
        count = len(self._chunks[part.name].members)
        kept = count * self._checkpoint_bytes if config.save_members else 0.0
        if config.save_predictions:
            kept += count * (slices * config.test_examples + 2 * config.risk_examples)
        rows = count * (2 * slices + 8)
        return ROWS_BYTES + 2 * rows * METRIC_BYTES + count * MEMBER_BYTES + kept

    @functools.cached_property
    def _checkpoint_bytes(self) -> float:
        """Bytes of a decoder in float32, with its settings."""
        shapes = jax.eval_shape(lambda: initialise(self._sweep.decoder, jax.random.key(0)))
        return 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes)) + MANIFEST_BYTES

    # Speed.

    def measure(self, program: Program) -> Speed:
        """Time a program with few steps, one member on each device, in a sweep of its own."""
        if program == self._drawing:
            member = next(iter(self._chunks.values())).members[0]
            return measure_drawing(self._probe, member)
        if program == self._bases:
            return self._measure_bases()
        if program in self._kinds:
            return self.measure_shapes(self._kinds[program])
        return self._evaluation_speed

    @functools.cached_property
    def _probe(self) -> Sweep:
        """The same sweep with as few seeds as there are devices."""
        config = self._sweep.config
        pretrain = dataclasses.replace(config.pretrain, steps=STEPS)
        few = dataclasses.replace(
            config, base_seeds=1, seeds=self._beside, pretrain=pretrain, learning_rates=(1e-4,)
        )
        return Sweep(few, task=self._sweep.task)

    @property
    def _beside(self) -> int:
        """Members that run beside each other: one a device, or a chunk where they run together."""
        is_map = self._sweep.members.mapping == "map"
        return self._devices if is_map else self._sweep.config.chunk_members

    @functools.cached_property
    def _untrained(self) -> list[Parameters]:
        return [jax.jit(initialise, static_argnums=0)(self._sweep.decoder, jax.random.key(0))]

    def _measure_bases(self) -> Speed:
        """Train as many bases as run beside each other for a few steps."""
        sweep = self._probe
        base, shared = base_program(sweep, STEPS)
        program = jax.jit(sweep.members.over(base))
        count = min(self._beside, self._sweep.config.base_seeds)
        keys = [jax.random.key_data(jax.random.key(seed)) for seed in range(count)]
        stacked = sweep.members.stack(keys)
        cold, warm = (timed(lambda: program(stacked, *shared)) for _ in range(2))
        return Speed(cold - warm, STEPS * self._operations.base_step()[0] / warm)

    @functools.cached_property
    def _evaluation_speed(self) -> Speed:
        """Evaluate untrained bases, one for each device."""
        cold, warm = (timed(lambda: self._probe.evaluate_bases(self._untrained)) for _ in range(2))
        flops = self._operations.of_slices(self._sweep.config.test_examples)
        return Speed(max(0.0, cold - warm), flops / warm)

    def measure_shapes(self, group: Group) -> Speed:
        """Fine-tune a member of a group on each device for a few steps, and time it."""
        short = dataclasses.replace(group, steps=STEPS)
        chunk = next(chunk for chunk in self._chunks.values() if chunk.group == group)
        first = chunk.members[0]
        members = tuple(
            dataclasses.replace(first, base_seed=0, seed=seed) for seed in range(self._beside)
        )
        few = dataclasses.replace(chunk, group=short, members=members)
        # Data are drawn, and the evaluation is compiled, before the group's own program.
        for member in members:
            self._probe.draws.training_pool(member)
            self._probe.draws.in_distribution_pool(member)
        flops = self._operations.of_slices(self._sweep.config.test_examples)
        test = flops / self._evaluation_speed.rate
        cold, warm = (
            timed(lambda: self._probe.finetune_chunk(few, self._untrained)) for _ in range(2)
        )
        own = max(warm - test, 0.2 * warm)
        return Speed(cold - warm, self._operations.of_member(short) / own)


def measure_drawing(sweep: Sweep, member: Member) -> Speed:
    """Draw the pools of one member, and again with another seed."""

    def draw(seed: int) -> object:
        drawn = dataclasses.replace(member, base_seed=0, seed=seed)
        pools = sweep.draws.training_pool(drawn), sweep.draws.in_distribution_pool(drawn)
        return [pools, sweep.draws.slice_pools("test", 0, seed)]

    config = sweep.config
    amount = sweep.draws.rows(member) + config.risk_examples
    amount += config.test_examples * len(config.test_levels)
    cold, warm = timed(lambda: draw(0)), timed(lambda: draw(1))
    return Speed(max(0.0, cold - warm), amount / warm)
