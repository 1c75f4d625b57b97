"""Says before a scan starts what it will not be able to answer."""

from __future__ import annotations

import math

from experiments.llm.scan.grid import ScanConfig

WIDE = 0.1
"""Difference of accuracies that a test should be able to tell; a scan that cannot is warned of."""


def warnings_before(config: ScanConfig, num_tested: int) -> list[str]:
    """Sentences about what ``llm recommend`` will lack; empty if nothing.

    Args:
      config: the scan.
      num_tested: problems that every member is asked as its test.
    """
    sentences = []
    if len(config.data_sizes) < 2:
        sentences.append(
            f"recommend will give nothing: it needs at least two data_sizes, got "
            f"{config.data_sizes}."
        )
    if len(config.difficulties) < 2:
        sentences.append(
            f"recommend will have nothing to choose from: it needs at least two difficulties, got "
            f"{config.difficulties}."
        )
    if config.seeds == 1:
        sentences.append(
            "With seeds = 1 intervals will hold the noise of the test problems alone; how much "
            "another training differs takes seeds = 3."
        )
    if (apart := least_difference(num_tested)) > WIDE:
        needed = math.ceil(num_tested * (apart / WIDE) ** 2)
        sentences.append(
            f"The test has {num_tested} problems: differences between levels of less than about "
            f"{100 * apart:.0f} points will not be told from chance; {needed} problems tell "
            f"{100 * WIDE:.0f} points."
        )
    return sentences


def least_difference(num_tested: int) -> float:
    """Difference of two accuracies near one half whose 90% interval just leaves 0.

    Both are shares of `num_tested` problems, drawn independently: see
    `experiments.analysis.noise.of_other_problems`.
    """
    from scipy import stats  # here, because its import takes most of a second

    return float(stats.norm.ppf(0.95) * math.sqrt(2 * 0.25 / num_tested))
