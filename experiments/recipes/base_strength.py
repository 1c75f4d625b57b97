"""Bases of four strengths on one grid and one test (claim 6: difficulty is relative to the base).

Bases are trained as those of `paper_protocol`, on levels 1 to 16 of which each is ``level_ratio``
times as frequent as the one before; the larger this ratio, the further up the levels they know.
Each ratio has a preset: ``ratio-40``, ``ratio-50``, ``ratio-60``, ``ratio-70``. Members are
fine-tuned on exactly d for three epochs at a rate tuned per cell.

`PREREGISTERED` was written down before the first run.

Commands and cost (two CPU cores)::

    sweetspot run base-strength --preset smoke      # seconds: for tests
    sweetspot run base-strength --preset ratio-40   # 5 to 13 minutes, and so have the others
    sweetspot run base-strength --preset ratio-50
    sweetspot run base-strength --preset ratio-60
    sweetspot run base-strength --preset ratio-70

Expect: at n = 512 and 4096 the best level is near the one of which the bases get half right: 7.8 at
ratio .4, and 13.5 at ratio .7. At n = 64 nearly all levels are alike.
"""

from __future__ import annotations

import dataclasses

from experiments.analysis.contrasts import Prediction, Rise
from experiments.recipes.paper_protocol import CPU as PROTOCOL
from experiments.recipes.paper_protocol import GRADUAL
from experiments.recipes.paper_protocol import PRESETS as PROTOCOLS
from experiments.sweep.grid import SweepConfig


def _preset(ratio: float) -> SweepConfig:
    return dataclasses.replace(
        PROTOCOL,
        pretrain=dataclasses.replace(GRADUAL, level_ratio=ratio, max_risk=0.5),
        difficulties=(4, 6, 8, 10, 12, 14, 16),
        data_sizes=(64, 512, 4096),
    )


PRESETS = {
    "smoke": PROTOCOLS["smoke"],
    **{f"ratio-{round(100 * ratio)}": _preset(ratio) for ratio in (0.4, 0.5, 0.6, 0.7)},
}

STRENGTHS = tuple(name for name in PRESETS if name != "smoke")

PREREGISTERED: tuple[Prediction, ...] = (
    Rise(6, "the best level at n = 512, strongest bases minus weakest", STRENGTHS, 512),
    Rise(6, "the best level at n = 4096, strongest bases minus weakest", STRENGTHS, 4096),
)
"""What claim 6 predicts here, written down before the runs that test it."""

DEVICE = "two CPU cores"
HOURS = {"smoke": 0.01, "ratio-40": 0.2, "ratio-50": 0.2, "ratio-60": 0.1, "ratio-70": 0.2}
"""Hours of each preset on that device, as measured; others have not been run."""
