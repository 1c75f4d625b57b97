"""Leaving out the hardest or the easiest examples of a data set (claim 4; the paper's Figure 2).

The data set has the levels 1 to 20, equally often. ``range`` keeps the levels 1 to d, so that
d = 20 is all of it and d = 14 leaves out the hardest 30%. ``above`` keeps the levels d to 20, so
that d = 8 leaves out the easiest 35%. Whatever is left out is replaced: a cell has n examples.
Bases, epochs and the tuned rate are those of `paper_protocol`.

`PREREGISTERED` was written down before the first run of the preset ``cpu``.

Commands and cost (two CPU cores)::

    sweetspot run leave-out --preset smoke   # seconds: for tests
    # 34 minutes, beside other work:
    sweetspot run leave-out --preset cpu --bases experiments/results/paper-protocol

Expect: at n = 64 nothing that is left out matters. At n = 4096 everything does: without the hardest
30% accuracy falls by 3 points, without the easiest 35% by 9. Trained on 1 to d, the best d moves
from 14 at n = 256 to 18 or beyond at n = 4096.
"""

from __future__ import annotations

import dataclasses

from experiments.analysis.contrasts import Contrast, Prediction, Term
from experiments.recipes.paper_protocol import CPU as PROTOCOL
from experiments.recipes.paper_protocol import PRESETS as PROTOCOLS

CPU = dataclasses.replace(
    PROTOCOL,
    mixtures=("range", "above"),
    difficulties=(5, 8, 11, 14, 17, 20),
    test_hardest=30,
)

PRESETS = {
    "smoke": dataclasses.replace(
        PROTOCOLS["smoke"], mixtures=CPU.mixtures, difficulties=(1, 3), test_hardest=5
    ),
    "cpu": CPU,
}


def _compared(worse: tuple[str, int], better: tuple[str, int], size: int) -> tuple[Term, ...]:
    """Test risk of one mixture minus that of another at one data size."""
    return tuple(
        Term(weight, difficulty, size, mixture=mixture)
        for weight, (mixture, difficulty) in ((1, worse), (-1, better))
    )


ALL, WITHOUT_HARD, WITHOUT_EASY = ("range", 20), ("range", 14), ("above", 8)

PREREGISTERED: tuple[Prediction, ...] = (
    Contrast(
        4,
        "test risk with all levels minus without the hardest 30%, n = 64",
        _compared(ALL, WITHOUT_HARD, 64),
    ),
    Contrast(
        4,
        "test risk without the hardest 30% minus with all levels, n = 4096",
        _compared(WITHOUT_HARD, ALL, 4096),
    ),
    Contrast(
        4,
        "test risk without the easiest 35% minus with all levels, n = 64",
        _compared(WITHOUT_EASY, ALL, 64),
    ),
    Contrast(
        4,
        "test risk with all levels minus without the easiest 35%, n = 4096",
        _compared(ALL, WITHOUT_EASY, 4096),
    ),
)
"""What claim 4 predicts here, written down before the run that tests it."""

DEVICE = "two CPU cores"
HOURS = {"smoke": 0.01, "cpu": 0.6}
"""Hours of each preset on that device, as measured; others have not been run."""
