"""Fine-tunings in processes of their own, which may be killed or run out of disk on the way.

Python's fork server imports all packages once, so that each process starts in a fraction of a
second. Each has its own number of devices.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import jax

from experiments.llm.problems.data import read
from experiments.llm.text.encoding import Encoded, encode
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.llm.training import log
from experiments.llm.training.config import Processes, TrainingConfig
from experiments.llm.training.finetune import finetune
from experiments.storage.sharding import make_mesh
from tests.xla_flags import XLA_FLAGS

SECONDS = 600
"""Seconds after which a process is considered to hang."""


@dataclass(frozen=True)
class Work:
    """A call of `finetune`, on a mesh if it has axes."""

    base: Path
    rows: Path
    config: TrainingConfig
    out: Path
    axes: Mapping[str, int] | None = None

    @property
    def encoded(self) -> Encoded:
        return encode(read(self.rows), load_tokenizer(self.base), max_length=128)

    def run(self) -> Path:
        mesh = None if self.axes is None else make_mesh(**self.axes)
        return finetune(self.base, self.encoded, self.config, self.out, mesh=mesh)


@dataclass(frozen=True)
class Mishap:
    """A kill or a full disk, at some moment of a run.

    Attributes:
      step: it happens after this step was logged; None if it happens at an event.
      event, path: one of Python's audit events, and a pattern for the path that it is about.
      signal: signal that the process gets; None for a full disk from then on.
    """

    step: int | None = None
    event: str = ""
    path: str = ""
    signal: signal.Signals | None = signal.SIGKILL

    def strike(self) -> None:
        if self.signal is not None:
            os.kill(os.getpid(), self.signal)
        else:
            # Files of checkpoints exceed this size; the log does not.
            resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, resource.RLIM_INFINITY))


@dataclass
class Recorder:
    """Records a process: its losses, as its log, and its files, as an audit hook of Python."""

    mishap: Mishap | None
    losses: list[float] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    error: str = ""

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Handle one of Python's audit events."""
        path = str(arguments[0]) if arguments else ""
        if event == "os.rename" or (event == "open" and arguments[1] in ("w", "a")):
            self.written.append(path)
        mishap = self.mishap
        if mishap is not None and event == mishap.event and re.search(mishap.path, path):
            mishap.strike()

    def write(self, step: int, numbers: Any) -> None:
        self.losses.append(numbers["loss"])
        if self.mishap is not None and step == self.mishap.step:
            self.mishap.strike()

    def write_texts(self, step: int, texts: Any) -> None:
        pass

    def close(self) -> None:
        pass


def start(
    works: Sequence[Work],
    *,
    devices: int,
    mishap: Mishap | None = None,
    processes: Processes | None = None,
    record: Path | None = None,
) -> ForkServerProcess:
    """Start a process that does its works one after the other.

    Args:
      works: calls of `finetune`.
      devices: number of devices of the process.
      mishap: happens to the process, if given.
      processes: the processes that it belongs to; by default it is the only one.
      record: JSON file for its losses, the paths it wrote, and its error.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "datasets", "grain", "transformers"])
    process = context.Process(
        target=_main, args=(tuple(works), devices, mishap, processes or Processes(), record)
    )
    process.start()
    return process


def finish(*processes: ForkServerProcess) -> list[int | None]:
    """Wait for processes, and return their exit codes: 0, or minus the signal that ended them."""
    for process in processes:
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
    return [process.exitcode for process in processes]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _main(
    works: Sequence[Work],
    devices: int,
    mishap: Mishap | None,
    processes: Processes,
    record: Path | None,
) -> None:
    """Body of the new process: set JAX up before it looks for devices, then do the works."""
    warnings.simplefilter("error")
    os.environ["XLA_FLAGS"] = f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    recorder = Recorder(mishap)
    log.TRACKERS["none"] = lambda *_: recorder
    processes.join()
    sys.addaudithook(recorder.hear)
    try:
        for work in works:
            work.run()
    except Exception as error:
        recorder.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        if record is not None:
            record.write_text(json.dumps(vars(recorder) | {"mishap": None}))
