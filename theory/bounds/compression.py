"""Compression bounds: of a hypothesis to a file, or of a sample to a few of its examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.special import gammaln

from theory.bounds.arguments import check_arguments, check_concrete, like, log
from theory.checks import check_count
from theory.divergence import kl_inverse


def description_length_kl(bits: Int[ArrayLike, "*cells"]) -> Any:
    """Nats of a hypothesis stored in C bits, (C + 2 log2 C) ln 2, as `kl` for `occam`.

    The term in log2 C is the price of a length that is not known beforehand: over all strings of at
    least two bits, 2^-(C + 2 log2 C) sums to 0.645, so some prior gives each string at least that.

    Args:
      bits: C, the length of the file that a decoder fixed beforehand turns into the hypothesis.

    Raises:
      ValueError: if `bits` is not an integer of at least 2.

    References:
      Lotfi et al. (2022), "PAC-Bayes compression bounds so tight that they can explain
      generalization"; Lotfi et al. (2024), "Non-vacuous generalization bounds for large language
      models".

    Example:
      >>> print(f"{description_length_kl(8000):.1f}")
      5563.2
    """
    length = check_count("bits", bits, 2)
    return length * math.log(2) + 2 * np.log(length)


def sample_compression(
    empirical_risk: Float[ArrayLike, "*cells"],
    kl: Float[ArrayLike, "*cells"],
    *,
    num_examples: Int[ArrayLike, "*cells"],
    delta: Float[ArrayLike, "*cells"],
    subset_size: Int[ArrayLike, "*cells"] = 0,
) -> Any:
    r"""Bound the risk of a hypothesis that a few of its own training examples determine.

    With n examples of which k rebuild the hypothesis, and L its loss on the **other** n - k,
    $\mathrm{kl}(L \| R) \le (K + \ln\binom nk + \ln(n/\delta)) / (n - k)$, solved for the largest
    R. The size k and the subset may be chosen after seeing the sample.

    Args:
      empirical_risk: L, the loss on the examples outside the subset, in [0, 1].
      kl: K, ln(1/P(message)) in nats for a message that helps to rebuild the hypothesis; else 0.
      num_examples: n, the size of the sample, with the subset; may not be traced.
      delta: probability with which the bound may fail, in (0, 1).
      subset_size: k, from 0 to n - 1; may not be traced.

    Returns:
      The bound, rounded up; at most 1.

    Raises:
      ValueError: if an argument is out of range, or they do not broadcast.

    Valid when:
      The loss lies in [0, 1], the examples are i.i.d., and the rule that rebuilds a hypothesis from
      a subset (taken as a set) and a message, and the prior over messages, were fixed before the
      sample was seen. It holds for all sizes, subsets and messages at once.

    References:
      Littlestone and Warmuth (1986), "Relating data compression and learnability"; Langford (2005),
      "Tutorial on practical prediction theory for classification".

    Example:
      >>> print(f"{sample_compression(0.1, 0.0, num_examples=1000, delta=0.05, subset_size=2):.4f}")
      0.1764
    """
    for name, count in (("num_examples", num_examples), ("subset_size", subset_size)):
        check_concrete(name, count, "the number of subsets is computed on the host")
    risk, kl, n, delta = check_arguments(empirical_risk, kl, num_examples, delta)
    size = check_count("num_examples", num_examples, 1)
    k = check_count("subset_size", subset_size, 0)
    rest = size - k
    if np.any(rest < 1):
        raise ValueError(f"subset_size must be less than num_examples, got {subset_size}")
    all_orders = gammaln(size + 1)
    subsets = all_orders - gammaln(k + 1) - gammaln(rest + 1)
    # Round up, by more than the digits that the differences lose.
    subsets = like(risk, subsets + 8 * np.finfo(np.float64).eps * all_orders)
    return kl_inverse(risk, (kl + subsets + log(n) - log(delta)) / like(risk, rest))
