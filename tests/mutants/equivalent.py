"""Mutants that no test can notice, because the result is the same; each with the reason."""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "theory/bounds/clopper_pearson.py",
        "_by_root: 1e-3 → 0.01",
    ): "the search may start anywhere below the root, which is within percents of its other end",
    (
        "experiments/storage/results.py",
        "_open_manifest: return [] → return None",
    ): "open_run asks only whether there are differences, and None has none either",
}
"""By module and `Mutant.mutation`."""
