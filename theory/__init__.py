"""Risk bounds and what is built on them: numbers in, numbers out, no tasks and no models.

Risks lie in [0, 1] and divergences are in nats. Results for concrete numbers are NumPy float64,
rounded to the safe side.

- `theory.checks`: checks of arguments that are numbers.
- `theory.divergence`: the binary KL and its inverses.
- `theory.distributions`: distances between distributions over levels.
- `theory.maurer`: the constant of PAC-Bayes-kl.
- `theory.bounds`: one theorem per file.
- `theory.certificate`: the record of a bound, with its account of delta.
- `theory.posterior`: training the posteriors that are certified.
- `theory.shift`: the extrapolation gap.
- `theory.total`: both together, a bound on the test risk.
- `theory.levels`: where the knowledge of a base ends.
- `theory.predictor`: the best difficulty for a data budget.

The names below are imported when they are first used, so that `theory.config` loads without JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theory.bounds import (
        BOUNDS,
        catoni,
        catoni_grid,
        chernoff,
        clopper_pearson,
        langford_seeger,
        mcallester,
        mcallester_maurer,
        occam,
        pac_bayes_kl,
        quadratic,
        sample_compression,
        thiemann,
    )
    from theory.certificate import Certificate, Ledger
    from theory.divergence import binary_kl, kl_inverse, kl_inverse_first, kl_inverse_lower
    from theory.maurer import xi
    from theory.total import TotalBound, total_bound

__all__ = [
    "BOUNDS",
    "Certificate",
    "Ledger",
    "TotalBound",
    "binary_kl",
    "catoni",
    "catoni_grid",
    "chernoff",
    "clopper_pearson",
    "kl_inverse",
    "kl_inverse_first",
    "kl_inverse_lower",
    "langford_seeger",
    "mcallester",
    "mcallester_maurer",
    "occam",
    "pac_bayes_kl",
    "quadratic",
    "sample_compression",
    "thiemann",
    "total_bound",
    "xi",
]


_MODULES = ("bounds", "certificate", "divergence", "maurer", "total")


def __getattr__(name: str) -> Any:
    """Import the module that defines a name of `__all__` when the name is first used."""
    if name in _MODULES:
        return importlib.import_module(f"theory.{name}")
    if name in __all__:
        modules = [importlib.import_module(f"theory.{module}") for module in _MODULES]
        return next(getattr(module, name) for module in modules if hasattr(module, name))
    raise AttributeError(f"module 'theory' has no attribute {name!r}")
