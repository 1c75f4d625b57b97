"""Does the move of the best level survive? One thing of `paper_protocol` is changed at a time.

- ``fixed-rate``: one learning rate for all cells in place of the best of three.
- ``compute-4``: twelve epochs in place of three.
- ``one-epoch``: one epoch in place of three, on the grid of `paper_protocol`. The better of both on
  the validation draw, cell by cell, is a second setting with early stopping (`experiments.pages`).
- ``steps``: 192 steps for every cell, three epochs at n = 1024.
- ``tokens``: n counts tokens, so that harder cells have fewer examples.
- ``window``: levels d - 2 to d in place of exactly d.
- ``range``: levels 1 to d.

The other presets have a coarser grid. All have the bases of `paper_protocol`, which need not be
trained again.

Commands and cost (two CPU cores); with ``--bases experiments/results/paper-protocol`` no bases are
trained::

    sweetspot run controls --preset smoke        # seconds: for tests
    sweetspot run controls --preset fixed-rate
    sweetspot run controls --preset compute-4
    sweetspot run controls --preset one-epoch
    sweetspot run controls --preset steps
    sweetspot run controls --preset tokens
    sweetspot run controls --preset window
    sweetspot run controls --preset range

The members of ``fixed-rate`` are certified as well, and those of ``range``, on a sample of another
master seed, since a rate that was tuned on a sample's members cannot be used to certify with it::

    sweetspot bound runs/controls-fixed-rate --mixture exact --data-sizes 512 4096 \\
        --methods base held-out gains --base-seeds 0 1 2 3 4 5 6 7
    sweetspot bound runs/controls-range --mixture range --master-seed 1 \\
        --methods base held-out --base-seeds 0 1 2 3 4 5 6 7

Expect: ``fixed-rate`` (2 minutes) moves to easier data, from 12 at n = 64 to 11 at n = 4096, where
the rate is too high for hard levels. ``window`` (6 minutes) stays near 12.5, and ``steps`` (5
minutes) at 12.2. ``range`` (8 minutes) moves from 14.3 at n = 512 to the end of the grid, and gains
five times as much on the base as exact levels. ``one-epoch`` (12 minutes) stays near 12 as well;
chosen on validation beside three epochs, it changes nothing. ``tokens`` (12 minutes) moves to
easier data, from 13.3 at 4,096 tokens to 12.0 at 262,144. ``compute-4`` (14 minutes) does so too,
from 13.1 at n = 64 to 10.7 at n = 4096.
"""

from __future__ import annotations

import dataclasses

from experiments.analysis.contrasts import Covered, Move, Prediction
from experiments.recipes.paper_protocol import CPU as PROTOCOL
from experiments.recipes.paper_protocol import PRESETS as PROTOCOLS

COARSE = dataclasses.replace(PROTOCOL, difficulties=(8, 10, 12, 14, 16), data_sizes=(64, 512, 4096))

PRESETS = {
    "smoke": PROTOCOLS["smoke"],
    "fixed-rate": dataclasses.replace(COARSE, learning_rates=(2e-4,)),
    "compute-4": dataclasses.replace(COARSE, compute=12),
    "one-epoch": dataclasses.replace(PROTOCOL, compute=1),
    "steps": dataclasses.replace(COARSE, compute=192, compute_unit="steps"),
    # An example of 12 operations has 64 tokens.
    "tokens": dataclasses.replace(COARSE, data_unit="tokens", data_sizes=(4096, 32_768, 262_144)),
    "window": dataclasses.replace(COARSE, mixtures=("window",)),
    "range": dataclasses.replace(COARSE, mixtures=("range",)),
}

PREREGISTERED: tuple[Prediction, ...] = (
    Move(1, "the best level at n = 4096 minus that at n = 64", 64, 4096),
    Move(1, "the best level at 262,144 tokens minus that at 4,096", 4096, 262_144),
    Move(1, "the best level at n = 4096 minus that at n = 64", 64, 4096, mixture="window"),
    Move(1, "the best level at n = 4096 minus that at n = 64", 64, 4096, mixture="range"),
    Covered(8, "bound on the base's own test risk minus that risk, its least", "base"),
    Covered(8, "bound on the test risk of trained norm gains minus that risk, its least", "gains"),
)
"""Predictions of claims 1 and 8 under each control, written down before the runs that test them."""

DEVICE = "two CPU cores"
HOURS = {
    "smoke": 0.01,
    "fixed-rate": 0.03,
    "compute-4": 0.25,
    "one-epoch": 0.3,
    "steps": 0.15,
    "tokens": 0.3,
    "window": 0.1,
    "range": 0.2,
}
"""Hours of each preset on that device, as measured."""
