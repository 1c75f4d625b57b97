"""Judge every rule that picks a difficulty, by its regret on data sizes it has not seen.

For each run and study a rule is fitted on the data sizes up to one of them, at least two, and
picks a difficulty for every data size at least `HELD_OUT` times beyond. Its regret is the measured
test risk of its pick minus the least measured one there.

The unit is one base with its seeds averaged, since a user of a rule has one base. The fit never
sees a held-out data size. The measured optimum there is the least of a few noisy means: it is
biased low, and every regret high, by the same amount for all rules, so that differences between
rules are unbiased. Pilot and held-out members of a base share test problems and nested training
data, as they would in use; their common noise favours all rules that look at the pilot.

Skill is measured against the best constant of other tasks (`CONSTANT`): always the level that is a
fixed multiple of the one the base gets half right, the multiple being the best on all runs of other
tasks with the same kind of training mixture (with any mixture, if no other task has that kind).

No rule can be expected to have no regret, since the least of noisy means is not the mean of the
best level. How low it can get is told by `OTHERS`, which is no rule: it knows the answer, and picks
the level that is best at the held-out data size itself, on average over the other bases.

A level of which every member diverged at a data size of a case is left out of the case, and so is a
base that lacks one of the others.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from theory.levels import half_level
from theory.predictor import (
    BASE_RULE,
    NAIVE,
    PREDICTOR,
    RISKS,
    RULES,
    choose,
    rank_correlation,
    regret,
)

CONSTANT = "best constant"
OTHERS = "best for other bases"
MULTIPLES = np.arange(0.3, 3.01, 0.05)
"""Multiples of the level that a base gets half right, among which the best constant is chosen."""
HELD_OUT = 4
"""Held-out data sizes are at least this many times the largest one that was fitted."""

Runs = Mapping[str, tuple[pd.DataFrame, SweepConfig]]
"""Result table and configuration of each run, by a name."""


def splits(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of the largest fitted and a held-out data size; at least two sizes are fitted."""
    pairs = itertools.product(sizes[1:].tolist(), sizes.tolist())
    return [(fitted, held_out) for fitted, held_out in pairs if held_out >= HELD_OUT * fitted]


@dataclass(frozen=True)
class Case:
    """One study at one largest fitted and one held-out data size.

    Attributes:
      columns: that name it.
      risks: of the fitted data sizes and, last, of the held-out one.
      half: level of which each base gets half right [base].
      mixture: kind of the training mixture.
    """

    columns: dict[str, Any]
    risks: StudyRisks
    half: np.ndarray
    mixture: str

    @property
    def held_out(self) -> np.ndarray:
        """Test risk at the held-out data size [base, difficulty]."""
        return _base_means(self.risks.test_risk)[..., -1]

    def rows(
        self, rule: str, kind: str, choice: np.ndarray, scores: np.ndarray | None
    ) -> pd.DataFrame:
        """One row for each base.

        Args:
          rule, kind: as `judge` describes them.
          choice: position of the level that was picked [base].
          scores: of the levels [base, difficulty]; None if the rule has none.
        """
        risk, levels = self.held_out, self.risks.test_risk.difficulties
        correlation = error = np.full(len(risk), np.nan)
        if scores is not None:
            correlation = rank_correlation(scores, risk)
        if scores is not None and rule in RISKS:
            error = np.sqrt(((scores - risk) ** 2).mean(axis=-1))
        best = self.risks.test_risk.mean[:, -2:].argmin(axis=0)
        own = {
            "rule": rule,
            "kind": kind,
            "base_seed": self.risks.test_risk.base_seeds,
            "choice": levels[choice],
            "best": levels[choose(risk)],
            "regret": regret(risk, choice),
            "rank_correlation": correlation,
            "error": error,
            "moved": best[0] != best[1],
        }
        return pd.DataFrame(self.columns | own)


def judge(runs: Runs) -> pd.DataFrame:
    """Regret of every rule, base by base.

    Returns:
      One row per rule, run, study, base, largest fitted and held-out data size: rule; kind
      ("predictor", "fit", "naive", "oracle" or "constant"); run; study; task; base, a name that
      runs from the same bases share; base_seed; fitted_up_to; data_size; factor, the second over
      the first; choice and best, difficulties; regret, in units of risk; rank_correlation of the
      rule's scores with the measured test risks (Spearman); error, the root of the mean square
      difference of predicted and measured risk, NaN for rules that only rank; moved, whether the
      best level of the study differs between the two data sizes.

    Raises:
      ValueError: if no run has a held-out data size, or a run cannot be a pilot (see
        `experiments.analysis.pilot.study_risks`).
    """
    cases, rows = list(_cases(runs)), []
    if not cases:
        raise ValueError(
            f"runs: none has a data size {HELD_OUT} times its second smallest or more, finished in "
            f"every cell of one base, got {list(runs)}"
        )
    for case in cases:
        # Each rule picks a difficulty for every base, from the fitted sizes alone.
        pilot = case.risks.up_to(case.columns["fitted_up_to"]).pilot(_base_means)
        for rule, score in RULES.items():
            scores = score(pilot, case.columns["data_size"])
            rows.append(case.rows(rule, _kind(rule), choose(scores), scores))
        if (others := _best_for_others(case.held_out)) is not None:
            rows.append(case.rows(OTHERS, "oracle", others, None))
    rows += _constants(cases)
    # Runs from the same bases name them after the first of these runs.
    table = pd.concat(rows, ignore_index=True)
    origins = _origins(runs)
    table["base"] = [
        f"{origins[run]}/{seed}" for run, seed in zip(table["run"], table["base_seed"], strict=True)
    ]
    names = ["rule", "kind", "run", "study", "task", "base", "base_seed"]
    found = ["choice", "best", "regret", "rank_correlation", "error", "moved"]
    return table.loc[:, [*names, "fitted_up_to", "data_size", "factor", *found]]


def _cases(runs: Runs) -> Iterator[Case]:
    """Every study at every pair of a largest fitted and a held-out data size."""
    for run, study, risks in _studies(runs):
        task = runs[run][1].task
        for fitted, held_out in splits(risks.test_risk.data_sizes):
            own = _case(risks, fitted, held_out)
            if own is None:
                continue
            levels = np.array(list(runs[run][1].test_levels))
            base = np.stack([_base_means(part)[:, 0, 0] for part in own.base_risks], axis=-1)
            half = np.interp(half_level(1 - base), np.arange(len(levels)), levels)
            columns = {"run": run, "study": study.title, "task": task}
            columns |= {"fitted_up_to": fitted, "data_size": held_out}
            yield Case(columns | {"factor": held_out / fitted}, own, half, study.train_mixture)


def _best_for_others(risk: np.ndarray) -> np.ndarray | None:
    """Position of the level of least mean risk over all bases but one [base]; None for one base.

    Args:
      risk: test risk at the held-out data size [base, difficulty].
    """
    return choose(risk.sum(axis=0) - risk) if len(risk) > 1 else None


def _constants(cases: Sequence[Case]) -> list[pd.DataFrame]:
    """Rows of the best constant of other tasks; none with a single task."""
    tasks = np.array([case.columns["task"] for case in cases])
    kinds = np.array([case.mixture for case in cases])
    if len(set(tasks)) < 2:
        return []
    picks = [_by_multiple(case) for case in cases]
    costs = np.stack(
        [
            np.stack([regret(case.held_out, pick).mean() for pick in own])
            for case, own in zip(cases, picks, strict=True)
        ]
    )
    rows = []
    for place, case in enumerate(cases):
        others = tasks != tasks[place]
        alike = others & (kinds == kinds[place])
        chosen = alike if alike.any() else others
        # Tasks count alike, however many runs they have.
        means = [costs[chosen & (tasks == task)].mean(axis=0) for task in set(tasks[chosen])]
        best = int(np.mean(means, axis=0).argmin())
        rows.append(case.rows(CONSTANT, "constant", picks[place][best], None))
    return rows


def _by_multiple(case: Case) -> np.ndarray:
    """Position of the level nearest to each of `MULTIPLES` of the half level [multiple, base]."""
    wanted = MULTIPLES[:, None] * case.half
    distance = np.abs(case.risks.test_risk.difficulties - wanted[..., None])
    return choose(distance)


def compare(runs: Runs, *, replicates: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Predicted and measured optimum, pooled over bases as in `sweetspot recommend`.

    Returns:
      Rows of two kinds. "measured": the optimum at every data size. "predicted": the
      predictor's, for each held-out data size and each `fitted_up_to` (0 in measured rows).
      Columns: run, study, kind, fitted_up_to, data_size, best_difficulty, low, high (90% interval
      of a measured optimum, see `experiments.analysis.bootstrap`; range of a recommendation),
      censored, abstains, levels, the grid's as words of a text, regret, the mean test risk at
      best_difficulty above the least (0 in measured rows), and base_rule_regret, that of the level
      that `theory.predictor.BASE_RULE` chooses (NaN in measured rows).
    """
    rows = []
    for run, study, risks in _studies(runs):
        table, config = runs[run]
        levels, sizes = risks.test_risk.difficulties, risks.test_risk.data_sizes
        shared = {"run": run, "study": study.title}
        shared["levels"] = " ".join(str(level) for level in levels)
        low, high = best_levels(risks.test_risk, replicates=replicates, seed=seed)
        best = np.where(np.isnan(mean := risks.test_risk.mean), np.inf, mean).argmin(axis=0)
        for place, position in enumerate(best):
            rows.append(
                shared
                | {"kind": "measured", "fitted_up_to": 0, "abstains": False, "regret": 0.0}
                | {"data_size": int(sizes[place]), "best_difficulty": int(levels[position])}
                | {"low": low[place], "high": high[place]}
                | {"censored": _edge(position, mean[:, place])}
            )
        # One prediction per held-out size, from the pilot up to each fitted one.
        for fitted, held_out in splits(sizes):
            made = recommend(
                table,
                study,
                config,
                held_out,
                fitted_up_to=fitted,
                replicates=replicates,
                seed=seed,
            )
            row = {"kind": "predicted", "fitted_up_to": fitted, "data_size": held_out}
            row |= {name: getattr(made, name) for name in ("low", "high", "censored", "abstains")}
            at = mean[:, sizes.tolist().index(held_out)]
            costs = [
                at[levels.tolist().index(level)] - np.nanmin(at)
                for level in (made.difficulty, made.choices[BASE_RULE])
            ]
            row |= dict(zip(("regret", "base_rule_regret"), costs, strict=True))
            rows.append(shared | row | {"best_difficulty": made.difficulty})
    names = ["run", "study", "kind", "fitted_up_to", "data_size", "best_difficulty", "low", "high"]
    names += ["censored", "abstains", "levels", "regret", "base_rule_regret"]
    return pd.DataFrame(rows, columns=names)


def coverage(optima: pd.DataFrame) -> dict[str, float]:
    """Count the predictions whose range holds the level that was measured to be the best.

    Args:
      optima: rows of `compare`.

    Returns:
      predictions; covered, those with the measured best level between low and high; abstained; and
      told, those that did not abstain, with told_covered of them, their mean told_regret and
      told_base_rule_regret.
    """
    measured = optima.loc[optima["kind"] == "measured"]
    truth = measured.set_index(["run", "study", "data_size"])["best_difficulty"].to_dict()
    predicted = optima.loc[optima["kind"] == "predicted"].to_dict("records")
    covered = [
        row["low"] <= truth[row["run"], row["study"], row["data_size"]] <= row["high"]
        for row in predicted
    ]
    told = [not row["abstains"] for row in predicted]

    def mean(name: str) -> float:
        return float(np.nanmean([row[name] for row in predicted if not row["abstains"]]))

    return {
        "predictions": len(predicted),
        "covered": sum(covered),
        "abstained": len(predicted) - sum(told),
        "told": sum(told),
        "told_covered": int(sum(np.logical_and(covered, told))),
        "told_regret": mean("regret"),
        "told_base_rule_regret": mean("base_rule_regret"),
    }


def write_regret(
    directories: Sequence[Path], out: Path, *, replicates: int = 2000
) -> dict[str, pd.DataFrame]:
    """Judge the rules on finished runs; write regret.parquet and prediction.parquet.

    Args:
      directories: run directories; the last part of each path is the run's name.
      out: where the tables go.
      replicates: of the bootstrap behind each recommendation.

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
    tables = {"regret": judge(runs), "prediction": compare(runs, replicates=replicates)}
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
