"""The pilot that `theory.predictor` fits, made from the tidy table of a sweep or a scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from experiments.analysis.optimum import Cube, Study, cube, study_rows
from experiments.llm.difficulty.selection import Levels
from experiments.storage.results import (
    ResultsError,
    read_finished,
    read_table,
    read_tables,
    stated,
)
from experiments.sweep.grid import SweepConfig, sweep_config
from synth.task import Mixture
from theory.predictor import Pilot


class Mixtures(Protocol):
    """Levels of the test and training mixture of each cell: a sweep's or a scan's own."""

    @property
    def test_levels(self) -> Sequence[int]:
        """Level of each test slice, increasing."""
        ...

    def mixture(self, kind: Any, difficulty: int) -> Mixture:
        """Training mixture of a cell; ValueError for a kind that is unknown."""
        ...


@dataclass(frozen=True)
class StudyRisks:
    """Measured risks of one study, member by member, and its mixtures; `pilot` averages them.

    Attributes:
      test_risk, train_risk, in_distribution_risk: one value a member.
      slice_risks: risk on each test slice, easiest first.
      base_risks: that of the untouched bases, whose cubes have one difficulty and one data size.
      train_mixture: probability of each slice's level for each difficulty [difficulty, slice].
      test_mixture: probability of each slice in the test [slice].
      num_asked: examples behind each risk of a member: of every slice [slice], and behind the train
        and the in-distribution risk (means over members).
    """

    test_risk: Cube
    train_risk: Cube
    in_distribution_risk: Cube
    slice_risks: tuple[Cube, ...]
    base_risks: tuple[Cube, ...]
    train_mixture: np.ndarray
    test_mixture: np.ndarray
    num_asked: tuple[np.ndarray, float, float]

    @property
    def cubes(self) -> tuple[Cube, ...]:
        """Every metric of the members, slices last."""
        return (self.test_risk, self.train_risk, self.in_distribution_risk, *self.slice_risks)

    def only(
        self,
        *,
        levels: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
        bases: np.ndarray | None = None,
    ) -> StudyRisks:
        """The same risks at some levels, data sizes and bases, each marked by True; None is all."""
        test, train, fresh, *slices = (
            each.only(levels=levels, sizes=sizes, bases=bases) for each in self.cubes
        )
        rows = slice(None) if levels is None else levels
        return StudyRisks(
            test_risk=test,
            train_risk=train,
            in_distribution_risk=fresh,
            slice_risks=tuple(slices),
            base_risks=tuple(each.only(bases=bases) for each in self.base_risks),
            train_mixture=self.train_mixture[rows],
            test_mixture=self.test_mixture,
            num_asked=self.num_asked,
        )

    def up_to(self, largest: float) -> StudyRisks:
        """The same risks without the data sizes above `largest`."""
        return self.only(sizes=self.test_risk.data_sizes <= largest)

    def complete(self) -> StudyRisks:
        """The levels that have a finished member at every data size: a curve needs them all.

        Raises:
          ValueError: if there is none.
        """
        has_all = np.asarray(np.isfinite(self.test_risk.mean).all(axis=1))
        if not has_all.any():
            raise ValueError(
                f"table: no difficulty of {self.test_risk.difficulties.tolist()} has a member with "
                f"status 'ok' at every data size of {self.test_risk.data_sizes.tolist()}"
            )
        return self.only(levels=has_all)

    def pilot(self, average: Callable[[Cube], np.ndarray]) -> Pilot:
        """The pilot with members averaged by `average`: cube -> [..., difficulty, data_size]."""
        return Pilot(
            self.test_risk.difficulties,
            self.test_risk.data_sizes.astype(float),
            average(self.train_risk),
            average(self.in_distribution_risk),
            np.stack([average(part) for part in self.slice_risks], axis=-1),
            self.train_mixture,
            self.test_mixture,
            np.stack([average(part)[..., 0, 0] for part in self.base_risks], axis=-1),
            self.num_asked[0],
        )


def read_pilot(directory: Path) -> tuple[pd.DataFrame, SweepConfig]:
    """Result table and configuration of a finished sweep.

    Raises:
      ResultsError: if there is no run, it is not finished, or it is a scan of real checkpoints.
      ValueError: if its configuration cannot be read.
    """
    manifest = read_finished(directory)
    if manifest.get("kind") == "llm":
        raise ResultsError(
            f"{directory} is a scan of a real checkpoint: see sweetspot llm recommend"
        )
    return read_table(directory), sweep_config(stated(manifest, directory, "config"))


def read_scan(directory: Path) -> tuple[pd.DataFrame, Levels]:
    """Result table and levels of a finished scan of a real checkpoint.

    Raises:
      ResultsError: if there is no scan, or it is not finished.
    """
    manifest = read_finished(directory)
    if manifest.get("kind") != "llm":
        raise ResultsError(f"{directory} is no scan of a real checkpoint: see sweetspot recommend")
    return read_table(directory), Levels.of(manifest)


def read_answers(directory: Path) -> pd.DataFrame | None:
    """Answers of a scan's models to its test; None where they were not kept."""
    path = directory / "answers.parquet"
    return read_tables(directory, "answers")["answers"] if path.is_file() else None


def study_risks(table: pd.DataFrame, study: Study, mixtures: Mixtures) -> StudyRisks:
    """Arrange the measured risks of a study.

    Args:
      table: the tidy result table.
      study: which cells.
      mixtures: what was tested, and what the study's cells were trained on.

    Raises:
      ValueError: if the table's slices are not the levels that `mixtures` tests, the study's
        mixture is unknown or has a level that is not tested, a cell has no row, no member has
        status "ok", or the untouched bases have no rows.
    """
    # The slices must be the levels of the test.
    rows = study_rows(table, study)
    levels = list(mixtures.test_levels)
    slices = dict(list(rows.loc[rows["metric"] == "risk"].groupby("slice")))
    if sorted(slices) != levels:
        raise ValueError(
            f"table: test slices must be those of the run, {levels}, got {sorted(slices)}"
        )
    # The mixture that each difficulty was trained on, as probabilities of the slices.
    aggregated = rows.loc[rows["slice"].isna()]
    test_risk = cube(aggregated, study, "test_risk")
    train_mixture = np.zeros((len(test_risk.difficulties), len(levels)))
    for row, difficulty in zip(train_mixture, test_risk.difficulties, strict=True):
        mixture = mixtures.mixture(study.train_mixture, int(difficulty))
        if unseen := sorted(set(mixture.levels) - set(levels)):
            raise ValueError(f"table: levels {unseen} are trained on, but the test has {levels}")
        row[[levels.index(level) for level in mixture.levels]] = mixture.probabilities
    # A slice counts in the test by its number of examples.
    sizes = np.array([slices[level]["num_examples"].mean() for level in levels])
    asked = aggregated.groupby("metric")["num_examples"].mean()
    return StudyRisks(
        test_risk=test_risk,
        train_risk=cube(aggregated, study, "train_risk"),
        in_distribution_risk=cube(aggregated, study, "in_distribution_risk"),
        slice_risks=tuple(cube(slices[level], study, "risk", test_slice=level) for level in levels),
        base_risks=_of_bases(table, study, levels, test_risk),
        train_mixture=train_mixture,
        test_mixture=sizes / sizes.sum(),
        num_asked=(sizes, float(asked["train_risk"]), float(asked["in_distribution_risk"])),
    )


def _of_bases(
    table: pd.DataFrame, study: Study, levels: list[int], members: Cube
) -> tuple[Cube, ...]:
    """Risk of the bases that have members on each test slice."""
    if study.untrained.train_mixture not in set(table["train_mixture"]):
        raise ValueError("table: no rows of the untouched bases, whose accuracy by level is needed")
    rows = study_rows(table, study.untrained)
    cubes = (cube(rows, study.untrained, "risk", test_slice=level) for level in levels)
    return tuple(each.only(bases=np.isin(each.base_seeds, members.base_seeds)) for each in cubes)
