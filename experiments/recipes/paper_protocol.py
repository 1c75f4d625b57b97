"""The paper's training protocol at toy size: exact levels, three epochs, SFT against DFT (claim 7).

Members are fine-tuned on n examples of exactly difficulty d for three epochs (cosine, 3% warm-up,
16 sequences a step), so that more data also means more steps. The paper's iGSM runs do the same on
Qwen2.5-Math; docs/results.md lists which of its settings are unknown.

Commands and cost (two CPU cores)::

    sweetspot run paper-protocol --preset smoke   # seconds: for tests
    sweetspot run paper-protocol --preset cpu     # an hour
    sweetspot run paper-protocol --preset gpu     # one GPU, not run yet: symbolic iGSM

Expect: exact-level training forgets the easy slices, so the best level stays next to what the base
knows. No committed result yet.
"""

from __future__ import annotations

import dataclasses

from experiments.recipes.tradeoff import PRESETS as TRADEOFF
from experiments.sweep.grid import PretrainConfig, SweepConfig
from synth.config import Optimiser

CPU = SweepConfig(
    mixtures=("exact",),
    losses=("sft", "dft"),
    difficulties=(4, 5, 6, 8, 10),
    data_sizes=(128, 512, 2048, 8192),
    compute=3,
    compute_unit="epochs",
    optimiser=Optimiser(batch_size=16, warmup=0.03),
    learning_rates=(5e-4,),
    base_seeds=2,
    seeds=2,
    test_hardest=16,
)

PRESETS = {
    "smoke": dataclasses.replace(
        CPU,
        pretrain=PretrainConfig(steps=100, hardest=2, max_risk=1.0),
        losses=("sft",),
        difficulties=(2, 3),
        data_sizes=(16, 64),
        base_seeds=1,
        seeds=1,
        test_hardest=5,
        test_examples=16,
        risk_examples=16,
    ),
    "cpu": CPU,
    # Three epochs of 32,768 examples are 6144 steps of 16.
    "gpu": dataclasses.replace(
        TRADEOFF["gpu"],
        mixtures=CPU.mixtures,
        data_sizes=(512, 2048, 8192, 32_768),
        compute=CPU.compute,
        compute_unit=CPU.compute_unit,
        optimiser=CPU.optimiser,
        base_seeds=2,
        seeds=2,
    ),
}
