"""Numbers in, numbers out: bounds that know neither tasks nor models.

Risks lie in [0, 1] and divergences are in nats; what is computed from concrete numbers is NumPy
float64, rounded to the safe side. `theory.divergence` holds the binary KL and its inverses,
`theory.bounds` one theorem per file, `theory.certificate` the record with its account of delta,
`theory.posterior` what is certified, `theory.shift` the extrapolation gap, and `theory.predictor`
the best difficulty for a budget.
"""

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
from theory.divergence import binary_kl, kl_inverse, kl_inverse_first, kl_inverse_lower, xi

__all__ = [
    "BOUNDS",
    "Certificate",
    "Ledger",
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
    "xi",
]
