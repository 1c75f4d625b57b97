"""Certify the setting of a finished sweep: a risk bound, with its account, for every cell.

A fine-tuned member is a point mass, whose KL from any Gaussian prior is infinite: no bound here is
about a member of the table. The sample S of a cell is drawn again from the manifest's keys, and for
each cell these predictors are made and certified for the risk on fresh draws of its mixture:

- ``base``: the untouched base. It was fixed before S, so all of S is a test set for it.
- ``test-set``: the base fine-tuned on the first half of S, tested on the second (Clopper-Pearson).
- ``held-out``: the same predictor as prior and posterior of PAC-Bayes-kl, at a KL of zero. It says
  what the test set says, slightly worse; PAC-Bayes deserves no credit for it.
- ``candidates``: several fine-tunings on the first half, mixed by Gibbs weights from the second;
  KL is at most the log of their number, and the mixture's risk is computed exactly.
- ``gains``, ``lora``, ``full`` …: a Gaussian over a block of parameters
  (`experiments.certify.blocks`), its prior at the base, trained on all of S by the bound itself.

Every certificate that a run makes shares delta equally with all others, since all may be drawn in
one figure, and one chosen; another call on the same sample, in another directory, spends delta
anew. Settings were tuned at the master seed `DEVELOPMENT_SEED`, and a sweep with that seed is
refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from rich.console import Console

from experiments.certify.blocks import BLOCKS
from experiments.certify.config import (
    DEFAULT_CERTIFICATES,
    POINT_METHODS,
    TRAINED,
    MembersConfig,
)
from experiments.certify.rows import certify_gaussian, halved, on_the_test, path_to
from experiments.storage import checkpoint, provenance
from experiments.storage.results import (
    ResultsError,
    Run,
    open_run,
    read_manifest,
    read_table,
    write_atomically,
)
from experiments.sweep.grid import Member, sweep_config
from experiments.sweep.programs import Sweep, unstack
from experiments.sweep.run import PACKAGES
from synth.config import DecoderConfig
from synth.decoder import Parameters, draw_positions
from synth.finetune import TrainingData, finetune, token_losses
from synth.gaps import correct_examples, is_correct
from theory import shift
from theory.bounds.gibbs_weights import gibbs_posterior
from theory.certificate import BOUND, Certificate, Ledger
from theory.certificate import certify as make_certificate
from theory.divergence import log_xi
from theory.posterior import fit_posterior, gibbs_errors

PATH_STEPS, PATH_DRAWS = 9, 1024
"""Steps from prior to posterior at which KL and risk are recorded, and draws behind each risk (of a
larger sample, the first examples)."""

console = Console()


@dataclass(frozen=True)
class Unit:
    """Members of one difficulty certified together by one program; the unit of resume."""

    name: str
    methods: tuple[str, ...]
    members: tuple[Member, ...]


def certify(directory: Path, config: MembersConfig = DEFAULT_CERTIFICATES) -> pd.DataFrame:
    """Certify cells of the sweep in `directory`; write ``certificates.parquet`` beside its table.

    Finished units are kept in ``certificates/`` and not made again.

    Returns:
      One row per certificate: the cell, the fields of `theory.certificate.Certificate`, and
      measured risks (see `_Certification._row`).

    Raises:
      ResultsError: if the directory holds no sweep, its bases are missing, or it holds
        certificates of another configuration.
      ValueError: if the configuration does not fit the sweep.
    """
    directory, start = Path(directory), time.monotonic()
    manifest, table = read_manifest(directory), read_table(directory)
    settings = sweep_config(manifest["config"])
    config = config.fitted(settings)
    bases = _bases(directory, config.base_seeds)
    certification = _Certification(Sweep(settings), config, table, bases)
    units = certification.units
    identity = {
        "sweep": {name: manifest[name] for name in ("recipe", "preset", "config")},
        "certify": dataclasses.asdict(config),
        "trained": {
            name: dataclasses.asdict(TRAINED[name]) for name in config.methods if name in TRAINED
        },
        "ledger": str(certification.ledger),
    }
    made_by = {
        "commit": provenance.commit(),
        "device": provenance.device_name(),
        "versions": provenance.versions(PACKAGES),
    }
    with open_run(directory / "certificates", identity) as run:
        earlier = run.manifest.get("wall_time_seconds", 0.0)
        for number, unit in enumerate(units):
            if run.has_part(unit.name):
                continue
            with console.status(f"Certifying {unit.name} ({number + 1} of {len(units)}) …"):
                rows, paths = certification.certify(unit)
            if paths:
                run.write_part(f"{unit.name}_complexity", pd.DataFrame(paths))
            run.write_part(unit.name, pd.DataFrame(rows))
            spent = round(earlier + time.monotonic() - start, 1)
            run.update_manifest(**made_by, wall_time_seconds=spent)
        names = [unit.name for unit in units]
        certificates = _put_together(run, directory / "certificates.parquet", names)
        trained = [f"{name}_complexity" for name in names if run.has_part(f"{name}_complexity")]
        if trained:
            _put_together(run, directory / "complexity.parquet", trained)
        run.update_manifest(status="complete")
    return certificates


def _put_together(run: Run, path: Path, names: list[str]) -> pd.DataFrame:
    table = run.read_parts(names)
    write_atomically(path, lambda temporary: table.to_parquet(temporary, index=False))
    return table


def _bases(directory: Path, base_seeds: Iterable[int]) -> dict[int, Parameters]:
    paths = {base_seed: directory / "bases" / f"base-{base_seed}" for base_seed in base_seeds}
    if missing := [str(path) for path in paths.values() if not path.exists()]:
        raise ResultsError(f"{missing} do not exist; run the sweep first")
    return {base_seed: checkpoint.load(path)[1] for base_seed, path in paths.items()}


class _Certification:
    """The plan and the programs of one call of `certify`."""

    def __init__(
        self,
        sweep: Sweep,
        config: MembersConfig,
        table: pd.DataFrame,
        bases: dict[int, Parameters],
    ):
        self.sweep, self.config, self.table, self.bases = sweep, config, table, bases
        self.units = self._plan()
        members = {member for unit in self.units for member in unit.members}
        self.plain_risks = {member: self._plain_risk(member) for member in members}
        claims = sum(len(unit.methods) * len(unit.members) for unit in self.units)
        # The probe of the test-set predictor is a claim of its own.
        claims += sum(len(unit.members) for unit in self.units if "test-set" in unit.methods)
        if not claims:
            raise ValueError(f"methods, cells and seeds leave nothing to certify: {config}")
        self.ledger = Ledger(config.delta, num_cells=claims)

    def _plan(self) -> list[Unit]:
        """Parts of the plan: for each difficulty, point predictors and then each block."""
        config = self.config
        loss, rate = self.sweep.config.losses[0], self.sweep.config.learning_rates[0]
        points = tuple(method for method in POINT_METHODS if method in config.methods)
        blocks = [method for method in TRAINED if method in config.methods]
        units = []
        for difficulty in config.difficulties or ():
            members = tuple(
                Member(base_seed, seed, config.mixture, difficulty, data_size, loss, rate)
                for base_seed, seed, data_size in itertools.product(
                    config.base_seeds, config.seeds, config.data_sizes or ()
                )
            )
            if points:
                units.append(Unit(f"points_{difficulty}", points, members))
            if difficulty in (config.trained_difficulties or ()):
                units += [Unit(f"{block}_{difficulty}", (block,), members) for block in blocks]
        return units

    def _plain_risk(self, member: Member) -> float:
        """In-distribution risk of the sweep's own member of this cell."""
        wanted = {
            "base_seed": member.base_seed,
            "seed": member.seed,
            "train_mixture": member.mixture,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
            "status": "ok",
        }
        own = [self.table[name] == value for name, value in wanted.items()]
        rows = self.table.loc[np.logical_and.reduce(own)]
        if rows.empty:
            raise ResultsError(f"the table has no finished member with {wanted}")
        return float(rows.loc[rows["metric"] == "in_distribution_risk", "value"].iloc[0])

    def certify(self, unit: Unit) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of the certificates of one unit, and of the complexity along its posteriors."""
        if set(unit.methods) <= set(POINT_METHODS):
            return self._points(unit), []
        return self._trained(unit)

    def _key(self, member: Member) -> PRNGKeyArray:
        return self.sweep.draws.cell_key("certify", member)

    def _levels(self, member: Member) -> list[tuple[Array, Array]]:
        """Test draws in buckets of levels."""
        pools = self.sweep.draws.slice_pools("test", member.base_seed, member.seed)
        return [(pool.tokens, pool.loss_mask) for pool in pools]

    def _map(self, function: Callable, arguments: list[Any]) -> list[Any]:
        """`function` over members, sharded and mapped, in chunks of the sweep's size."""
        chunks = math.ceil(len(arguments) / self.sweep.config.chunk_members)
        size = math.ceil(len(arguments) / chunks)
        program = jax.jit(self.sweep.mapped(function))
        results = []
        for start in range(0, len(arguments), size):
            part = arguments[start : start + size]
            results += unstack(program(self.sweep.stack(part, size=size)), len(part))
        return results

    def _points(self, unit: Unit) -> list[dict[str, Any]]:
        """Fine-tune on first halves; certify what is a point mass or a mixture of point masses."""
        draws, decoder = self.sweep.draws, self.sweep.decoder
        group = self.sweep.group(unit.members[0])
        number = self.config.num_candidates if "candidates" in unit.methods else 1

        def measure(arguments):
            data = arguments["data"]
            parameters, _ = finetune(
                decoder,
                arguments["base"],
                data,
                self.sweep.finetuning(group, arguments["learning_rate"]),
                jax.random.wrap_key_data(arguments["key"]),
            )
            drawn = [(data.tokens, data.loss_mask), arguments["fresh"], *arguments["levels"]]
            key_positions = jax.random.wrap_key_data(arguments["key_positions"])
            keys = jax.random.split(key_positions, len(drawn))

            def wrong(model):
                own = [
                    ~correct_examples(decoder, model, tokens, loss_mask, key=key)
                    for (tokens, loss_mask), key in zip(drawn, keys, strict=True)
                ]
                return {"sample": own[0], "fresh": own[1], "levels": own[2:]}

            models = jax.tree.map(lambda *two: jnp.stack(two), arguments["base"], parameters)
            return jax.lax.map(wrong, models)

        arguments = []
        for member in unit.members:
            pool, fresh = draws.training_pool(member), draws.in_distribution_pool(member)
            key_positions, key_candidates = jax.random.split(self._key(member))
            key = jax.random.fold_in(key_candidates, member.data_size)
            arguments += [
                {
                    "base": self.bases[member.base_seed],
                    "data": TrainingData(
                        pool.tokens, pool.loss_mask, jnp.int32(member.data_size // 2)
                    ),
                    "fresh": (fresh.tokens, fresh.loss_mask),
                    "levels": self._levels(member),
                    "learning_rate": np.float32(member.learning_rate),
                    "key": jax.random.key_data(jax.random.fold_in(key, candidate)),
                    "key_positions": jax.random.key_data(key_positions),
                }
                for candidate in range(number)
            ]
        results = self._map(measure, arguments)
        rows = []
        for index, member in enumerate(unit.members):
            candidates = results[index * number : (index + 1) * number]
            rows += self._point_rows(unit, member, candidates)
        return rows

    def _point_rows(
        self, unit: Unit, member: Member, candidates: list[Any]
    ) -> list[dict[str, Any]]:
        """Rows of one member from what its candidates, fine-tuned on a first half, got wrong."""
        n, half = member.data_size, member.data_size // 2
        by_slice = self.sweep.draws.by_slice

        def risks(wrong: dict[str, Any], model: int) -> tuple[float, np.ndarray]:
            parts = by_slice([part[model] for part in wrong["levels"]])
            return wrong["fresh"][model].mean(), np.array([part.mean() for part in parts])

        base_risk, base_levels = risks(candidates[0], 0)
        measured = [risks(wrong, 1) for wrong in candidates]
        fresh = np.array([risk for risk, _ in measured])
        levels = np.array([level for _, level in measured])
        held_out = np.array([wrong["sample"][1, half:n].mean() for wrong in candidates])
        ledger = self.ledger.spend(BOUND, self.ledger.left)
        weights = gibbs_posterior(held_out, num_examples=n - half, delta=ledger.spent)
        number = len(held_out)
        first = {"kl": 0.0, "num_examples": n - half, "prior": "fine-tuned on the first half"}
        made: dict[str, tuple[dict[str, Any], np.ndarray]] = {
            "base": (
                {
                    "bound": "clopper_pearson",
                    "empirical_risk": candidates[0]["sample"][0, :n].mean(),
                    "kl": 0.0,
                    "num_examples": n,
                    "prior": "the base",
                },
                np.eye(1, number)[0],
            ),
            "test-set": (
                first | {"bound": "clopper_pearson", "empirical_risk": held_out[0]},
                np.eye(1, number)[0],
            ),
            "held-out": (
                first | {"bound": "pac_bayes_kl", "empirical_risk": held_out[0]},
                np.eye(1, number)[0],
            ),
            "candidates": (
                {
                    "bound": "pac_bayes_kl",
                    # Weights add up to 1 but for rounding.
                    "empirical_risk": min(weights.weights @ held_out, 1.0),
                    "kl": weights.kl,
                    "num_examples": n - half,
                    "prior": f"uniform on {number} fine-tunings on the first half",
                    "posterior": "Gibbs weights: "
                    + ", ".join(f"{weight:.3f}" for weight in weights.weights),
                },
                weights.weights,
            ),
        }
        rows = []
        for method in unit.methods:
            own, mixed = made[method]
            fields: dict[str, Any] = {"posterior": "the prior", **own}
            certificate = make_certificate(
                **fields,
                num_draws=0,
                ledger=ledger,
                seed=self.sweep.config.master_seed,
                method=method,
            )
            risk, slices = mixed @ fresh, mixed @ levels
            if method == "base":
                risk, slices = base_risk, base_levels
            risks_measured = {
                "gibbs_risk": float(risk),
                "num_fresh": self.sweep.config.risk_examples,
                "base_risk": float(base_risk),
            }
            rows.append(self._row(member, certificate, risks_measured, slices))
        return rows

    def _trained(self, unit: Unit) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Train a Gaussian over a block, from the base and all of S, and certify its Gibbs risk.

        The second table holds, on the way from the prior to the posterior, the KL and the risk on
        the sample: how many nats a risk costs.
        """
        (block_name,) = unit.methods
        trained, make_block = TRAINED[block_name], BLOCKS[block_name]
        sweep, config = self.sweep, self.config
        ledger = halved(self.ledger)
        shares = {entry.name: entry.each for entry in ledger.entries}

        def example_loss(parameters, example, key):
            return _example_loss(sweep.decoder, parameters, example, key)

        def measure(arguments):
            keys = jax.random.split(jax.random.wrap_key_data(arguments["key"]), 5)
            block = make_block(arguments["base"])
            posterior, _ = fit_posterior(
                example_loss,
                block,
                arguments["data"],
                trained.prior_scale,
                trained.posterior,
                keys[0],
                num_examples=arguments["num_examples"],
                penalty=arguments["penalty"],
            )

            def errors(gaussian, examples, key, num_examples, num_draws):
                return gibbs_errors(
                    example_loss,
                    block,
                    gaussian,
                    examples,
                    key,
                    num_examples=num_examples,
                    num_draws=num_draws,
                )

            def on_the_way(way):
                return errors(
                    way, arguments["data"], keys[4], arguments["num_examples"], PATH_DRAWS
                )

            fresh = arguments["fresh"]
            return {
                "posterior": posterior,
                "path": path_to(posterior, on_the_way, PATH_STEPS),
                "sample": errors(
                    posterior,
                    arguments["data"],
                    keys[1],
                    arguments["num_examples"],
                    config.num_draws,
                ),
                "fresh": errors(posterior, fresh, keys[2], len(fresh[0]), 4 * len(fresh[0])),
                "levels": [
                    errors(
                        posterior,
                        part,
                        jax.random.fold_in(keys[3], index),
                        len(part[0]),
                        len(part[0]),
                    )
                    for index, part in enumerate(arguments["levels"])
                ],
            }

        arguments = []
        for member in unit.members:
            pool = sweep.draws.training_pool(member)
            fresh = sweep.draws.in_distribution_pool(member)
            key = jax.random.fold_in(self._key(member), member.data_size)
            penalty = float(log_xi(member.data_size)) - np.log(shares[BOUND])
            arguments.append(
                {
                    "base": self.bases[member.base_seed],
                    "data": (pool.tokens, pool.loss_mask),
                    "fresh": (fresh.tokens, fresh.loss_mask),
                    "levels": self._levels(member),
                    "num_examples": np.int32(member.data_size),
                    "penalty": np.float32(penalty),
                    "key": jax.random.key_data(key),
                }
            )
        rows, paths = [], []
        for member, result in zip(unit.members, self._map(measure, arguments), strict=True):
            certificate = certify_gaussian(
                result["posterior"],
                result["sample"],
                num_examples=member.data_size,
                ledger=ledger,
                prior=f"N(base, {trained.prior_scale:g}² I) on {block_name}",
                seed=sweep.config.master_seed,
                method=block_name,
            )
            wrong = np.array([part.mean() for part in sweep.draws.by_slice(result["levels"])])
            measured = {
                "gibbs_risk": float(result["fresh"].mean()),
                "num_fresh": result["fresh"].size,
                "base_risk": np.nan,
            }
            rows.append(self._row(member, certificate, measured, wrong))
            paths += [
                self._cell(member) | {"method": block_name, "kl": float(kl), "risk": float(risk)}
                for kl, risk in zip(*result["path"], strict=True)
            ]
        return rows, paths

    def _cell(self, member: Member) -> dict[str, Any]:
        return {
            "task": self.sweep.config.task,
            "base": f"base-{member.base_seed}",
            "base_seed": member.base_seed,
            "cell_seed": member.seed,
            "train_mixture": member.mixture,
            "loss": member.loss,
            "difficulty": member.difficulty,
            "data_size": member.data_size,
        }

    def _row(
        self,
        member: Member,
        certificate: Certificate,
        measured: dict[str, float],
        slice_risks: Float[np.ndarray, " levels"],
    ) -> dict[str, Any]:
        """One certificate with its cell, what was measured, and its bounds on the test risk.

        Columns beyond those of `Certificate`:
          gibbs_risk, num_fresh: the certified predictor's risk on fresh draws of the training
            mixture, and their number (four of the weights for each example, if drawn).
          base_risk: the untouched base's risk there (missing for trained blocks).
          plain_risk: the in-distribution risk of the sweep's own member, trained on all of S.
          test_risk and others: see `experiments.certify.rows.on_the_test`.
          test_bound_probe, num_probes: for the test-set predictor, the bound from labelled
            examples at each level, and their number.
        """
        config, sweep = self.config, self.sweep.config
        levels = len(sweep.test_levels)
        train = np.exp(self.sweep.draws.mixture(member).log_probabilities(levels))
        train = train.astype(np.float64) / train.sum(dtype=np.float64)
        examples = np.full(levels, sweep.test_examples)
        row = {
            **self._cell(member),
            **certificate.to_row(),
            **measured,
            "plain_risk": self.plain_risks[member],
            **on_the_test(
                certificate.risk_bound, slice_risks, examples, train=train, delta=config.delta
            ),
            "test_bound_probe": np.nan,
            "num_probes": 0,
        }
        if certificate.method == "test-set":
            errors = np.rint(slice_risks * sweep.test_examples).astype(int)
            test = np.full(levels, 1.0 / levels)
            probed = shift.probe(errors, examples, test, delta=certificate.delta)
            row |= {"test_bound_probe": float(probed.values), "num_probes": probed.num_labelled}
        return row


def _example_loss(
    decoder: DecoderConfig, parameters: Parameters, example: tuple[Array, Array], key: PRNGKeyArray
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """Loss of a whole solution in nats, and whether its argmax is wrong anywhere.

    A program that uses one of the two pays for one pass: the other is dead code to the compiler.
    """
    tokens, loss_mask = example
    positions = draw_positions(decoder, key, tokens.size)
    nats = token_losses(decoder, parameters, tokens, positions, "sft")
    wrong = ~is_correct(decoder, parameters, tokens, loss_mask, positions)
    return jnp.where(loss_mask[1:], nats, 0.0).sum(), wrong
