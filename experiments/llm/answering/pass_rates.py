"""Pass rates of graded responses by slice, with confidence intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool
from scipy import stats

CONFIDENCE = 0.9
"""Coverage of the intervals."""


def summarise(responses: pd.DataFrame) -> pd.DataFrame:
    """Compute pass rates of graded responses.

    Args:
      responses: see `experiments.llm.answering.evaluate.Evaluation`.

    Returns:
      One row for each slice: slice, pass_at_1 (mean over problems and samples), low and high (see
      `pass_interval`), num_examples (problems), num_samples (responses to each), share_truncated
      and mean_response_tokens.
    """
    rows = []
    for level, part in responses.groupby("slice", dropna=False, sort=True):
        correct = part.pivot(index="row", columns="sample", values="correct").to_numpy(bool)
        low, high = pass_interval(correct)
        rows.append(
            {
                "slice": level,
                "pass_at_1": correct.mean(),
                "low": low,
                "high": high,
                "num_examples": correct.shape[0],
                "num_samples": correct.shape[1],
                "share_truncated": part["truncated"].mean(),
                "mean_response_tokens": part["num_tokens"].mean(),
            }
        )
    return pd.DataFrame(rows).astype({"slice": "Int64"})


def pass_interval(
    correct: Bool[np.ndarray, "problems samples"], *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Confidence interval of the pass rate on the distribution that the problems are drawn from.

    With one sample a problem this is the exact interval of Clopper and Pearson (1934). With more,
    the samples of a problem are not independent. Then the same formula is used with an effective
    number of answers (Korn and Graubard, 1998): as many independent answers as would give the mean
    the variance that the problems' pass rates give it, at least the number of problems, at most
    that of samples. If all samples are right, or all are wrong, that variance cannot be estimated,
    and the number of problems is used.

    References:
      Korn and Graubard (1998), Confidence intervals for proportions with small expected number of
      positive counts estimated from survey data, Survey Methodology 24.
    """
    problems, samples = correct.shape
    rates = correct.mean(axis=1)
    rate, number = float(rates.mean()), float(problems)
    tail = (1 - confidence) / 2
    if samples > 1 and problems > 1 and 0 < rate < 1:
        spread = rates.var(ddof=1) / problems
        # The variance is itself estimated, from this many problems: use fewer answers accordingly.
        doubt = (stats.t.ppf(tail, problems * samples - 1) / stats.t.ppf(tail, problems - 1)) ** 2
        most = float(problems * samples)
        number = most if spread == 0 else rate * (1 - rate) / spread * float(doubt)
        number = min(max(number, problems), most)
    right, wrong = rate * number, (1 - rate) * number
    low = float(stats.beta.ppf(tail, right, wrong + 1)) if right else 0.0
    high = float(stats.beta.ppf(1 - tail, right + 1, wrong)) if wrong else 1.0
    return low, high
