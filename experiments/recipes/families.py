"""Does the best difficulty move to harder data as data grow, in task families other than a chain?

One preset is one family. Bases know the easy levels alone; members are fine-tuned on n examples of
levels 1 to d and tested on every level up to 1.5 times the hardest d. ``igsm`` is the real one in
its terse form, made small: modulus 5, sentences in an order of computation, question first. Over
shuffled sentences a decoder of this size does not learn to plan: 37% on op 1 to 3 after 2500 steps.

Commands and cost (two CPU cores)::

    sweetspot run families --preset smoke               # 30 s: for tests
    sweetspot run families --preset group-words         # 8 minutes
    sweetspot run families --preset parity-scratchpad   # 8 minutes
    sweetspot run families --preset expressions         # 15 minutes
    sweetspot run families --preset dyck                # 20 minutes; not recorded yet
    sweetspot run families --preset igsm                # 45 minutes
    sweetspot compare --results runs/families-group-words runs/families-igsm --out runs/compare

Expect: the shift in group-words and parity-scratchpad (best d from 6 at n = 16 to 12 at n = 1024)
and expressions (from 3, the easiest, to 6); in igsm it is not settled (from 2 to 3), since a
thousand steps do not fit its hard mixtures at n = 4096.
"""

from __future__ import annotations

import dataclasses

from experiments.recipes.tradeoff import PRESETS as TRADEOFF
from experiments.sweep.grid import PretrainConfig, SweepConfig
from synth.config import DecoderConfig

SWEEP = SweepConfig(
    data_sizes=(16, 64, 256, 1024),
    compute=1000,
    base_seeds=3,
    seeds=1,
    test_examples=64,
    risk_examples=256,
    chunk_members=12,
)
IGSM = {"form": "terse", "modulus": 5, "shuffle": 6, "question": "first", "tokens_fixed": 30}

PRESETS = {
    "smoke": dataclasses.replace(TRADEOFF["smoke"], task="group-words"),
    "group-words": dataclasses.replace(
        SWEEP, task="group-words", difficulties=(4, 6, 9, 12, 16), test_hardest=24
    ),
    "expressions": dataclasses.replace(
        SWEEP,
        task="expressions",
        difficulties=(3, 4, 6, 8),
        data_sizes=(16, 128, 1024),
        test_hardest=12,
    ),
    "parity-scratchpad": dataclasses.replace(
        SWEEP, task="parity-scratchpad", difficulties=(4, 6, 9, 12, 16), test_hardest=24
    ),
    "dyck": dataclasses.replace(
        SWEEP,
        task="dyck",
        task_options={"length": 46},
        difficulties=(4, 5, 6, 8, 10),
        test_hardest=15,
    ),
    "igsm": dataclasses.replace(
        SWEEP,
        task="igsm",
        task_options=IGSM,
        decoder=DecoderConfig(vocab_size=1, hidden_size=64, intermediate_size=192, position_gap=3),
        pretrain=PretrainConfig(hardest=2, steps=2500, learning_rate=3e-3, text_examples=40_000),
        difficulties=(2, 3, 4, 6),
        data_sizes=(64, 512, 4096),
        base_seeds=2,
        seeds=2,
        test_hardest=9,
        test_examples=64,
        risk_examples=128,
    ),
}
