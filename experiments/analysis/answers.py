"""Differences between fine-tuned models from their answers to the same test problems.

All models of a scan are asked the same problems. A difference between two of them is therefore
taken problem by problem, in which a problem that is hard for both cancels. It has two sources of
noise: another training (its examples and their order: the seed), and other problems. Both are in
the intervals here; one base is behind all of them, and another base is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from experiments.analysis.statistics import CONFIDENCE, Interval
from experiments.analysis.studies import UNTRAINED, Study


@dataclass(frozen=True)
class Answers:
    """Answers of one study's models to the test.

    Attributes:
      difficulties, data_sizes: of the cells.
      correct: share of right answers [difficulty, data_size, seed, problem]; NaN for a member that
        diverged.
      base: that of the untouched base [problem].
      slices: level of each problem [problem].
    """

    difficulties: np.ndarray
    data_sizes: np.ndarray
    correct: np.ndarray
    base: np.ndarray
    slices: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame, study: Study) -> Answers:
        """Arrange the answers of one study.

        Args:
          table: see `experiments.llm.scan.answers.write_answers`.
          study: which cells.

        Raises:
          ValueError: if the table has no such cells, no base, or answers twice.
        """
        is_own = table["train_mixture"] == study.train_mixture
        if study.loss is not None:
            is_own &= table["loss"] == study.loss
        rows = table.loc[is_own]
        untouched = table.loc[table["train_mixture"] == UNTRAINED].sort_values("problem")
        axes = ["difficulty", "data_size", "seed", "problem"]
        if rows.empty or untouched.empty or rows.duplicated(axes).any():
            raise ValueError(
                f"answers: must hold each answer of {study} and of the untouched base once, got "
                f"{len(rows)} and {len(untouched)} rows"
            )
        values = [np.unique(rows[name].to_numpy()) for name in axes[:3]]
        values.append(untouched["problem"].to_numpy())
        full = rows.set_index(axes)["correct"].reindex(pd.MultiIndex.from_product(values))
        return cls(
            values[0],
            values[1],
            full.to_numpy(float).reshape([len(each) for each in values]),
            untouched["correct"].to_numpy(float),
            untouched["slice"].to_numpy(int),
        )

    def on(self, levels: Iterable[int]) -> Answers:
        """The answers to the test problems of some levels alone."""
        own = np.isin(self.slices, list(levels))
        return dataclasses.replace(
            self,
            correct=self.correct[..., own],
            base=self.base[own],
            slices=self.slices[own],
        )

    def minus(self, other: Answers) -> Answers:
        """Differences of shares, cell by cell, seed by seed and problem by problem.

        What is alike in both cancels: how hard a problem is, and which examples a seed draws. A
        contrast of the result is a difference between two ways of training.

        Raises:
          ValueError: if the two have other cells, numbers of seeds, or problems.
        """
        for name in ("difficulties", "data_sizes", "slices"):
            own, others = getattr(self, name), getattr(other, name)
            if not np.array_equal(own, others):
                raise ValueError(f"other must have the same {name}, {own}, got {others}")
        if self.correct.shape != other.correct.shape:
            raise ValueError(
                f"other must have the same number of seeds, {self.correct.shape[2]}, got "
                f"{other.correct.shape[2]}"
            )
        return dataclasses.replace(
            self, correct=self.correct - other.correct, base=self.base - other.base
        )

    def contrast(self, weights: Mapping[tuple[int, int], float], of_base: float = 0.0) -> Interval:
        """A weighted sum of accuracies, with a 90% interval over seeds and problems.

        Args:
          weights: by difficulty and data size.
          of_base: weight of the untouched base.

        Seeds are paired: a seed's examples at one data size are among those at a larger one.
        Between levels a seed has nothing in common, where pairing is right on average.
        """
        difference = of_base * np.broadcast_to(self.base, self.correct.shape[2:])
        for (difficulty, data_size), weight in weights.items():
            level = int(np.flatnonzero(self.difficulties == difficulty)[0])
            size = int(np.flatnonzero(self.data_sizes == data_size)[0])
            difference = difference + weight * self.correct[level, size]
        return crossed_interval(difference, self.slices)

    def replicates(
        self, levels: np.ndarray, sizes: np.ndarray, *, replicates: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Risks by slice with the test's problems drawn anew, with replacement, in each slice.

        One draw serves every cell and the base, so that comparisons stay paired.

        Args:
          levels, sizes: difficulties and data sizes to return, in this order.
          replicates, seed: number of draws, and of the generator.

        Returns:
          Risk of the members' mean [replicate, difficulty, data_size, slice], and of the untouched
          base [replicate, slice]; slices in increasing order.
        """
        generator = np.random.default_rng([seed, 1])
        own = np.ix_(
            np.searchsorted(self.difficulties, levels), np.searchsorted(self.data_sizes, sizes)
        )
        wrong = 1 - np.nanmean(self.correct[own], axis=2)
        of_members, of_base = [], []
        for level in np.unique(self.slices):
            problems = np.flatnonzero(self.slices == level)
            number = len(problems)
            drawn = generator.multinomial(number, np.full(number, 1 / number), size=replicates)
            # Divided at the end, since counts add up exactly: no risk exceeds 1.
            of_members.append(np.einsum("rp,dnp->rdn", drawn, wrong[..., problems]) / number)
            of_base.append(drawn @ (1 - self.base[problems]) / number)
        return np.stack(of_members, axis=-1), np.stack(of_base, axis=-1)

    def move(self) -> Interval | None:
        """Return how much the hardest level gains on the easiest one as n grows over its range.

        Above zero, the balance moves to harder data. None with one level or one data size, between
        which nothing can move.
        """
        if min(len(self.difficulties), len(self.data_sizes)) == 1:
            return None
        small, large = int(self.data_sizes[0]), int(self.data_sizes[-1])
        easy, hard = int(self.difficulties[0]), int(self.difficulties[-1])
        return self.contrast(
            {(hard, large): 1, (easy, large): -1, (hard, small): -1, (easy, small): 1}
        )

    def gains(self) -> pd.DataFrame:
        """Accuracy above the untouched base of each cell.

        Returns:
          One row per cell: difficulty, data_size, accuracy, gain, low and high (its interval).
        """
        rows = []
        for level, difficulty in enumerate(self.difficulties):
            for size, data_size in enumerate(self.data_sizes):
                gain = self.contrast({(difficulty, data_size): 1.0}, of_base=-1.0)
                rows.append(
                    {
                        "difficulty": int(difficulty),
                        "data_size": int(data_size),
                        "accuracy": float(np.nanmean(self.correct[level, size])),
                        "gain": gain.mean,
                        "low": gain.low,
                        "high": gain.high,
                    }
                )
        return pd.DataFrame(rows)


def crossed_interval(values: np.ndarray, strata: np.ndarray) -> Interval:
    """Mean of values that vary by seed and by problem, with a 90% interval over both.

    The variance of the mean is that of the seeds' means over the number of seeds, plus that of the
    problems' means over the number of problems, within the levels of the test. What seeds and
    problems share is thus counted twice, so that the interval is rather too wide. With one seed it
    holds the noise of the problems alone.

    Args:
      values: [seed, problem]; a seed without values is left out.
      strata: level of each problem [problem].

    References:
      Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1: this sum is an upper
        bound. Satterthwaite (1946): the freedom of the interval.
    """
    kept = values[np.isfinite(values).all(axis=1)]
    num_seeds, num_problems = kept.shape
    if not num_seeds:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(kept.mean())
    of_seeds = kept.mean(axis=1).var(ddof=1) / num_seeds if num_seeds > 1 else 0.0
    of_problems = 0.0
    for level in np.unique(strata):
        own = kept.mean(axis=0)[strata == level]
        if len(own) > 1:
            of_problems += own.var(ddof=1) * len(own) / num_problems**2
    total = of_seeds + of_problems
    if total == 0:
        return Interval(mean, mean, mean)
    parts = [of_problems**2 / max(num_problems - len(np.unique(strata)), 1)]
    if num_seeds > 1:
        parts.append(of_seeds**2 / (num_seeds - 1))
    freedom = total**2 / sum(parts)
    width = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(total))
    return Interval(mean, mean - width, mean + width)
