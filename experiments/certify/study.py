"""A certification as a study: its parts make rows of certificates and of their complexity.

The certification of a sweep's members and that of a checkpoint differ in how a predictor's loss is
computed. They share the account of delta and two tables: ``certificates``, and ``complexity``, the
KL and risk on the way from prior to posterior.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from experiments.certify.rows import Row
from experiments.engine.study import Output, Part, Study
from theory.certificate import Ledger

POINTS = ("certificates",)
POSTERIORS = ("certificates", "complexity")
"""Tables that a part of each kind adds rows to."""


class Certification(Study):
    """Base class: `part_rows` makes the rows of one part.

    Attributes:
      ledger: the account of one certificate, with nothing spent. All certificates of the run share
        delta equally.
    """

    unit = "parts of the certification"
    # A table of some certificates would look like one of all.
    shows_progress = False
    ledger: Ledger
    parts: Sequence[Part]

    def stages(self) -> list[Sequence[Part]]:
        """One stage: certificates do not depend on each other."""
        return [self.parts]

    def make(self, part: Part) -> Output:
        """Make the rows of one part as tables."""
        rows, path = self.part_rows(part)
        tables = {"certificates": pd.DataFrame(rows), "complexity": pd.DataFrame(path)}
        return Output({name: tables[name] for name in part.tables})

    def part_rows(self, part: Part) -> tuple[list[Row], list[Row]]:
        """Rows of one part in the tables ``certificates`` and ``complexity``."""
        raise NotImplementedError
