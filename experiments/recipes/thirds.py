"""Easy, medium and hard thirds of a data set at three sizes (the paper's Table 1).

The data set has the levels 1 to 18, equally often: its thirds are the levels 1 to 6, 7 to 12 and
13 to 18. Bases, epochs and the tuned rate are those of `paper_protocol`.

`PREREGISTERED` was written down before the first run of the preset ``cpu``.

Commands and cost (two CPU cores)::

    sweetspot run thirds --preset smoke   # seconds: for tests
    sweetspot run thirds --preset cpu --bases experiments/results/paper-protocol   # 8 minutes

Expect: at n = 64 the thirds are alike; at n = 512 and 4096 the medium one is best, and the hard one
falls behind it the more the larger n.
"""

from __future__ import annotations

import dataclasses

from experiments.analysis.contrasts import Contrast, Prediction, Term
from experiments.recipes.paper_protocol import CPU as PROTOCOL
from experiments.recipes.paper_protocol import PRESETS as PROTOCOLS

CPU = dataclasses.replace(
    PROTOCOL,
    mixtures=("window",),
    window_width=5,
    difficulties=(6, 12, 18),
    data_sizes=(64, 512, 4096),
    test_hardest=27,
)

PRESETS = {
    "smoke": dataclasses.replace(PROTOCOLS["smoke"], mixtures=("window",), window_width=0),
    "cpu": CPU,
}

EASY, MEDIUM, HARD = CPU.difficulties


def _gain(harder: int, easier: int) -> tuple[Term, ...]:
    """What a harder third gains on an easier one from the smallest to the largest n."""
    small, *_, large = CPU.data_sizes
    return (
        Term(1, harder, small, mixture="window"),
        Term(-1, easier, small, mixture="window"),
        Term(-1, harder, large, mixture="window"),
        Term(1, easier, large, mixture="window"),
    )


PREREGISTERED: tuple[Prediction, ...] = (
    Contrast(1, "what the medium third gains on the easy one, n = 64 to 4096", _gain(MEDIUM, EASY)),
    Contrast(1, "what the hard third gains on the easy one, n = 64 to 4096", _gain(HARD, EASY)),
    Contrast(1, "what the hard third gains on the medium one, n = 64 to 4096", _gain(HARD, MEDIUM)),
)
"""What claim 1 predicts here, written down before the run that tests it."""

DEVICE = "two CPU cores"
HOURS = {"smoke": 0.01, "cpu": 0.1}
"""Hours of each preset on that device, as measured; others have not been run."""
