"""Fuzz the command line: thousands of lines, valid ones and worse, each in a process of its own.

    python -m tests.fuzz --number 10000 --out rows.json
    python -m tests.fuzz --record rows.json

A line must end with exit code 0, or with 2 and one clear message on stderr: a line that begins with
``error:``, or one of tyro's boxes. A line that is valid and has begun to work is stopped. No line
may print a traceback, take more than ten seconds before it begins to work, or two gibibytes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.kills import become_command, import_everything

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results" / "robustness"
MOST_SECONDS, MOST_MEBIBYTES = 10.0, 2048
PLAN_SECONDS = 30.0
"""A plan measures for up to 20 seconds."""

LINES = (
    "list",
    "--version",
    "run tradeoff smoke --out OUT",
    "run custom --task parity --difficulties 1 2 --data-sizes 4 8 --compute 2 --out OUT",
    "run families smoke --seeds 1 --out OUT --plan",
    "bound run --methods base --data-sizes 8 --difficulties 2",
    "recommend run --data-size 64",
    "regret run --out OUT",
    "compare run --out OUT",
    "figures run",
    "figures run --names map gaps",
    "report run",
    "tasks",
    "tasks parity --difficulty 2 --examples 1",
    "tasks export igsm --difficulties 2 --train-sizes 4 --test-difficulties 2 --test-examples 2 "
    "--base-difficulties 1 --base-sizes 4 --out OUT",
    "tasks gallery --out OUT/page.html --names parity",
    "completion bash",
    "llm",
    "llm prepare --model model --source rows.jsonl --out OUT",
    "llm difficulty --model model --source rows.jsonl --out OUT --measures cot_tokens --bucket-by "
    "cot_tokens",
    "llm finetune --model model --source rows.jsonl --out OUT --compute 1 --compute-unit steps",
    "llm evaluate --model model --source rows.jsonl --out OUT --decoding.max-new-tokens 4",
    "llm scan tiny-igsm smoke --out OUT",
    "llm recommend run --data-size 100",
    "llm bound --model model --source rows.jsonl --out OUT --data-sizes 4 --num-draws 8",
)
"""Lines that are valid, in a folder that holds a run, a checkpoint and rows."""

WORDS = (
    *("", " ", "-", "--", "---", "-1", "0", "1", "0.5", "1e309", "nan", "inf", "-inf", "1" * 31),
    *("2147483648", "9223372036854775808", "1_000", "0x10", "None", "True", "null", "[]", "{}"),
    *(".", "..", "/", "../..", "/dev/null", "/dev/full", "/proc/self/mem", "pipe", "nowhere"),
    *("broken.jsonl", "run", "model", "rows.jsonl", "run/table.parquet", "run/manifest.json"),
    *("a b", "é", "😀", "\udcff", "\n", "\t", "[red]", "[/b]", ":smile:", "%s", "$(id)", "*"),
    *("9" * 5000, "x" * 100_000, "os:system", "synth.tasks.chain:Chain", "a:b", ":", "module:"),
    *("tradeoff", "smoke", "custom", "demo", "range", "exact", "sft", "igsm", "parity", "all"),
    *("-h", "--help", "--help-all", "--version", "--plan", "--out", "--executor", "ray", "local"),
)
"""Words to put in the place of others."""


@dataclass(frozen=True)
class Outcome:
    """What came of one line."""

    words: list[str]
    exit_code: int
    has_begun: bool
    seconds: float
    mebibytes: int
    errors: str

    @property
    def fault(self) -> str:
        """What is wrong; "" if nothing is."""
        if "Traceback" in self.errors or "Fatal Python" in self.errors:
            return "traceback"
        if self.mebibytes > MOST_MEBIBYTES:
            return "memory"
        if self.has_begun:
            return ""
        if self.seconds > (PLAN_SECONDS if "--plan" in self.words else MOST_SECONDS):
            return "time"
        if self.exit_code not in (0, 2):
            return f"exit code {self.exit_code}"
        return "" if self.exit_code == 0 or is_clear(self.errors) else "no clear message"


def is_clear(errors: str) -> bool:
    """Return whether the messages end with one line that explains the error, or with tyro's box."""
    lines = [line for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")]
    boxes = sum(line.startswith("╭") for line in lines)
    return (len(told), boxes) in ((1, 0), (0, 1)) and (boxes == 1 or lines[-1] == told[0])


# Lines.


def flags_by_command() -> dict[str, list[str]]:
    """All flags of every command, as its help names them."""
    flags = {}
    for line in LINES:
        words = line.split()
        number = 2 if words[0] in ("llm", "tasks") and len(words) > 1 else 1
        command = " ".join(words[:number])
        recipe = words[number : number + 1] if words[number - 1] in ("run", "scan") else []
        done = subprocess.run(
            [sys.executable, "-m", "experiments", *words[:number], *recipe, "--help-all"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        flags[command] = sorted(set(re.findall(r"--[a-z][a-z0-9.-]+", done.stdout)))
    return flags


def fuzzed(random_numbers: random.Random, flags: dict[str, list[str]]) -> list[str]:
    """A valid line with some changes; a few lines have none."""
    line = random_numbers.choice(LINES)
    words: list[str] = [*line.split()]
    own = next((f for command, f in flags.items() if command and line.startswith(command)), [])
    everything = sorted({flag for names in flags.values() for flag in names})
    for _ in range(random_numbers.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        place = random_numbers.randrange(len(words) + 1)
        word = random_numbers.choice(WORDS)
        match random_numbers.randrange(9):
            case 0 if words:
                words[min(place, len(words) - 1)] = word
            case 1 if words:
                del words[min(place, len(words) - 1)]
            case 2 if words:
                words.insert(place, random_numbers.choice(words))
            case 3:
                words.insert(place, word)
            case 4 | 5 if own:
                # A flag of the command with any value.
                words += [random_numbers.choice(own), word]
            case 6:
                words += [random_numbers.choice(everything), word]
            case 7 if words:
                # A typing mistake.
                at = min(place, len(words) - 1)
                letters = list(words[at])
                if letters:
                    letters[random_numbers.randrange(len(letters))] = random_numbers.choice(
                        "aex-_.9"
                    )
                words[at] = "".join(letters)
            case _:
                random_numbers.shuffle(words)
    return words


# Processes.


def outcome(words: Sequence[str], folder: Path, number: int) -> Outcome:
    """Run one line in a forked process."""
    errors, out = folder / "errors", folder / f"out-{number}"
    errors.write_bytes(b"")
    words = [word.replace("OUT", out.name) for word in words]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        become_command(words, errors)
    begun, started, status, has_begun = time.monotonic(), time.time(), None, False
    most = PLAN_SECONDS if "--plan" in words else MOST_SECONDS
    while status is None:
        ended, code, usage = os.wait4(pid, os.WNOHANG)
        seconds = time.monotonic() - begun
        if ended:
            status = os.waitstatus_to_exitcode(code)
            break
        has_begun = has_begun or works(folder, started)
        if seconds > most + 1 or has_begun:
            os.killpg(pid, signal.SIGKILL)
            _, code, usage = os.wait4(pid, 0)
            status = os.waitstatus_to_exitcode(code)
            break
        time.sleep(0.01)
    found = Outcome(
        words=[word[:200] for word in words],
        exit_code=status,
        has_begun=has_begun and status == -signal.SIGKILL,
        seconds=round(seconds, 2),
        mebibytes=usage.ru_maxrss // 1024,
        errors=errors.read_text(errors="replace")[:20_000],
    )
    shutil.rmtree(out, ignore_errors=True)
    return found


def works(folder: Path, started: float) -> bool:
    """Return whether a line has passed its checks: it has written a manifest."""
    found = (*folder.glob("*/manifest.json"), *folder.glob("*/certificates/manifest.json"))
    with contextlib.suppress(FileNotFoundError):
        return any(path.stat().st_mtime > started for path in found)
    return False


def make_folder(folder: Path) -> None:
    """A finished run, a checkpoint, rows, broken rows, and a pipe that nobody writes."""
    command = [sys.executable, "-m", "experiments"]
    for words in (
        ["run", "tradeoff", "smoke", "--pretrain.steps", "30", "--out", str(folder / "run")],
        ["llm", "scan", "tiny-igsm", "smoke", "--out", str(folder / "scan")],
    ):
        subprocess.run([*command, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(folder / "scan" / "scratch", folder / "model")
    shutil.copy(folder / "scan" / "data" / "train" / "op01.jsonl", folder / "rows.jsonl")
    (folder / "broken.jsonl").write_text('{"problem": "1 + 1", "solu')
    os.mkfifo(folder / "pipe")


def campaign(number: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Outcomes of lines, all drawn from a seed."""
    make_folder(folder)
    flags = flags_by_command()
    import_everything()
    import experiments.cli.main
    import experiments.figures
    import experiments.pages.report  # noqa: F401

    random_numbers = random.Random(seed)
    kept = {path.name for path in folder.iterdir()} | {"errors"}
    backup = folder.with_name(f"{folder.name}-backup")
    shutil.copytree(folder, backup, ignore=shutil.ignore_patterns("pipe"))
    for index in range(number):
        yield outcome(fuzzed(random_numbers, flags), folder, index)
        # Whatever a line left, and whatever it changed in the run, is put back.
        for path in folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(folder / "run")
        shutil.copytree(backup / "run", folder / "run")
    shutil.rmtree(backup)


def record(paths: Sequence[Path]) -> None:
    """Keep the outcomes of several campaigns as the table ``fuzz``."""
    import pandas as pd

    from experiments.storage.provenance import commit, device_name
    from experiments.storage.results import write_record

    found = [Outcome(**row) for path in paths for row in json.loads(path.read_text())]
    rows = [
        {
            "line": " ".join(one.words)[:300].encode(errors="replace").decode(),
            **{
                name: value
                for name, value in asdict(one).items()
                if name not in ("words", "errors")
            },
            "message": one.errors.strip().splitlines()[-1][:200] if one.errors.strip() else "",
            "fault": one.fault,
        }
        for one in found
    ]
    table: Any = pd.DataFrame(rows)
    about = {
        "commit": commit(),
        "device": device_name(),
        "lines": len(table),
        "faults": int((table["fault"] != "").sum()),
        "exit codes": {str(k): int(v) for k, v in table["exit_code"].value_counts().items()},
        "most seconds": float(table.loc[~table["has_begun"], "seconds"].max()),
        "most mebibytes": int(table["mebibytes"].max()),
    }
    write_record(RESULTS, "fuzz", table, about)


def main() -> None:
    """Run a campaign, print its faults, and fail if there is one."""
    parser = argparse.ArgumentParser(description="Fuzz the command line.")
    parser.add_argument("--number", type=int, default=100, help="lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file of the outcomes, as JSON")
    parser.add_argument("--record", nargs="+", type=Path, help="files of outcomes to keep")
    asked = parser.parse_args()
    if asked.record:
        record(asked.record)
        return
    from experiments.devices import configure_host_devices

    configure_host_devices()
    found, faults = [], 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as outer:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{outer}/compiled")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        folder = Path(outer) / "folder"
        folder.mkdir()
        for one in campaign(asked.number, asked.seed, folder):
            found.append(one)
            if one.fault:
                faults += 1
                print(f"{one.fault}: {one.words}\n{one.errors[-800:]}", flush=True)
            if len(found) % 500 == 0:
                print(f"{len(found)} lines, {faults} faults", flush=True)
                if asked.out:
                    asked.out.write_text(json.dumps([asdict(each) for each in found]))
    if asked.out:
        asked.out.write_text(json.dumps([asdict(each) for each in found]))
    print(f"{len(found)} lines, {faults} faults", flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
