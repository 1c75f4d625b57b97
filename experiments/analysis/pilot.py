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
from experiments.storage.results import ResultsError, read_finished, read_table
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
      train_mixture: probability of each slice's level for each difficulty [difficulty, slice].
      test_mixture: probability of each slice in the test [slice].
    """

    test_risk: Cube
    train_risk: Cube
    in_distribution_risk: Cube
    slice_risks: tuple[Cube, ...]
    train_mixture: np.ndarray
    test_mixture: np.ndarray

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
    return read_table(directory), sweep_config(manifest["config"])


def read_scan(directory: Path) -> tuple[pd.DataFrame, Levels]:
    """Result table and levels of a finished scan of a real checkpoint.

    Raises:
      ResultsError: if there is no scan, or it is not finished.
    """
    manifest = read_finished(directory)
    if manifest.get("kind") != "llm":
        raise ResultsError(f"{directory} is no scan of a real checkpoint: see sweetspot recommend")
    return read_table(directory), Levels.of(manifest)


def study_risks(table: pd.DataFrame, study: Study, mixtures: Mixtures) -> StudyRisks:
    """Arrange the measured risks of a study.

    Args:
      table: the tidy result table.
      study: which cells.
      mixtures: what was tested, and what the study's cells were trained on.

    Raises:
      ValueError: if the table's slices are not the levels that `mixtures` tests, the study's
        mixture is unknown or has a level that is not tested, or a cell has no member with status
        "ok".
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
    return StudyRisks(
        test_risk=test_risk,
        train_risk=cube(aggregated, study, "train_risk"),
        in_distribution_risk=cube(aggregated, study, "in_distribution_risk"),
        slice_risks=tuple(cube(slices[level], study, "risk", test_slice=level) for level in levels),
        train_mixture=train_mixture,
        test_mixture=sizes / sizes.sum(),
    )
