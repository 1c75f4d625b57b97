"""Point predictors from errors that are made up, so that their numbers are known."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from experiments.certify.points import point_predictors
from tests.golden import theory as golden
from theory.bounds import pac_bayes_kl
from theory.certificate import BOUND, Ledger


def candidate(wrong: int, num_examples: int) -> dict:
    """Errors of a base and of a fine-tuning that gets so many of the second half wrong."""
    first, second = np.zeros(num_examples, bool), np.arange(num_examples) < wrong
    errors = {
        "sample": np.concatenate([first, second]),
        "fresh": np.array([True, False]),
        "buckets": [np.array([True, False])],
    }
    return {"base": errors, "tuned": errors}


@pytest.mark.parametrize("cell", range(len(golden.CANDIDATES)))
def test_the_mixture_of_candidates_pays_for_its_weights(cell):
    errors, n, delta = golden.CANDIDATES[cell]
    expected = golden.read()["candidates"][cell]
    found = point_predictors(
        [candidate(wrong, n) for wrong in errors], lambda parts: parts, data_size=2 * n, delta=delta
    )["candidates"]
    assert found.num_examples == n
    assert found.kl == pytest.approx(expected["kl"], rel=0.1)
    assert found.empirical_risk == pytest.approx(expected["empirical_risk"], rel=0.02)
    # The KL from equal weights, by its definition.
    weights = [float(text) for text in re.findall(r"\d\.\d+", found.posterior)]
    nats = sum(w * math.log(len(errors) * w) for w in weights if w)
    assert found.kl == pytest.approx(nats, abs=0.01)
    ledger = Ledger(delta).spend(BOUND, delta)
    certificate = found.certificate(ledger, seed=0, method="candidates")
    assert expected["bound"] <= certificate.risk_bound < expected["bound"] * (1 + 1e-4)
    unpaid = pac_bayes_kl(found.empirical_risk, 0.0, num_examples=n, delta=delta)
    assert certificate.risk_bound > unpaid * 1.005
