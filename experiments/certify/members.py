"""Certify the setting of a finished sweep: a risk bound, with its account of delta, for every cell.

A fine-tuned member is a point mass, whose KL from any Gaussian prior is infinite: no bound here is
about a member of the table. The sample S of a cell is drawn again from the manifest's keys, and for
each cell these predictors are made and certified for the risk on fresh draws of its mixture:

- ``base``: the untouched base. It was fixed before S, so all of S is a test set for it.
- ``test-set``: the base fine-tuned on the first half of S, tested on the second (Clopper-Pearson).
- ``held-out``: the same predictor as prior and posterior of PAC-Bayes-kl, at a KL of zero. This is
  a test-set bound, slightly looser; PAC-Bayes deserves no credit for it.
- ``candidates``: several fine-tunings on the first half, mixed by Gibbs weights from the second;
  KL is at most the log of their number, and the mixture's risk is computed exactly.
- ``gains``, ``lora``, ``full`` …: a Gaussian over a block of parameters
  (`experiments.certify.blocks`), its prior at the base, trained on all of S by the bound itself.

Every certificate that a run makes shares delta equally with all others, since all may be drawn in
one figure, and one chosen; another call on the same sample, in another directory, spends delta
anew. A sweep that tuned its learning rates chose them on the sample that its own keys draw; the
configuration's `master_seed` then draws another sample, which neither rates nor bases have seen.
Settings of posteriors were tuned at the master seed `DEVELOPMENT_SEED`, which is refused.

Columns of the table beyond the cell and the fields of `theory.certificate.Certificate`:
  gibbs_risk, num_fresh: the certified predictor's risk on fresh draws of the training mixture, and
    their number (if weights are drawn, four times for each example).
  base_risk: the untouched base's risk there (missing for trained blocks).
  plain_risk: the in-distribution risk of the sweep's own member, trained on all of its sample.
  test_risk and others: see `experiments.certify.rows.on_the_test`.
  test_bound_probe, num_probes: for the test-set predictor, the bound from labelled examples at each
    level, and their number.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Float, PRNGKeyArray

from experiments.certify.cells import CellGroup, plan, tuned_rates
from experiments.certify.config import (
    BLOCK_SETTINGS,
    DEFAULT_CERTIFICATES,
    POINT_METHODS,
    MembersConfig,
)
from experiments.certify.points import (
    candidate_arguments,
    cell_data,
    halved_steps,
    model_errors,
    point_predictors,
)
from experiments.certify.posteriors import certify_gaussian, halved, member_posterior, penalty
from experiments.certify.rows import Row, certificate_row, path_rows
from experiments.certify.study import POINTS, POSTERIORS, Certification
from experiments.certify.workload import MembersWorkload
from experiments.engine.run import Executor, in_this_process, run_study
from experiments.engine.study import Part
from experiments.engine.workload import Workload
from experiments.storage import checkpoint
from experiments.storage.results import (
    ResultsError,
    check_unchanged,
    read_manifest,
    read_table,
    stated,
)
from experiments.sweep.grid import Member, SweepConfig, sweep_config
from experiments.sweep.programs import Sweep
from synth.decoder import Parameters
from synth.task import Task
from synth.tasks import TASKS
from theory import shift
from theory.certificate import BOUND, Certificate, Ledger


def certify(
    directory: Path,
    config: MembersConfig = DEFAULT_CERTIFICATES,
    *,
    task: str | Task | None = None,
    executor: Executor = in_this_process,
) -> pd.DataFrame:
    """Certify cells of the sweep in `directory`; write ``certificates.parquet`` beside its table.

    Finished parts are kept in ``certificates/`` and not made again.

    Args:
      directory: of the sweep.
      config: what to certify.
      task: the sweep's task, if it is not in `synth.tasks.TASKS`: the ``module:attribute`` that the
        manifest names, or the object that `run_sweep` was given. A file alone never decides what
        is imported.
      executor: runs the parts, see `run_study`.

    Returns:
      One row per certificate, see the module's docstring.

    Raises:
      ResultsError: if the directory holds no sweep, its bases are missing, or it holds
        certificates of another configuration.
      ValueError: if the configuration does not fit the sweep.
    """
    study = certification(directory, config, task=task)
    return run_study(study, executor=executor)["certificates"]


def certification(
    directory: Path, config: MembersConfig, *, task: str | Task | None = None
) -> MemberCertification:
    """The study that `certify` runs; the arguments are the same.

    Raises:
      ResultsError, ValueError: see `certify`.
    """
    directory = Path(directory)
    manifest, table = read_manifest(directory), read_table(directory)
    settings = sweep_config(stated(manifest, directory, "config"))
    if not isinstance(task, Task):
        _check_task(directory, settings.task, task)
        task = None
    identity = {name: stated(manifest, directory, name) for name in ("recipe", "preset", "config")}
    for base_seed in config.base_seeds:
        check_unchanged(directory, f"bases/base-{base_seed}")
    return MemberCertification(
        directory, config.fitted(settings), settings, table, identity, task=task
    )


def _check_task(directory: Path, stated: str, asked: str | None) -> None:
    """Refuse to import what only a manifest names, or another task than it names.

    Raises:
      ValueError: says which name is accepted.
    """
    if asked is not None and asked != stated:
        raise ValueError(f"task must be that of the sweep, {stated!r}, got {asked!r}")
    if stated not in TASKS and asked is None:
        raise ValueError(
            f"{directory} was made with the task {stated!r}, and certifying it runs that code: if "
            f"you trust it, name it yourself (--task {stated})"
        )


class MemberRows:
    """Makes rows of the tables: the columns of a cell, and of a certificate of it.

    Attributes:
      plain_risks: in-distribution risk of the sweep's own member of each cell.
    """

    def __init__(self, sweep: Sweep, table: pd.DataFrame, members: set[Member], *, delta: float):
        """Read the plain risks.

        Args:
          sweep: for mixtures and draws.
          table: its result table.
          members: one for each cell.
          delta: of the whole run.

        Raises:
          ResultsError: if the table lacks a member.
        """
        self._sweep, self._delta = sweep, delta
        self.plain_risks = {member: _plain_risk(table, member) for member in members}

    def cell(self, member: Member) -> Row:
        """Columns that name the cell of a row."""
        return {
            "task": self._sweep.config.task,
            "base": f"base-{member.base_seed}",
            "base_seed": member.base_seed,
            "cell_seed": member.seed,
            "train_mixture": member.mixture,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
        }

    def certificate(
        self,
        member: Member,
        certificate: Certificate,
        measured: Row,
        slice_risks: Float[np.ndarray, " levels"],
    ) -> Row:
        """Row of one certificate: its cell, measured risks, and its bounds on the test risk."""
        sweep = self._sweep.config
        levels = len(sweep.test_levels)
        train = np.exp(self._sweep.draws.mixture(member).log_probabilities(levels))
        row = certificate_row(
            self.cell(member),
            certificate,
            measured | {"plain_risk": self.plain_risks[member]},
            slice_risks,
            num_examples=sweep.test_examples,
            train=train.astype(np.float64) / train.sum(dtype=np.float64),
            delta=self._delta,
        )
        row |= {"test_bound_probe": np.nan, "num_probes": 0}
        if certificate.method == "test-set":
            errors = np.rint(slice_risks * sweep.test_examples).astype(int)
            test = np.full(levels, 1.0 / levels)
            examples = np.full(levels, sweep.test_examples)
            probed = shift.probe(errors, examples, test, delta=certificate.delta)
            row |= {"test_bound_probe": float(probed.values), "num_probes": probed.num_labelled}
        return row


class MemberCertification(Certification):
    """Certificates for the cells of a sweep."""

    def __init__(
        self,
        sweep_directory: Path,
        config: MembersConfig,
        settings: SweepConfig,
        table: pd.DataFrame,
        sweep_identity: dict[str, Any],
        *,
        task: Task | None = None,
    ):
        """Plan the parts, and check that members are there.

        Args:
          sweep_directory: directory of the sweep.
          config: see `MembersConfig.fitted`.
          settings: its configuration.
          table: its result table.
          sweep_identity: fields of its manifest that identify it.
          task: the object to use instead of ``settings.task``.

        Raises:
          ResultsError: if a member is missing.
          ValueError: if nothing is left to certify.
        """
        self.directory, self._sweep_directory = sweep_directory / "certificates", sweep_directory
        self.config, self.sweep = config, Sweep(config.drawn(settings), task=task)
        self._groups = plan(config, settings, tuned_rates(config, settings, table))
        self._sweep_identity = sweep_identity
        self.parts = [
            Part(
                name,
                f"certifying {name}",
                POINTS if set(cells.methods) <= set(POINT_METHODS) else POSTERIORS,
            )
            for name, cells in self._groups.items()
        ]
        # The test-set predictor has a second claim: a bound on its test risk from labelled test
        # examples (`theory.shift.probe`).
        claims = sum(
            len(cells.members) * (len(cells.methods) + ("test-set" in cells.methods))
            for cells in self._groups.values()
        )
        if not claims:
            raise ValueError(f"methods, cells and seeds leave nothing to certify: {config}")
        self.ledger = Ledger(config.delta, num_cells=claims)
        members = {member for cells in self._groups.values() for member in cells.members}
        self._rows = MemberRows(self.sweep, table, members, delta=config.delta)

    @property
    def identity(self) -> Row:
        """The sweep, the configuration, how blocks are trained, and the account of delta."""
        return {
            "sweep": self._sweep_identity,
            "certify": dataclasses.asdict(self.config),
            "trained": {
                name: dataclasses.asdict(BLOCK_SETTINGS[name])
                for name in self.config.methods
                if name in BLOCK_SETTINGS
            },
            "ledger": str(self.ledger),
        }

    def stages(self) -> list[Sequence[Part]]:
        """One stage, once the bases are there.

        Raises:
          ResultsError: if a base is missing.
        """
        bases = [self._base_path(base_seed) for base_seed in self.config.base_seeds]
        if missing := [str(path) for path in bases if not path.exists()]:
            raise ResultsError(f"{missing} do not exist; run the sweep first")
        return super().stages()

    def workload(self) -> Workload:
        """Fine-tunings, posteriors and draws of each part."""
        cells = {name: (each.methods, each.members) for name, each in self._groups.items()}
        return MembersWorkload(self.sweep, self.config, cells)

    def shared(self, parts: Sequence[Part]) -> Row:
        """The bases."""
        return {"_bases": self._bases}

    def table_path(self, table: str) -> Path:
        """Tables stand beside the sweep's own."""
        return self._sweep_directory / f"{table}.parquet"

    def part_rows(self, part: Part) -> tuple[list[Row], list[Row]]:
        """Rows of one part in the tables ``certificates`` and ``complexity``."""
        cells = self._groups[part.name]
        if part.tables == POINTS:
            return self._certify_points(cells), []
        return self._certify_posteriors(cells)

    # Data of a member.

    def _base_path(self, base_seed: int) -> Path:
        return self._sweep_directory / "bases" / f"base-{base_seed}"

    @functools.cached_property
    def _bases(self) -> dict[int, Parameters]:
        return {seed: checkpoint.load(self._base_path(seed))[1] for seed in self.config.base_seeds}

    def _key(self, member: Member) -> PRNGKeyArray:
        return self.sweep.draws.cell_key("certify", member)

    def _data(self, member: Member) -> dict[str, Any]:
        """The base, the sample, fresh draws of the mixture, and test draws in buckets of levels."""
        return cell_data(self.sweep.draws, member, self._bases[member.base_seed])

    # Point predictors.

    def _certify_points(self, cells: CellGroup) -> list[Row]:
        """Fine-tune on first halves; certify point masses, and mixtures of them."""
        number = self.config.num_candidates if "candidates" in cells.methods else 1
        sweep = self.sweep
        steps = {member: halved_steps(sweep.draws, member) for member in cells.members}
        # Collect the arguments of every fine-tuning: candidates of a cell differ in their key.
        arguments = []
        for member in cells.members:
            data, key = self._data(member), self._key(member)
            arguments += candidate_arguments(member, data, key, number, steps[member])
        # All sizes share one program, in which the number of steps is traced.
        loss = cells.members[0].loss
        settings = functools.partial(sweep.finetuning, loss, max(steps.values()))
        measure = model_errors(sweep.decoder, settings)
        errors = sweep.members.map(measure, arguments, at_once=sweep.config.chunk_members)
        return [
            row
            for index, member in enumerate(cells.members)
            for row in self._point_rows(cells, member, errors[index * number :][:number])
        ]

    def _point_rows(self, cells: CellGroup, member: Member, candidates: list[Any]) -> list[Row]:
        """Rows of one cell from the errors of its candidates, fine-tuned on a first half."""
        ledger, sweep = self.ledger.spend(BOUND, self.ledger.left), self.sweep
        predictors = point_predictors(
            candidates, sweep.draws.by_slice, data_size=member.data_size, delta=ledger.spent
        )
        rows = []
        for method in cells.methods:
            predictor = predictors[method]
            seed = sweep.config.master_seed
            certificate = predictor.certificate(ledger, seed=seed, method=method)
            measured = {
                "gibbs_risk": float(predictor.risk),
                "num_fresh": sweep.config.risk_examples,
                "base_risk": float(predictors["base"].risk),
            }
            rows.append(
                self._rows.certificate(member, certificate, measured, predictor.slice_risks)
            )
        return rows

    # Posteriors over a block.

    def _certify_posteriors(self, cells: CellGroup) -> tuple[list[Row], list[Row]]:
        """Train a Gaussian over a block, from the base and all of S, and certify its Gibbs risk."""
        # Train a posterior for each cell, and draw its errors.
        (block,) = cells.methods
        ledger, settings, sweep = halved(self.ledger), BLOCK_SETTINGS[block], self.sweep
        arguments = [
            self._data(member)
            | {
                "num_examples": np.int32(member.data_size),
                "penalty": penalty(ledger, member.data_size),
                "key": jax.random.key_data(jax.random.fold_in(self._key(member), member.data_size)),
            }
            for member in cells.members
        ]
        results = sweep.members.map(
            member_posterior(sweep.decoder, block, num_draws=self.config.num_draws),
            arguments,
            at_once=sweep.config.chunk_members,
        )
        # Certify each posterior from its errors on the sample.
        rows, paths = [], []
        for member, result in zip(cells.members, results, strict=True):
            certificate = certify_gaussian(
                result["posterior"],
                result["sample"],
                num_examples=member.data_size,
                ledger=ledger,
                prior=f"N(base, {settings.prior_scale:g}² I) on {block}",
                seed=sweep.config.master_seed,
                method=block,
            )
            slice_risks = [part.mean() for part in sweep.draws.by_slice(result["buckets"])]
            measured = {
                "gibbs_risk": float(result["fresh"].mean()),
                "num_fresh": result["fresh"].size,
                "base_risk": np.nan,
            }
            rows.append(
                self._rows.certificate(member, certificate, measured, np.array(slice_risks))
            )
            paths += path_rows(self._rows.cell(member), block, result["path"])
        return rows, paths


def _plain_risk(table: pd.DataFrame, member: Member) -> float:
    """In-distribution risk of the sweep's own member of a cell."""
    wanted = {
        "base_seed": member.base_seed,
        "seed": member.seed,
        "train_mixture": member.mixture,
        "loss": member.loss,
        "difficulty": member.difficulty,
        "data_size": member.data_size,
        "status": "ok",
    }
    own = [table[name] == value for name, value in wanted.items()]
    rows = table.loc[np.logical_and.reduce(own)]
    if rows.empty:
        raise ResultsError(f"the table has no finished member with {wanted}")
    return float(rows.loc[rows["metric"] == "in_distribution_risk", "value"].iloc[0])
