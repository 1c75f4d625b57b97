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
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, PRNGKeyArray

from experiments.results import tidy
from synth.decoder import DecoderConfig, Parameters
from synth.finetune import FinetuneConfig, Loss, Schedule, TrainingData, finetune, pretrain
from synth.gaps import correct_examples, measure_gaps, risk
from synth.task import ArrayTask, Mixture, Pool, Task, pool, prompt_keys
from synth.tasks import make_task

MixtureKind = Literal["range", "exact", "window"]
DataUnit = Literal["examples", "tokens"]
ComputeUnit = Literal["steps", "epochs", "tokens"]
Mapping = Literal["auto", "map", "vmap"]
STREAMS = ("train", "in_distribution", "test", "validation", "optimise")


@dataclass(frozen=True)
class PretrainConfig:
    """How the bases are made.

    Attributes:
      hardest: bases are trained uniformly on difficulties 1 .. hardest, on fresh draws.
      steps, batch_size, learning_rate, weight_decay: of that training.
      max_risk: a base that errs more often than this on its own levels stops the sweep.
    """

    hardest: int = 4
    steps: int = 2500
    batch_size: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    max_risk: float = 0.5


@dataclass(frozen=True)
class SweepConfig:
    """A grid of fine-tunings of one task.

    Attributes:
      task: a name in `synth.tasks.TASKS`, or ``module:attribute`` for one's own.
      task_options: fields of the task; its `hardest` is set to `test_hardest`.
      decoder: shape of the model; `vocab_size` and `max_positions` are set from the task.
      pretrain: how the bases are made.
      mixtures: ``range`` trains on 1 .. d, ``exact`` on d alone, ``window`` on d - width .. d.
      window_width: width of ``window``, in levels.
      difficulties: hardest training level d of each cell, increasing.
      data_sizes: number of examples (or tokens, see `data_unit`) of each cell, increasing.
      data_unit: what `data_sizes` counts. A token budget buys the longest affordable prefix.
      compute: amount of training of each cell, in `compute_unit`.
      compute_unit: optimiser ``steps``, ``epochs`` over the cell's data, or ``tokens`` processed.
      losses: losses to compare.
      learning_rates: one value, or several to tune over: the one with the lowest mean risk on a
        validation draw from the test mixture is kept for each cell.
      batch_size, schedule, warmup, weight_decay, clip: of the fine-tuning.
      base_seeds: number of bases, each from its own initialisation and data.
      seeds: members for each cell and base; each draws its own data.
      master_seed: the only source of randomness of the whole sweep.
      test_hardest: test slices are the levels 1 .. test_hardest; at least 1.5 times the hardest
        training level, so that training on every test level cannot win by construction.
      test_examples: fresh test draws for each slice, base seed and seed.
      risk_examples: rows to measure train risk on (at most), and fresh draws for
        in-distribution risk.
      validation_examples: draws for each slice when learning rates are tuned.
      mapping: how members run inside a device; ``auto`` is ``map`` on CPUs and ``vmap`` elsewhere.
      chunk_members: members that run together; bounds the memory, and what a kill can lose.
      save_members: keep the parameters of every member.
      save_predictions: keep which examples every member got right.

    Raises:
      ValueError: if a field is out of range.
    """

    task: str = "chain-running"
    task_options: dict[str, int | float | bool | str] = field(default_factory=dict)
    decoder: DecoderConfig = field(default_factory=lambda: DecoderConfig(vocab_size=1))
    pretrain: PretrainConfig = PretrainConfig()
    mixtures: tuple[MixtureKind, ...] = ("range",)
    window_width: int = 2
    difficulties: tuple[int, ...] = (4, 6, 8, 10)
    data_sizes: tuple[int, ...] = (16, 128, 1024)
    data_unit: DataUnit = "examples"
    compute: float = 500.0
    compute_unit: ComputeUnit = "steps"
    losses: tuple[Loss, ...] = ("sft",)
    learning_rates: tuple[float, ...] = (1.5e-3,)
    batch_size: int = 32
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    base_seeds: int = 1
    seeds: int = 3
    master_seed: int = 0
    test_hardest: int = 18
    test_examples: int = 128
    risk_examples: int = 512
    validation_examples: int = 32
    mapping: Mapping = "auto"
    chunk_members: int = 8
    save_members: bool = False
    save_predictions: bool = False

    def __post_init__(self) -> None:
        choices = {
            "mixtures": MixtureKind,
            "losses": Loss,
        }
        for name, kind in choices.items():
            if not getattr(self, name) or set(getattr(self, name)) - set(get_args(kind)):
                raise ValueError(
                    f"{name} must be some of {get_args(kind)}, got {getattr(self, name)}"
                )
        for name, kind in {
            "data_unit": DataUnit,
            "compute_unit": ComputeUnit,
            "mapping": Mapping,
        }.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}"
                )
        for name in ("difficulties", "data_sizes"):
            values = getattr(self, name)
            if not values or min(values) < 1 or list(values) != sorted(set(values)):
                raise ValueError(
                    f"{name} must be distinct integers of at least 1, increasing; got {values}"
                )
        for name in (
            "base_seeds seeds test_examples risk_examples validation_examples batch_size "
            "chunk_members"
        ).split():
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rates or not all(rate > 0 for rate in self.learning_rates):
            raise ValueError(f"learning_rates must be positive, got {self.learning_rates}")
        if self.compute <= 0:
            raise ValueError(f"compute must be positive, got {self.compute}")
        if self.window_width < 0:
            raise ValueError(f"window_width must be at least 0, got {self.window_width}")
        if self.test_hardest < 1.5 * max(self.difficulties):
            raise ValueError(
                f"test_hardest must be at least 1.5 times the hardest difficulty "
                f"{max(self.difficulties)}, got {self.test_hardest}"
            )
        if not 1 <= self.pretrain.hardest <= self.test_hardest:
            raise ValueError(
                f"pretrain.hardest must be between 1 and test_hardest = {self.test_hardest}, "
                f"got {self.pretrain.hardest}"
            )

    @property
    def test_levels(self) -> range:
        """Difficulty of each test slice."""
        return range(1, self.test_hardest + 1)

    def mixture(self, kind: MixtureKind, difficulty: int) -> Mixture:
        """Training mixture of a cell."""
        if kind == "window":
            return Mixture.window(difficulty, width=self.window_width)
        return Mixture.exact(difficulty) if kind == "exact" else Mixture.up_to(difficulty)

    @property
    def num_members(self) -> int:
        """Members of the whole grid."""
        axes = (self.mixtures, self.difficulties, self.data_sizes, self.losses, self.learning_rates)
        return self.base_seeds * self.seeds * math.prod(len(axis) for axis in axes)

    @property
    def compute_name(self) -> str:
        """Compute of each cell as it stands in the table."""
        return f"{self.compute:g} {self.compute_unit}"


@dataclass(frozen=True)
class Member:
    """One fine-tuned model: a cell at one base seed and one seed."""

    base_seed: int
    seed: int
    mixture: MixtureKind
    difficulty: int
    data_size: int
    loss: Loss
    learning_rate: float

    @property
    def name(self) -> str:
        """All fields in one word, as a file name."""
        return "_".join(str(value) for value in dataclasses.astuple(self))


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

    def __init__(self, config: SweepConfig, *, task: Task | None = None, bucket: int = 6):
        self.config = config
        self.task = task or make_task(config.task, config.task_options, hardest=config.test_hardest)
        if self.task.hardest < config.test_hardest:
            raise ValueError(
                f"task {self.task.name!r} reaches difficulty {self.task.hardest}, "
                f"the sweep tests up to test_hardest = {config.test_hardest}"
            )
        self.decoder = dataclasses.replace(
            config.decoder,
            vocab_size=len(self.task.vocabulary),
            max_positions=self.task.max_length(config.test_hardest),
        )
        levels = list(config.test_levels)
        # Slices of similar length are evaluated together, so that easy ones are not padded to the
        # length of the hardest.
        self.buckets = [levels[i : i + bucket] for i in range(0, len(levels), bucket)]
        self.mesh = jax.make_mesh(
            (jax.local_device_count(),), ("members",), axis_types=(AxisType.Auto,)
        )
        self.traces: Counter[Group] = Counter()
        self._programs: dict[Group, Any] = {}
        self._evaluation: Any = None
        self._pools: dict[tuple, Any] = {}

    # ---------------------------------------------------------------- plan

    @cached_property
    def members(self) -> list[Member]:
        """Every member; seeds vary slowest, so that early chunks cover whole curves."""
        config = self.config
        return [
            Member(*member)
            for member in itertools.product(
                range(config.base_seeds),
                range(config.seeds),
                config.mixtures,
                config.difficulties,
                config.data_sizes,
                config.losses,
                config.learning_rates,
            )
        ]

    def group(self, member: Member) -> Group:
        """The compiled program that a member runs in."""
        config = self.config
        mixture = config.mixture(member.mixture, member.difficulty)
        tokens = self.mean_tokens(mixture)
        examples = member.data_size / (tokens if config.data_unit == "tokens" else 1)
        processed = {
            "steps": config.compute * config.batch_size,
            "epochs": config.compute * examples,
            "tokens": config.compute / tokens,
        }[config.compute_unit]
        largest = max(config.data_sizes)
        if config.data_unit == "tokens":
            largest = math.ceil(1.5 * largest / tokens) + 16
        return Group(
            length=self.task.max_length(member.difficulty),
            steps=max(1, math.ceil(processed / config.batch_size)),
            rows=largest,
            loss=member.loss,
        )

    def mean_tokens(self, mixture: Mixture) -> float:
        """Mean length of an example in tokens, from 256 draws."""
        key = ("tokens", mixture)
        if key not in self._pools:
            drawn = pool(self.task, jax.random.fold_in(self._master, 2), mixture, 256)
            self._pools[key] = float(np.mean(drawn.num_tokens))
        return self._pools[key]

    def plan(self) -> list[Chunk]:
        """Chunks in the order in which they run: groups take turns."""
        queues: dict[Group, list[Chunk]] = {}
        by_group: dict[Group, list[Member]] = {}
        for member in self.members:
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

    # ---------------------------------------------------------------- data

    @property
    def _master(self) -> PRNGKeyArray:
        return jax.random.key(self.config.master_seed)

    def stream(self, name: str, base_seed: int, seed: int) -> PRNGKeyArray:
        """The key of one purpose for one base seed and seed; streams never overlap."""
        members = jax.random.fold_in(self._master, 1)
        key = jax.random.fold_in(jax.random.fold_in(members, base_seed), seed)
        return jax.random.fold_in(key, STREAMS.index(name))

    def _cell_key(self, name: str, member: Member) -> PRNGKeyArray:
        key = self.stream(name, member.base_seed, member.seed)
        key = jax.random.fold_in(key, get_args(MixtureKind).index(member.mixture))
        return jax.random.fold_in(key, member.difficulty)

    def training_pool(self, member: Member) -> Pool:
        """The pool whose prefix a member trains on: one for all data sizes of its cell."""
        group = self.group(member)
        return self._pool("train", member, group.rows, group.length)

    def in_distribution_pool(self, member: Member) -> Pool:
        """Fresh draws from a member's own training mixture."""
        group = self.group(member)
        return self._pool("in_distribution", member, self.config.risk_examples, group.length)

    def _pool(self, stream: str, member: Member, rows: int, length: int) -> Pool:
        mixture = self.config.mixture(member.mixture, member.difficulty)
        return pool(self.task, self._cell_key(stream, member), mixture, rows, length=length)

    def slice_pools(self, stream: str, base_seed: int, seed: int) -> list[Pool]:
        """Test or validation draws: for each bucket, its slices one after the other."""
        config, key = self.config, (stream, base_seed, seed)
        examples = config.test_examples if stream == "test" else config.validation_examples
        if key not in self._pools:
            root = self.stream(stream, base_seed, seed)
            self._pools[key] = [
                jax.tree.map(
                    lambda *parts: jnp.concatenate(parts),
                    *[
                        pool(
                            self.task,
                            jax.random.fold_in(root, level),
                            Mixture.exact(level),
                            examples,
                            length=self.task.max_length(bucket[-1]),
                        )
                        for level in bucket
                    ],
                )
                for bucket in self.buckets
            ]
        return self._pools[key]

    def num_examples(self, member: Member, drawn: Pool) -> int:
        """Examples a member trains on: its data size, or what its token budget buys.

        Raises:
          ValueError: if the budget does not buy one example.
        """
        if self.config.data_unit == "examples":
            return member.data_size
        spent = np.cumsum(np.asarray(drawn.num_tokens))
        bought = int(np.searchsorted(spent, member.data_size, side="right"))
        if bought == 0:
            raise ValueError(
                f"data_sizes holds a budget of {member.data_size} tokens, too small for one "
                f"example at difficulty {member.difficulty} ({spent[0]} tokens)"
            )
        return bought

    # ---------------------------------------------------------------- programs

    def _mapped(self, function):
        """`function` over the leading axis of its arguments: sharded, then mapped."""
        mapping = self.config.mapping
        if mapping == "auto":
            mapping = "map" if jax.default_backend() == "cpu" else "vmap"

        def local(arguments):
            if mapping == "map":
                return jax.lax.map(function, arguments)
            return jax.vmap(function)(arguments)

        spec = PartitionSpec("members")
        return jax.shard_map(
            local, mesh=self.mesh, in_specs=(spec,), out_specs=spec, check_vma=False
        )

    def _stack(self, trees: list, *, size: int = 0):
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
        length = self.task.max_length(pretraining.hardest)
        config = FinetuneConfig(
            steps=pretraining.steps,
            batch_size=pretraining.batch_size,
            learning_rate=pretraining.learning_rate,
            weight_decay=pretraining.weight_decay,
        )
        root = jax.random.fold_in(self._master, 0)
        keys = [jax.random.key_data(jax.random.fold_in(root, seed)) for seed in base_seeds]
        task = self.task
        if isinstance(task, ArrayTask):
            log_probabilities = mixture.log_probabilities(task.hardest)

            def sample(key):
                key_difficulty, key_example = jax.random.split(key)
                difficulty = 1 + jax.random.categorical(key_difficulty, log_probabilities)
                example = task.sample(key_example, difficulty)
                return example.tokens[:length], example.loss_mask[:length]

        else:
            # Text is drawn on the host: a large pool stands in for fresh draws.
            rows = pretraining.steps * pretraining.batch_size
            drawn = pool(task, jax.random.fold_in(root, len(keys)), mixture, rows)

            def sample(key):
                row = jax.random.randint(key, (), 0, rows)
                return drawn.tokens[row], drawn.loss_mask[row]

        def base(key):
            return pretrain(self.decoder, sample, config, jax.random.wrap_key_data(key))[0]

        return _unstack(jax.jit(self._mapped(base))(self._stack(keys)), len(keys))

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
            parameters = self._stack([bases[base_seed] for base_seed, _ in part], size=size)
            outcomes += self._evaluate(parameters, "test", part)
        rows = []
        for (base_seed, seed), outcome in zip(pairs, outcomes, strict=True):
            slices = self.by_slice(outcome)
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
                    "value": float(np.mean([risk(correct) for correct in slices])),
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
            drawn = self.training_pool(member)
            key = jax.random.fold_in(self._cell_key("optimise", member), member.data_size)
            arguments.append(
                {
                    "base": bases[member.base_seed],
                    "data": TrainingData(
                        drawn.tokens,
                        drawn.loss_mask,
                        np.int32(self.num_examples(member, drawn)),
                    ),
                    "fresh": self.in_distribution_pool(member),
                    "learning_rate": np.float32(member.learning_rate),
                    "key": jax.random.key_data(key),
                }
            )
        parameters, *trained = self._program(chunk.group)(
            self._stack(arguments, size=config.chunk_members)
        )
        seeds = [(member.base_seed, member.seed) for member in chunk.members]
        test = self._evaluate(parameters, "test", seeds)
        tuned = len(config.learning_rates) > 1
        validation = self._evaluate(parameters, "validation", seeds) if tuned else None
        kept = _unstack(parameters, len(seeds)) if config.save_members else None
        outcomes = [
            Outcome(
                *measured,
                test=test[index],
                validation=validation[index] if validation else None,
                parameters=kept[index] if kept else None,
            )
            for index, measured in enumerate(_unstack(trained, len(seeds)))
        ]
        rows = [
            row
            for member, outcome in zip(chunk.members, outcomes, strict=True)
            for row in self._rows(member, outcome)
        ]
        return tidy(rows), outcomes

    def _program(self, group: Group):
        """The compiled fine-tuning of a group, traced once."""
        if group not in self._programs:
            mapped = self._mapped(lambda arguments: self._member(group, arguments))

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
            FinetuneConfig(
                steps=group.steps,
                batch_size=config.batch_size,
                learning_rate=arguments["learning_rate"],
                schedule=config.schedule,
                warmup=config.warmup,
                weight_decay=config.weight_decay,
                clip=config.clip,
                loss=group.loss,
            ),
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

    def _evaluate(
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

            self._evaluation = jax.jit(self._mapped(evaluate))
        drawn = self._stack(
            [self.slice_pools(stream, *pair) for pair in seeds], size=self.config.chunk_members
        )
        return _unstack(self._evaluation((parameters, drawn)), len(seeds))

    def _correct(self, parameters: Parameters, tokens: Array, loss_mask: Array) -> Array:
        return correct_examples(self.decoder, parameters, tokens, loss_mask)

    # ---------------------------------------------------------------- rows

    def by_slice(self, buckets: list[np.ndarray]) -> list[np.ndarray]:
        """Results of each test slice from those of each bucket."""
        return [
            part
            for bucket, correct in zip(self.buckets, buckets, strict=True)
            for part in np.split(np.asarray(correct), len(bucket))
        ]

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
        slices = self.by_slice(outcome.test)
        unseen = self._unseen(member)
        gaps = measure_gaps(train, outcome.in_distribution, slices)
        fresh, tested = outcome.in_distribution.size, sum(part.size for part in slices)
        novel = [part[new] for part, new in zip(slices, unseen, strict=True)]
        novel_risks = [risk(part) for part in novel]
        metrics: list[tuple[int | None, str, float, int]] = [
            (None, "train_risk", gaps.train_risk, train.size),
            (None, "in_distribution_risk", gaps.in_distribution_risk, fresh),
            (None, "test_risk", gaps.test_risk, tested),
            (None, "generalization_gap", gaps.generalization_gap, fresh),
            (None, "extrapolation_gap", gaps.extrapolation_gap, tested),
            (
                None,
                "test_risk_novel",
                float(np.mean([value for value in novel_risks if not math.isnan(value)])),
                sum(part.size for part in novel),
            ),
            (None, "final_loss", float(outcome.final_loss), train.size),
        ]
        for level, part, new, value in zip(
            config.test_levels, slices, unseen, novel_risks, strict=True
        ):
            metrics.append((level, "risk", risk(part), part.size))
            metrics.append((level, "risk_novel", value, int(new.sum())))
            metrics.append((level, "overlap", float(np.mean(~new)), part.size))
        if outcome.validation is not None:
            validation = [risk(part) for part in self.by_slice(outcome.validation)]
            size = len(validation) * config.validation_examples
            metrics.append((None, "validation_risk", float(np.mean(validation)), size))
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

    def _unseen(self, member: Member) -> list[np.ndarray]:
        """For each test slice, which of its problems are not among the member's training data."""
        drawn = self.training_pool(member)
        trained = self.num_examples(member, drawn)
        seen = set(prompt_keys(jax.tree.map(lambda leaf: leaf[:trained], drawn)))
        tests = self.slice_pools("test", member.base_seed, member.seed)
        return self.by_slice(
            [np.array([key not in seen for key in prompt_keys(part)]) for part in tests]
        )


def _unstack(stacked: Any, count: int) -> list[Any]:
    """The first `count` trees along the leading axis, on the host."""
    host = jax.device_get(stacked)
    return [jax.tree.map(lambda leaf, index=index: leaf[index], host) for index in range(count)]


def tune(table: pd.DataFrame) -> pd.DataFrame:
    """Mark the members of every learning rate but the best of each cell as ``not_selected``.

    The best rate has the lowest mean validation risk over the cell's members; a rate with a
    diverged member is not chosen while another is left.
    """
    if "validation_risk" not in set(table["metric"]):
        return table
    cell = ["train_mixture", "loss", "difficulty", "data_size"]
    validation = table[table["metric"] == "validation_risk"]
    means = (
        validation.groupby([*cell, "learning_rate"])["value"]
        .agg(lambda values: values.mean(skipna=False))
        .fillna(np.inf)
        .reset_index()
    )
    best = means.loc[means.groupby(cell)["value"].idxmin()].set_index(cell)["learning_rate"]
    chosen = table.join(best.rename("chosen"), on=cell)["chosen"]
    lost = chosen.notna() & (chosen != table["learning_rate"])
    return table.assign(
        status=table["status"].mask(lost & (table["status"] == "ok"), "not_selected")
    )
