"""The programs of a sweep: train bases, fine-tune and measure members. No files.

A *member* is one fine-tuned model: a cell of the grid at one base seed and one seed. The code below
is written for one member; `experiments.sweep.mapping` maps it over the members of a chunk.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.engine.phases import Phases
from experiments.storage.memory import program_memory
from experiments.sweep.draws import Draws
from experiments.sweep.grid import Member, SweepConfig
from experiments.sweep.mapping import MemberMap, Stacked, equal_parts
from experiments.sweep.plan import Chunk, Group, Shapes, most_steps
from experiments.sweep.pretraining import base_program
from synth.config import DecoderConfig, FinetuneConfig, Loss
from synth.decoder import Parameters
from synth.finetune import TrainingData, finetune
from synth.gaps import correct_examples
from synth.task import Pool, Task
from synth.tasks import make_task

Correct = list[Bool[np.ndarray, " examples"]]
"""For each bucket of test slices, which examples are right."""


@dataclass(frozen=True)
class Outcome:
    """One member's results: which examples it got right, and how training ended.

    Attributes:
      train: for the first rows of the training pool, on which train risk is measured.
      trained_on: which of these rows are among the member's training examples.
      in_distribution: for fresh draws from its training mixture.
      final_loss: mean loss of the last tenth of the steps, in nats per solution token.
      diverged: whether that loss or a parameter is not finite.
      test: for each bucket of test slices.
      validation: for each bucket; None if nothing is tuned.
      parameters: fine-tuned parameters; None if they are not kept.
    """

    train: Bool[np.ndarray, " rows"]
    trained_on: Bool[np.ndarray, " rows"]
    in_distribution: Bool[np.ndarray, " fresh"]
    final_loss: Float[np.ndarray, ""]
    diverged: Bool[np.ndarray, ""]
    test: Correct
    validation: Correct | None
    parameters: Parameters | None


class Sweep:
    """The programs of one sweep, each compiled once.

    Attributes:
      draws: the data.
      decoder: shape of the model.
      members: maps a function of one member over many.
      traces: how often each program of fine-tuning was traced; once, unless its shapes differ or
        memory made another number of members at once necessary.
      phases: the clock of the study that runs the programs.
    """

    def __init__(
        self, config: SweepConfig, *, task: Task | None = None, phases: Phases | None = None
    ):
        self.config, self.phases = config, phases or Phases()
        self.task = task or make_task(config.task, config.task_options, hardest=config.test_hardest)
        self.draws = Draws(config, self.task, phases=self.phases)
        self.decoder = dataclasses.replace(
            config.decoder,
            vocab_size=len(self.task.vocabulary),
            max_positions=self.task.max_length(config.test_hardest),
        )
        self.members = MemberMap(config.mapping, phases=self.phases)
        self.traces: Counter[Shapes] = Counter()
        self._programs: dict[Shapes, Any] = {}
        self._evaluation: Any = None

    # Bases.

    def pretrain_bases(self, base_seeds: list[int]) -> list[Parameters]:
        """Train the bases with the given seeds, all at once, on `pretrain.mixture`."""
        root = self.draws.key("bases")
        keys = [jax.random.key_data(jax.random.fold_in(root, seed)) for seed in base_seeds]
        with self.phases("draw"):
            base, shared = base_program(self, self.config.pretrain.steps)
        arguments = (self.members.stack(keys), *shared)
        program = jax.jit(self.members.over(base)).lower(*arguments).compile()
        with self.phases("pretrain"):
            trained = jax.block_until_ready(program(*arguments))
        return self.members.unstack(trained, len(keys))

    def evaluate_bases(self, bases: list[Parameters]) -> dict[tuple[int, int], Correct]:
        """Evaluate the untouched bases on the test draws of every base seed and seed."""
        config = self.config
        pairs = list(itertools.product(range(config.base_seeds), range(config.seeds)))

        def run(part: Sequence[tuple[int, int]], places: int) -> list[Correct]:
            own = [bases[base_seed] for base_seed, _ in part]
            parameters = self.members.stack(own, places=places).tree
            return self._evaluate(parameters, "test", part, places)

        most = self._most_places(equal_parts(len(pairs), config.chunk_members))
        correct = self.members.together.run("bases", pairs, run, most=most)
        return dict(zip(pairs, correct, strict=True))

    # Members.

    def finetune_chunk(self, chunk: Chunk, bases: list[Parameters]) -> list[Outcome]:
        """Fine-tune and measure the members of a chunk, in its order.

        They run in as few parts as the memory holds.

        Raises:
          OutOfMemoryError: see `experiments.sweep.together.Together.run`.
        """

        def run(members: Sequence[Member], places: int) -> list[Outcome]:
            return self._finetune(chunk.group, members, bases, places)

        def memory(places: int) -> int | None:
            (first,) = self._arguments(chunk.members[:1], bases)
            return self._memory(chunk.group, first, places)

        most = self._most_places(chunk.largest)
        return self.members.together.run(chunk.group, chunk.members, run, most=most, memory=memory)

    def _most_places(self, largest: int) -> int:
        """Places to stack members in, where a group has chunks of at most `largest`.

        `jax.lax.map` skips empty places, so that all groups share one evaluation.
        """
        return self.config.chunk_members if self.members.mapping == "map" else largest

    def _arguments(
        self, members: Sequence[Member], bases: list[Parameters]
    ) -> list[dict[str, Any]]:
        """Each member's base, data, fresh draws, learning rate and key."""
        arguments = []
        for member in members:
            drawn = self.draws.training_pool(member)
            key = jax.random.fold_in(self.draws.cell_key("optimise", member), member.data_size)
            num_examples = jnp.int32(self.draws.num_examples(member, drawn))
            arguments.append(
                {
                    "base": bases[member.base_seed],
                    "data": TrainingData(drawn.tokens, drawn.loss_mask, num_examples),
                    "fresh": self.draws.in_distribution_pool(member),
                    "learning_rate": np.float32(member.learning_rate),
                    "key": jax.random.key_data(key),
                }
            )
        return arguments

    def _memory(self, group: Group, first: dict[str, Any], places: int) -> int | None:
        """Bytes on each device of a group's program of so many places; the program is compiled.

        Args:
          group: its shapes.
          first: arguments of one member.
          places: members, in a multiple of the devices.
        """
        shapes = self.members.shapes(first, places=places)
        program = self._program(group.shapes)
        return program_memory(program.lower(shapes, np.int32(group.steps)).compile())

    def _finetune(
        self, group: Group, members: Sequence[Member], bases: list[Parameters], places: int
    ) -> list[Outcome]:
        """Fine-tune and measure members that are stacked in so many places."""
        config, count = self.config, len(members)
        # Fine-tune, then evaluate while the parameters are still on the devices. The stacked
        # arguments have no name, so that their memory is free by then.
        with self.phases("train"):
            parameters, *measured = jax.block_until_ready(
                self._program(group.shapes)(
                    self.members.stack(self._arguments(members, bases), places=places),
                    np.int32(group.steps),
                )
            )
        seeds = [(member.base_seed, member.seed) for member in members]
        test = self._evaluate(parameters, "test", seeds, places)
        validation = nothing = [None] * count
        if len(config.learning_rates) > 1:
            validation = self._evaluate(parameters, "validation", seeds, places)
        kept = self.members.unstack(parameters, count) if config.save_members else nothing
        # One outcome for each member.
        results = zip(self.members.unstack(measured, count), test, validation, kept, strict=True)
        return [Outcome(*own, *rest) for own, *rest in results]

    def finetuning(self, loss: Loss, steps: int, learning_rate: Array) -> FinetuneConfig:
        """The fine-tuning of a member, at a learning rate that may be traced."""
        return FinetuneConfig(steps, learning_rate, loss, self.config.optimiser)

    @functools.cached_property
    def _most_steps(self) -> dict[Shapes, int]:
        return most_steps(self.draws)

    def _program(self, shapes: Shapes):
        """A compiled fine-tuning, traced once; its arguments are members and a number of steps."""
        if shapes not in self._programs:
            # Looked up here, since the draws behind it cannot be traced.
            member = functools.partial(self._member, shapes, self._most_steps[shapes])
            self._programs[shapes] = jax.jit(self.members.over(member))
        return self._programs[shapes]

    def _member(
        self, shapes: Shapes, most: int, arguments: dict[str, Any], steps: Int[Array, ""]
    ) -> tuple:
        """Fine-tune one member and measure it on its own mixture: the code that is mapped."""
        self.traces[shapes] += 1  # when the program is traced, not when it runs
        config, data, fresh = self.config, arguments["data"], arguments["fresh"]
        parameters, losses = finetune(
            self.decoder,
            arguments["base"],
            data,
            self.finetuning(shapes.loss, most, arguments["learning_rate"]),
            jax.random.wrap_key_data(arguments["key"]),
            steps,
        )
        # One pass over training rows and fresh draws, so that the evaluation is compiled once.
        rows = min(config.risk_examples, len(data.tokens))
        correct = correct_examples(
            self.decoder,
            parameters,
            jnp.concatenate([data.tokens[:rows], fresh.tokens]),
            jnp.concatenate([data.loss_mask[:rows], fresh.loss_mask]),
        )
        train = correct[:rows], jnp.arange(rows) < data.num_examples
        return parameters, *train, correct[rows:], *_end_of_training(parameters, losses, steps)

    def _evaluate(
        self, parameters: Parameters, stream: str, seeds: Sequence[tuple[int, int]], places: int
    ) -> list[Correct]:
        """Evaluate members on test or validation draws.

        Args:
          parameters: of the members, on the devices.
          stream: ``test`` or ``validation``.
          seeds: base seed and seed of each member.
          places: that the parameters are stacked in.
        """
        if self._evaluation is None:
            member = functools.partial(_correct_in_pools, self.decoder)
            self._evaluation = jax.jit(self.members.over(member))
        pools = [self.draws.slice_pools(stream, *pair) for pair in seeds]
        drawn = self.members.stack(pools, places=places)
        both = Stacked((parameters, drawn.tree), drawn.is_used)
        with self.phases("evaluate"):
            return self.members.unstack(self._evaluation(both), len(seeds))


def _end_of_training(
    parameters: Parameters, losses: Float[Array, " most"], steps: Int[Array, ""]
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Mean loss of the last tenth of the steps, and whether it or a parameter is not finite."""
    index = jnp.arange(len(losses))
    is_last = (index >= steps - jnp.maximum(1, steps // 10)) & (index < steps)
    final_loss = losses.mean(where=is_last)
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters)]
    return final_loss, ~jnp.all(jnp.array([*finite, jnp.isfinite(final_loss)]))


def _correct_in_pools(
    decoder: DecoderConfig, member: tuple[Parameters, list[Pool]]
) -> list[Bool[Array, " examples"]]:
    """Evaluate one member on pools of its own: the code that is mapped."""
    parameters, drawn = member
    return [correct_examples(decoder, parameters, part.tokens, part.loss_mask) for part in drawn]
