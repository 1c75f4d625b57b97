"""From the tidy table of a sweep to the pilot that `theory.predictor` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pandas as pd

from experiments.grid import MixtureKind, SweepConfig, sweep_config
from experiments.optimum import Cube, Study, cube, study_rows
from experiments.results import ResultsError, read_manifest, read_table
from theory.predictor import Pilot


@dataclass(frozen=True)
class Measured:
    """What a pilot is made of, member by member, for one study.

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
    """Result table and configuration of a finished run.

    Raises:
      ResultsError: if there is no run, or it is not finished.
      ValueError: if its configuration cannot be read.
    """
    manifest = read_manifest(directory)
    if (status := manifest.get("status")) != "complete":
        raise ResultsError(
            f"{directory} is not finished (status {status!r}): repeat its command to carry on"
        )
    return read_table(directory), sweep_config(manifest["config"])


def measured(table: pd.DataFrame, study: Study, config: SweepConfig) -> Measured:
    """Arrange the measured risks of a study.

    Args:
      table: the tidy result table.
      study: which cells.
      config: the sweep's configuration, which says what the mixtures of difficulties are.

    Raises:
      ValueError: if the table's slices are not the levels that `config` tests, the study's mixture
        is unknown, or a cell has no member with status "ok".
    """
    rows = study_rows(table, study)
    levels = list(config.test_levels)
    slices = dict(list(rows.loc[rows["metric"] == "risk"].groupby("slice")))
    if sorted(slices) != levels:
        raise ValueError(
            f"table: test slices must be those of config, {levels}, got {sorted(slices)}"
        )
    if study.train_mixture not in get_args(MixtureKind):
        raise ValueError(
            f"study: train_mixture must be one of {get_args(MixtureKind)}, "
            f"got {study.train_mixture!r}"
        )
    aggregated = rows.loc[rows["slice"].isna()]
    test_risk = cube(aggregated, study, "test_risk")
    kind = cast(MixtureKind, study.train_mixture)
    train_mixture = np.zeros((len(test_risk.difficulties), len(levels)))
    for row, difficulty in zip(train_mixture, test_risk.difficulties, strict=True):
        mixture = config.mixture(kind, int(difficulty))
        row[np.array(mixture.levels) - 1] = mixture.probabilities
    return Measured(
        test_risk=test_risk,
        train_risk=cube(aggregated, study, "train_risk"),
        in_distribution_risk=cube(aggregated, study, "in_distribution_risk"),
        slice_risks=tuple(cube(slices[level], study, "risk", test_slice=level) for level in levels),
        train_mixture=train_mixture,
        test_mixture=np.full(len(levels), 1 / len(levels)),
    )
