"""A finished scan, as far as a choice of rows needs it: its data, base, measure and training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.llm.difficulty.buckets import Buckets
from experiments.llm.problems.config import Source
from experiments.llm.scan.grid import ScanConfig
from experiments.llm.scan.levels import read_measures
from experiments.llm.scan.study import ScanStudy
from experiments.storage.records import from_record
from experiments.storage.results import read_finished, stated

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scanned:
    """A finished scan of a real checkpoint.

    Attributes:
      directory: of the scan.
      config: of the scan.
      manifest: of the scan.
    """

    directory: Path
    config: ScanConfig
    manifest: Mapping[str, Any]

    @classmethod
    def read(cls, directory: Path) -> Scanned:
        """Read a scan's manifest.

        Raises:
          ResultsError: if there is no scan, or it is not finished.
          ValueError: if its configuration cannot be read.
        """
        manifest = read_finished(directory)
        return cls(
            directory, from_record(ScanConfig, stated(manifest, directory, "config")), manifest
        )

    @property
    def train(self) -> Source:
        """The scan's own training problems."""
        if (export := self.config.export) is not None:
            return Source(str(self.directory / "data" / "train" / f"*.{export.format}"))
        return self.config.train

    @property
    def digest(self) -> str:
        """Fingerprint of these problems when the scan read them."""
        return stated(self.manifest, self.directory, "data", "train")

    @property
    def buckets(self) -> Buckets | None:
        """Buckets of the scan's measure; None if it took stated levels."""
        record = self.manifest.get("buckets")
        return None if record is None else Buckets(**record)

    @functools.cached_property
    def _study(self) -> ScanStudy:
        return ScanStudy(self.config, self.directory, recipe="", preset="")

    @property
    def tokenizer_of(self) -> str:
        """Checkpoint whose tokenizer the scan encoded its problems with."""
        return self.config.checkpoint or str(self._study.start)

    @property
    def base(self) -> str:
        """Checkpoint that the scan's members started from."""
        return self.tokenizer_of if self.config.base.training is None else str(self._study.base)

    def measured(self) -> pd.DataFrame:
        """The scan's measures of its training problems, without those that were too long.

        Raises:
          ResultsError: if the scan kept none.
        """
        return read_measures(self.directory)["train"]
