"""The noise of a finite test: risks that other problems of the same kinds could have given.

All members of one base are asked the same problems, so that what these happen to be is not in the
spread between its seeds. With several bases it is, as each base has problems of its own.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.analysis.pilot import StudyRisks
from theory.predictor import Pilot


def of_other_problems(pilot: Pilot, risks: StudyRisks, *, replicates: int, seed: int) -> Pilot:
    """Draw the pilot's risks anew, as other problems could have given them.

    Each risk is a share of wrong answers, drawn from its posterior under Jeffreys' prior,
    Beta(wrong + 1/2, right + 1/2). Cells are drawn independently. They were asked the same
    problems, which are hard or easy for all of them alike, so that differences between cells vary
    less than these draws: intervals from them are rather too wide.

    Args:
      pilot: the means over members.
      risks: that they are means of; tells how many problems are behind each.
      replicates, seed: number of draws, and of the generator.

    Returns:
      The pilot with an axis of replicates before all others.

    References:
      Brown, Cai and DasGupta (2001), Interval estimation for a binomial proportion, section 3.1.
    """
    generator = np.random.default_rng([seed, 1])
    slices, train, fresh = risks.num_asked

    def drawn(risk: np.ndarray, number: np.ndarray | float) -> np.ndarray:
        wrong, right = risk * number + 0.5, (1 - risk) * number + 0.5
        return generator.beta(wrong, right, size=(replicates, *risk.shape))

    return dataclasses.replace(
        pilot,
        train_risk=drawn(pilot.train_risk, train),
        in_distribution_risk=drawn(pilot.in_distribution_risk, fresh),
        slice_risk=drawn(pilot.slice_risk, slices),
        base_slice_risk=drawn(pilot.base_slice_risk, slices),
    )
