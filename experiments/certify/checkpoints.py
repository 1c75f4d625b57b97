"""Certify a real checkpoint: risk bounds from problems that it has not been trained on.

The risk is that of the 0-1 loss of a whole solution: 1 unless the reference solution is the most
likely token at each of its places, end marker included, given the reference before it. That is
whether greedy decoding reproduces the reference exactly (up to the rounding of the two programs).
On text with several right solutions it is stricter than a grader, so that the accuracy that a
grader finds is higher than one minus the risk.

For each difficulty and number n of problems these predictors are certified, for the risk on further
problems of that difficulty:

- ``checkpoint``: the checkpoint as it is, tested on all n (Clopper-Pearson).
- ``held-out``: the checkpoint as prior and posterior of PAC-Bayes-kl, at a KL of zero. It says what
  the test set says, slightly worse; PAC-Bayes deserves no credit for it.
- ``gains``, ``lora``, ``subspace``: a Gaussian over norm gains, over the second factor of adapters,
  or over a random subspace of that factor's coordinates (SubLoRA: Lotfi et al. 2024, arXiv
  2312.17173), its prior at the checkpoint, trained on all n by the bound itself. It is about draws
  of these weights, not about any one fine-tuned checkpoint. For each prior scale, training reads
  ``steps × batch_size`` problems forward and backward, and the bound `num_draws` forward.

**Valid when** everything but the posterior was fixed before the problems were looked at: the
checkpoint (no training on them, no choice among checkpoints by them), the edges of the difficulty
levels, and the configuration; and the problems are independent draws from what the bound is to be
about (problems that `experiments.llm.text.encoding.encode` drops as too long are no part of that).
A checkpoint that was fine-tuned on one part of a data set may be certified on another. Rows
that it was trained on must be named, and are refused; that it never saw a problem in pre-training
cannot be checked here. Where prior scales are tried, all are paid for. Every certificate that a run
makes shares delta equally with all others; another run on the same problems spends delta anew.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh
from jaxtyping import Bool, Float
from rich.console import Console

from experiments.certify.blocks import BLOCKS, adapters, within
from experiments.certify.config import (
    CHECKPOINT_BLOCKS,
    CHECKPOINT_POINTS,
    DEFAULT_CHECKPOINT,
    CheckpointConfig,
)
from experiments.certify.exact_match import example_loss
from experiments.certify.rows import certify_gaussian, halved, on_the_test, path_to
from experiments.certify.untouched import Level, arrange, check_rows
from experiments.llm.text.encoding import Encoded
from experiments.storage import checkpoint, provenance
from experiments.storage.results import Run, open_run, write_atomically
from experiments.sweep.run import PACKAGES
from synth.config import DecoderConfig, Execution, Lora
from synth.decoder import Parameters
from theory.certificate import BOUND, Certificate, Ledger
from theory.certificate import certify as make_certificate
from theory.divergence import log_xi
from theory.posterior import Block, fit_posterior, gibbs_errors

PATH_STEPS, PATH_DRAWS = 9, 1024
"""Places on the way from prior to posterior at which KL and risk are recorded, and draws behind
each risk."""

FRESH_DRAWS = 4
"""Draws of the weights that each fresh problem meets."""

console = Console()


def certify_checkpoint(
    path_or_id: checkpoint.PathLike,
    samples: Mapping[int, Encoded],
    out: Path,
    config: CheckpointConfig = DEFAULT_CHECKPOINT,
    *,
    rows_trained_on: Iterable[int],
    task: str = "problems",
    mesh: Mesh | None = None,
) -> pd.DataFrame:
    """Certify a checkpoint, or Gaussians around it, on problems that it was not trained on.

    Writes ``certificates.parquet`` and, if a posterior is trained, ``complexity.parquet`` into
    `out`; finished parts are kept there and not made again.

    Args:
      path_or_id: see `experiments.storage.checkpoint.load`.
      samples: encoded problems of each difficulty, all of one problem set; of each, a random
        `data_sizes` many are the sample, and others the fresh problems.
      out: directory of the run.
      config: what to certify.
      rows_trained_on: rows of the same problem set that the checkpoint was fine-tuned on, as the
        manifest of the fine-tuning lists them; empty where it was on none.
      task: name of the problem set.
      mesh: devices to spread the checkpoint over, of one process.

    Returns:
      One row per certificate: the cell, the fields of `theory.certificate.Certificate`, and
        gibbs_risk, num_fresh: the certified predictor's risk on fresh problems of the difficulty,
          and their number (four draws of the weights for each problem, if drawn).
        plain_risk, base_risk: the checkpoint's own risk there.
        test_risk and others: see `experiments.certify.rows.on_the_test`, where the test mixture is
          fresh problems of all difficulties in `samples`.

    Raises:
      FileNotFoundError, ValueError: if the checkpoint cannot be read, a problem was trained on or
        occurs twice, a difficulty has too few problems, or one cannot be read by the checkpoint.
      ResultsError: if `out` holds something else.
    """
    start = time.monotonic()
    check_rows(samples, rows_trained_on)
    decoder = checkpoint.read_config(path_or_id)
    levels = arrange(
        samples,
        decoder,
        largest=max(config.data_sizes),
        num_fresh=config.num_fresh,
        seed=config.seed,
    )
    certification = _Certification(config, levels, task, Path(path_or_id).name)
    identity = {
        "checkpoint": {"name": str(path_or_id), "sha256": checkpoint.digest(path_or_id)},
        "samples": {str(level): examples.digest() for level, examples in levels.items()},
        "certify": dataclasses.asdict(config),
        "ledger": str(certification.ledger),
    }
    made_by = {
        "commit": provenance.commit(),
        "device": provenance.device_name(),
        "versions": provenance.versions(PACKAGES),
    }
    with open_run(Path(out), identity) as run:
        earlier = run.manifest.get("wall_time_seconds", 0.0)
        missing = [part for part in certification.parts if not run.has_part(part.name)]
        if missing:
            certification.load(path_or_id, mesh)
        for number, part in enumerate(missing):
            with console.status(f"Certifying {part.name} ({number + 1} of {len(missing)}) …"):
                rows, path = certification.certify(part)
            if path:
                run.write_part(f"{part.name}_complexity", pd.DataFrame(path))
            run.write_part(part.name, pd.DataFrame(rows))
            spent = round(earlier + time.monotonic() - start, 1)
            run.update_manifest(**made_by, wall_time_seconds=spent)
        names = [part.name for part in certification.parts]
        trained = [f"{name}_complexity" for name in names if name != "points"]
        if trained:
            _put_together(run, "complexity", trained)
        certificates = _put_together(run, "certificates", names)
        run.update_manifest(status="complete")
    return certificates


def _put_together(run: Run, name: str, parts: list[str]) -> pd.DataFrame:
    table = run.read_parts(parts)
    path = run.directory / f"{name}.parquet"
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))
    return table


@dataclass(frozen=True)
class _Part:
    """Certificates that are made together; the unit of resume."""

    name: str
    method: str = ""
    difficulty: int = 0
    data_size: int = 0


class _Certification:
    """The plan and the programs of one call of `certify_checkpoint`."""

    decoder: DecoderConfig
    parameters: Parameters

    def __init__(self, config: CheckpointConfig, levels: dict[int, Level], task: str, base: str):
        self.config, self.levels, self.task, self.base = config, levels, task, base
        self.cells = [(level, size) for level in levels for size in config.data_sizes]
        self.parts = [_Part("points")] if set(config.methods) & set(CHECKPOINT_POINTS) else []
        self.parts += [
            _Part(f"{method}_{level}_{size}", method, level, size)
            for method in config.methods
            if method in CHECKPOINT_BLOCKS
            for level, size in self.cells
        ]
        self.ledger = Ledger(config.delta, num_cells=len(config.methods) * len(self.cells))

    def load(self, path_or_id: checkpoint.PathLike, mesh: Mesh | None) -> None:
        """Read the checkpoint."""
        dtype = self.config.dtype
        decoder, self.parameters = checkpoint.load(path_or_id, mesh=mesh, dtype=dtype)
        self.decoder = dataclasses.replace(decoder, execution=Execution(dtype, remat=True))

    def certify(self, part: _Part) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of the certificates of one part, and of the complexity along its posterior."""
        return self._trained(part) if part.method else (self._points(), [])

    @functools.cached_property
    def wrong(self) -> dict[int, Bool[np.ndarray, " rows"]]:
        """Which problems of each difficulty the checkpoint itself gets wrong."""
        loss = example_loss(self.decoder, self.config.chunk_tokens)
        key = jax.random.key(0)

        @jax.jit
        def errors(parameters, examples):
            return jax.lax.map(
                lambda example: loss(parameters, example, key)[1],
                examples,
                batch_size=self.config.draws_at_once,
            )

        return {
            level: np.asarray(errors(self.parameters, (examples.tokens, examples.loss_mask)))
            for level, examples in self.levels.items()
        }

    def _points(self) -> list[dict[str, Any]]:
        """The checkpoint itself, which is a point mass."""
        bounds = {"checkpoint": "clopper_pearson", "held-out": "pac_bayes_kl"}
        ledger = self.ledger.spend(BOUND, self.ledger.left)
        slice_risks = self._plain_risks()
        rows = []
        methods = [method for method in self.config.methods if method in bounds]
        for method, (level, size) in itertools.product(methods, self.cells):
            certificate = make_certificate(
                bounds[method],
                empirical_risk=float(self.wrong[level][:size].mean()),
                num_draws=0,
                kl=0.0,
                num_examples=size,
                ledger=ledger,
                prior="the checkpoint",
                posterior="the prior",
                seed=self.config.seed,
                method=method,
            )
            rows.append(self._row(level, size, certificate, slice_risks))
        return rows

    def _plain_risks(self) -> Float[np.ndarray, " levels"]:
        """The checkpoint's risk on the fresh problems of each difficulty."""
        parts = [self.wrong[level][-each.num_fresh :] for level, each in self.levels.items()]
        return np.array([part.mean() for part in parts])

    def _trained(self, part: _Part) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Train a Gaussian over a block at each prior scale, and certify the best."""
        config, size, level = self.config, part.data_size, part.difficulty
        fit, measure = self._programs(part.method)
        scales = config.prior_scales
        ledger = halved(self.ledger, grid=len(scales))
        shares = {entry.name: entry.each for entry in ledger.entries}
        penalty = jnp.float32(float(log_xi(size)) - np.log(shares[BOUND]))
        key = jax.random.key(config.seed)
        for number in (CHECKPOINT_BLOCKS.index(part.method), level, size):
            key = jax.random.fold_in(key, number)
        sample, number = self.levels[level].sample, jnp.int32(size)
        tried = []
        for index, scale in enumerate(scales):
            own = jax.random.fold_in(key, index)
            posterior, errors = jax.device_get(
                fit(self.parameters, sample, jnp.float32(scale), number, penalty, own)
            )
            certificate = certify_gaussian(
                posterior,
                errors,
                num_examples=size,
                ledger=ledger,
                prior=f"N(checkpoint, {scale:g}² I) on {part.method}",
                seed=config.seed,
                method=part.method,
            )
            tried.append((certificate, posterior))
        certificate, posterior = min(tried, key=lambda pair: pair[0].risk_bound)
        fresh = jax.tree.map(
            lambda *arrays: np.stack(arrays), *(each.fresh for each in self.levels.values())
        )
        own = jax.random.fold_in(key, len(scales))
        path, wrong = measure(self.parameters, posterior, sample, fresh, number, own)
        row = self._row(level, size, certificate, np.asarray(wrong).mean(axis=1))
        cell = self._cell(level, size) | {"method": part.method}
        return [row], [
            cell | {"kl": float(kl), "risk": float(risk)} for kl, risk in zip(*path, strict=True)
        ]

    def _block(self, method: str) -> tuple[DecoderConfig, Callable[[Parameters], Block]]:
        """What a method moves, and the decoder that computes with it."""
        config = self.config
        if method == "gains":
            return self.decoder, BLOCKS["gains"]
        lora = Lora(config.rank, config.rank, config.kernels)
        decoder = dataclasses.replace(self.decoder, lora=lora)

        def adapted(centre: Parameters) -> Block:
            return adapters(centre, config.rank, config.kernels)

        if method == "lora":
            return decoder, adapted
        return decoder, lambda centre: within(adapted(centre), config.subspace_size)

    @functools.cache  # noqa: B019 (one object of this class a call of `certify_checkpoint`)
    def _programs(self, method: str) -> tuple[Callable, Callable]:
        """Train a posterior and draw its errors on the sample; measure one elsewhere."""
        config = self.config
        decoder, make_block = self._block(method)
        loss = example_loss(decoder, config.chunk_tokens)

        def errors(block, posterior, examples, key, num_examples, num_draws):
            return gibbs_errors(
                loss,
                block,
                posterior,
                examples,
                key,
                num_examples=num_examples,
                num_draws=num_draws,
                batch_size=config.draws_at_once,
            )

        @jax.jit
        def fit(parameters, sample, prior_scale, num_examples, penalty, key):
            key_fit, key_errors = jax.random.split(key)
            block = make_block(parameters)
            posterior, _ = fit_posterior(
                loss,
                block,
                sample,
                prior_scale,
                config.posterior,
                key_fit,
                num_examples=num_examples,
                penalty=penalty,
            )
            drawn = errors(block, posterior, sample, key_errors, num_examples, config.num_draws)
            return posterior, drawn

        @jax.jit
        def measure(parameters, posterior, sample, fresh, num_examples, key):
            key_path, key_fresh = jax.random.split(key)
            block = make_block(parameters)
            draws = min(PATH_DRAWS, config.num_draws)
            path = path_to(
                posterior,
                lambda way: errors(block, way, sample, key_path, num_examples, draws),
                PATH_STEPS,
            )
            levels, num_fresh = fresh[0].shape[:2]
            draws = FRESH_DRAWS * num_fresh
            wrong = jax.lax.map(
                lambda level: errors(block, posterior, level[1], level[0], num_fresh, draws),
                (jax.random.split(key_fresh, levels), fresh),
            )
            return path, wrong

        return fit, measure

    def _cell(self, level: int, size: int) -> dict[str, Any]:
        return {
            "task": self.task,
            "base": self.base,
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
    ) -> dict[str, Any]:
        """One certificate with its cell, what was measured, and its bounds on the test risk."""
        place, num_fresh = list(self.levels).index(level), self.levels[level].num_fresh
        plain = float(self._plain_risks()[place])
        return {
            **self._cell(level, size),
            **certificate.to_row(),
            "gibbs_risk": float(slice_risks[place]),
            "num_fresh": num_fresh * (FRESH_DRAWS if certificate.num_draws else 1),
            "base_risk": plain,
            "plain_risk": plain,
            **on_the_test(
                certificate.risk_bound,
                slice_risks,
                np.full(len(slice_risks), num_fresh),
                train=np.eye(len(slice_risks))[place],
                delta=self.config.delta,
            ),
        }
