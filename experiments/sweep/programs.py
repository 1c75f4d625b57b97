"""A sweep: grid -> members -> groups of equal shapes -> chunks -> a tidy table.

A *member* is one fine-tuned model: a cell of the grid at one base seed and one seed. Members whose
arrays have the same shapes form a *group*, which is one compiled program; a group runs in *chunks*
of one size, the unit of resume. Members of a chunk are sharded over the devices and mapped inside
each: `jax.lax.map` on a CPU, so that results do not depend on the number of devices, `jax.vmap`
elsewhere.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool

from experiments.storage.results import tidy
from experiments.sweep.draws import Draws
from experiments.sweep.grid import Member, SweepConfig
from synth.config import FinetuneConfig, Loss
from synth.decoder import Parameters
from synth.finetune import TrainingData, finetune, pretrain
from synth.gaps import correct_examples, mean_risk, measure_gaps, risk
from synth.task import ArrayTask, Mixture, Task, pool
from synth.tasks import make_task


@dataclass(frozen=True)
class Group:
    """What members of one compiled program share: the arrays' shapes and the static settings."""

    length: int
    steps: int
    rows: int
    loss: Loss


@dataclass(frozen=True)
class Chunk:
    """Members that run together; `name` is the name of their part."""

    name: str
    group: Group
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Outcome:
    """What one member leaves behind: which examples it got right, and how training ended.

    Attributes:
      train: for the rows of the training pool that risk is measured on.
      trained_on: which of these rows are among the member's training examples.
      in_distribution: for fresh draws from its training mixture.
      final_loss: mean loss of the last tenth of the steps, in nats per solution token.
      diverged: whether that loss or a parameter is not finite.
      test: for each bucket of test slices.
      validation: for each bucket; None where nothing is tuned.
      parameters: fine-tuned parameters; None where they are not kept.
    """

    train: Bool[np.ndarray, " rows"]
    trained_on: Bool[np.ndarray, " rows"]
    in_distribution: Bool[np.ndarray, " fresh"]
    final_loss: np.ndarray
    diverged: np.ndarray
    test: list[np.ndarray]
    validation: list[np.ndarray] | None
    parameters: Parameters | None


class Sweep:
    """The plan of a sweep and the programs that run it. No files."""

    def __init__(self, config: SweepConfig, *, task: Task | None = None):
        self.config = config
        self.task = task or make_task(config.task, config.task_options, hardest=config.test_hardest)
        self.draws = Draws(config, self.task)
        self.decoder = dataclasses.replace(
            config.decoder,
            vocab_size=len(self.task.vocabulary),
            max_positions=self.task.max_length(config.test_hardest),
        )
        self.mesh = jax.make_mesh(
            (jax.local_device_count(),), ("members",), axis_types=(AxisType.Auto,)
        )
        self.traces: Counter[Group] = Counter()
        self._programs: dict[Group, Any] = {}
        self._evaluation: Any = None

    def group(self, member: Member) -> Group:
        """The compiled program that a member runs in."""
        return Group(
            length=self.task.max_length(member.difficulty),
            steps=self._steps(member),
            rows=self.draws.rows(member),
            loss=member.loss,
        )

    def _steps(self, member: Member) -> int:
        """Optimiser steps that the compute of a cell buys, at least 1."""
        config = self.config
        if config.compute_unit == "steps":
            return math.ceil(config.compute)
        if config.compute_unit == "tokens":
            examples = config.compute / self._mean_tokens(member)
        elif config.data_unit == "tokens":
            examples = config.compute * member.data_size / self._mean_tokens(member)
        else:
            examples = config.compute * member.data_size
        return max(1, math.ceil(examples / config.optimiser.batch_size))

    def _mean_tokens(self, member: Member) -> float:
        return self.draws.mean_tokens(self.draws.mixture(member))

    def plan(self) -> list[Chunk]:
        """Chunks in the order in which they run: groups take turns."""
        queues: dict[Group, list[Chunk]] = {}
        by_group: dict[Group, list[Member]] = {}
        for member in self.config.members:
            by_group.setdefault(self.group(member), []).append(member)
        for number, (group, members) in enumerate(by_group.items()):
            size = self.config.chunk_members
            queues[group] = [
                Chunk(f"group{number:02d}-{start // size:03d}", group, tuple(part))
                for start in range(0, len(members), size)
                for part in [members[start : start + size]]
            ]
        turns = itertools.zip_longest(*queues.values())
        return [chunk for turn in turns for chunk in turn if chunk is not None]

    def mapped(self, function):
        """`function` over the leading axis of its first argument: sharded, then mapped.

        Further arguments are shared by all members; every device holds them whole.
        """
        mapping = self.config.mapping
        if mapping == "auto":
            mapping = "map" if jax.default_backend() == "cpu" else "vmap"

        def local(arguments, *shared):
            def one(member):
                return function(member, *shared)

            return jax.lax.map(one, arguments) if mapping == "map" else jax.vmap(one)(arguments)

        members = PartitionSpec("members")

        def sharded(arguments, *shared):
            specs = (members, *(PartitionSpec() for _ in shared))
            return jax.shard_map(
                local, mesh=self.mesh, in_specs=specs, out_specs=members, check_vma=False
            )(arguments, *shared)

        return sharded

    def stack(self, trees: list, *, size: int = 0):
        """Trees stacked along a leading axis, filled up to `size` and a multiple of the devices."""
        size = math.ceil(max(size, len(trees)) / self.mesh.size) * self.mesh.size
        filled = trees + trees[:1] * (size - len(trees))
        # Stacked on the host: stacking on the device would compile a program for each shape.
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(filled))
        return jax.device_put(stacked, NamedSharding(self.mesh, PartitionSpec("members")))

    def pretrain_bases(self, base_seeds: list[int]) -> list[Parameters]:
        """Train the bases with the given seeds, all at once."""
        pretraining = self.config.pretrain
        mixture = Mixture.up_to(pretraining.hardest)
        config = FinetuneConfig(
            steps=pretraining.steps,
            learning_rate=pretraining.learning_rate,
            optimiser=pretraining.optimiser,
        )
        root = self.draws.key("bases")
        keys = [jax.random.key_data(jax.random.fold_in(root, seed)) for seed in base_seeds]
        sample, shared = self._pretraining_draws(mixture)

        def base(key, *shared):
            key = jax.random.wrap_key_data(key)
            return pretrain(self.decoder, lambda key: sample(key, *shared), config, key)[0]

        return unstack(jax.jit(self.mapped(base))(self.stack(keys), *shared), len(keys))

    def _pretraining_draws(self, mixture: Mixture) -> tuple[Callable[..., tuple], tuple]:
        """A function that draws one example from a key and some arrays, and these arrays."""
        task, pretraining = self.task, self.config.pretrain
        if isinstance(task, ArrayTask):
            length = task.max_length(mixture.hardest)
            log_probabilities = mixture.log_probabilities(task.hardest)

            def fresh(key):
                key_difficulty, key_example = jax.random.split(key)
                difficulty = 1 + jax.random.categorical(key_difficulty, log_probabilities)
                example = task.sample(key_example, difficulty)
                return example.tokens[:length], example.loss_mask[:length]

            return fresh, ()
        # Text is drawn on the host: a large pool stands in for fresh draws. Its key follows those
        # of all bases, whichever of them are trained now.
        rows = min(pretraining.text_examples, pretraining.steps * pretraining.optimiser.batch_size)
        key_pool = jax.random.fold_in(self.draws.key("bases"), self.config.base_seeds)
        drawn = pool(task, key_pool, mixture, rows)

        def row(key, tokens, loss_mask):
            index = jax.random.randint(key, (), 0, rows)
            return tokens[index], loss_mask[index]

        return row, (drawn.tokens, drawn.loss_mask)

    def evaluate_bases(self, bases: list[Parameters]) -> pd.DataFrame:
        """Rows of the untouched bases on the test draws of every base seed and seed.

        Raises:
          ValueError: if a base errs more often than `pretrain.max_risk` on its own levels.
        """
        config = self.config
        pairs = list(itertools.product(range(config.base_seeds), range(config.seeds)))
        size, outcomes = config.chunk_members, []
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            parameters = self.stack([bases[base_seed] for base_seed, _ in part], size=size)
            outcomes += self.evaluate(parameters, "test", part)
        rows = []
        for (base_seed, seed), outcome in zip(pairs, outcomes, strict=True):
            slices = self.draws.by_slice(outcome)
            own = 1.0 - float(np.mean(np.stack(slices[: config.pretrain.hardest])))
            if own > config.pretrain.max_risk:
                raise ValueError(
                    f"base {base_seed} errs on {own:.0%} of its own levels 1 to "
                    f"{config.pretrain.hardest}, more than pretrain.max_risk = "
                    f"{config.pretrain.max_risk:.0%}: train it longer (pretrain.steps) or allow it"
                )
            shared = self._columns(base_seed, seed) | {
                "train_mixture": "none",
                "loss": "none",
                "difficulty": 0,
                "data_size": 0,
                "compute": "0 steps",
                "learning_rate": 0.0,
                "status": "ok",
            }
            rows += [
                shared
                | {
                    "slice": level,
                    "metric": "risk",
                    "value": risk(correct),
                    "num_examples": correct.size,
                }
                for level, correct in zip(config.test_levels, slices, strict=True)
            ]
            rows.append(
                shared
                | {
                    "slice": None,
                    "metric": "test_risk",
                    "value": mean_risk(slices),
                    "num_examples": sum(correct.size for correct in slices),
                }
            )
        return tidy(rows)

    def run_chunk(
        self, chunk: Chunk, bases: list[Parameters]
    ) -> tuple[pd.DataFrame, list[Outcome]]:
        """Fine-tune and measure the members of a chunk.

        Returns:
          Their rows of the table, and what each left behind, in the order of the chunk.
        """
        config = self.config
        arguments = []
        for member in chunk.members:
            drawn = self.draws.training_pool(member)
            key = jax.random.fold_in(self.draws.cell_key("optimise", member), member.data_size)
            arguments.append(
                {
                    "base": bases[member.base_seed],
                    "data": TrainingData(
                        drawn.tokens,
                        drawn.loss_mask,
                        jnp.int32(self.draws.num_examples(member, drawn)),
                    ),
                    "fresh": self.draws.in_distribution_pool(member),
                    "learning_rate": np.float32(member.learning_rate),
                    "key": jax.random.key_data(key),
                }
            )
        parameters, *trained = self._program(chunk.group)(
            self.stack(arguments, size=config.chunk_members)
        )
        seeds = [(member.base_seed, member.seed) for member in chunk.members]
        test = self.evaluate(parameters, "test", seeds)
        tuned = len(config.learning_rates) > 1
        validation = self.evaluate(parameters, "validation", seeds) if tuned else None
        kept = unstack(parameters, len(seeds)) if config.save_members else None
        outcomes = [
            Outcome(
                *measured,
                test=test[index],
                validation=validation[index] if validation else None,
                parameters=kept[index] if kept else None,
            )
            for index, measured in enumerate(unstack(trained, len(seeds)))
        ]
        rows = [
            row
            for member, outcome in zip(chunk.members, outcomes, strict=True)
            for row in self._rows(member, outcome)
        ]
        return tidy(rows), outcomes

    def finetuning(self, group: Group, learning_rate: Array) -> FinetuneConfig:
        """How members of a group are fine-tuned."""
        config = self.config
        return FinetuneConfig(
            steps=group.steps,
            learning_rate=learning_rate,
            loss=group.loss,
            optimiser=config.optimiser,
        )

    def _program(self, group: Group):
        """The compiled fine-tuning of a group, traced once."""
        if group not in self._programs:
            mapped = self.mapped(lambda arguments: self._member(group, arguments))

            def counted(arguments):
                self.traces[group] += 1
                return mapped(arguments)

            self._programs[group] = jax.jit(counted)
        return self._programs[group]

    def _member(self, group: Group, arguments: dict[str, Any]) -> tuple:
        """Fine-tune one member and measure it on its own mixture: the code that is mapped."""
        config, data, fresh = self.config, arguments["data"], arguments["fresh"]
        parameters, losses = finetune(
            self.decoder,
            arguments["base"],
            data,
            self.finetuning(group, arguments["learning_rate"]),
            jax.random.wrap_key_data(arguments["key"]),
        )
        rows = min(config.risk_examples, len(data.tokens))
        # One pass over both, so that the evaluation is compiled once.
        correct = self._correct(
            parameters,
            jnp.concatenate([data.tokens[:rows], fresh.tokens]),
            jnp.concatenate([data.loss_mask[:rows], fresh.loss_mask]),
        )
        train = correct[:rows], jnp.arange(rows) < data.num_examples
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters)]
        final_loss = losses[-max(1, group.steps // 10) :].mean()
        diverged = ~jnp.all(jnp.array([*finite, jnp.isfinite(final_loss)]))
        return parameters, *train, correct[rows:], final_loss, diverged

    def evaluate(
        self, parameters: Parameters, stream: str, seeds: list[tuple[int, int]]
    ) -> list[list[np.ndarray]]:
        """For each member, which examples of each bucket of slices it gets right.

        Args:
          parameters: stacked over members, on the devices.
          stream: ``test`` or ``validation``.
          seeds: base seed and seed of each member.
        """
        if self._evaluation is None:

            def evaluate(arguments):
                parameters, drawn = arguments
                return [self._correct(parameters, part.tokens, part.loss_mask) for part in drawn]

            self._evaluation = jax.jit(self.mapped(evaluate))
        drawn = self.stack(
            [self.draws.slice_pools(stream, *pair) for pair in seeds],
            size=self.config.chunk_members,
        )
        return unstack(self._evaluation((parameters, drawn)), len(seeds))

    def _correct(self, parameters: Parameters, tokens: Array, loss_mask: Array) -> Array:
        return correct_examples(self.decoder, parameters, tokens, loss_mask)

    def _columns(self, base_seed: int, seed: int) -> dict[str, Any]:
        return {
            "task": self.config.task,
            "base": f"base-{base_seed}",
            "base_seed": base_seed,
            "seed": seed,
            "data_unit": self.config.data_unit,
        }

    def _rows(self, member: Member, outcome: Outcome) -> list[dict[str, Any]]:
        """Rows of one member; a member that diverged has its rows, flagged and without values."""
        config = self.config
        train = outcome.train[outcome.trained_on]
        slices = self.draws.by_slice(outcome.test)
        unseen = self.draws.unseen(member)
        gaps = measure_gaps(train, outcome.in_distribution, slices)
        fresh, tested = outcome.in_distribution.size, sum(part.size for part in slices)
        novel = [part[new] for part, new in zip(slices, unseen, strict=True)]
        metrics: list[tuple[int | None, str, float, int]] = [
            (None, "train_risk", gaps.train_risk, train.size),
            (None, "in_distribution_risk", gaps.in_distribution_risk, fresh),
            (None, "test_risk", gaps.test_risk, tested),
            (None, "generalization_gap", gaps.generalization_gap, fresh),
            (None, "extrapolation_gap", gaps.extrapolation_gap, tested),
            (
                None,
                "test_risk_novel",
                mean_risk(novel),
                sum(part.size for part in novel),
            ),
            (None, "final_loss", float(outcome.final_loss), train.size),
        ]
        for level, part, new in zip(config.test_levels, slices, unseen, strict=True):
            metrics.append((level, "risk", risk(part), part.size))
            metrics.append((level, "risk_novel", risk(part[new]), int(new.sum())))
            metrics.append((level, "overlap", float(np.mean(~new)), part.size))
        if outcome.validation is not None:
            validation = self.draws.by_slice(outcome.validation)
            size = len(validation) * config.validation_examples
            metrics.append((None, "validation_risk", mean_risk(validation), size))
        shared = self._columns(member.base_seed, member.seed) | {
            "train_mixture": member.mixture,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
            "compute": config.compute_name,
            "learning_rate": member.learning_rate,
            "status": "diverged" if outcome.diverged else "ok",
        }
        return [
            shared
            | {
                "slice": level,
                "metric": metric,
                "value": math.nan if outcome.diverged else value,
                "num_examples": size,
            }
            for level, metric, value, size in metrics
        ]


def unstack(stacked: Any, count: int) -> list[Any]:
    """The first `count` trees along the leading axis, on the host."""
    host = jax.device_get(stacked)
    return [jax.tree.map(lambda leaf, index=index: leaf[index], host) for index in range(count)]
