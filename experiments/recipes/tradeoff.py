"""The best training difficulty moves to harder data as data grow (claims 1 to 3 of the paper).

Task: running evaluation modulo 5. Bases know difficulties 1 to 4. Members are fine-tuned on n
examples of difficulties 1 to d (``range``) or of d alone (``exact``) and tested on every level up
to 1.5 times the hardest d, so that no training mixture covers the test.

Commands and cost (two CPU cores)::

    sweetspot run tradeoff --preset smoke   # 30 s: for tests
    sweetspot run tradeoff --preset demo    # 6 minutes
    sweetspot run tradeoff --preset cpu     # an hour; the tables under experiments/results
    sweetspot run tradeoff --preset gpu     # one GPU, not run yet: a wider grid, symbolic iGSM

Expect (``cpu``): trained on 1 to d, the best d is 6 at n = 16, 9 at n = 64 and 12 from n = 256;
trained on d alone it stays at 6.
"""

from __future__ import annotations

import dataclasses

from experiments.sweep.grid import PRETRAINING, PretrainConfig, SweepConfig
from synth.config import DecoderConfig, Optimiser

PRESETS = {
    "smoke": SweepConfig(
        pretrain=PretrainConfig(steps=150, hardest=2, max_risk=1.0),
        difficulties=(2, 4),
        data_sizes=(8, 32),
        compute=20,
        base_seeds=1,
        seeds=2,
        test_hardest=6,
        test_examples=32,
        risk_examples=32,
    ),
    "demo": SweepConfig(
        difficulties=(4, 6, 9, 12),
        data_sizes=(16, 128, 1024),
        compute=400,
        base_seeds=2,
        seeds=3,
        test_hardest=18,
        test_examples=64,
        risk_examples=256,
        chunk_members=6,
    ),
    "cpu": SweepConfig(
        mixtures=("range", "exact"),
        difficulties=(4, 6, 9, 12, 16),
        data_sizes=(16, 64, 256, 1024),
        compute=400,
        base_seeds=3,
        seeds=4,
        test_hardest=24,
        test_examples=96,
        risk_examples=256,
        chunk_members=16,
    ),
    "gpu": SweepConfig(
        task="chain",
        task_options={"num_symbols": 64, "num_distractors": 2},
        decoder=DecoderConfig(
            vocab_size=1,
            hidden_size=128,
            intermediate_size=384,
            num_layers=4,
            num_heads=8,
            num_kv_heads=8,
            position_start=256,
            position_gap=3,
        ),
        pretrain=PretrainConfig(
            steps=20_000,
            learning_rate=1e-3,
            optimiser=dataclasses.replace(PRETRAINING, batch_size=128),
        ),
        mixtures=("range", "exact"),
        losses=("sft", "dft"),
        difficulties=(4, 6, 8, 10, 12, 16, 20),
        data_sizes=(16, 64, 256, 1024, 4096, 16384),
        compute=2000,
        optimiser=Optimiser(batch_size=64),
        learning_rates=(5e-4,),
        base_seeds=4,
        seeds=4,
        test_hardest=30,
        chunk_members=64,
    ),
}

DEVICE = "two CPU cores"
HOURS = {"smoke": 0.01, "demo": 0.1, "cpu": 1}
"""Hours of each preset on that device, as measured; others have not been run."""
