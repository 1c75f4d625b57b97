"""A hierarchical bootstrap over bases and seeds, for predictions alone.

`experiments.analysis.recommend` and `experiments.analysis.regret` repeat a prediction for every
replicate. Base seeds are drawn with replacement, then seeds within each drawn base (Davison and
Hinkley 1997, Bootstrap Methods, section 3.8). One draw serves every cell and metric of a study, so
comparisons stay paired. Its 90% percentile intervals are too narrow with few bases, which is why
every measured number has those of `experiments.analysis.statistics` instead.
"""

from __future__ import annotations

import numpy as np

from experiments.analysis.optimum import Cube, ratio

TAILS = (0.05, 0.95)


def resample(metric: Cube, *, replicates: int = 2000, seed: int = 0) -> np.ndarray:
    """Draw how often each member counts in each replicate: integers [replicate, base, seed].

    A replicate draws bases with replacement; each time a base is drawn, it draws as many of its
    seeds, with replacement, as it has. The counts of a base with m seeds that was drawn k times are
    therefore one multinomial of k·m draws. Bases and seeds without data are never drawn. A
    replicate is dropped if it leaves a cell without a member that has some, because its cells
    could not be compared.

    Raises:
      ValueError: if that drops every replicate.
    """
    generator = np.random.default_rng(seed)
    present = np.asarray(np.isfinite(metric.values).any(axis=(0, 1)))
    bases = np.flatnonzero(present.sum(axis=1))
    drawn = generator.multinomial(len(bases), np.full(len(bases), 1 / len(bases)), size=replicates)
    counts = np.zeros((replicates, *present.shape), dtype=int)
    for times, base in zip(drawn.T, bases, strict=True):
        seeds = present[base].sum()
        counts[:, base] = generator.multinomial(times * seeds, present[base] / seeds)
    finite = np.isfinite(metric.values)
    members = np.einsum("rbs,dnbs->rdn", counts, finite.astype(float))
    kept = ((members > 0) | ~finite.any(axis=(2, 3))).all(axis=(1, 2))
    if not kept.any():
        raise ValueError(
            "table: too few members finished to resample them: every draw leaves some cell without "
            "a member"
        )
    return counts[kept]


def replicate_means(metric: Cube, counts: np.ndarray) -> np.ndarray:
    """Mean over members: [replicate, difficulty, data_size], NaN where none of a cell was drawn."""
    finite = np.isfinite(metric.values)
    total = np.einsum("rbs,dnbs->rdn", counts, np.where(finite, metric.values, 0.0))
    number = np.einsum("rbs,dnbs->rdn", counts, finite.astype(float))
    return ratio(total, number)


def best_levels(risk: Cube, *, replicates: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The 5% and 95% percentile of the level of least mean risk, at each data size."""
    means = replicate_means(risk, resample(risk, replicates=replicates, seed=seed))
    best = np.where(np.isnan(means), np.inf, means).argmin(axis=1)
    low, high = np.quantile(risk.difficulties[best], TAILS, axis=0, method="inverted_cdf")
    return low, high
