"""Run tests on a copy of the code with one fault in it."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.mutant import Mutant, guards

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "mutants.json"
PACKAGES = ("synth", "theory", "experiments", "tests")
SLACK = 30.0
"""Seconds that tests may take beyond three times as long as without a fault."""


@dataclass(frozen=True)
class Result:
    """What became of a mutant: killed, timeout (which is killed too), survived, or equivalent."""

    module: str
    line: int
    mutation: str
    outcome: str
    seconds: float

    @property
    def killed(self) -> bool:
        return self.outcome in ("killed", "timeout")


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """A copy of the packages, whose recorded results are those of the repository."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "results" if package != "tests" else "")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    (folder / "experiments" / "results").symlink_to(ROOT / "experiments" / "results")
    for name in ("pyproject.toml", "README.md", "docs", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    yield folder


def pass_in(folder: Path, tests: Sequence[str], limit: float | None = None) -> bool | None:
    """Run tests in a copy until one fails; None if they take longer than `limit` seconds."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [*command, "-m", "not slow", *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return None
    # 1: a test failed; 2, 4: a module could not even be imported. Others are faults of the run.
    if ended.returncode not in (0, 1, 2, 4):
        raise RuntimeError(f"pytest ended with {ended.returncode}: {ended.stdout[-2000:]}")
    return ended.returncode == 0


class Runner:
    """Runs mutants, each in a copy that no other uses meanwhile, and remembers the outcomes.

    An outcome is remembered for the text of the mutated file and of the tests: a change elsewhere
    that could matter asks for a fresh run.
    """

    def __init__(self, *, jobs: int = 1, is_fresh: bool = False):
        self._jobs = jobs
        self._known: dict[str, dict] = {}
        if CACHE.exists() and not is_fresh:
            self._known = json.loads(CACHE.read_text())
        self._limits: dict[tuple[str, ...], float] = {}

    def run(self, mutants: Sequence[Mutant]) -> Iterator[Result]:
        """Yield what became of each mutant, in their order."""
        with tempfile.TemporaryDirectory() as temporary:
            folders: queue.Queue[Path] = queue.Queue()
            for job in range(self._jobs):
                with copied(Path(temporary) / str(job)) as folder:
                    folders.put(folder)

            def one(mutant: Mutant) -> Result:
                folder = folders.get()
                try:
                    return self._result(folder, mutant)
                finally:
                    folders.put(folder)

            with ThreadPoolExecutor(self._jobs) as pool:
                for result in pool.map(one, mutants):
                    yield result
                    CACHE.parent.mkdir(exist_ok=True)
                    CACHE.write_text(json.dumps(self._known, indent=1))

    def _result(self, folder: Path, mutant: Mutant) -> Result:
        if (mutant.module, mutant.mutation) in EQUIVALENT:
            return Result(mutant.module, mutant.line, mutant.mutation, "equivalent", 0.0)
        tests = mutant.tests or guards(mutant.module)
        key = self._key(mutant, tests)
        if key not in self._known:
            self._known[key] = asdict(self._tested(folder, mutant, tests))
        own = {"line": mutant.line, "mutation": mutant.mutation}
        return Result(**{**self._known[key], **own})

    def _tested(self, folder: Path, mutant: Mutant, tests: tuple[str, ...]) -> Result:
        # Without a fault the tests must pass; that also says how long they take.
        if tests not in self._limits:
            start = time.monotonic()
            if not pass_in(folder, tests):
                raise RuntimeError(f"{' '.join(tests)} must pass before a fault is put in")
            self._limits[tests] = 3 * (time.monotonic() - start) + SLACK
        path = folder / mutant.module
        original, start = path.read_text(), time.monotonic()
        path.write_text(mutant.source)
        try:
            passed = pass_in(folder, tests, self._limits[tests])
        finally:
            path.write_text(original)
        outcome = {True: "survived", False: "killed", None: "timeout"}[passed]
        seconds = round(time.monotonic() - start, 2)
        return Result(mutant.module, mutant.line, mutant.mutation, outcome, seconds)

    @staticmethod
    def _key(mutant: Mutant, tests: tuple[str, ...]) -> str:
        digest = hashlib.sha256(mutant.source.encode())
        for test in tests:
            digest.update(test.encode() + (ROOT / test.partition("::")[0]).read_bytes())
        return digest.hexdigest()
