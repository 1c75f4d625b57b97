"""All bounds, by name.

`BOUNDS` is the only list: a new bound is one file in this folder and one line in it.

All are called as ``bound(empirical_risk, kl, num_examples=..., delta=...)``. Numbers and arrays
broadcast; the result is NumPy float64, rounded up, and at most 1. With probability at least
1 - delta over the sample it is no less than the risk. To choose the smallest of several bounds
after seeing them, split delta over them.

**Tracing.** Every bound but `clopper_pearson` may be called under ``jit``, ``vmap`` and ``grad``.
It then works in the dtype of the traced arguments, and is rounded up in it. Traced values cannot be
refused: those out of range give NaN. `num_examples` has to be concrete where the theorem's constant
is summed on the host (`pac_bayes_kl`, `sample_compression`). A certificate is made from concrete
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from theory.bounds.catoni import catoni, catoni_grid
from theory.bounds.chernoff import chernoff
from theory.bounds.clopper_pearson import clopper_pearson
from theory.bounds.compression import description_length_kl, sample_compression
from theory.bounds.gibbs_weights import GibbsPosterior, gibbs_posterior
from theory.bounds.langford_seeger import langford_seeger
from theory.bounds.mcallester import mcallester
from theory.bounds.mcallester_maurer import mcallester_maurer
from theory.bounds.monte_carlo import monte_carlo_risk
from theory.bounds.occam import occam
from theory.bounds.pac_bayes_kl import pac_bayes_kl
from theory.bounds.quadratic import quadratic
from theory.bounds.sigma_grid import countable_grid_kl, finite_grid_kl
from theory.bounds.thiemann import thiemann

BOUNDS: dict[str, Callable[..., Any]] = {
    "mcallester": mcallester,
    "mcallester_maurer": mcallester_maurer,
    "langford_seeger": langford_seeger,
    "pac_bayes_kl": pac_bayes_kl,
    "catoni": catoni,
    "catoni_grid": catoni_grid,
    "thiemann": thiemann,
    "quadratic": quadratic,
    "occam": occam,
    "sample_compression": sample_compression,
    "chernoff": chernoff,
    "clopper_pearson": clopper_pearson,
}

__all__ = [
    "BOUNDS",
    "GibbsPosterior",
    "catoni",
    "catoni_grid",
    "chernoff",
    "clopper_pearson",
    "countable_grid_kl",
    "description_length_kl",
    "finite_grid_kl",
    "gibbs_posterior",
    "langford_seeger",
    "mcallester",
    "mcallester_maurer",
    "monte_carlo_risk",
    "occam",
    "pac_bayes_kl",
    "quadratic",
    "sample_compression",
    "thiemann",
]
