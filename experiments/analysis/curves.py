"""Learning curves of each level, measured and predicted, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from experiments.analysis.recommend import Recommendation


def learning_curves(answers: Sequence[Recommendation]) -> pd.DataFrame:
    """Accuracy over data size of each level of each study.

    Returns:
      One row per study, level and data size: study, difficulty, data_size, kind ("measured", or
      "predicted" at the budget), accuracy, low and high (its 90% interval), and is_recommended.
    """
    rows = []
    for answer in answers:
        sizes = {size: ("measured", risks) for size, risks in answer.measured.items()}
        # A budget equal to the pilot's largest size has both.
        points = [*sizes.items(), (answer.data_size, ("predicted", answer.predicted))]
        for size, (kind, risks) in points:
            rows += [
                {
                    "study": answer.study.title,
                    "difficulty": level,
                    "data_size": size,
                    "kind": kind,
                    "accuracy": 1 - risk.mean,
                    "low": 1 - risk.high,
                    "high": 1 - risk.low,
                    "is_recommended": level == answer.difficulty and not answer.abstains,
                }
                for level, risk in risks.items()
            ]
    return pd.DataFrame(rows)
