"""Certify a real checkpoint: risk bounds from problems that it has not been trained on.

The risk is that of the 0-1 loss of a whole solution: 1 unless the reference solution is the most
likely token at each of its places, end marker included, given the reference before it. The loss
is 0 exactly if greedy decoding reproduces the reference (up to the rounding of the two programs).
On text with several right solutions it is stricter than a grader: a grader's accuracy is higher
than one minus the risk.

For each difficulty and number n of problems these predictors are certified, for the risk on further
problems of that difficulty:

- ``checkpoint``: the checkpoint as it is, tested on all n (Clopper-Pearson).
- ``held-out``: the checkpoint as prior and posterior of PAC-Bayes-kl, at a KL of zero. This is a
  test-set bound, slightly looser; PAC-Bayes deserves no credit for it.
- ``gains``, ``lora``, ``subspace``: a Gaussian over norm gains, over the second factor of adapters,
  or over a random subspace of that factor's coordinates (SubLoRA: Lotfi et al. 2024, arXiv
  2312.17173), its prior at the checkpoint, trained on all n by the bound itself. The certificate is
  about draws of these weights, not about any one fine-tuned checkpoint. For each prior scale,
  training reads ``steps × batch_size`` problems forward and backward, the bound reads `num_draws`
  forward.

**Valid when** everything but the posterior was fixed before the problems were looked at: the
checkpoint (no training on them, no choice among checkpoints by them), the edges of the difficulty
levels, and the configuration; and the problems are independent draws from the distribution that the
bound is about (without problems that `experiments.llm.text.encoding.encode` drops as too long).
A checkpoint that was fine-tuned on one part of a data set may be certified on another. Rows
that it was trained on must be named, and are refused; that it never saw a problem in pre-training
cannot be checked here. All prior scales that are tried share delta. So do all certificates of a
run, equally; another run on the same problems spends delta anew.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from experiments.certify.arrange import Level, arrange, check_rows
from experiments.certify.config import (
    CHECKPOINT_BLOCKS,
    CHECKPOINT_POINTS,
    DEFAULT_CHECKPOINT,
    CheckpointConfig,
)
from experiments.certify.exact_match import example_loss
from experiments.certify.points import PointPredictor
from experiments.certify.posteriors import (
    FRESH_DRAWS,
    certify_gaussian,
    checkpoint_posterior,
    halved,
    penalty,
)
from experiments.certify.rows import Row, certificate_row, path_rows
from experiments.certify.study import POINTS, POSTERIORS, Certification
from experiments.certify.workload import CheckpointWorkload, Fit
from experiments.engine.run import Executor, in_this_process, run_study
from experiments.engine.study import Part
from experiments.engine.workload import Workload
from experiments.llm.text.encoding import Encoded
from experiments.storage import checkpoint
from experiments.storage.config import Devices
from synth.config import DecoderConfig, Execution
from synth.decoder import Parameters
from theory.certificate import BOUND, Certificate, Ledger

ONE_DEVICE = Devices()


FEW_STEPS, FEW_DRAWS = 4, 16
"""Steps and draws of a posterior that is timed for a plan."""


def certify_checkpoint(
    path_or_id: checkpoint.PathLike,
    samples: Mapping[int, Encoded],
    out: Path,
    config: CheckpointConfig = DEFAULT_CHECKPOINT,
    *,
    rows_trained_on: Iterable[int],
    task: str = "problems",
    devices: Devices = ONE_DEVICE,
    executor: Executor = in_this_process,
) -> pd.DataFrame:
    """Certify a checkpoint, or Gaussians around it, on problems that it was not trained on.

    Writes ``certificates.parquet`` and, if a posterior is trained, ``complexity.parquet`` into
    `out`; finished parts are kept there and not made again.

    Args:
      path_or_id: see `experiments.storage.checkpoint.load`.
      samples: encoded problems of each difficulty, all of one problem set; from each, as many as
        `data_sizes` states are drawn at random as the sample, and others as fresh problems.
      out: directory of the run.
      config: methods, sizes and settings.
      rows_trained_on: rows of the same problem set that the checkpoint was fine-tuned on, as the
        manifest of the fine-tuning lists them; empty if it was fine-tuned on none.
      task: name of the problem set.
      devices: how many devices of one process to spread the checkpoint over.
      executor: runs the parts, see `run_study`.

    Returns:
      One row per certificate: the cell, the fields of `theory.certificate.Certificate`, and
        gibbs_risk, num_fresh: the certified predictor's risk on fresh problems of the difficulty,
          and their number (four draws of the weights for each problem, if drawn).
        plain_risk, base_risk: the checkpoint's own risk there.
        test_risk and others: see `experiments.certify.rows.on_the_test`; the test mixture here is
          fresh problems of all difficulties in `samples`.

    Raises:
      FileNotFoundError, ValueError: if the checkpoint cannot be read, a problem was trained on or
        occurs twice, a difficulty has too few problems, or one cannot be read by the checkpoint.
      ResultsError: if `out` holds something else.
    """
    study = certification(
        path_or_id,
        samples,
        out,
        config,
        rows_trained_on=rows_trained_on,
        task=task,
        devices=devices,
    )
    return run_study(study, executor=executor)["certificates"]


def certification(
    path_or_id: checkpoint.PathLike,
    samples: Mapping[int, Encoded],
    out: Path,
    config: CheckpointConfig = DEFAULT_CHECKPOINT,
    *,
    rows_trained_on: Iterable[int],
    task: str = "problems",
    devices: Devices = ONE_DEVICE,
) -> CheckpointCertification:
    """The study that `certify_checkpoint` runs; the arguments are the same.

    Raises:
      FileNotFoundError, ValueError: see `certify_checkpoint`.
    """
    check_rows(samples, rows_trained_on)
    levels = arrange(
        samples,
        checkpoint.read_config(path_or_id),
        largest=max(config.data_sizes),
        num_fresh=config.num_fresh,
        seed=config.seed,
    )
    return CheckpointCertification(path_or_id, levels, Path(out), config, task, devices)


class CheckpointCertification(Certification):
    """Certificates for one checkpoint: of itself, and of Gaussians over blocks of its weights."""

    def __init__(
        self,
        path_or_id: checkpoint.PathLike,
        levels: dict[int, Level],
        directory: Path,
        config: CheckpointConfig,
        task: str,
        devices: Devices,
    ):
        """Plan the parts; the arguments are those of `certify_checkpoint`, problems arranged."""
        self.directory, self.config = directory, config
        self._path_or_id, self._levels, self._task = path_or_id, levels, task
        self._devices = devices
        self._cells = list(itertools.product(levels, config.data_sizes))
        self._place = {level: place for place, level in enumerate(levels)}
        self._points = [method for method in config.methods if method in CHECKPOINT_POINTS]
        # The method, difficulty and data size of each trained posterior.
        self._trained = {
            f"{method}_{level}_{size}": (method, level, size)
            for method in config.methods
            if method in CHECKPOINT_BLOCKS
            for level, size in self._cells
        }
        self.parts = [
            *([Part("points", "certifying points", POINTS)] if self._points else []),
            *(Part(name, f"certifying {name}", POSTERIORS) for name in self._trained),
        ]
        self.ledger = Ledger(config.delta, num_cells=len(config.methods) * len(self._cells))
        self._programs: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}

    @property
    def identity(self) -> Row:
        """The checkpoint, the problems, the configuration, and the account of delta."""
        path = self._path_or_id
        return {
            "checkpoint": {"name": str(path), "sha256": checkpoint.digest(path)},
            "samples": {str(level): each.digest() for level, each in self._levels.items()},
            "certify": dataclasses.asdict(self.config),
            "ledger": str(self.ledger),
        }

    def part_rows(self, part: Part) -> tuple[list[Row], list[Row]]:
        """Rows of one part in the tables ``certificates`` and ``complexity``."""
        if part.name in self._trained:
            return self._certify_posterior(*self._trained[part.name])
        return self._certify_points(), []

    def workload(self) -> Workload:
        """Posteriors and draws of each part."""
        mesh = self._devices.mesh()
        shapes = {level: each.tokens.shape for level, each in self._levels.items()}
        return CheckpointWorkload(
            checkpoint.read_config(self._path_or_id),
            self.config,
            {level: (length, number) for level, (number, length) in shapes.items()},
            self._trained,
            self._few_steps,
            1 if mesh is None else mesh.devices.size,
        )

    def _few_steps(self, method: str, level: int) -> Fit:
        return few_steps(*self._model, self.config, method, self._levels[level])

    def shared(self, parts: Sequence[Part]) -> Row:
        """The folder of the checkpoint."""
        return {"_folder": self._folder}

    # The checkpoint itself.

    @functools.cached_property
    def _folder(self) -> Path:
        return checkpoint.folder(self._path_or_id)

    @functools.cached_property
    def _model(self) -> tuple[DecoderConfig, Parameters]:
        """The checkpoint, read at its first use."""
        dtype, mesh = self.config.dtype, self._devices.mesh()
        decoder, parameters = checkpoint.load(self._folder, mesh=mesh, dtype=dtype)
        execution = Execution(dtype, remat=True)
        return dataclasses.replace(decoder, execution=execution), parameters

    @functools.cached_property
    def _wrong(self) -> dict[int, Bool[np.ndarray, " rows"]]:
        """Mark, for each difficulty, the problems that the checkpoint gets wrong."""
        return wrong_answers(*self._model, self.config, self._levels)

    @functools.cached_property
    def _plain_risks(self) -> Float[np.ndarray, " levels"]:
        """The checkpoint's risk on the fresh problems of each difficulty."""
        parts = [self._wrong[level][-each.num_fresh :] for level, each in self._levels.items()]
        return np.array([part.mean() for part in parts])

    def _certify_points(self) -> list[Row]:
        """Certify the checkpoint itself in every cell."""
        ledger = self.ledger.spend(BOUND, self.ledger.left)
        rows = []
        for method, (level, size) in itertools.product(self._points, self._cells):
            predictor = PointPredictor(
                bound=CHECKPOINT_POINTS[method],
                empirical_risk=float(self._wrong[level][:size].mean()),
                num_examples=size,
                risk=float(self._plain_risks[self._place[level]]),
                slice_risks=self._plain_risks,
                prior="the checkpoint",
            )
            certificate = predictor.certificate(ledger, seed=self.config.seed, method=method)
            rows.append(self._row(level, size, certificate, predictor.slice_risks))
        return rows

    # Posteriors over a block.

    def _certify_posterior(self, method: str, level: int, size: int) -> tuple[list[Row], list[Row]]:
        """Train a Gaussian over a block at each prior scale, and certify the best."""
        config, (decoder, parameters) = self.config, self._model
        if method not in self._programs:
            self._programs[method] = checkpoint_posterior(decoder, method, config)
        fit, measure = self._programs[method]
        ledger = halved(self.ledger, grid=len(config.prior_scales))
        key = jax.random.key(config.seed)
        for number in (CHECKPOINT_BLOCKS.index(method), level, size):
            key = jax.random.fold_in(key, number)
        sample, number = self._levels[level].sample, jnp.int32(size)
        added = jnp.float32(penalty(ledger, size))
        # Each prior scale gets a posterior and its share of delta.
        tried = []
        for index, scale in enumerate(config.prior_scales):
            own = jax.random.fold_in(key, index)
            posterior, errors = jax.device_get(
                fit(parameters, sample, jnp.float32(scale), number, added, own)
            )
            certificate = certify_gaussian(
                posterior,
                errors,
                num_examples=size,
                ledger=ledger,
                prior=f"N(checkpoint, {scale:g}² I) on {method}",
                seed=config.seed,
                method=method,
            )
            tried.append((certificate, posterior))
        certificate, posterior = min(tried, key=lambda pair: pair[0].risk_bound)
        # Measure the best one on fresh problems of every difficulty.
        fresh = jax.tree.map(
            lambda *arrays: np.stack(arrays), *(each.fresh for each in self._levels.values())
        )
        own = jax.random.fold_in(key, len(config.prior_scales))
        path, wrong = measure(parameters, posterior, sample, fresh, number, own)
        row = self._row(level, size, certificate, np.asarray(wrong).mean(axis=1))
        return [row], path_rows(self._cell(level, size), method, path)

    # Rows.

    def _cell(self, level: int, size: int) -> Row:
        return {
            "task": self._task,
            "base": Path(self._path_or_id).name,
            "base_seed": 0,
            "cell_seed": self.config.seed,
            "train_mixture": "exact",
            "difficulty": level,
            "data_size": size,
        }

    def _row(
        self,
        level: int,
        size: int,
        certificate: Certificate,
        slice_risks: Float[np.ndarray, " levels"],
    ) -> Row:
        """Row of one certificate: its cell, measured risks, and its bounds on the test risk."""
        place, num_fresh = self._place[level], self._levels[level].num_fresh
        plain = float(self._plain_risks[place])
        measured = {
            "gibbs_risk": float(slice_risks[place]),
            "num_fresh": num_fresh * (FRESH_DRAWS if certificate.num_draws else 1),
            "base_risk": plain,
            "plain_risk": plain,
        }
        return certificate_row(
            self._cell(level, size),
            certificate,
            measured,
            slice_risks,
            num_examples=num_fresh,
            train=np.eye(len(slice_risks))[place],
            delta=self.config.delta,
        )


def few_steps(
    decoder: DecoderConfig,
    parameters: Parameters,
    config: CheckpointConfig,
    method: str,
    level: Level,
) -> Fit:
    """A posterior over a block with few steps and draws, to be timed; any block for points."""
    posterior = dataclasses.replace(config.posterior, steps=FEW_STEPS)
    draws = min(FEW_DRAWS, max(config.data_sizes))
    few = dataclasses.replace(config, data_sizes=(draws,), num_draws=draws, posterior=posterior)
    block = method if method in CHECKPOINT_BLOCKS else CHECKPOINT_BLOCKS[0]
    fit, _ = checkpoint_posterior(decoder, block, few)
    scale, number, key = jnp.float32(config.prior_scales[0]), jnp.int32(draws), jax.random.key(0)
    return Fit(
        lambda: fit(parameters, level.sample, scale, number, jnp.float32(1.0), key),
        posterior,
        draws,
    )


def wrong_answers(
    decoder: DecoderConfig,
    parameters: Parameters,
    config: CheckpointConfig,
    levels: Mapping[int, Level],
) -> dict[int, Bool[np.ndarray, " rows"]]:
    """Mark, for each difficulty, the problems that a checkpoint gets wrong."""
    loss, key = example_loss(decoder, config.chunk_tokens), jax.random.key(0)

    @jax.jit
    def errors(parameters, examples):
        return jax.lax.map(
            lambda example: loss(parameters, example, key)[1],
            examples,
            batch_size=config.draws_at_once,
        )

    return {
        level: np.asarray(errors(parameters, (examples.tokens, examples.loss_mask)))
        for level, examples in levels.items()
    }
