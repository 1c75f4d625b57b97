"""Where the total bound is least beside where the measured risk is least."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.certified import agreement, curves, minima


def table(bounds: dict[str, list[float]], risk: list[float], **columns) -> pd.DataFrame:
    """One method at one data size, levels 4, 6, 9 …; two bases around the stated values."""
    levels = (4, 6, 9, 12)[: len(risk)]
    rows = [
        {
            "method": "held-out",
            "train_mixture": "range",
            "data_size": 64,
            "difficulty": level,
            "base_seed": base,
            "test_risk": risk[place] + 0.01 * (2 * base - 1),
            "risk_bound": 0.5,
            "is_monotone": base == 0,
        }
        | {f"test_bound_{name}": values[place] for name, values in bounds.items()}
        | columns
        for place, level in enumerate(levels)
        for base in (0, 1)
    ]
    return pd.DataFrame(rows)


BOUNDS = {
    "unconditional": [0.9, 0.8, 0.85, 1.0],
    "monotone": [0.8, 0.7, 0.6, 0.5],
    "literal": [1.0, 1.0, 1.0, 1.0],
}
RISK = [0.5, 0.4, 0.3, 0.35]


def test_curves_are_means_over_bases():
    found = curves(table(BOUNDS, RISK)).set_index("difficulty")
    assert found["test_risk"].tolist() == pytest.approx(RISK)
    assert found["test_bound_unconditional"].tolist() == BOUNDS["unconditional"]
    assert set(found["contradicted"]) == {0.5}


def test_minima_and_their_regret():
    found = minima(table(BOUNDS, RISK)).set_index("variant")
    assert set(found["measured"]) == {9}
    assert found["certified"].tolist()[:2] == [6, 12]
    assert found["steps"].tolist()[:2] == [1, 1]
    assert found["regret"].tolist()[:2] == pytest.approx([0.1, 0.05])
    # A bound of 1 everywhere picks no level.
    assert found.loc["literal", ["certified", "steps", "regret"]].isna().all()
    assert found.loc["literal", "least_bound"] == 1


def test_agreement_counts_a_vacuous_bound_as_a_miss():
    far = BOUNDS | {"unconditional": [0.5, 0.8, 0.85, 1.0]}
    small = table(far, RISK, data_size=16)
    both = pd.concat([minima(table(BOUNDS, RISK)), minima(table(far, RISK, data_size=128))])
    found = agreement(pd.concat([both, minima(small)])).set_index("variant")
    assert found["near"].tolist() == [1, 2, 0]
    assert set(found["pairs"]) == {2}
    assert found["vacuous"].tolist() == [0, 0, 2]
    assert found["regret"].tolist()[:2] == pytest.approx([0.15, 0.05])
    assert np.isnan(found["regret"]["literal"])


def test_a_table_without_the_variants_says_what_to_do():
    old = table(BOUNDS, RISK).drop(columns="test_bound_literal")
    with pytest.raises(ValueError, match=r"\['test_bound_literal'\] are missing; certify again"):
        curves(old)
