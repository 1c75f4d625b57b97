"""Fine-tuning steps of SmolLM2-135M-Instruct against `transformers`, side by side in one process.

As `experiments.benchmarks.finetuning`, which measures the same shape, but with the weights of the
real model: both programs start from the same folder, and the losses of their first steps must
agree. Peak memory depends on the shape alone, and is measured there.

Commands and cost (two CPU cores, 16 GB)::

    python -m experiments.llm.smollm2 runs/SmolLM2-135M-Instruct
    python -m experiments.benchmarks.smollm2 --quick     # one minute: checks that it works
    python -m experiments.benchmarks.smollm2 --record    # five minutes: the table of
                                                         # docs/performance.md

Expect on an AMD EPYC: 1.85 times as fast as `transformers` in float32, with adapters too; 0.7 times
in bfloat16, for which PyTorch uses the CPU's own instructions.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments.benchmarks import command, finetuning, main
from experiments.benchmarks.finetuning import SMALL, Work
from experiments.llm.recipes.smollm2_gsm import CHECKPOINT

RECORD = "smollm2"
NAME = "SmolLM2-135M-Instruct, 6 × 512, float32"


def works(checkpoint: Path) -> tuple[Work, ...]:
    """All parameters and adapters in float32, and all parameters in bfloat16."""
    full = dataclasses.replace(SMALL, name=NAME, checkpoint=checkpoint)
    return (
        full,
        dataclasses.replace(full, name="the same, LoRA of rank 16, float32", rank=16, bar=1.1),
        dataclasses.replace(
            full, name="the same, all parameters, bfloat16", dtype="bfloat16", bar=None
        ),
    )


def quick_works(checkpoint: Path) -> tuple[Work, ...]:
    """One short step of all parameters."""
    (full, *_) = works(checkpoint)
    return (dataclasses.replace(full, rows=2, length=16, micro_batches=2),)


def run(checkpoint: Path = Path(CHECKPOINT), quick: bool = False, record: bool = False) -> None:
    """Measure, and print the tables and bars.

    Args:
      checkpoint: folder that `experiments.llm.smollm2` has made.
      quick: only check that everything works; the numbers mean nothing.
      record: keep table and manifest under experiments/results/benchmarks.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if a quick run is to be recorded, before anything is measured.
    """
    if not (checkpoint / "config.json").is_file():
        raise FileNotFoundError(
            f"checkpoint must be a folder with a config.json, got {checkpoint}; make it by "
            f"python -m experiments.llm.smollm2 {checkpoint}"
        )
    plans = (works(checkpoint), 3), (quick_works(checkpoint), 2)
    command(RECORD, lambda quick: finetuning.measure(*plans[quick]), finetuning.markdown)(
        quick=quick, record=record
    )


if __name__ == "__main__":
    main(run)
