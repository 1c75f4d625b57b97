"""Does the best difficulty move to harder data as data grow, in task families other than a chain?

One preset is one family, under the protocol of `paper_protocol`: eight bases on a mixture of levels
that falls off, so that what they know falls off gradually; n examples of exactly d for three
epochs; the learning rate of each cell is the best of three. Each grid of levels has what its bases
get nearly always right, about half of the time, and never.

``igsm`` is the real one in its terse form, made small: modulus 5, sentences in an order of
computation, question first. It has two learning rates and fewer examples.

``igsm-shuffled`` has its sentences in any order, so that a solution must be planned: its first step
is a quantity that depends on no other, and is found from the question backwards. The decoder of
``igsm`` (2 layers, randomised positions, 2500 steps) gets 37% of op 1 to 3 right there. In a pilot
with one base a third layer, normalised queries and keys, positions as they are and problems of at
most 20 + 12 op tokens, which have fewer sentences that are not needed, gave 86, 72 and 49% of op 1,
2 and 3 after 2000 steps. Bases have 3000, and see op 1 to 5. Written down before its first run: as
in ``igsm``, exact levels lose to the untouched base from n = 512 on and their best level does not
move to harder data; with the levels 1 to d the best cell at n = 2048 beats the base.

It does not: 2,048 examples add nothing to the 192,000 that a base has seen. ``igsm-shuffled-more``
is one cell with more of them, 16,384 of the levels 1 to 5 at one rate between those two, and asks
whether any fine-tuning of these bases can gain. Written down before its run: it beats the base.
That cannot be told: it adds 1.9 points [-0.2, 3.9], to levels 3 and 4, in four of six bases.

``pointer`` has problems and solutions of one length at every level, as ``dyck`` has. A base knows
all of it up to one hop more than it was trained on and nothing beyond (a pilot with one base), so
this is the family over a cliff. Written down before its run: the hardest level is the best from
n = 512 on, as in ``dyck``. That fails: the best is the first level beyond the cliff. It takes 10
nodes and positions as they are: with 13 nodes two layers of width 48 get 11% of single hops right
after 1500 steps. It too has two learning rates, fewer examples and six bases.

``chain-lines`` is the chain's other layout, a line for each variable, in an order of computation;
shuffled, a decoder of this size learns one operation and no more.

The presets that end in ``-range`` train on the levels 1 to d, over the bases of the preset that is
named before: keeping the easy levels is what decides in `controls`, and this tests it elsewhere.

`PREREGISTERED` was written down before the first run.

Commands and cost (two CPU cores)::

    sweetspot run families --preset smoke               # 30 s: for tests
    sweetspot run families --preset group-words         # 8 minutes
    sweetspot run families --preset parity-scratchpad   # 5 minutes
    sweetspot run families --preset expressions         # 9 minutes
    sweetspot run families --preset addition            # 4 minutes
    sweetspot run families --preset dyck                # 8 minutes
    sweetspot run families --preset pointer             # 8 minutes
    sweetspot run families --preset chain-lines         # 14 minutes
    sweetspot run families --preset igsm                # 12 minutes
    sweetspot run families --preset igsm-shuffled       # 40 minutes, on cores a third as fast
    # The levels 1 to d, about 6 minutes each, iGSM 10:
    sweetspot run families --preset group-words-range --bases runs/families-group-words
    sweetspot run families --preset parity-scratchpad-range --bases runs/families-parity-scratchpad
    sweetspot run families --preset expressions-range --bases runs/families-expressions
    sweetspot run families --preset igsm-range --bases runs/families-igsm
    # 12 minutes on those cores:
    sweetspot run families --preset igsm-shuffled-range --bases runs/families-igsm-shuffled
    # 16 minutes beside tests:
    sweetspot run families --preset igsm-shuffled-more --bases runs/families-igsm-shuffled
    sweetspot compare --results runs/families-group-words runs/families-igsm --out runs/compare

Expect, on exact levels: no move to harder data. In group-words d* is 11.7 at n = 64 and 10.3 at n =
4096, in parity-scratchpad 8.4 at both, in expressions 5.1 and in chain-lines 7.4 at n = 4096; each
is near the level of which the bases get half right. In addition most levels are alike, in dyck the
hardest of the grid is best from n = 512 on, in pointer the level 5 is, and in igsm every level is
below the untouched base from n = 512 on. With the levels 1 to d the hardest level of the grid, or
nearly, is best at n = 4096; in igsm-range d* is 4.6 at n = 2048, as good as the base or slightly
better. In igsm-shuffled every level is at or below the base at every n, and the levels 1 to 5 are
as good as it at n = 2048, so that no optimum is seen in either.
"""

from __future__ import annotations

import dataclasses

from experiments.analysis.contrasts import Move, Prediction
from experiments.recipes.paper_protocol import CPU as PROTOCOL
from experiments.recipes.paper_protocol import GRADUAL
from experiments.recipes.paper_protocol import PRESETS as PROTOCOLS
from experiments.sweep.grid import SweepConfig
from synth.config import DecoderConfig

LINES = {"shuffled": False, "num_distractors": 0, "second_operand": "constant"}
IGSM = {"form": "terse", "modulus": 5, "shuffle": 6, "question": "first", "tokens_fixed": 30}
SMALLER = {"data_sizes": (64, 512, 2048), "learning_rates": (2e-4, 8e-4), "base_seeds": 6}
"""Fields of a study at about half of the cost."""


def _family(
    task: str, difficulties: tuple[int, ...], *, hardest: int, ratio: float, test: int, **fields
) -> SweepConfig:
    """The protocol in another family.

    Args:
      task: its name.
      difficulties: the grid.
      hardest, ratio: of the mixture that bases are trained on, see `PretrainConfig`.
      test: hardest level of the test.
      fields: of the sweep, to change.
    """
    pretrain = dataclasses.replace(GRADUAL, hardest=hardest, level_ratio=ratio)
    sweep = dataclasses.replace(
        PROTOCOL,
        task=task,
        pretrain=pretrain,
        difficulties=difficulties,
        data_sizes=(64, 512, 4096),
        test_hardest=test,
    )
    return dataclasses.replace(sweep, **fields)


PRESETS = {
    "smoke": dataclasses.replace(PROTOCOLS["smoke"], task="group-words"),
    "group-words": _family("group-words", (6, 8, 10, 12, 16), hardest=16, ratio=0.65, test=24),
    "parity-scratchpad": _family(
        "parity-scratchpad", (5, 7, 9, 11, 14), hardest=16, ratio=0.65, test=24
    ),
    "expressions": _family("expressions", (3, 4, 5, 6, 8), hardest=8, ratio=0.5, test=12),
    "addition": _family("addition", (2, 3, 4, 5, 7), hardest=10, ratio=0.6, test=12),
    "dyck": _family(
        "dyck", (4, 5, 6, 8, 10), hardest=10, ratio=0.7, test=15, task_options={"length": 46}
    ),
    "pointer": _family(
        "pointer",
        (3, 4, 5, 6),
        hardest=3,
        ratio=0.5,
        test=9,
        task_options={"num_nodes": 10},
        decoder=dataclasses.replace(PROTOCOL.decoder, positions="sequential"),
        **SMALLER,
    ),
    "chain-lines": _family(
        "chain", (4, 5, 6, 7, 8), hardest=8, ratio=0.5, test=12, task_options=LINES
    ),
    "igsm": _family(
        "igsm",
        (2, 3, 4, 6),
        hardest=6,
        ratio=0.6,
        test=9,
        task_options=IGSM,
        decoder=DecoderConfig(vocab_size=1, hidden_size=64, intermediate_size=192, position_gap=3),
        test_examples=64,
        risk_examples=128,
        **SMALLER,
    ),
}
PRESETS["igsm-shuffled"] = dataclasses.replace(
    PRESETS["igsm"],
    task_options=IGSM | {"shuffle": 5, "tokens_fixed": 20, "tokens_per_op": 12},
    decoder=DecoderConfig(
        vocab_size=1,
        hidden_size=64,
        intermediate_size=192,
        num_layers=3,
        qkv_bias=False,
        qk_norm=True,
        positions="sequential",
    ),
    pretrain=dataclasses.replace(
        GRADUAL, hardest=5, level_ratio=0.7, steps=3000, max_risk=0.6, text_examples=100_000
    ),
    difficulties=(2, 3, 4, 5),
    test_hardest=8,
)
PRESETS |= {
    f"{name}-range": dataclasses.replace(PRESETS[name], mixtures=("range",))
    for name in ("group-words", "parity-scratchpad", "expressions", "igsm", "igsm-shuffled")
}
PRESETS["igsm-shuffled-more"] = dataclasses.replace(
    PRESETS["igsm-shuffled-range"],
    difficulties=(5,),
    data_sizes=(16_384,),
    learning_rates=(4e-4,),
)

PREREGISTERED: tuple[Prediction, ...] = (
    Move(1, "the best level at n = 4096 minus that at n = 64", 64, 4096),
    Move(1, "the best level at n = 2048 minus that at n = 64", 64, 2048),
    Move(1, "levels 1..d: the best d at n = 4096 minus that at n = 64", 64, 4096, mixture="range"),
    Move(1, "levels 1..d: the best d at n = 2048 minus that at n = 64", 64, 2048, mixture="range"),
)
"""Predictions of claim 1 in each family, written down before the runs that test them."""

DEVICE = "two CPU cores"
HOURS = {
    "smoke": 0.01,
    "group-words": 0.15,
    "parity-scratchpad": 0.1,
    "expressions": 0.15,
    "addition": 0.1,
    "dyck": 0.2,
    "pointer": 0.15,
    "chain-lines": 0.3,
    "igsm": 0.2,
    "igsm-shuffled": 0.7,
    "group-words-range": 0.15,
    "parity-scratchpad-range": 0.1,
    "expressions-range": 0.1,
    "igsm-range": 0.2,
    "igsm-shuffled-range": 0.2,
    "igsm-shuffled-more": 0.3,
}
"""Hours of each preset on that device, as measured; others have not been run."""
