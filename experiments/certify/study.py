"""A certification as a study: parts give rows of certificates, and of complexity along posteriors.

The certification of a sweep's members and that of a checkpoint differ in how a predictor's loss is
computed. They share the rest: the account of delta, the rows, and the two tables that result.
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
    """Base class: `certify` makes the rows of one part.

    Attributes:
      ledger: the account of one certificate, with nothing spent. All certificates of the run share
        delta equally.
    """

    unit = "parts of the certification"
    ledger: Ledger
    parts: Sequence[Part]

    def stages(self) -> list[Sequence[Part]]:
        """One stage: certificates do not depend on each other."""
        return [self.parts]

    def make(self, part: Part) -> Output:
        """Certificates of one part, and the complexity along its posteriors."""
        rows, path = self.certify(part)
        tables = {"certificates": pd.DataFrame(rows), "complexity": pd.DataFrame(path)}
        return Output({name: tables[name] for name in part.tables})

    def certify(self, part: Part) -> tuple[list[Row], list[Row]]:
        """Rows of the certificates of one part, and of the complexity along its posteriors."""
        raise NotImplementedError
