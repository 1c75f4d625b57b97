"""The work of certifications: fine-tunings on half a sample, posteriors, and drawn errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from experiments.certify.config import (
    BLOCK_SETTINGS,
    POINT_METHODS,
    CheckpointConfig,
    MembersConfig,
)
from experiments.certify.points import halved_steps
from experiments.certify.posteriors import FRESH_DRAWS, PATH_DRAWS, PATH_STEPS
from experiments.engine.cost import (
    SIMULATOR_UTILISATION,
    TRAINING_UTILISATION,
    decoding_flops,
    training_flops,
)
from experiments.engine.study import Part
from experiments.engine.workload import Program, Speed, Work, Workload
from experiments.sweep.grid import Member
from experiments.sweep.plan import Chunk, group
from experiments.sweep.plan import plan as plan_sweep
from experiments.sweep.programs import Sweep
from experiments.sweep.workload import SweepWorkload
from synth.config import DecoderConfig
from theory.config import PosteriorConfig

PART_BYTES, ROW_BYTES = 40_000, 400
"""Measured: bytes of a part's two files without rows, and of a certificate."""

COMPILES_AS = (
    "A program that certifies is taken to compile and run like a fine-tuning of its shapes."
)


def posterior_flops(
    decoder: DecoderConfig, posterior: PosteriorConfig, drawn: float, length: int
) -> float:
    """Operations of a posterior's training, and of so many draws with it."""
    steps = posterior.steps * posterior.batch_size * length
    return training_flops(decoder, steps, length) + decoding_flops(decoder, drawn * length, length)


class MembersWorkload(Workload):
    """Certificates of a sweep's cells.

    Args:
      sweep: its programs.
      config: what is certified.
      cells: methods and members of each part.
    """

    assumptions = (
        COMPILES_AS,
        f"On a named device they are taken to reach {SIMULATOR_UTILISATION:.0%} of the peak; this "
        "was not measured there.",
    )

    def __init__(
        self,
        sweep: Sweep,
        config: MembersConfig,
        cells: Mapping[str, tuple[tuple[str, ...], tuple[Member, ...]]],
    ):
        self._sweep, self._config, self._cells = sweep, config, cells
        chunks: dict[str, Chunk] = {chunk.name: chunk for chunk in plan_sweep(sweep.draws)}
        self._like = SweepWorkload(sweep, chunks)

    def _program(self, part: str) -> Program:
        member = self._cells[part][1][0]
        length = self._sweep.task.max_length(self._sweep.draws.mixture(member).hardest)
        return Program("certification", part, length, SIMULATOR_UTILISATION)

    def counts(self) -> Mapping[str, int]:
        """Certificates."""
        certificates = sum(len(methods) * len(members) for methods, members in self._cells.values())
        return {"certificates": certificates}

    def work(self, part: Part) -> Sequence[Work]:
        """Operations of one difficulty's cells with their point predictors, or with a block."""
        methods, members = self._cells[part.name]
        sweep, config = self._sweep, self._config
        shapes = group(sweep.draws, members[0])
        length, decoder = shapes.length, sweep.decoder
        test = sweep.config.test_examples
        buckets = sum(
            decoding_flops(decoder, len(levels) * test * longest, longest)
            for levels in sweep.draws.buckets
            for longest in [sweep.task.max_length(levels[-1])]
        )
        if set(methods) <= set(POINT_METHODS):
            count = len(members) * (config.num_candidates if "candidates" in methods else 1)
            steps = sum(halved_steps(sweep.draws, member) for member in members) / len(members)
            shown = steps * sweep.config.optimiser.batch_size
            measured = (shapes.rows + sweep.config.risk_examples) * length
            tokens = float(shown * length)
            # Base and fine-tuned model are both measured.
            own = training_flops(decoder, tokens, length) + 2 * (
                decoding_flops(decoder, measured, length) + buckets
            )
        else:
            (block,) = methods
            posterior = BLOCK_SETTINGS[block].posterior
            count, tokens = len(members), posterior.steps * posterior.batch_size * float(length)
            drawn = config.num_draws + FRESH_DRAWS * sweep.config.risk_examples
            drawn += PATH_STEPS * PATH_DRAWS
            own = posterior_flops(decoder, posterior, drawn, length) + buckets
        rounds = -(-count // sweep.members.mesh.size) if sweep.members.mapping == "map" else 1
        return [Work(self._program(part.name), rounds * own, count * own, count * tokens)]

    def disk(self, part: Part) -> float:
        """Bytes of the rows."""
        methods, members = self._cells[part.name]
        return PART_BYTES + 2 * len(methods) * len(members) * ROW_BYTES

    def measure(self, program: Program) -> Speed:
        """Time a fine-tuning of the same shapes for a few steps."""
        member = self._cells[program.name][1][0]
        return self._like.measure_shapes(group(self._sweep.draws, member))


@dataclass(frozen=True)
class Fit:
    """A posterior of a checkpoint that can be timed.

    Attributes:
      run: trains a posterior for a few steps and draws a few errors with it.
      posterior, drawn: settings and number of draws of that.
    """

    run: Callable[[], Any]
    posterior: PosteriorConfig
    drawn: int


class CheckpointWorkload(Workload):
    """Certificates of a checkpoint.

    Args:
      decoder: its shape.
      config: what is certified.
      lengths: padded length of each difficulty's problems, and their number.
      trained: method, difficulty and data size of each part that trains posteriors.
      fit: makes what is timed, for a method and a difficulty.
      num_devices: devices that hold the checkpoint.
    """

    assumptions = (
        "Errors of the checkpoint itself are taken to be found as fast as posteriors are trained.",
        "On a named device training is taken to reach 40% of the bfloat16 peak.",
    )

    def __init__(
        self,
        decoder: DecoderConfig,
        config: CheckpointConfig,
        lengths: Mapping[int, tuple[int, int]],
        trained: Mapping[str, tuple[str, int, int]],
        fit: Callable[[str, int], Fit],
        num_devices: int,
    ):
        self._decoder, self._config, self._lengths = decoder, config, lengths
        self._trained, self._fit, self.num_devices = trained, fit, num_devices

    def _program(self, method: str, level: int) -> Program:
        length = self._lengths[level][0]
        return Program("certification", f"{method} {length}", length, TRAINING_UTILISATION)

    def counts(self) -> Mapping[str, int]:
        """Certificates."""
        cells = len(self._lengths) * len(self._config.data_sizes)
        return {"certificates": cells * len(self._config.methods)}

    def work(self, part: Part) -> Sequence[Work]:
        """Operations of a cell's posteriors, or of the checkpoint's errors."""
        config, decoder = self._config, self._decoder
        if part.name not in self._trained:
            return [
                Work(self._program("points", level), flops, flops)
                for level, (length, number) in self._lengths.items()
                for flops in [decoding_flops(decoder, number * length, length)]
            ]
        method, level, _ = self._trained[part.name]
        length, _ = self._lengths[level]
        scales = len(config.prior_scales)
        flops = scales * posterior_flops(decoder, config.posterior, config.num_draws, length)
        # The best posterior is drawn from on the way to it, and on fresh problems of all levels.
        fresh = FRESH_DRAWS * config.num_fresh * len(self._lengths) + PATH_STEPS * PATH_DRAWS
        flops += decoding_flops(decoder, fresh * length, length)
        shown = scales * config.posterior.steps * config.posterior.batch_size
        return [Work(self._program(method, level), flops, flops, float(shown * length))]

    def disk(self, part: Part) -> float:
        """Bytes of the rows."""
        cells = len(self._lengths) * len(self._config.data_sizes)
        number = 1 if part.name in self._trained else cells * 2
        return PART_BYTES + 2 * number * ROW_BYTES

    def measure(self, program: Program) -> Speed:
        """Train a posterior for a few steps, and draw a few errors."""
        named = program.name.split()[0]
        levels = {level: self._program(named, level) for level in self._lengths}
        level = next(each for each, own in levels.items() if own == program)
        fit = self._fit(named, level)
        seconds = []
        for _ in range(2):
            start = time.monotonic()
            jax.block_until_ready(fit.run())
            seconds.append(time.monotonic() - start)
        length = self._lengths[level][0]
        flops = posterior_flops(self._decoder, fit.posterior, fit.drawn, length)
        return Speed(max(0.0, seconds[0] - seconds[1]), flops / seconds[1])
