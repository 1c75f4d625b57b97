"""What a fine-tuning tells as it runs: a line of its log for each step, a bar, tokens a second."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.errors import ExpectedError
from experiments.llm.text.loader import Batch, Loader
from experiments.llm.training.cost import peak_flops, training_flops
from experiments.llm.training.distributed import is_first
from experiments.llm.training.log import Log
from experiments.llm.training.step import Measured
from experiments.storage.results import write_atomically
from synth.config import DecoderConfig


class DivergedError(ExpectedError):
    """The loss, or a parameter, is not finite any more."""


class Meter:
    """Keeps a line for each step, shows how far and how fast they go.

    Attributes:
      rates: learning rate of each step.
      losses: of all steps so far, those before a resume among them.

    Args:
      decoder: what is trained, for MFU.
      loader: its batches.
      rates: see above.
      directory: where ``log.jsonl`` is, in the first process; None for none.
      log: takes the numbers as well.
      num_devices: that train, for MFU.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        loader: Loader,
        rates: Float[np.ndarray, " steps"],
        directory: Path | None,
        log: Log | None,
        num_devices: int,
    ):
        self.rates, self.losses = rates, []
        self._decoder, self._loader, self._log = decoder, loader, log
        self._num_devices = num_devices
        self._path = directory / "log.jsonl" if directory is not None else None
        self._peak = peak_flops()
        self._seconds = self._tokens = 0.0
        self._last: float | None = None
        self._waiting: tuple[int, Batch, Measured] | None = None
        self._bar = Progress(
            TextColumn("steps"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            disable=not is_first(),
            transient=True,
        )
        self._task = self._bar.add_task("compiling", total=loader.steps)

    def begin(self, steps_done: int) -> None:
        """Start to show; drop the lines of steps that will be done again."""
        self._bar.start()
        self._bar.update(self._task, completed=steps_done)
        if self._path is None:
            return
        written = self._path.read_text() if self._path.exists() else ""
        kept = written.splitlines(keepends=True)[:steps_done]
        self.losses = [json.loads(line)["loss"] for line in kept]
        if is_first():
            # In one go: a kill here must not lose lines that the checkpoint is ahead of.
            write_atomically(self._path, lambda path: path.write_text("".join(kept)))

    def close(self) -> None:
        self._bar.stop()

    def add(self, step: int, batch: Batch, measured: Measured) -> None:
        """Take a step that may still be running, and write the one before."""
        self.flush()
        self._waiting = step, batch, measured

    def flush(self) -> None:
        """Wait for the step that was added last, and write it.

        Raises:
          DivergedError: if its loss is not finite.
        """
        if self._waiting is None:
            return
        (step, batch, measured), self._waiting = self._waiting, None
        loss, norm = float(measured.loss), float(measured.gradient_norm)
        numbers = {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": float(self.rates[step]),
        } | self._speed(int((batch.segments >= 0).sum()))
        self.losses.append(loss)
        if self._path is not None and is_first():
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step} | numbers) + "\n")
        if self._log is not None:
            self._log.write(step, numbers)
        words = [f"loss {loss:.3f}"]
        if "tokens_per_second" in numbers:
            words.append(f"{numbers['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in numbers:
            words.append(f"MFU {numbers['mfu']:.0%}")
        self._bar.update(self._task, advance=1, description=", ".join(words))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss of step {step} is {loss}: lower the learning rate")

    def _speed(self, tokens: int) -> dict[str, float]:
        """Tokens of a step; those a second, and MFU, over all steps but the first (it compiles)."""
        now = time.monotonic()
        found: dict[str, float] = {"tokens": tokens}
        if self._last is not None:
            self._seconds += now - self._last
            self._tokens += tokens
            found["tokens_per_second"] = self._tokens / self._seconds
            if self._peak is not None:
                done = training_flops(self._decoder, self._tokens, self._loader.length)
                found["mfu"] = done / self._seconds / self._peak / self._num_devices
        self._last = now
        return found
