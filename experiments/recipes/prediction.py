"""More sweeps to judge predictors of the best difficulty on: another task, and a weaker base.

``modulus-7`` is the main recipe's task in a larger number range; ``weak-base`` starts from bases
that know levels 1 and 2 alone. ``sweetspot regret`` averages over their tables and those of
`tradeoff` and `certificates`.

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
