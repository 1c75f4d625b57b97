"""Invented tables of certificates and of complexity, with the columns that `certify` writes."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from theory.certificate import BOUND, MONTE_CARLO, Ledger

LEVELS, SIZES = (4, 6, 9, 12, 16), (64, 256, 1024)
METHODS = ("base", "test-set", "held-out", "candidates", "gains", "lora")
HALVED = ("test-set", "held-out", "candidates")
TRAINED = {"gains": (6, 9, 12), "lora": (6, 9, 12)}
"""Levels at which posteriors are trained; the other cells have no such certificate."""


def ledger(method: str, num_cells: int) -> Ledger:
    cell = Ledger(0.05, num_cells=num_cells)
    if method in TRAINED:
        cell = cell.spend(MONTE_CARLO, cell.left / 2)
    return cell.spend(BOUND, cell.left)


def certificate_table(
    *,
    levels: tuple[int, ...] = LEVELS,
    sizes: tuple[int, ...] = SIZES,
    methods: tuple[str, ...] = METHODS,
    num_members: int = 2,
) -> pd.DataFrame:
    """Risks rise with difficulty and fall with n; bounds lie above them, by less for larger n.

    The monotone map is the tightest and the literal one the loosest; ``held-out`` makes no error at
    level 4.
    """
    cells = [
        (level, size, member, method)
        for level, size, member, method in itertools.product(
            levels, sizes, range(num_members), methods
        )
        if level in TRAINED.get(method, levels)
    ]
    rows = []
    for level, size, member, method in cells:
        place = methods.index(method)
        risk = 0.0 if (method, level) == ("held-out", 4) else (0.1 + 0.02 * level) / (1 + place)
        term = (1 + 0.1 * place) * np.sqrt(level / size) + 0.02 * member
        bound = min(risk + term, 1.0)
        shift = 0.5 - level / 40
        rows.append(
            {
                "difficulty": level,
                "data_size": size,
                "base_seed": member,
                "cell_seed": 0,
                "train_mixture": "range",
                "method": method,
                "empirical_risk": 0.8 * risk,
                "gibbs_risk": risk,
                "risk_bound": bound,
                "kl": float(place * level),
                "plain_risk": 0.002 * level,
                "test_risk": risk + 0.5 * shift,
                "test_bound_unconditional": min(bound + 0.9 * shift, 1.0),
                "test_bound_monotone": min(bound + 0.8 * shift, 1.0),
                "test_bound_literal": min(bound + 0.1 + shift, 1.0),
                "num_examples": size // 2 if method in HALVED else size,
                "num_fresh": 1000,
                "is_monotone": True,
                "prior": "the base",
                "ledger": ledger(method, len(cells)).to_json(),
            }
        )
    return pd.DataFrame(rows)


def complexity_table(
    *, levels: tuple[int, ...] = TRAINED["gains"], sizes: tuple[int, ...] = SIZES
) -> pd.DataFrame:
    """Paths on which each nat takes the risk down from 0.9, and less so at harder levels."""
    return pd.DataFrame(
        {
            "difficulty": level,
            "data_size": size,
            "base_seed": member,
            "cell_seed": 0,
            "method": method,
            "kl": nats,
            "risk": 0.9 * np.exp(-nats / level),
        }
        for method, level, size, member in itertools.product(
            ("gains", "lora"), levels, sizes, range(2)
        )
        for nats in np.linspace(0.0, 20.0, 5)
    )
