r"""The paper's real-data study: thirds of OpenMath by CoT length × data size, tested on MATH-500.

Difficulty is the length of the reference solution in tokens, cut into thirds of equal size over a
200k subset. Members: one third alone × n, three epochs of SFT at 5e-5 and DFT at 1e-5 as in
`paper_igsm`. Test: MATH-500, graded by math-verify; its slices are the same thirds, by the length
of its own solutions. Not known, and so chosen here: which OpenMath (the first 200k of the 1M split
of OpenMathInstruct-2), the sizes between, whether examples or tokens are matched (examples; set
``--data-unit tokens`` and sizes in tokens for the other: longer solutions are more tokens, a
first-order confound), decoding (greedy). Context is 4096 tokens; longer examples are dropped and
counted.

Commands and cost (`hours` counts FLOPs at 40% of the peak in training and 5% in decoding)::

    sweetspot llm scan paper-openmath                # 24 members of 1.5B: 5.2 hours of an H100
    sweetspot llm scan paper-openmath --preset 7b    # the same on 7B: 23 hours, of four together
    sweetspot llm recommend --results runs/paper-openmath-1.5b --data-size 200000

Expect (the paper, SFT, full thirds of the 200k subset, 1.5B, accuracy on MATH-500; no seeds, no
intervals; not yet run by us): easy 71.7, medium 70.1, hard 69.0.
"""

from __future__ import annotations

import dataclasses

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import Columns, GraderConfig, Source
from experiments.llm.published import QWEN25_MATH_1_5B, QWEN25_MATH_7B
from experiments.llm.recipes.paper_igsm import TRAINING
from experiments.llm.scan.grid import ScanConfig
from experiments.storage.config import Devices

DEVICE = "one H100 (1.5B), four (7B)"
NUM_TESTS = 500

SMALL = ScanConfig(
    checkpoint="Qwen/Qwen2.5-Math-1.5B",
    train=Source(
        "nvidia/OpenMathInstruct-2",
        split="train_1M[:200000]",
        columns=Columns(problem="problem", solution="generated_solution", answer="expected_answer"),
    ),
    test=Source(
        "HuggingFaceH4/MATH-500",
        split="test",
        columns=Columns(problem="problem", solution="solution", answer="answer"),
    ),
    measure="cot_tokens",
    buckets=3,
    selections=("exact",),
    difficulties=(1, 2, 3),
    data_sizes=(1000, 4000, 16_000, 64_000),
    losses=("sft", "dft"),
    learning_rates=(5e-5, 1e-5),
    training=TRAINING,
    max_length=4096,
    risk_examples=500,
    decoding=DecodingConfig(max_new_tokens=2048, batch_size=128),
    grader=GraderConfig("math-verify"),
)

PRESETS = {
    "1.5b": SMALL,
    "7b": dataclasses.replace(SMALL, checkpoint="Qwen/Qwen2.5-Math-7B", devices=Devices(fsdp=4)),
}

EXAMPLE_TOKENS = {1: 250, 2: 420, 3: 750}
"""Assumed means of the thirds, problems included."""

HOURS = {"1.5b": 5.2, "7b": 23}
"""Hours of each preset on `DEVICE`, as `hours` estimates them."""


def hours(config: ScanConfig) -> float:
    """Estimated hours of an H100."""
    from experiments.engine.cost import answering_flops, device_hours, finetuning_flops

    decoder = QWEN25_MATH_7B if config.devices.fsdp > 1 else QWEN25_MATH_1_5B
    training = answering = 0.0
    for member in config.members:
        length = EXAMPLE_TOKENS[member.difficulty]
        training += finetuning_flops(decoder, member.data_size, config.training.compute, length)
        answering += answering_flops(decoder, 2 * config.risk_examples + NUM_TESTS, length)
    return device_hours(training, answering, device="H100")
