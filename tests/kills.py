"""End commands at random moments, and see whether a run loses or changes anything.

    python -m tests.kills --number 500                       # SIGKILL
    python -m tests.kills --number 200 --signals INT TERM    # Ctrl-C, and what schedulers send
    python -m tests.kills --record a.json b.json             # keep what --out wrote

A trial starts a command in a directory, ends it at a random moment, and looks at what is on disk:
every finished file must be there, and must equal that of an undisturbed run, bit for bit. The next
trial goes on in the same directory, until the command has come to its end; then the whole
directory is compared. A trial is a row of the table ``kills``: the moment, the exit code, the lines
on stderr, and the numbers of finished files before, of those lost and of those that differ.

For SIGKILL the command runs in a process that is forked when all libraries are imported, so that
the moments are those in which it works. For other signals it is started as a user starts it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results" / "robustness"
START_SECONDS = 0.25
"""In this time after its start Python itself may be at work, and end by a traceback of its own."""
TRIALS_OF_A_RUN = 12
"""After so many ends a command is left to come to its own."""
PASSING = (
    # A model card is named after its directory.
    "model/README.md",
    "manifest",
    "log.jsonl",
    "checkpoints",
    "work/",
    "damaged",
    ".lock",
    ".partial",
)
"""Parts of names of files that tell times, or that only an interrupted run has."""
WHOLE = (
    "parts/",
    "bases/",
    "members/",
    "responses/",
    "predictions/",
    "train/",
    "test/",
    "scratch/",
)
"""Beginnings of names of files that are finished once they are there."""


@dataclass(frozen=True)
class Scenario:
    """A command, and what its directory holds before.

    Attributes:
      words: the command line; ``RUN`` and ``BEFORE`` stand for directories.
      before: makes what the command reads, once; copied to ``RUN`` where the command writes there.
      is_copied: whether ``RUN`` begins as a copy of ``BEFORE``.
    """

    words: str
    before: str = ""
    is_copied: bool = False


SWEEP = "run tradeoff --preset smoke --pretrain.steps 60 --chunk-members 2 --out"
SCENARIOS = {
    "sweep": Scenario(f"{SWEEP} RUN --save-members --save-predictions"),
    "certification": Scenario(
        "bound --results RUN --methods base test-set gains --num-draws 64 --data-sizes 8 32",
        before=f"{SWEEP} BEFORE",
        is_copied=True,
    ),
    "scan": Scenario("llm scan tiny-igsm --preset smoke --out RUN"),
    "finetuning": Scenario(
        "llm finetune --model BEFORE/scratch --source BEFORE/data/train/op01.jsonl --compute 12 "
        "--compute-unit steps --batch-size 4 --checkpoint-every 2 --dtype float32 --out RUN",
        before="llm scan tiny-igsm --preset smoke --out BEFORE",
    ),
    "export": Scenario(
        "tasks export igsm --difficulties 2 3 4 --train-sizes 200 --base-difficulties 1 "
        "--base-sizes 200 --test-difficulties 2 3 --test-examples 100 --out RUN"
    ),
}
SHARES = {"sweep": 0.3, "certification": 0.2, "scan": 0.2, "finetuning": 0.2, "export": 0.1}
"""Shares of the trials."""


@dataclass(frozen=True)
class Trial:
    """What came of one end of a command, see the module's docstring."""

    scenario: str
    number: int
    seed: int
    signal: str
    moment: float
    has_ended_before: bool
    exit_code: int
    seconds_to_end: float
    stderr_lines: int
    has_traceback: bool
    finished: int
    lost: int
    differing: int
    is_last: bool
    differing_at_the_end: int


# Commands.


class Forked:
    """A command in a forked process, which has all libraries already."""

    def __init__(self, words: Sequence[str], errors: Path):
        sys.stdout.flush()
        with warnings.catch_warnings():
            # JAX warns of forks. Its backend does not run here.
            warnings.simplefilter("ignore")
            self._pid = os.fork()
        if self._pid == 0:
            become_command(words, errors)
        self._status: int | None = None

    def poll(self) -> int | None:
        """Exit code, negative after a signal; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)


def become_command(words: Sequence[str], errors: Path) -> None:
    """Run a command in this process, which was forked for it, and end the process.

    Args:
      words: the command line.
      errors: file that takes what is printed to stderr.
    """
    code = 1
    try:
        os.setsid()
        for path, number in ((os.devnull, 0), (os.devnull, 1), (errors, 2)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        from experiments.interrupts import catch_signals

        catch_signals()
        sys.argv = ["sweetspot", *words]
        from experiments.cli.main import main

        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(words: Sequence[str], errors: Path) -> subprocess.Popen[bytes]:
    """Start a command as a user does."""
    with errors.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )


# What is on disk.


def contents(directory: Path) -> dict[str, str]:
    """Digest of every file that is the same in all runs, by its path."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_file() and not any(part in name for part in PASSING):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in directory.rglob("log.jsonl"):
        # The losses, without the seconds.
        if "work/" not in str(path):
            losses = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
            name = f"losses of {path.relative_to(directory)}"
            found[name] = hashlib.sha256(json.dumps(losses).encode()).hexdigest()
    return found


def finished(directory: Path) -> dict[str, str]:
    """Those files that a run never writes again."""
    inner = [f"{outer}/{name}" for outer in ("data", "certificates") for name in WHOLE]
    found = contents(directory) if directory.exists() else {}
    return {
        name: digest
        for name, digest in found.items()
        if name.startswith((*WHOLE, *inner, "model/", "base/model/"))
    }


# Trials.


class Campaign:
    """Trials of one scenario."""

    def __init__(self, name: str, folder: Path, run: Callable[..., Any]):
        """Make what the command reads, and an undisturbed run."""
        self.name, self._scenario, self._run = name, SCENARIOS[name], run
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._before, self._errors = self._folder / "before", self._folder / "errors"
        if self._scenario.before:
            self._to_end(self._scenario.before.replace("BEFORE", str(self._before)))
        reference = self._begin("reference")
        self._to_end(self._words(reference))
        self._expected = contents(reference)
        # Twice: the second time nothing is compiled, as in the trials.
        again = self._begin("again")
        begun = time.monotonic()
        self._to_end(self._words(again))
        self.seconds = time.monotonic() - begun
        assert contents(again) == self._expected, "the command is not deterministic"
        self._expected_finished = finished(reference)

    def _begin(self, name: str) -> Path:
        directory = self._folder / name
        if self._scenario.is_copied:
            shutil.copytree(self._before, directory)
        return directory

    def _words(self, directory: Path) -> str:
        line = self._scenario.words.replace("BEFORE", str(self._before))
        return line.replace("RUN", str(directory))

    def _to_end(self, line: str) -> None:
        process = self._run(line.split(), self._errors)
        while process.poll() is None:
            time.sleep(0.02)
        if process.poll() != 0:
            raise RuntimeError(f"{line}: exit code {process.poll()}\n{self._errors.read_text()}")

    def trials(self, number: int, seed: int, signals: Sequence[signal.Signals]) -> list[Trial]:
        """End the command `number` times."""
        random_numbers, rows, runs = random.Random(f"{seed} {self.name}"), [], 0
        ends = 0
        directory = self._begin("run-0")
        while len(rows) < number:
            moment = random_numbers.uniform(0, self.seconds)
            sent = random_numbers.choice(list(signals))
            trial = self._trial(directory, len(rows), seed, sent, moment)
            ends += 1
            if trial.has_ended_before:
                # Faster than it was before: moments are drawn from less time.
                self.seconds *= 0.9
            if trial.has_ended_before or ends == TRIALS_OF_A_RUN or len(rows) == number - 1:
                # Let the command come to its end, and compare everything.
                if trial.exit_code != 0:
                    self._to_end(self._words(directory))
                left = contents(directory)
                names = self._expected.keys() | left.keys()
                differing = [n for n in names if self._expected.get(n) != left.get(n)]
                trial = Trial(
                    **asdict(trial) | {"is_last": True, "differing_at_the_end": len(differing)}
                )
                if differing:
                    print(f"{directory} differs in {differing[:5]}", flush=True)
                else:
                    shutil.rmtree(directory)
                runs, ends = runs + 1, 0
                directory = self._begin(f"run-{runs}")
            rows.append(trial)
        return rows

    def _trial(
        self, directory: Path, number: int, seed: int, sent: signal.Signals, moment: float
    ) -> Trial:
        """Start the command, end it, and look."""
        before = finished(directory)
        self._errors.write_text("")
        process = self._run(self._words(directory).split(), self._errors)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < moment:
            time.sleep(0.005)
        has_ended, sent_at = process.poll() is not None, time.monotonic()
        process.send_signal(sent)
        while process.poll() is None and time.monotonic() - sent_at < 60:
            time.sleep(0.005)
        seconds = time.monotonic() - sent_at
        after, errors = finished(directory), self._errors.read_text()
        return Trial(
            scenario=self.name,
            number=number,
            seed=seed,
            signal=sent.name,
            moment=round(moment, 3),
            has_ended_before=has_ended,
            exit_code=-999 if (code := process.poll()) is None else code,
            seconds_to_end=round(seconds, 3),
            stderr_lines=len(errors.splitlines()),
            has_traceback="Traceback" in errors or "Fatal" in errors,
            finished=len(before),
            lost=sum(name not in after for name in before),
            differing=sum(self._expected_finished.get(name) != it for name, it in after.items()),
            is_last=False,
            differing_at_the_end=0,
        )


def expected_code(trial: Trial) -> bool:
    """Return whether a command that was ended says so in the right way."""
    if trial.has_ended_before:
        return trial.exit_code == 0
    number = signal.Signals[trial.signal]
    if trial.moment < START_SECONDS:
        return True
    # It may come to its end in the moment of the signal.
    if trial.exit_code == 0:
        return trial.seconds_to_end < 0.5
    # Before our code is imported, the interpreter ends by the signal itself.
    return trial.exit_code in ((-number,) if number == signal.SIGKILL else (128 + number, -number))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="End commands at random moments.")
    parser.add_argument("--number", type=int, default=25, help="trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", nargs="+", default=["KILL"], choices=["KILL", "INT", "TERM"])
    parser.add_argument("--scenarios", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--out", type=Path, help="file of the rows, as JSON")
    parser.add_argument("--record", nargs="+", type=Path, help="files of rows to keep as a table")
    return parser.parse_args()


def record(paths: Sequence[Path]) -> None:
    """Keep the rows of several campaigns as the table ``kills``."""
    import pandas as pd

    from experiments.storage.provenance import commit, device_name
    from experiments.storage.results import write_record

    rows = [Trial(**row) for path in paths for row in json.loads(path.read_text())]
    table = pd.DataFrame([asdict(row) for row in rows])
    outcomes = {
        f"{name}, {sent}": summary([row for row in rows if row.signal == sent], name)
        for sent in sorted(set(table["signal"]))
        for name in SCENARIOS
    }
    about = {"commit": commit(), "device": device_name(), "trials": len(rows)}
    about |= {"bad": sum(map(is_bad, rows)), "outcomes": outcomes}
    write_record(RESULTS, "kills", table, about)


def main() -> None:
    """Run a campaign, print its outcome, and fail if anything was lost."""
    asked = parsed()
    # A shell may have this process, and with it those that it starts, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked.record:
        record(asked.record)
        return
    signals = [signal.Signals[f"SIG{name}"] for name in asked.signals]
    is_killed = signals == [signal.SIGKILL]
    from experiments.devices import configure_host_devices

    configure_host_devices()
    total = sum(SHARES[name] for name in asked.scenarios)
    rows: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        # What was compiled once is read from files: trials spend their time on work.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder}/compiled")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        if is_killed:
            import_everything()
        for name in asked.scenarios:
            campaign = Campaign(name, Path(folder), Forked if is_killed else start)
            number = max(1, round(asked.number * SHARES[name] / total))
            rows += campaign.trials(number, asked.seed, signals)
            print(
                f"{name}: {campaign.seconds:.1f} s undisturbed; {summary(rows, name)}", flush=True
            )
            if asked.out:
                asked.out.write_text(json.dumps([asdict(row) for row in rows]))
    if any(is_bad(row) for row in rows):
        sys.exit(1)


def is_bad(row: Trial) -> bool:
    """Return whether a trial shows a fault."""
    lost = row.lost or row.differing or row.differing_at_the_end
    # The system, not the command, decides how long a kill takes.
    is_slow = row.signal != "SIGKILL" and row.seconds_to_end > 5
    is_ours = row.has_traceback and row.moment >= START_SECONDS
    return bool(lost or is_ours or is_slow or not expected_code(row))


def summary(rows: Sequence[Trial], name: str) -> str:
    """The outcome of a scenario in words."""
    own = [row for row in rows if row.scenario == name]
    ended = [row for row in own if not row.has_ended_before]
    return (
        f"{len(ended)} of {len(own)} ended by the signal, {sum(row.finished > 0 for row in ended)} "
        f"with finished files; lost {sum(row.lost for row in own)}, differing "
        f"{sum(row.differing + row.differing_at_the_end for row in own)}, tracebacks "
        f"{sum(row.has_traceback for row in own)}, wrong exit codes "
        f"{sum(not expected_code(row) for row in own)}, slowest end "
        f"{max((row.seconds_to_end for row in own), default=0):.2f} s"
    )


def import_everything() -> None:
    """Import what the commands import, but start no backend."""
    import datasets  # noqa: F401
    import transformers  # noqa: F401

    import experiments.certify.members
    import experiments.cli.main
    import experiments.igsm.export
    import experiments.llm.scan.study
    import experiments.llm.training.finetune
    import experiments.sweep.study  # noqa: F401


if __name__ == "__main__":
    main()
