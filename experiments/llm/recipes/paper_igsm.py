r"""The paper's iGSM grid on Qwen2.5-Math: does the best op count move to harder data with n?

Base: Qwen2.5-Math fine-tuned for one epoch at 5e-5 on iGSM of 2 to 8 operations, 2000 problems
each. Members: op 6, 8, 10, 12 or 14 alone × 1000 to 5000 problems, nested; three epochs, cosine
with 3% warm-up, 16 sequences a step (packed into fewer rows), bfloat16, at most 2048 tokens; SFT at
5e-5, DFT at 1e-5. Test: op 2 to 20, 200 problems each (the paper has 50), greedy, graded by the
verifier. The cells that the paper has beside this grid are presets of their own. Not known, and so
chosen here: the model's size (1.5B), devices and thus the global batch (16), decoding (greedy),
seeds.

Commands and cost (`hours` counts FLOPs at 40% of the peak in training and 5% in decoding)::

    sweetspot llm scan paper-igsm                    # 50 members: 4.1 hours of an H100
    sweetspot llm scan paper-igsm --preset 10k       # op 6, 8, 10 at n = 10000: 0.9 hours
    sweetspot llm scan paper-igsm --preset 500       # op 10 at n = 500: 0.14 hours
    sweetspot llm scan paper-igsm --preset weak-base # a base of op 2 to 6: 4.1 hours
    sweetspot llm recommend --results runs/paper-igsm-paper --data-size 20000

Expect (the paper's claims, not yet run by us): the best op moves to harder data as n grows; hard
data at small n lower every slice; DFT is ahead of SFT at small n and hard data, behind at large n;
the weaker base moves the optimum to easier data.
"""

from __future__ import annotations

import dataclasses

from experiments.igsm.config import ExportConfig
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import GraderConfig
from experiments.llm.published import QWEN25_MATH_1_5B
from experiments.llm.scan.grid import BaseConfig, ScanConfig
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig

DEVICE = "one H100"
TRAINING = TrainingConfig(
    compute=3,
    compute_unit="epochs",
    learning_rate=5e-5,
    optimiser=PAPER_OPTIMISER,
    packed=True,
    dtype="bfloat16",
    remat=True,
)

# 200 more of each op than the grid needs are held out for the in-distribution risk.
EXPORT = ExportConfig(train_sizes=(10_200, 10_200, 10_200, 5_200, 5_200), test_examples=200)
PAPER = ScanConfig(
    checkpoint="Qwen/Qwen2.5-Math-1.5B",
    export=EXPORT,
    base=BaseConfig(training=dataclasses.replace(TRAINING, compute=1), levels=tuple(range(2, 9))),
    selections=("exact",),
    difficulties=(6, 8, 10, 12, 14),
    data_sizes=(1000, 2000, 3000, 4000, 5000),
    losses=("sft", "dft"),
    learning_rates=(5e-5, 1e-5),
    training=TRAINING,
    max_length=2048,
    risk_examples=200,
    decoding=DecodingConfig(max_new_tokens=1024, batch_size=128),
    grader=GraderConfig("igsm"),
)

PRESETS = {
    "paper": PAPER,
    "10k": dataclasses.replace(PAPER, difficulties=(6, 8, 10), data_sizes=(10_000,)),
    "500": dataclasses.replace(PAPER, difficulties=(10,), data_sizes=(500,)),
    "weak-base": dataclasses.replace(
        PAPER,
        export=dataclasses.replace(EXPORT, base_difficulties=tuple(range(2, 7))),
        base=dataclasses.replace(PAPER.base, levels=tuple(range(2, 7))),
    ),
}


def example_tokens(difficulty: int) -> float:
    """Tokens of an iGSM problem with its solution, at about 4 and 2 characters a token."""
    return 120 + 46 * difficulty


HOURS = {"paper": 4.1, "10k": 0.9, "500": 0.14, "weak-base": 4.1}
"""Hours of each preset on `DEVICE`, as `hours` estimates them."""


def hours(config: ScanConfig) -> float:
    """Estimated hours of an H100."""
    from experiments.engine.cost import answering_flops, device_hours, finetuning_flops

    decoder, export = QWEN25_MATH_1_5B, config.export
    assert export is not None
    training = sum(
        finetuning_flops(decoder, export.base_sizes[0], 1, example_tokens(level))
        for level in export.base_difficulties
    )
    answering = 0.0
    for member in config.members:
        length = example_tokens(member.difficulty)
        training += finetuning_flops(decoder, member.data_size, config.training.compute, length)
        answering += answering_flops(decoder, 2 * config.risk_examples, length)
        answering += sum(
            answering_flops(decoder, export.test_examples, example_tokens(level))
            for level in export.test_difficulties
        )
    return device_hours(training, answering, device="H100")
