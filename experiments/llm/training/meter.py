"""Progress of a fine-tuning: a line of its log for each step, a progress bar, tokens per second."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float

from experiments.engine.cost import peak_flops, training_flops
from experiments.engine.progress import progress_bar
from experiments.errors import ExpectedError
from experiments.llm.text.loader import Batch, Loader
from experiments.llm.training.distributed import is_first
from experiments.llm.training.log import Log
from experiments.llm.training.step import StepMetrics
from experiments.storage.writing import write_atomically
from synth.config import DecoderConfig


class DivergedError(ExpectedError):
    """The loss or a parameter is no longer finite."""


class Meter:
    """Logs every step, and shows progress and speed.

    Steps run asynchronously: the numbers of a step are fetched when the next one has been started,
    so that the device never waits for the host.

    Attributes:
      rates: learning rate of each step.
      losses: of all steps so far, including those before a resume.

    Args:
      decoder: the model that is trained, for MFU.
      loader: its batches.
      rates: see above.
      directory: of ``log.jsonl``, which the first process writes; None for no file.
      log: receives the numbers as well.
      num_devices: number of devices that train, for MFU.
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
        self._last_time: float | None = None
        self._unlogged: tuple[int, Batch, StepMetrics] | None = None
        self._bar = progress_bar(disable=not is_first(), transient=True)
        self._task = self._bar.add_task("compiling", total=loader.steps, unit="steps")

    def begin(self, steps_done: int) -> None:
        """Show the bar, and drop the lines of steps that will be repeated."""
        self._bar.start()
        self._bar.begin_anew(self._task, completed=steps_done)
        if self._path is None:
            return
        written = self._path.read_text() if self._path.exists() else ""
        lines = written.splitlines(keepends=True)[:steps_done]
        self.losses = [json.loads(line)["loss"] for line in lines]
        if is_first():
            # Atomically: lines of steps before the checkpoint, lost here, could not be made again.
            write_atomically(self._path, lambda path: path.write_text("".join(lines)))

    def close(self) -> None:
        self._bar.stop()

    def add(self, step: int, batch: Batch, metrics: StepMetrics) -> None:
        """Take over a step that may still be running, and log the one before it."""
        self.flush()
        self._unlogged = step, batch, metrics

    def flush(self) -> None:
        """Wait for the step that was added last, and log it.

        Raises:
          DivergedError: if its loss is not finite.
        """
        if self._unlogged is None:
            return
        # Converting to Python numbers waits for the device.
        (step, batch, metrics), self._unlogged = self._unlogged, None
        loss, norm = float(metrics.loss), float(metrics.gradient_norm)
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
        # Show the newest numbers before the bar.
        words = [f"loss {loss:.3f}"]
        if "tokens_per_second" in numbers:
            words.append(f"{numbers['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in numbers:
            words.append(f"MFU {numbers['mfu']:.0%}")
        self._bar.update(self._task, advance=1, description=", ".join(words))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss of step {step} is {loss}: lower the learning rate")

    def _speed(self, num_tokens: int) -> dict[str, float]:
        """Tokens of a step, and tokens per second and MFU over all steps but the first.

        The first step is left out because its time includes the compilation.
        """
        now = time.monotonic()
        numbers: dict[str, float] = {"tokens": num_tokens}
        if self._last_time is not None:
            self._seconds += now - self._last_time
            self._tokens += num_tokens
            numbers["tokens_per_second"] = self._tokens / self._seconds
            if self._peak is not None:
                done = training_flops(self._decoder, self._tokens, self._loader.length)
                numbers["mfu"] = done / self._seconds / self._peak / self._num_devices
        self._last_time = now
        return numbers
