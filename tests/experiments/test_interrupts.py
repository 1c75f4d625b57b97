"""Signals end a process at once, with one line and the right exit code, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BEGIN = """
import sys, time
from experiments.interrupts import catch_signals, uninterrupted, when_interrupted
catch_signals()
"""
READY = "print('ready', flush=True)\n"
BUSY = {
    "in Python": f"{READY}while True: pass",
    "in a library that holds no lock": (
        f"import hashlib\n{READY}hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)"
    ),
    "asleep": f"{READY}time.sleep(60)",
    "waiting for a thread": (
        f"import threading\n{READY}thread = threading.Thread(target=time.sleep, args=(60,))\n"
        "thread.start()\nthread.join()"
    ),
    "in a handler of another exception": (
        f"{READY}try:\n    raise ValueError\nexcept ValueError:\n    time.sleep(60)"
    ),
}


def interrupted(script: str, number: signal.Signals, *, times: int = 1) -> tuple[int, str, float]:
    """Exit code and stderr of a process that gets a signal once it is ready, and its seconds."""
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + script],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        begun = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        return process.returncode, errors, time.monotonic() - begun


@pytest.mark.parametrize("work", BUSY)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_at_once(work, number, code):
    returned, errors, seconds = interrupted(BUSY[work], number)
    assert returned == code
    assert errors.splitlines() == [
        f"Interrupted ({number.name}). A command with a run directory carries on if repeated."
    ]
    assert seconds < 5


def test_a_signal_that_is_ignored_stays_ignored():
    """A shell without job control lets what it starts in the background ignore Ctrl-C."""
    script = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{BEGIN}{READY}"
    with subprocess.Popen(
        [sys.executable, "-c", script + "time.sleep(1)"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_more_signals_change_nothing():
    returned, errors, _ = interrupted(BUSY["in Python"], signal.SIGINT, times=5)
    assert (returned, len(errors.splitlines())) == (130, 1)


def test_a_file_that_is_being_written_comes_to_its_end(tmp_path):
    script = (
        f"with uninterrupted():\n    print('ready', flush=True)\n    time.sleep(0.7)\n"
        f"    open({str(tmp_path / 'file')!r}, 'w').write('whole')\n"
        f"    time.sleep(0.1)\ntime.sleep(60)"
    )
    assert interrupted(script, signal.SIGTERM)[0] == 143
    assert (tmp_path / "file").read_text() == "whole"


def test_a_write_that_takes_too_long_is_left(tmp_path):
    script = "with uninterrupted():\n    print('ready', flush=True)\n    time.sleep(60)"
    returned, _, seconds = interrupted(script, signal.SIGTERM)
    assert returned == 143
    assert seconds < 5


def test_closers_are_called_and_may_fail_or_hang(tmp_path):
    script = f"""
when_interrupted(lambda: open({str(tmp_path / "first")!r}, "w").close())
when_interrupted(lambda: 1 / 0)
when_interrupted(lambda: time.sleep(60))
withdraw = when_interrupted(lambda: open({str(tmp_path / "withdrawn")!r}, "w").close())
withdraw()
{BUSY["asleep"]}"""
    returned, errors, seconds = interrupted(script, signal.SIGINT)
    assert (returned, len(errors.splitlines())) == (130, 1)
    assert seconds < 5
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_processes_that_were_started_end_as_well(tmp_path):
    """Forked ones have the system's handlers again, and none outlives the command."""
    script = f"""
import multiprocessing, os
def work():
    open({str(tmp_path / "child")!r}, "w").write(str(os.getpid()))
    time.sleep(60)
context = multiprocessing.get_context("fork")
child, other = context.Process(target=work), context.Process(target=time.sleep, args=(60,))
child.start()
other.start()
other.terminate()
other.join(10)
assert other.exitcode == -15, other.exitcode
path = {str(tmp_path / "child")!r}
while not (os.path.exists(path) and open(path).read()):
    time.sleep(0.01)
{BUSY["asleep"]}"""
    assert interrupted(script, signal.SIGTERM)[0] == 143
    child = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    deadline = time.monotonic() + 5
    # A zombie is dead as well: it waits for a parent that collects it.
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)
