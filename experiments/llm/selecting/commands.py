"""Command lines of three trainers for the chosen rows: TRL, LLaMA-Factory, and our own."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from experiments.llm.problems.config import DEFAULT_COLUMNS, Columns
from experiments.llm.selecting.config import Order
from experiments.llm.training.config import TrainingConfig

DATASET = "sweetspot"
"""Name of the rows in LLaMA-Factory's dataset_info.json."""

CHATS = "chats"
"""Configuration of the data set, and name of its file, with the chats that every trainer reads."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What is known of the training to come.

    Attributes:
      model: checkpoint to start from; None if none is known.
      config: the scan's training, with the loss and rate of its study; None without a scan.
      max_length: tokens of an example at most; None if not limited.
      order: of the rows.
      has_turns: whether a chat has turns of the assistant before its last one.
      columns: names of the pool's columns.
    """

    model: str | None
    config: TrainingConfig | None
    max_length: int | None
    order: Order
    has_turns: bool
    columns: Columns

    def commands(self, folder: str) -> dict[str, str]:
        """Command line of each trainer by its name.

        All train on the last turn of each chat alone, in the order of the file where that was asked
        for; our own trainer always shuffles.

        Args:
          folder: where the files are.
        """
        return {
            "TRL": _line("trl sft", self._trl(folder)),
            "LLaMA-Factory": _line("llamafactory-cli train", self._llama_factory(folder)),
            "sweetspot": _line("sweetspot llm finetune", self._own(folder)),
        }

    def _trl(self, folder: str) -> dict[str, Any]:
        known: dict[str, Any] = {
            "model_name_or_path": self._model,
            "dataset_name": folder,
            "dataset_config": CHATS,
            "max_length": self.max_length,
        }
        if self.order != "random":
            known["train_sampling_strategy"] = "sequential"
        if (config := self.config) is not None:
            known |= {"learning_rate": config.learning_rate} | _epochs(config, "num_train_epochs")
            if config.loss == "dft":
                known["loss_type"] = "dft"
            if config.lora_rank:
                known |= {"use_peft": True, "lora_r": config.lora_rank}
                known["lora_alpha"] = int(config.lora_alpha)
        return known | {"output_dir": "trained"}

    def _llama_factory(self, folder: str) -> dict[str, Any]:
        config = self.config
        has_adapters = config is not None and config.lora_rank > 0
        known: dict[str, Any] = {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": self._model,
            "dataset_dir": folder,
            "dataset": DATASET,
            "finetuning_type": "lora" if has_adapters else "full",
            "cutoff_len": self.max_length,
        }
        if self.has_turns:
            known["mask_history"] = True
        if self.order != "random":
            known["disable_shuffling"] = True
        if config is not None:
            known |= {"learning_rate": config.learning_rate} | _epochs(config, "num_train_epochs")
            if config.loss == "dft":
                known["use_dft_loss"] = True
            if has_adapters:
                known |= {"lora_rank": config.lora_rank, "lora_alpha": int(config.lora_alpha)}
        return known | {"output_dir": "trained"}

    def _own(self, folder: str) -> dict[str, Any]:
        known: dict[str, Any] = {"model": self._model, "source": f"{folder}/train.parquet"}
        for field in dataclasses.fields(Columns):
            value = getattr(self.columns, field.name)
            if value != getattr(DEFAULT_COLUMNS, field.name):
                known[f"columns.{field.name}"] = value
        known["max-length"] = self.max_length
        if (config := self.config) is not None:
            known |= {"loss": config.loss, "learning-rate": config.learning_rate}
            known |= {"compute": config.compute, "compute-unit": config.compute_unit}
            known["batch-size"] = config.optimiser.batch_size
            if config.lora_rank:
                known |= {"lora-rank": config.lora_rank, "lora-alpha": config.lora_alpha}
        return known | {"out": "runs/trained"}

    @property
    def _model(self) -> str:
        return self.model or "MODEL"


def _epochs(config: TrainingConfig, name: str) -> dict[str, float]:
    """Passes over the data, where the training is stated in them."""
    return {name: config.compute} if config.compute_unit == "epochs" else {}


def _line(command: str, flags: dict[str, Any]) -> str:
    """A command line; flags without a value are left out."""
    words: list[str] = command.split()
    for name, value in flags.items():
        if value is None:
            continue
        words += [f"--{name}", *_words(value)]
    return shlex.join(words)


def _words(value: Any) -> Sequence[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    return [f"{value:.12g}" if isinstance(value, float) else str(value)]
