"""The paper's training protocol at toy size: exact levels, three epochs (claims 1 to 3, 5 and 7).

Members are fine-tuned on n examples of exactly difficulty d for three epochs (cosine, 3% warm-up,
16 sequences a step), so that more data also means more steps. The paper's iGSM runs do the same on
Qwen2.5-Math; docs/results.md lists which of its settings are unknown. The learning rate of each
cell is the best of three on a validation draw. Bases are trained on all levels up to 16, each .65
times as often as the one before, so that what they know falls off gradually: nearly all of the
levels up to 9 are right, three fifths of level 12, and nothing from 16 on.

`PREREGISTERED` was written down before the first run of the presets ``cpu`` and ``dft``, which have
the same bases and data.

Commands and cost (two CPU cores)::

    sweetspot run paper-protocol --preset smoke   # seconds: for tests
    sweetspot run paper-protocol --preset demo    # 3 minutes: `make demo`
    sweetspot run paper-protocol --preset cpu     # half an hour; recorded beside other work
    # The same by DFT, a quarter of an hour:
    sweetspot run paper-protocol --preset dft --bases experiments/results/paper-protocol
    sweetspot run paper-protocol --preset gpu     # one GPU, not run yet: symbolic iGSM
    # Certificates of ``cpu`` on a fresh sample, at the learning rates that were tuned:
    sweetspot bound runs/paper-protocol-cpu --mixture exact --master-seed 1 \\
        --methods base held-out --base-seeds 0 1 2 3 4 5 6 7

Expect (``cpu``): the best level stays at 12 from n = 16 to 4096, where the base gets three fifths
right; around it accuracy falls off on both sides, the more sharply the larger n. The best cell is
level with the base at n = 16 and two points above it at n = 4096, where levels 6 and 16 cost six
points and more. ``dft``: the same best levels; as good as SFT up to n = 256, and up to two points
behind it on hard levels at n = 4096.
"""

from __future__ import annotations

import dataclasses

from experiments.analysis.contrasts import Contrast, Move, Prediction, Term
from experiments.recipes.tradeoff import PRESETS as TRADEOFF
from experiments.sweep.grid import PretrainConfig, SweepConfig
from synth.config import Optimiser

GRADUAL = PretrainConfig(hardest=16, level_ratio=0.65)
"""Bases whose accuracy falls off gradually with the level."""

CPU = SweepConfig(
    pretrain=GRADUAL,
    mixtures=("exact",),
    difficulties=(6, 8, 10, 11, 12, 13, 14, 16),
    data_sizes=(16, 64, 256, 1024, 4096),
    compute=3,
    compute_unit="epochs",
    optimiser=Optimiser(batch_size=16, warmup=0.03),
    learning_rates=(5e-5, 2e-4, 8e-4),
    base_seeds=8,
    seeds=1,
    test_hardest=24,
    test_examples=96,
    risk_examples=256,
    chunk_members=24,
)

PRESETS = {
    "smoke": dataclasses.replace(
        CPU,
        pretrain=PretrainConfig(steps=100, hardest=2, max_risk=1.0),
        learning_rates=(5e-4,),
        difficulties=(2, 3),
        data_sizes=(16, 64),
        base_seeds=1,
        test_hardest=5,
        test_examples=16,
        risk_examples=16,
    ),
    # One learning rate, so that the members can be certified (see `experiments.certify.config`).
    "demo": dataclasses.replace(
        CPU,
        difficulties=(8, 10, 12, 14, 16),
        data_sizes=(64, 512, 4096),
        learning_rates=(2e-4,),
        base_seeds=6,
        test_examples=64,
        chunk_members=12,
    ),
    "cpu": CPU,
    "dft": dataclasses.replace(CPU, losses=("dft",)),
    # Three epochs of 32,768 examples are 6144 steps of 16.
    "gpu": dataclasses.replace(
        TRADEOFF["gpu"],
        mixtures=CPU.mixtures,
        data_sizes=(512, 2048, 8192, 32_768),
        compute=CPU.compute,
        compute_unit=CPU.compute_unit,
        optimiser=CPU.optimiser,
        learning_rates=(1e-4, 5e-4),
        base_seeds=8,
        seeds=1,
    ),
}


def _gaps(metric: str, *cells: tuple[float, int, int]) -> tuple[Term, ...]:
    return tuple(Term(weight, d, n, metric=metric) for weight, d, n in cells)


def _lost(difficulty: int, size: int, first: int, last: int) -> tuple[Term, ...]:
    """Accuracy that a cell loses against its base, from one test level to another."""
    span = (first, last)
    return Term.of_base(-1, span), Term(1, difficulty, size, metric="risk", levels=span)


PREREGISTERED: tuple[Prediction, ...] = (
    Move(1, "SFT: the best level at n = 4096 minus that at n = 256", 256, 4096),
    Move(1, "DFT: the best level at n = 4096 minus that at n = 256", 256, 4096, loss="dft"),
    Contrast(
        1,
        "what d = 14 gains on d = 8 as n grows from 64 to 4096",
        (Term(1, 14, 64), Term(-1, 8, 64), Term(-1, 14, 4096), Term(1, 8, 4096)),
    ),
    Contrast(
        2,
        "generalization gap at d = 14 minus that at d = 10, n = 64",
        _gaps("generalization_gap", (1, 14, 64), (-1, 10, 64)),
    ),
    Contrast(
        2,
        "generalization gap at n = 64 minus that at n = 4096, d = 14",
        _gaps("generalization_gap", (1, 14, 64), (-1, 14, 4096)),
    ),
    Contrast(
        2,
        "extrapolation gap at d = 8 minus that at d = 14, n = 4096",
        _gaps("extrapolation_gap", (1, 8, 4096), (-1, 14, 4096)),
    ),
    Contrast(
        3,
        "test risk at d = 8 minus that at d = 12, n = 1024",
        (Term(1, 8, 1024), Term(-1, 12, 1024)),
    ),
    Contrast(
        3,
        "test risk at d = 16 minus that at d = 12, n = 1024",
        (Term(1, 16, 1024), Term(-1, 12, 1024)),
    ),
    Contrast(
        3,
        "what accuracy at d = 13 gains from n = 256 to 1024 minus from n = 1024 to 4096",
        (Term(1, 13, 256), Term(-2, 13, 1024), Term(1, 13, 4096)),
    ),
    Contrast(
        5,
        "loss of accuracy on levels 12 to 16 by training on d = 8, n = 4096",
        _lost(8, 4096, 12, 16),
    ),
    Contrast(
        5,
        "loss of accuracy on levels 1 to 10 by training on d = 16, n = 64",
        _lost(16, 64, 1, 10),
    ),
    Contrast(
        5,
        "loss of accuracy on levels 11 to 16 by training on d = 16, n = 64",
        _lost(16, 64, 11, 16),
    ),
    Contrast(
        7,
        "test risk of SFT minus that of DFT at d = 14, n = 64",
        (Term(1, 14, 64), Term(-1, 14, 64, loss="dft")),
    ),
    Contrast(
        7,
        "test risk of DFT minus that of SFT at d = 13, n = 4096",
        (Term(1, 13, 4096, loss="dft"), Term(-1, 13, 4096)),
    ),
)
"""What the paper's claims predict here, written down before the runs that test it."""

DEVICE = "two CPU cores"
HOURS = {"smoke": 0.01, "demo": 0.05, "cpu": 0.5, "dft": 0.25}
"""Hours of each preset on that device, as measured; others have not been run."""
