"""The noise of a finite test: risks that other problems of the same kinds could have given.

All members of one base are asked the same problems, so that what these happen to be is not in the
spread between its seeds. With several bases it is, as each base has problems of its own.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.analysis.answers import Answers
from experiments.analysis.pilot import StudyRisks
from theory.predictor import Pilot


def of_other_problems(
    pilot: Pilot,
    risks: StudyRisks,
    *,
    replicates: int,
    seed: int,
    answers: Answers | None = None,
) -> Pilot:
    """Draw the pilot's risks anew, as other problems could have given them.

    Where the answers are known, the problems of each slice of the test are drawn anew, the same
    for all cells. Any other risk is a share of wrong answers, drawn from its posterior under
    Jeffreys' prior, Beta(wrong + 1/2, right + 1/2), independently for each cell. As all cells were
    asked the same problems, which are hard or easy for all of them alike, differences between
    cells then vary less than these draws: intervals from them are rather too wide.

    Args:
      pilot: the means over members.
      risks: that they are means of; tells how many problems are behind each.
      replicates, seed: number of draws, and of the generator.
      answers: to the test, of all members; None if they are not known.

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

    if answers is None:
        of_members, of_base = drawn(pilot.slice_risk, slices), drawn(pilot.base_slice_risk, slices)
    else:
        of_members, of_base = answers.replicates(
            pilot.difficulties, pilot.data_sizes, replicates=replicates, seed=seed
        )
    return dataclasses.replace(
        pilot,
        train_risk=drawn(pilot.train_risk, train),
        in_distribution_risk=drawn(pilot.in_distribution_risk, fresh),
        slice_risk=of_members,
        base_slice_risk=of_base,
    )
