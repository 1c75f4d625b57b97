"""Configurations of certificates: of the members of a sweep, and of a real checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, get_args

from experiments.sweep.grid import MixtureKind, SweepConfig
from synth.arguments import check_least, check_number, check_seed, check_some, check_whole
from synth.config import Dtype, Execution, Kernel, Lora
from theory.config import PosteriorConfig

DEVELOPMENT_SEED = 7919
"""Master seed at which `BLOCK_SETTINGS` was tuned; a sweep with it is refused: settings must not
have been chosen on the sample that they certify."""

POINT_METHODS = ("base", "test-set", "held-out", "candidates")


@dataclass(frozen=True)
class BlockSettings:
    """Settings of the posterior over a block, tuned at `DEVELOPMENT_SEED`."""

    prior_scale: float
    posterior: PosteriorConfig


BLOCK_SETTINGS = {
    "gains": BlockSettings(0.01, PosteriorConfig()),
    "lora": BlockSettings(0.05, PosteriorConfig(draws=8, learning_rate=1.5)),
    "gains-biases": BlockSettings(0.1, PosteriorConfig()),
    "subspace": BlockSettings(0.1, PosteriorConfig(draws=4, learning_rate=1.0)),
    "full": BlockSettings(0.005, PosteriorConfig(draws=2, learning_rate=1.0)),
}


MOST_CANDIDATES, MOST_DRAWS = 10_000, 10**8
"""Fine-tunings of a cell and Monte Carlo draws that may be asked for: far more than help."""


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie in (0, 1), got {delta}")


@dataclass(frozen=True)
class MembersConfig:
    """Certificates of a sweep's members: the cells and their confidence.

    Attributes:
      delta: probability that any of all certificates of the run fails.
      methods: which predictors, see `experiments.certify.members`.
      mixture: training mixture of the cells; one of the sweep's.
      difficulties, data_sizes: cells; default all of the sweep.
      trained_difficulties: cells for which posteriors are trained; default all of the above.
      base_seeds, seeds: members of each cell.
      num_candidates: fine-tunings for ``candidates``, at least 2.
      num_draws: Monte Carlo draws (weights and example) behind a Gibbs risk.
      master_seed: draws samples and tests anew from this seed, while bases and learning rates stay
        those of the sweep; default: the sweep's own. A sweep that tuned its rates needs another
        one, since the rates must not have been chosen on the sample that is certified.

    Raises:
      ValueError: if a field is out of range.
    """

    delta: float = 0.05
    methods: tuple[str, ...] = (*POINT_METHODS, "gains", "lora")
    mixture: MixtureKind = "range"
    difficulties: tuple[int, ...] | None = None
    data_sizes: tuple[int, ...] | None = None
    trained_difficulties: tuple[int, ...] | None = None
    base_seeds: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    num_candidates: int = 3
    num_draws: int = 12_288
    master_seed: int | None = None

    def __post_init__(self) -> None:
        check_some(self, "methods", (*POINT_METHODS, *BLOCK_SETTINGS))
        if self.master_seed is not None:
            check_seed(self, "master_seed")
        _check_delta(self.delta)
        check_least(self, 2, "num_candidates", most=MOST_CANDIDATES)
        check_least(self, 1, "num_draws", most=MOST_DRAWS)
        for name in ("difficulties", "data_sizes", "trained_difficulties", "base_seeds", "seeds"):
            for value in getattr(self, name) or ():
                check_whole(name, value, 0)

    def drawn(self, sweep: SweepConfig) -> SweepConfig:
        """The sweep with the master seed that samples and tests are drawn from."""
        seed = sweep.master_seed if self.master_seed is None else self.master_seed
        return dataclasses.replace(sweep, master_seed=seed)

    def fitted(self, sweep: SweepConfig) -> MembersConfig:
        """With defaults filled in from a sweep.

        Raises:
          ValueError: if a cell or seed is not one of the sweep's, or cannot be certified.
        """
        # Fill in the defaults, and accept only cells and seeds of the sweep.
        difficulties = self.difficulties or sweep.difficulties
        filled = dataclasses.replace(
            self,
            difficulties=difficulties,
            data_sizes=self.data_sizes or sweep.data_sizes,
            trained_difficulties=difficulties
            if self.trained_difficulties is None
            else self.trained_difficulties,
        )
        accepted: dict[str, Any] = {
            "difficulties": sweep.difficulties,
            "trained_difficulties": difficulties,
            "data_sizes": sweep.data_sizes,
            "base_seeds": range(sweep.base_seeds),
            "seeds": range(sweep.seeds),
        }
        for name, values in accepted.items():
            asked = getattr(filled, name)
            if wrong := sorted(set(asked) - set(values)):
                raise ValueError(f"{name} must be some of {list(values)}, got {wrong}")
            if len(set(asked)) < len(asked):
                raise ValueError(f"{name} must be distinct, got {asked}")
        if self.mixture not in sweep.mixtures:
            raise ValueError(f"mixture must be one of {sweep.mixtures}, got {self.mixture!r}")
        # Refuse sweeps whose cells differ in sample size, or were tuned on the sample.
        if sweep.data_unit != "examples":
            raise ValueError(
                "data_unit of the sweep must be 'examples': a token budget makes the number of "
                f"examples depend on them, got {sweep.data_unit!r}"
            )
        seed = self.drawn(sweep).master_seed
        if len(sweep.learning_rates) > 1 and seed == sweep.master_seed:
            raise ValueError(
                "master_seed must not be the sweep's, because it chose its learning rates, "
                f"{sweep.learning_rates}, by members that had trained on all of S; got {seed}"
            )
        if min(filled.data_sizes or ()) < 2:
            raise ValueError(
                f"data_sizes must be at least 2, to be halved; got {filled.data_sizes}"
            )
        if self.num_draws < max(filled.data_sizes or ()):
            raise ValueError(
                f"num_draws must be at least the largest data size, so that every example is "
                f"drawn; got {self.num_draws}"
            )
        if seed == DEVELOPMENT_SEED:
            raise ValueError(
                f"master_seed {DEVELOPMENT_SEED} is the one that settings were tuned at; certify "
                f"another"
            )
        return filled


DEFAULT_CERTIFICATES = MembersConfig()

CHECKPOINT_POINTS = {"checkpoint": "clopper_pearson", "held-out": "pac_bayes_kl"}
"""Theorem behind each method about the checkpoint itself, which is a point mass."""

CHECKPOINT_BLOCKS = ("gains", "lora", "subspace")

CHECKPOINT_POSTERIOR = PosteriorConfig(draws=8, learning_rate=1.5)
"""The same settings as the simulator's for ``lora``."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Certificates of a real checkpoint: the samples and their confidence.

    Attributes:
      delta: probability that any of all certificates of the run fails.
      methods: which predictors, see `experiments.certify.checkpoints`.
      data_sizes: numbers of problems n; a smaller sample is the beginning of a larger one.
      prior_scales: scales of the prior's coordinates; each is tried, and the best bound reported
        and charged for their number.
      posterior: how a posterior is trained.
      rank, kernels: of the adapters, for ``lora`` and ``subspace``.
      subspace_size: coordinates of ``subspace``.
      num_draws: Monte Carlo draws (weights and problem) behind a Gibbs risk.
      num_fresh: problems of each difficulty, beyond the sample, on which risks are measured, at
        most.
      seed: of the order of the problems, and of all draws.
      dtype: type of weights and activations; a posterior's coordinates are in float32.
      chunk_tokens: tokens of a sequence whose logits are held at once.
      draws_at_once: sequences in a forward pass.

    Raises:
      ValueError: if a field is out of range.
    """

    delta: float = 0.05
    methods: tuple[str, ...] = ("checkpoint", "held-out", "lora", "subspace")
    data_sizes: tuple[int, ...] = (256, 1024)
    prior_scales: tuple[float, ...] = (0.02, 0.1, 0.5)
    posterior: PosteriorConfig = CHECKPOINT_POSTERIOR
    rank: int = 1
    kernels: tuple[Kernel, ...] = get_args(Kernel)
    subspace_size: int = 200
    num_draws: int = 12_288
    num_fresh: int = 256
    seed: int = 0
    dtype: Dtype = "float32"
    chunk_tokens: int = 64
    draws_at_once: int = 16

    def __post_init__(self) -> None:
        for name in ("methods", "data_sizes", "prior_scales"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be distinct, at least one, got {values}")
        check_some(self, "methods", tuple(CHECKPOINT_POINTS) + CHECKPOINT_BLOCKS)
        _check_delta(self.delta)
        for value in self.data_sizes:
            check_whole("data_sizes", value, 1)
        for value in self.prior_scales:
            check_number("prior_scales", value)
        if not min(self.prior_scales) > 0:
            raise ValueError(f"prior_scales must be positive, got {self.prior_scales}")
        check_least(self, 1, "subspace_size", "num_fresh", "chunk_tokens", "draws_at_once")
        check_least(self, 1, "num_draws", most=MOST_DRAWS)
        if self.num_draws < max(self.data_sizes):
            raise ValueError(
                f"num_draws must be at least the largest data size, so that every problem is "
                f"drawn; got {self.num_draws}"
            )
        check_seed(self, "seed")
        # Their constructors refuse a value that is out of range.
        Execution(self.dtype)
        Lora(self.rank, alpha=self.rank, kernels=self.kernels)


DEFAULT_CHECKPOINT = CheckpointConfig()
