"""Progress of a fine-tuning: a line of its log for each step, a progress bar, tokens per second."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from experiments.engine.cost import peak_flops, training_flops
from experiments.engine.progress import console, progress_bar
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
      validation: the validation losses among them, by the number of steps done.

    Args:
      decoder: the model that is trained, for MFU.
      loader: its batches.
      rates: see above.
      directory: of ``log.jsonl``, which the first process writes; None for no file.
      log: receives the numbers as well.
      num_devices: number of devices that train, for MFU.
      tells_epochs: whether to print a line when an epoch ends.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        loader: Loader,
        rates: Float[np.ndarray, " steps"],
        directory: Path | None,
        log: Log | None,
        num_devices: int,
        *,
        tells_epochs: bool = False,
    ):
        self.rates, self.losses = rates, []
        self.validation: dict[int, float] = {}
        self._decoder, self._loader, self._log = decoder, loader, log
        self._num_devices, self._tells_epochs = num_devices, tells_epochs
        self._path = directory / "log.jsonl" if directory is not None else None
        self._peak = peak_flops()
        self._seconds = self._tokens = self._paused = 0.0
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
        found = [json.loads(line) for line in lines]
        self.losses = [line["loss"] for line in found]
        self.validation = {
            number: line["validation_loss"]
            for number, line in enumerate(found, 1)
            if "validation_loss" in line
        }
        if is_first():
            # Atomically: lines of steps before the checkpoint, lost here, could not be made again.
            write_atomically(self._path, lambda path: path.write_text("".join(lines)))

    def close(self) -> None:
        self._bar.stop()

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        """Do something else than training, whose time does not count for its speed."""
        if self._unlogged is not None:
            jax.block_until_ready(self._unlogged[2])
        start = time.monotonic()
        yield
        self._paused += time.monotonic() - start

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Hand texts on to the tracker."""
        if self._log is not None and texts:
            self._log.write_texts(step, texts)

    def add(self, step: int, batch: Batch, metrics: StepMetrics) -> None:
        """Take over a step that may still be running, and log the one before it."""
        self.flush()
        self._unlogged = step, batch, metrics

    def flush(self, validation_loss: float | None = None) -> None:
        """Wait for the step that was added last, and log it.

        Args:
          validation_loss: after it, if it was measured.

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
        numbers |= self._epoch(step + 1)
        if validation_loss is not None:
            numbers["validation_loss"] = self.validation[step + 1] = validation_loss
        if self._path is not None and is_first():
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step} | numbers) + "\n")
        if self._log is not None:
            self._log.write(step, numbers)
        # Show the newest numbers before the bar.
        words = [f"loss {loss:.3f}"]
        if self.validation:
            words.append(f"validation loss {[*self.validation.values()][-1]:.3f}")
        if "tokens_per_second" in numbers:
            words.append(f"{numbers['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in numbers:
            words.append(f"MFU {numbers['mfu']:.0%}")
        self._bar.update(self._task, advance=1, description=", ".join(words))
        if not math.isfinite(loss):
            raise DivergedError(f"the loss of step {step} is {loss}: lower the learning rate")

    def _epoch(self, steps: int) -> dict[str, float]:
        """Epochs that so many steps have shown, and where one has ended the mean loss of its steps.

        The step in which an epoch ends counts for it, with what it has of the next one.
        """
        epochs, before = (self._loader.epochs_after(number) for number in (steps, steps - 1))
        numbers = {"epoch": round(epochs, 4)}
        if int(epochs) > int(before):
            first = min(self._loader.steps_until(int(before)), steps - 1)
            numbers["epoch_loss"] = float(np.mean(self.losses[first:steps]))
            if self._tells_epochs and is_first():
                whole = self._loader.epochs_after(self._loader.steps)
                mean = numbers["epoch_loss"]
                console.print(f"Epoch {int(epochs)} of {whole:.4g}: mean loss {mean:.4f}")
        return numbers

    def _speed(self, num_tokens: int) -> dict[str, float]:
        """Tokens of a step, and tokens per second and MFU over all steps but the first.

        The first step is left out because its time includes the compilation.
        """
        now = time.monotonic()
        numbers: dict[str, float] = {"tokens": num_tokens}
        if self._last_time is not None:
            self._seconds += now - self._last_time - self._paused
            self._tokens += num_tokens
            numbers["tokens_per_second"] = self._tokens / self._seconds
            if self._peak is not None:
                done = training_flops(self._decoder, self._tokens, self._loader.length)
                numbers["mfu"] = done / self._seconds / self._peak / self._num_devices
        self._last_time, self._paused = now, 0.0
        return numbers
