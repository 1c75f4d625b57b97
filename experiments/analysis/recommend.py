"""The best difficulty for a data budget, from the base and a pilot, or the reasons to give none.

Every cell of the pilot is averaged over bases and seeds. The test risk of each level at the budget
is predicted from it. The levels that cannot be told from the best one are the candidates; the one
of whose data the base gets nearest to 40% right is recommended (see
`theory.predictor.nearest_candidate`). A hierarchical bootstrap over bases and seeds repeats all of
it for every replicate (see `experiments.analysis.bootstrap`). With a single base the noise of its
test is added, as its members are all asked the same problems (see `experiments.analysis.noise`);
with one member a cell that is all the noise there is to see, and the answer says so. No number here
is a certificate; nor would certified risks certify which difficulty is best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.analysis import bootstrap
from experiments.analysis.answers import Answers
from experiments.analysis.draws import Draws
from experiments.analysis.noise import of_other_problems
from experiments.analysis.optimum import Study
from experiments.analysis.pilot import Mixtures, StudyRisks, study_risks
from experiments.analysis.statistics import Interval
from experiments.analysis.surer import Surer, surer
from synth.arguments import check_whole
from theory.predictor import (
    PREDICTOR,
    RIGHT,
    RISK,
    RULES,
    Pilot,
    choose,
    nearest_of_candidates,
    right_share,
    tells_apart,
)

VALIDATED_FACTOR = 16
"""Budget over the pilot's largest data size up to which recorded runs have judged the predictor."""


NEAREST = (
    "Of the levels that cannot be told from the best one, this is the one of whose data the base "
    f"gets nearest to {100 * RIGHT:.0f}% right."
)
ALONE = "Every other level is predicted to be clearly worse."
ALIKE = "The base gets the same share of all data right, so that the pilot alone decides."
"""Why a level is recommended."""

MOST_DATA = 10**15
"""The largest budget: more tokens than there is text, and still an exact number in a float."""


def _share(share: float) -> str:
    """Two decimals; "> 0.99" or "< 0.01" for 1 and 0, which a finite bootstrap cannot show."""
    text = f"{share:.2f}"
    return {"1.00": "> 0.99", "0.00": "< 0.01"}.get(text, text)


def span(low: int, high: int) -> str:
    """A range of levels in words."""
    return f"{low} to {high}" if low < high else f"{low} alone"


def censored(position: int, levels: int) -> str:
    """Name of the edge of the grid at which a best level lies; empty inside the grid."""
    return "easiest" if position == 0 else "hardest" if position == levels - 1 else ""


@dataclass(frozen=True)
class Recommendation:
    """The answer for one study.

    Attributes:
      study: which cells of the table.
      data_size: the budget, in the unit of the table's data sizes.
      pilot_sizes: data sizes that the curves were fitted to.
      difficulty: level of the pilot's grid that is recommended.
      rule: name in `theory.predictor.RULES` of the rule that chose it.
      reason: why that rule was taken, in a sentence.
      low, high: easiest and hardest candidate, between which the best level is expected.
      share: of the replicates that choose `difficulty`.
      censored: "easiest" or "hardest" where `difficulty` is the grid's edge, else empty.
      predicted: test risk at the budget for each difficulty of the grid, with a 90% interval.
      measured: that of the pilot, by data size and difficulty.
      excess: predicted risk minus the one at `difficulty` for each other one, with a 90% interval
        (see `experiments.analysis.draws`).
      choices: difficulty that each rule of `theory.predictor.RULES` chooses; for the rule that is
        used it is `difficulty`, which knows of the noise between members as well.
      doubts: why nothing should be concluded; empty if something can.
      noise: what the intervals are over, in a sentence.
      surer: what to run next for narrower intervals.
      left_out: levels without a prediction, for every member diverged at one of `pilot_sizes`.
    """

    study: Study
    data_size: int
    pilot_sizes: tuple[int, ...]
    difficulty: int
    rule: str
    reason: str
    low: int
    high: int
    share: float
    censored: str
    predicted: dict[int, Interval]
    measured: dict[int, dict[int, Interval]]
    excess: dict[int, Interval]
    choices: dict[str, int]
    doubts: tuple[str, ...]
    noise: str
    surer: Surer
    left_out: tuple[int, ...] = ()

    @property
    def abstains(self) -> bool:
        """True if `difficulty` should not be acted on."""
        return bool(self.doubts)

    @property
    def verdict(self) -> str:
        """The answer in words."""
        without = ""
        if self.left_out:
            levels = ", ".join(map(str, self.left_out))
            without = f" Left out, since every member diverged at some n: d = {levels}."
        if self.abstains:
            doubts = "; ".join(self.doubts)
            return f"No recommendation for n = {self.data_size}: {doubts}.{without}"
        beyond = {"easiest": "at most ", "hardest": "at least ", "": ""}[self.censored]
        answer = f"For n = {self.data_size} train on difficulty {beyond}{self.difficulty}"
        share = _share(self.share)
        within = span(self.low, self.high)
        answer += f" (range {within}; share of replicates: {share}). {self.reason}"
        risk = self.predicted[self.difficulty]
        accuracy = Interval(1 - risk.mean, 1 - risk.high, 1 - risk.low)
        answer += f" Predicted accuracy on the test: {accuracy}."
        if self.censored:
            answer += f" It is the {self.censored} level of the pilot, so the best may lie beyond."
        return answer + without


def recommend(
    table: pd.DataFrame,
    study: Study,
    config: Mixtures,
    data_size: int,
    *,
    answers: pd.DataFrame | None = None,
    fitted_up_to: int | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> Recommendation:
    """Predict the best difficulty of a study at a data size beyond the pilot's.

    The range reaches from the easiest candidate to the hardest: from one level that cannot be told
    from the best to the other. How often it holds the level that is measured to be the best is
    recorded (docs/results.md).

    A difficulty is clearly worse than the best one if the interval of its excess lies above 0. A
    percentile interval from a few members is too narrow to decide that: here it is Student's (see
    `Draws.widths`). Unless half of the others are clearly worse, both as measured at the
    pilot's largest size and as predicted, there is no recommendation. A level of which every member
    diverged at some fitted size has no curve, and is left out.

    Args:
      table: the tidy result table of the pilot.
      study: which cells of it.
      config: of the sweep, or the levels of a scan (see `experiments.analysis.pilot`).
      data_size: the budget, at least the largest data size that is fitted.
      answers: of a scan (`experiments.analysis.answers`), for the noise of its test; None if they
        are not known.
      fitted_up_to: leave out the table's larger data sizes, as if they had not been run.
      replicates, seed: of the bootstrap.

    Raises:
      ValueError: if fewer than two data sizes are fitted, the budget lies below the largest of
        them or above `MOST_DATA`, the table lacks a cell, or every level is left out.
    """
    measured = study_risks(table, study, config)
    sizes = measured.test_risk.data_sizes
    largest = sizes[-1] if fitted_up_to is None else fitted_up_to
    if (fitted := sizes[sizes <= largest]).size < 2:
        raise ValueError(
            f"a prediction needs a pilot of at least two data sizes, got {fitted.tolist()} "
            f"of {sizes.tolist()}"
        )
    check_whole("data_size", data_size, 1, MOST_DATA)
    if data_size < fitted[-1]:
        raise ValueError(
            f"data_size must be at least the pilot's largest, {fitted[-1]}, got {data_size}; "
            f"within the pilot read the measured optimum (sweetspot report)"
        )
    # The pilot of the means, and its replicates; all of them extrapolated to the budget.
    risks = measured.up_to(largest).complete()
    own_answers = None if answers is None else Answers.of(answers, study)
    drawn = _Replicates(risks, own_answers, replicates=replicates, seed=seed)
    pilot = drawn.pilot
    predicted = drawn.of(lambda each: RULES[RISK](each, data_size))
    least = int(choose(predicted.mean))
    above = predicted.excess(least)
    # The candidates, and the one of them that the base alone would take.
    distance = drawn.of(lambda each: right_share(each, data_size))
    widths = np.stack([predicted.widths(than) for than in range(len(predicted.mean))])
    scores = nearest_of_candidates(distance.mean, predicted.mean, widths)
    low, high = np.flatnonzero(np.isfinite(scores))[[0, -1]]
    redrawn = nearest_of_candidates(distance.replicates, predicted.replicates, widths)
    if not (is_told := bool(tells_apart(pilot))):
        scores, redrawn = predicted.mean, predicted.replicates
    best, chosen = int(choose(scores)), choose(redrawn)
    # Excess risk of the other levels, as measured at the largest size and as predicted.
    last = drawn.of(lambda each: each.test_risk[..., -1])
    seen, excess = last.excess(int(choose(last.mean))), predicted.excess(best)
    levels = pilot.difficulties
    return Recommendation(
        study=study,
        data_size=data_size,
        pilot_sizes=tuple(int(size) for size in fitted),
        difficulty=int(levels[best]),
        rule=PREDICTOR if is_told else RISK,
        reason=ALIKE if not is_told else NEAREST if low < high else ALONE,
        low=int(levels[low]),
        high=int(levels[high]),
        share=float((chosen == best).mean()),
        censored=censored(best, len(levels)),
        predicted=_within(predicted),
        measured={
            int(size): _within(drawn.of(lambda each, at=position: each.test_risk[..., at]))
            for position, size in enumerate(pilot.data_sizes)
        },
        excess=excess,
        choices=_choices(pilot, data_size) | ({PREDICTOR: int(levels[best])} if is_told else {}),
        doubts=tuple(_doubts(seen, above, data_size / fitted[-1])),
        noise=drawn.noise,
        surer=surer(predicted, best, risks),
        left_out=tuple(sorted({*measured.test_risk.difficulties.tolist()} - {*levels.tolist()})),
    )


class _Replicates:
    """The pilot of the means, and its replicates over members and, with one base, over problems.

    Attributes:
      pilot: of the means.
      noise: what the replicates vary, in a sentence.
    """

    def __init__(self, risks: StudyRisks, answers: Answers | None, *, replicates: int, seed: int):
        counts = bootstrap.resample(risks.test_risk, replicates=replicates, seed=seed)
        self.pilot = risks.pilot(lambda metric: metric.mean)
        self._of_members = risks.pilot(lambda metric: bootstrap.replicate_means(metric, counts))
        self._of_problems = None
        num_bases, num_asked = len(risks.test_risk.base_seeds), int(risks.num_asked[0].sum())
        if num_bases == 1:
            self._of_problems = of_other_problems(
                self.pilot, risks, replicates=len(counts), seed=seed, answers=answers
            )
        self._num_members = int(np.isfinite(risks.test_risk.values).any(axis=(0, 1)).sum())
        self.noise = (
            f"Intervals hold the noise of the {num_asked} test problems alone, as there is one "
            f"member in each cell: how much another training would differ is not in them."
            if self._num_members == 1
            else f"Intervals are over {self._num_members} members of {num_bases} bases."
            if num_bases > 1
            else f"Intervals are over {self._num_members} seeds of one base and the {num_asked} "
            f"test problems; the variation between bases is not in them."
        )

    def of(self, risk: Callable[[Pilot], np.ndarray]) -> Draws:
        """Replicates of a risk by level: pilot -> [..., level]."""
        problems = None if self._of_problems is None else risk(self._of_problems)
        return Draws(
            self.pilot.difficulties,
            risk(self.pilot),
            risk(self._of_members),
            problems,
            self._num_members,
        )


def _within(draws: Draws) -> dict[int, Interval]:
    """Risk of each level with its 90% interval, within [0, 1], which extrapolation can leave."""
    widths = draws.widths()
    ends = (np.clip(draws.mean + sign * widths, 0.0, 1.0) for sign in (0, -1, 1))
    rows = zip(draws.levels, *ends, strict=True)
    return {int(level): Interval(*map(float, numbers)) for level, *numbers in rows}


def _choices(pilot: Pilot, data_size: float) -> dict[str, int]:
    """Difficulty that each rule chooses on the pilot of the means."""
    places = {name: int(choose(rule(pilot, data_size))) for name, rule in RULES.items()}
    return {name: int(pilot.difficulties[place]) for name, place in places.items()}


def _doubts(seen: dict[int, Interval], excess: dict[int, Interval], factor: float) -> list[str]:
    """Reasons for which nothing should be concluded (see `recommend`), in words."""
    doubts = []
    for risks, where in ((seen, "measured at its largest size"), (excess, "predicted")):
        # Neighbours of the best level are nearly as good, so half of the others will do.
        if 2 * (worse := sum(interval.low > 0 for interval in risks.values())) < len(risks):
            doubts.append(
                f"the pilot cannot tell the difficulties apart ({where}, {worse} of the "
                f"{len(risks)} others are clearly worse than the best one)"
            )
    if factor > VALIDATED_FACTOR:
        doubts.append(
            f"the budget is {factor:.3g} times the pilot's largest data size, and the predictor "
            f"was judged up to {VALIDATED_FACTOR} times"
        )
    return doubts
