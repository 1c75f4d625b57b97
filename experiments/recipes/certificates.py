"""Members to certify: the main recipe's setting up to n = 4096.

Bases, training data and tests are those of `tradeoff` at the same master seed, trained on 1 to d
alone, with more examples behind each in-distribution risk. ``sweetspot bound`` then regenerates
every member's sample and draws certificates over the measured risks.

Commands and cost (two CPU cores)::

    sweetspot run certificates --preset smoke   # 30 s: for tests
    sweetspot run certificates --preset cpu     # half an hour
    sweetspot run certificates --preset gpu     # one GPU, not run yet: symbolic iGSM
    sweetspot bound --results runs/certificates-cpu --data-sizes 256 1024 4096 \\
        --base-seeds 0 1 2 --trained-difficulties 6 9 12    # an hour: the recorded certificates

Expect: held-out certificates within 1.5 times the plain member's risk and a few hundredths at
n = 4096; posteriors trained from the base get below the base's own certificate at d = 6 alone.
"""

from __future__ import annotations

import dataclasses

from experiments.recipes.tradeoff import PRESETS as TRADEOFF

PRESETS = {
    "smoke": dataclasses.replace(TRADEOFF["smoke"], data_sizes=(32, 64), risk_examples=64),
    "cpu": dataclasses.replace(
        TRADEOFF["cpu"],
        mixtures=("range",),
        data_sizes=(64, 256, 1024, 4096),
        seeds=2,
        risk_examples=1024,
        chunk_members=12,
    ),
    "gpu": dataclasses.replace(
        TRADEOFF["gpu"],
        mixtures=("range",),
        losses=("sft",),
        data_sizes=(256, 1024, 4096),
        seeds=2,
        risk_examples=1024,
    ),
}

DEVICE = "two CPU cores"
HOURS = {"smoke": 0.01, "cpu": 0.9}
"""Hours of each preset on that device, as measured; others have not been run."""
