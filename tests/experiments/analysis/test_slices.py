"""The extrapolation gap in parts, and the risk on groups of test levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import optimum, reweight, slices
from experiments.analysis.studies import Study
from tests.experiments.worlds import RISING, parabola_row


def table(mixture: str = "exact") -> pd.DataFrame:
    """Two equal bases, d = 2 and 3, and known risks on the test levels 1 to 4."""
    rows = []
    for base in (0, 1):
        risks = {0: (0.0, 0.0, 0.5, 1.0), 2: (0.0, 0.2, 0.6, 1.0), 3: (0.1, 0.2, 0.4, 0.9)}
        for level, own in risks.items():
            size, kind = (16, mixture) if level else (0, "none")
            more = {"train_mixture": kind, "loss": "sft" if level else "none"}
            rows += [
                parabola_row(base, 0, level, size, "risk", risk, slice=at, **more)
                for at, risk in enumerate(own, start=1)
            ]
            inside, test = own[max(level, 1) - 1], float(np.mean(own))
            for metric, value in (
                ("test_risk", test),
                ("in_distribution_risk", inside),
                ("extrapolation_gap", test - inside),
            ):
                rows.append(parabola_row(base, 0, level, size, metric, value, **more))
    made = pd.DataFrame(rows)
    made["slice"] = made["slice"].astype("Int64")
    return made


def test_parts_of_the_gap_sum_to_it():
    made = table()
    (study,) = optimum.studies(made)
    parts = slices.parts(made, study)
    # d = 2: (0 - .2) / 4 below it, and (.4 + .8) / 4 beyond. d = 3: (-.3 - .2) / 4 and .5 / 4.
    np.testing.assert_allclose(parts["backward"][:, 0, 0], [-0.05, -0.125])
    np.testing.assert_allclose(parts["inside"], 0.0, atol=1e-12)
    np.testing.assert_allclose(parts["forward"][:, 0, 0], [0.3, 0.125])
    gap = optimum.cube(made, study, "extrapolation_gap").units
    np.testing.assert_allclose(sum(parts.values()), gap)


def test_groups_are_below_the_mixture_and_unknown_to_the_base():
    made = table()
    (study,) = optimum.studies(made)
    groups = slices.groups(made, study)
    np.testing.assert_allclose(groups["easier than the mixture"][:, 0, 0], [0.0, 0.15])
    np.testing.assert_allclose(groups["unknown to the base"][:, 0, 0], [1.0, 0.9])
    np.testing.assert_allclose(groups["all levels"][:, 0, 0], [0.45, 0.4])


def test_a_mixture_from_level_1_has_no_easier_levels():
    made = table("range")
    (study,) = optimum.studies(made)
    assert np.isnan(slices.groups(made, study)["easier than the mixture"]).all()
    assert not slices.parts(made, study)["backward"].any()


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [("range", (1, 6)), ("exact", (6, 6)), ("window", (4, 6)), ("above", (6, 9))],
)
def test_the_span_of_a_mixture(mixture, expected):
    assert slices.span(Study(mixture), 6, 9, window_width=2) == expected
    assert slices.span(Study("window"), 2, 9, window_width=3) == (1, 2)


def test_another_test_mixture_changes_the_test_risk_and_the_gap_alone():
    made = table()
    changed = reweight.reweighted(made, np.array([0.5, 0.5, 0.0, 0.0]))
    (study,) = optimum.studies(changed)
    np.testing.assert_allclose(optimum.cube(changed, study, "test_risk").mean, [[0.1], [0.15]])
    gap = optimum.cube(changed, study, "extrapolation_gap").mean
    np.testing.assert_allclose(gap, [[0.1 - 0.2], [0.15 - 0.4]])
    same = ~made["metric"].isin(["test_risk", "extrapolation_gap"])
    pd.testing.assert_frame_equal(changed.loc[same], made.loc[same])
    untrained = changed.loc[(changed["difficulty"] == 0) & (changed["metric"] == "test_risk")]
    assert untrained["value"].tolist() == [0.0, 0.0]


def test_equal_weights_change_nothing():
    made = table()
    uniform = reweight.mixtures(4)["uniform"]
    pd.testing.assert_frame_equal(reweight.reweighted(made, uniform), made)


def test_a_diverged_member_stays_without_a_value():
    made = table()
    lost = (made["base_seed"] == 1) & (made["difficulty"] == 3)
    made.loc[lost, "value"] = np.nan
    changed = reweight.reweighted(made, reweight.mixtures(4)["easy-heavy"])
    risks = changed.loc[changed["metric"] == "test_risk"].set_index(["base_seed", "difficulty"])
    assert np.isnan(risks.loc[(1, 3), "value"])
    assert np.isfinite(risks.loc[(0, 3), "value"])


def test_heavy_mixtures_mirror_each_other():
    mixtures = reweight.mixtures(5)
    for weights in mixtures.values():
        assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(mixtures["easy-heavy"], mixtures["hard-heavy"][::-1])
    assert mixtures["easy-heavy"][0] > mixtures["easy-heavy"][-1]


def test_weights_must_be_one_for_each_level():
    with pytest.raises(ValueError, match="weights must be one for each of 3 levels, got 2"):
        reweight.reweighted(RISING, np.array([0.5, 0.5]))
