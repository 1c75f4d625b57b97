r"""The whole path on two CPU cores, from nothing: tokenizer, base, scan, slices, figures.

Data: iGSM of the preset ``tiny`` (modulo 5, sentences in an order of computation, question first,
at most two distractors). A byte-level BPE tokenizer with set phrases as single tokens; a Qwen2 of
196 thousand parameters, trained on 27,500 chats, most of them of op 1 to 3 and a few of op 4 to 6,
without which it stops after three steps. The scan does not start unless the base gets half of op 1
to 3 right. Members: 1 to d operations (exact d alone forgets the easy levels at this size) × n, SFT
and DFT, six epochs of 32 a step; test: op 1 to 9, greedy decoding, graded by the verifier.

Commands and cost (two CPU cores)::

    sweetspot llm scan tiny-igsm                    # 0.72 hours
    sweetspot llm scan tiny-igsm --preset smoke     # 0.02 hours: for tests
    sweetspot report --results runs/tiny-igsm-cpu

Certificates of a fine-tuning of that base, with S for the problems of op 2, 4 and 6,
"runs/tiny-igsm-cpu/data/train/op0[246].jsonl" (half an hour)::

    sweetspot llm finetune --model runs/tiny-igsm-cpu/base/model --source S --data-size 1024 \
        --compute 6 --batch-size 32 --learning-rate 1e-3 --warmup 0.05 --b2 0.98 --packed \
        --dtype float32 --no-remat --data 2 --max-length 320 --out runs/one
    sweetspot llm bound --model runs/one/model --trained-by runs/one --source S --max-length 320 \
        --data-sizes 512 --prior-scales 0.05 --posterior.steps 600 --num-draws 4096 --out runs/bound

Expect: no move to harder data. With DFT d = 5 is best at every n, at n = 2048 clearly; with SFT
d = 8, the hardest of the grid, at n = 64, and d = 5 at n = 512 and 2048. Training on d = 2 forgets
op 3 and 4, the more the larger n; at n = 2048 d = 5 gains at op 4 and 5, and d = 8 at op 5 to 7,
but loses at op 1 to 3. One base, three seeds.
"""

from __future__ import annotations

import dataclasses

from experiments.igsm.config import ExportConfig
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import GraderConfig
from experiments.llm.scan.grid import BaseConfig, ScanConfig
from experiments.llm.training.config import ScratchConfig, TrainingConfig
from experiments.storage.config import Devices
from synth.config import DecoderConfig, Optimiser

DEVICE = "two CPU cores"

DECODER = DecoderConfig(
    vocab_size=1,
    hidden_size=64,
    intermediate_size=192,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    tied_head=True,
    positions="sequential",
    max_positions=512,
)
TRAINING = TrainingConfig(
    compute=6,
    compute_unit="epochs",
    learning_rate=1e-3,
    optimiser=Optimiser(batch_size=32, warmup=0.05, b2=0.98),
    packed=True,
    dtype="float32",
    remat=False,
    checkpoint_every=500,
)

CPU = ScanConfig(
    export=ExportConfig(
        preset="tiny",
        difficulties=tuple(range(1, 9)),
        train_sizes=(1200,),
        base_difficulties=(1, 2, 3, 4, 5, 6),
        base_sizes=(8000, 8000, 8000, 2000, 1000, 500),
        test_difficulties=tuple(range(1, 10)),
        test_examples=60,
    ),
    base=BaseConfig(
        training=dataclasses.replace(
            TRAINING, compute=2000, compute_unit="steps", learning_rate=3e-3
        ),
        scratch=ScratchConfig(700, DECODER, pieces="phrases"),
        levels=(1, 2, 3),
        least_accuracy=0.5,
    ),
    selections=("range",),
    difficulties=(2, 5, 8),
    data_sizes=(64, 512, 2048),
    losses=("sft", "dft"),
    learning_rates=(1e-3, 1e-3),
    seeds=3,
    training=TRAINING,
    max_length=320,
    risk_examples=128,
    decoding=DecodingConfig(max_new_tokens=176, batch_size=64),
    grader=GraderConfig("igsm", modulus=5),
    devices=Devices(data=2),
)

SMALL_BATCHES = dataclasses.replace(TRAINING.optimiser, batch_size=16)

SMOKE = dataclasses.replace(
    CPU,
    export=ExportConfig(
        preset="tiny",
        difficulties=(1, 2),
        train_sizes=(48,),
        base_difficulties=(1,),
        base_sizes=(64,),
        test_difficulties=(1, 2, 3),
        test_examples=4,
    ),
    base=BaseConfig(
        training=dataclasses.replace(
            TRAINING, compute=2, learning_rate=3e-3, optimiser=SMALL_BATCHES
        ),
        scratch=ScratchConfig(512, DECODER),
        levels=(1,),
    ),
    difficulties=(1, 2),
    data_sizes=(16, 32),
    seeds=1,
    training=dataclasses.replace(TRAINING, compute=2, optimiser=SMALL_BATCHES),
    risk_examples=8,
    decoding=DecodingConfig(max_new_tokens=32, batch_size=16),
)

PRESETS = {"cpu": CPU, "smoke": SMOKE}

HOURS = {"cpu": 0.72, "smoke": 0.02}
"""Hours of each preset on `DEVICE`, as measured."""
