r"""The whole path on two CPU cores, from nothing: tokenizer, base, scan, slices, figures.

Commands and cost (two CPU cores)::

    sweetspot llm scan tiny-igsm                    # 40 minutes
    sweetspot llm scan tiny-igsm --preset smoke     # a minute: for tests
    sweetspot report --results runs/tiny-igsm-cpu
"""

from __future__ import annotations

import dataclasses

from experiments.export import ExportConfig
from experiments.llm.evaluate import DecodingConfig
from experiments.llm.finetune import TrainingConfig
from experiments.llm.grade import GraderConfig
from experiments.llm.grid import BaseConfig, ScanConfig
from experiments.llm.scratch import ScratchConfig
from synth.decoder import DecoderConfig

DEVICE = "two CPU cores"

DECODER = DecoderConfig(
    vocab_size=1,
    hidden_size=64,
    intermediate_size=192,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    tied_head=True,
    positions="sequential",
    max_positions=512,
)
TRAINING = TrainingConfig(
    compute=600,
    compute_unit="steps",
    batch_size=32,
    learning_rate=1e-3,
    warmup=0.05,
    b2=0.98,
    packed=True,
    dtype="float32",
    remat=False,
    checkpoint_every=0,
)

SMOKE = ScanConfig(
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
        training=dataclasses.replace(TRAINING, compute=8, batch_size=16, learning_rate=3e-3),
        scratch=ScratchConfig(512, DECODER),
        levels=(1,),
    ),
    difficulties=(1, 2),
    data_sizes=(16, 32),
    losses=("sft", "dft"),
    learning_rates=(1e-3, 1e-3),
    training=dataclasses.replace(TRAINING, compute=4, batch_size=16),
    max_length=512,
    risk_examples=8,
    decoding=DecodingConfig(max_new_tokens=32, batch_size=16),
    grader=GraderConfig("igsm", modulus=5),
)

PRESETS = {"smoke": SMOKE}


def hours(config: ScanConfig) -> float:
    """Measured hours of two CPU cores."""
    return 0.7 if config.num_members > 8 else 0.02
