"""More sweeps to judge predictors of the best difficulty on: another task, and a weaker base.

``modulus-7`` is the main recipe's task in a larger number range; ``weak-base`` starts from bases
that know levels 1 and 2 alone. ``sweetspot regret`` averages over their tables and those of
`tradeoff` and `certificates`.

The rule `theory.predictor.mean_level` was written down on 29 November 2026 after the runs in
`FORMED_ON` had been seen. Those in `OLDER` were there, but not looked at for it. Every later run is
a test that it has not seen: the controls ``steps``,
``tokens``, ``one-epoch`` and ``compute-4``, and the families ``igsm``, ``chain-lines``,
``expressions-range`` and ``parity-scratchpad-range`` were started or waiting then; the families
``igsm-shuffled`` and ``pointer`` came after. Predicted there:
a mean regret of at most .01, and less than half of that of the best constant of other tasks.

Commands and cost (two CPU cores)::

    sweetspot run prediction --preset smoke       # 30 s: for tests
    sweetspot run prediction --preset modulus-7   # 10 minutes
    sweetspot run prediction --preset weak-base   # 8 minutes; not recorded yet

Expect: the predictor's regret is about as low as that of the best rule that knows the pilot alone.
"""

from __future__ import annotations

import dataclasses

from experiments.recipes.tradeoff import PRESETS as TRADEOFF
from experiments.sweep.grid import PretrainConfig

SWEEP = dataclasses.replace(TRADEOFF["cpu"], mixtures=("range",), seeds=1, chunk_members=12)

PRESETS = {
    "smoke": TRADEOFF["smoke"],
    "modulus-7": dataclasses.replace(SWEEP, task_options={"modulus": 7}),
    "weak-base": dataclasses.replace(
        SWEEP, pretrain=PretrainConfig(hardest=2), difficulties=(2, 4, 6, 9, 12), test_hardest=18
    ),
}

FORMED_ON = (
    "paper-protocol",
    "paper-protocol-dft",
    "base-strength-ratio-40",
    "base-strength-ratio-50",
    "base-strength-ratio-60",
    "base-strength-ratio-70",
    "controls-fixed-rate",
    "controls-range",
    "controls-window",
    "families-addition",
    "families-dyck",
    "families-expressions",
    "families-group-words",
    "families-group-words-range",
    "families-parity-scratchpad",
    "leave-out",
)
"""Names of recorded runs that the rule was formed on."""

OLDER = ("certificates", "modulus-7", "thirds", "tradeoff")
"""Names of runs that had been recorded by then, but were not looked at for it."""

DEVICE = "two CPU cores"
HOURS = {"smoke": 0.01, "modulus-7": 0.2, "weak-base": 0.15}
"""Hours of each preset on that device, as measured; others have not been run."""
