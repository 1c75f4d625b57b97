"""Judge every rule that picks a difficulty, by its regret on data sizes it has not seen.

For each run and study a rule is fitted on the data sizes up to one of them, at least two, and
picks a difficulty for every data size at least `HELD_OUT` times beyond. Its regret is the measured
test risk of its pick minus the least measured one there.

The unit is one base with its seeds averaged, since a user of the predictor has one base. The fit
never sees a held-out data size. The measured optimum there is the least of a few noisy means: it is
biased low, and every regret high, by the same amount for all rules, so that differences between
rules are unbiased. Pilot and held-out members of a base share test problems and nested training
data, as they would in use; their common noise favours all rules that look at the pilot.

A level of which every member diverged at a data size of a case is left out of the case, and so is a
base that lacks one of the others.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis import optimum
from experiments.analysis.bootstrap import best_levels
from experiments.analysis.optimum import Cube, Study
from experiments.analysis.pilot import StudyRisks, read_pilot, study_risks
from experiments.analysis.recommend import censored, recommend
from experiments.storage.results import read_table
from experiments.storage.writing import write_parquet
from experiments.sweep.grid import SweepConfig
from theory.predictor import NAIVE, PREDICTOR, RULES, choose, rank_correlation, regret

HELD_OUT = 4
"""Held-out data sizes are at least this many times the largest one that was fitted."""

Runs = Mapping[str, tuple[pd.DataFrame, SweepConfig]]
"""Result table and configuration of each run, by a name."""


def splits(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of the largest fitted and a held-out data size; at least two sizes are fitted."""
    pairs = itertools.product(sizes[1:].tolist(), sizes.tolist())
    return [(fitted, held_out) for fitted, held_out in pairs if held_out >= HELD_OUT * fitted]


def judge(runs: Runs) -> pd.DataFrame:
    """Regret of every rule, base by base.

    Returns:
      One row per rule, run, study, base, largest fitted and held-out data size: rule; kind
      ("predictor", "fit" or "naive"); run; study; base, a name that runs from the same bases
      share; base_seed; fitted_up_to; data_size; factor, the second over the first; choice and best,
      difficulties; regret, in units of risk; rank_correlation of the rule's scores with the
      measured test risks (Spearman).

    Raises:
      ValueError: if no run has a held-out data size, or a run cannot be a pilot (see
        `experiments.analysis.pilot.study_risks`).
    """
    rows = []
    for run, study, risks in _studies(runs):
        for fitted, held_out in splits(risks.test_risk.data_sizes):
            case = _case(risks, fitted, held_out)
            if case is None:
                continue
            pilot = case.up_to(fitted).pilot(_base_means)
            risk = _base_means(case.test_risk)[..., -1]
            best = choose(risk)
            # Each rule picks a difficulty for every base, from the fitted sizes alone.
            for rule, score in RULES.items():
                scores = score(pilot, held_out)
                choice = choose(scores)
                columns = {
                    "base_seed": case.test_risk.base_seeds,
                    "choice": pilot.difficulties[choice],
                    "best": pilot.difficulties[best],
                    "regret": regret(risk, choice),
                    "rank_correlation": rank_correlation(scores, risk),
                }
                shared = {
                    "rule": rule,
                    "kind": _kind(rule),
                    "run": run,
                    "study": study.title,
                    "fitted_up_to": fitted,
                    "data_size": held_out,
                    "factor": held_out / fitted,
                }
                rows.append(pd.DataFrame(shared | columns))
    if not rows:
        raise ValueError(
            f"runs: none has a data size {HELD_OUT} times its second smallest or more, finished in "
            f"every cell of one base, got {list(runs)}"
        )
    # Runs from the same bases name them after the first of these runs.
    table = pd.concat(rows, ignore_index=True)
    origins = _origins(runs)
    table["base"] = [
        f"{origins[run]}/{seed}" for run, seed in zip(table["run"], table["base_seed"], strict=True)
    ]
    names = ["rule", "kind", "run", "study", "base", "base_seed", "fitted_up_to", "data_size"]
    return table.loc[:, [*names, "factor", "choice", "best", "regret", "rank_correlation"]]


def compare(runs: Runs, *, replicates: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Predicted and measured optimum, pooled over bases as in `sweetspot recommend`.

    Returns:
      Rows of two kinds. "measured": the optimum at every data size. "predicted": the
      predictor's, for each held-out data size and each `fitted_up_to` (0 in measured rows).
      Columns: run, study, kind, fitted_up_to, data_size, best_difficulty, low, high (90% interval,
      see `experiments.analysis.bootstrap`), censored, abstains, and levels, the grid's as words of
      a text.
    """
    options = {"replicates": replicates, "seed": seed}
    rows = []
    for run, study, risks in _studies(runs):
        table, config = runs[run]
        levels, sizes = risks.test_risk.difficulties, risks.test_risk.data_sizes
        shared = {"run": run, "study": study.title}
        shared["levels"] = " ".join(str(level) for level in levels)
        low, high = best_levels(risks.test_risk, **options)
        best = np.where(np.isnan(mean := risks.test_risk.mean), np.inf, mean).argmin(axis=0)
        for place, position in enumerate(best):
            rows.append(
                shared
                | {"kind": "measured", "fitted_up_to": 0, "abstains": False}
                | {"data_size": int(sizes[place]), "best_difficulty": int(levels[position])}
                | {"low": low[place], "high": high[place]}
                | {"censored": _edge(position, mean[:, place])}
            )
        # One prediction per held-out size, from the pilot up to each fitted one.
        for fitted, held_out in splits(sizes):
            made = recommend(table, study, config, held_out, fitted_up_to=fitted, **options)
            row = {"kind": "predicted", "fitted_up_to": fitted, "data_size": held_out}
            row |= {name: getattr(made, name) for name in ("low", "high", "censored", "abstains")}
            rows.append(shared | row | {"best_difficulty": made.difficulty})
    names = ["run", "study", "kind", "fitted_up_to", "data_size", "best_difficulty", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "censored", "abstains", "levels"])


def write_regret(directories: Sequence[Path], out: Path) -> dict[str, pd.DataFrame]:
    """Judge the rules on finished runs; write regret.parquet and prediction.parquet.

    Args:
      directories: run directories; the last part of each path is the run's name.
      out: where the tables go.

    Returns:
      "regret" (see `judge`) and "prediction" (see `compare`).

    Raises:
      ValueError: if two directories have one name, or no run has a held-out data size.
      ResultsError: if a directory is no finished run.
    """
    names = [Path(directory).resolve().name for directory in directories]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"results must be directories of different names, got {names}")
    runs = dict(zip(names, map(read_pilot, directories), strict=True))
    tables = {"regret": judge(runs), "prediction": compare(runs)}
    for name, table in tables.items():
        write_parquet(Path(out) / f"{name}.parquet", table)
    return tables


def left_out(directories: Sequence[Path]) -> list[str]:
    """Name each run's cells without a finished member, as `optimum.left_out`."""
    return [
        f"{Path(directory).resolve().name}: {sentence}"
        for directory in directories
        for sentence in optimum.left_out(read_table(Path(directory)))
    ]


def _studies(runs: Runs) -> Iterator[tuple[str, Study, StudyRisks]]:
    """Name of the run, study and measured risks, for every study of every run."""
    for run, (table, config) in runs.items():
        for study in optimum.studies(table):
            yield run, study, study_risks(table, study, config)


def _case(risks: StudyRisks, fitted: int, held_out: int) -> StudyRisks | None:
    """Risks at the fitted data sizes and, last, the held-out one, of levels and bases with all.

    None if there is no such base.
    """
    sizes = risks.test_risk.data_sizes
    case = risks.only(sizes=(sizes <= fitted) | (sizes == held_out)).complete()
    finite = np.isfinite(case.test_risk.values).any(axis=3)
    has_all = np.asarray(np.asarray(finite.all(axis=0)).all(axis=0))
    return case.only(bases=has_all) if has_all.any() else None


def _base_means(metric: Cube) -> np.ndarray:
    """Mean over the seeds of each base: [base, difficulty, data_size]."""
    return np.moveaxis(np.nanmean(metric.values, axis=3), 2, 0)


def _edge(position: int, means: np.ndarray) -> str:
    """As `censored`, of the levels that have a mean."""
    finite = np.flatnonzero(np.isfinite(means))
    return censored(int(np.searchsorted(finite, position)), len(finite))


def _kind(rule: str) -> str:
    return "predictor" if rule == PREDICTOR else "naive" if rule in NAIVE else "fit"


def _origins(runs: Runs) -> dict[str, str]:
    """Name of the first run that started from the same bases, by run."""
    first: dict[str, str] = {}
    made_from = ("task", "task_options", "decoder", "pretrain", "master_seed", "test_hardest")
    origins = {}
    for run, (_, config) in runs.items():
        fields = dataclasses.asdict(config)
        identity = json.dumps({name: fields[name] for name in made_from}, sort_keys=True)
        origins[run] = first.setdefault(identity, run)
    return origins
