r"""Export iGSM as a data set of chats that `datasets.load_dataset` reads.

A directory of files, one per stream and difficulty::

    README.md         dataset card; its YAML header names the configurations
    manifest.json     settings, seed, counts, and for each session commit, versions and time
    base/op02.jsonl   what a base is made from
    train/op06.jsonl  fine-tuning data; a smaller data size is a prefix of it
    test/op02.jsonl   test problems

Each row is one chat (`messages`), with its parts beside it: problem, solution, answer, difficulty
(operations) and index (position in its stream). The defaults are the paper's grid.

The three streams have keys of their own, split from one seed. A problem counts as repeated if its
sentences are those of another one in any order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import platform
import re
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments.igsm.config import SYSTEM_PROMPT, ExportConfig, Format, Part, Split, Stream
from experiments.storage import provenance
from experiments.storage.results import ResultsError, Run, open_run, read_manifest, write_atomically
from synth.tasks import igsm
from synth.tasks.igsm.problems import DEGENERATE

Row = dict[str, Any]

SPLITS: dict[Split, str] = {
    "keys": "Training and test are independent draws from disjoint streams of random keys; what "
    "occurs in both by chance is counted below.",
    "deduplicated": "Training and test are independent draws from disjoint streams of random keys; "
    "test problems that also occur in training were dropped and redrawn.",
    "template": "Training has only templates (solutions with names, numbers and symbols taken out) "
    "of hash bins 0 to 15, the test only those of bins 16 to 22.",
}
PACKAGES = ("sweetspot", "numpy", "pyarrow")
BLOCK = 64
"""Rows that a process draws and verifies at a time."""
MOST_DRAWN = 20
"""Give up on a test file whose problems are new less often than once in so many draws."""
TEXT = pa.string()
SCHEMA = pa.schema(
    {
        "messages": pa.list_(pa.struct({"role": TEXT, "content": TEXT})),
        "problem": TEXT,
        "solution": TEXT,
        "answer": pa.int64(),
        "difficulty": pa.int64(),
        "index": pa.int64(),
    }
)


def export_igsm(
    config: ExportConfig, out: Path, *, processes: int = 1, console: Console | None = None
) -> dict[str, Any]:
    """Write the data set to a directory, or carry on with the same export there.

    Args:
      config: what to export.
      out: a new or empty directory, or one that holds the same export, finished or not.
      processes: how many draw and verify; the rows do not depend on it.
      console: where progress is shown.

    Returns:
      The manifest.

    Raises:
      ResultsError: if `out` is in use or holds something else, or a row fails the verifier.
      ValueError: if `processes` is below 1, the preset does not reach a difficulty, or a test file
        cannot be filled with new problems.
    """
    console = console or Console()
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    parts = config.parts
    for part in parts:
        # One problem of each file: a level that the preset does not reach is told before any work.
        next(_draw(config, part, range(1)))
    few = [level for level in sorted({part.difficulty for part in parts}) if level <= DEGENERATE]
    if config.split == "template" and few:
        console.print(
            f"[yellow]difficulties {', '.join(map(str, few))} have so few templates that the "
            f"split separates kinds of problems there, not problems.[/yellow]"
        )
    identity = {"exporter": "sweetspot tasks export igsm", "settings": dataclasses.asdict(config)}
    with open_run(out, identity) as run, _session(run), _workers(processes) as workers:
        left = [part for part in parts if not (out / part.path).exists()]
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        with progress:
            bar = progress.add_task("problems", total=sum(part.size for part in left))
            seen: set[bytes] | None = None
            for part in left:
                progress.update(bar, description=part.path)
                if part.stream == "test" and config.split == "deduplicated" and seen is None:
                    seen = training_fingerprints(out, parts)
                rows = _new_rows(config, part, seen or set(), workers)
                write_rows(out / part.path, _advancing(rows, progress, bar), part.format)
        counts = summary(out, parts)
        text = card(config, counts)
        write_atomically(out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
        run.update_manifest(status="complete", files=counts)
    return read_manifest(out)


def stream_seed(seed: int, stream: Stream) -> int:
    """The seed of one stream, split from the export's: 64 bits."""
    position = get_args(Stream).index(stream)
    words = np.random.SeedSequence(seed, spawn_key=(position,)).generate_state(1, np.uint64)
    return int(words[0])


def chat(problem: str, solution: str, answer: int) -> list[dict[str, str]]:
    r"""The messages of one row: system prompt, problem, and solution with the boxed answer."""
    return [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": problem},
        {
            "role": "assistant",
            "content": f"{solution} So the final answer is \\boxed{{{answer}}}.",
        },
    ]


def fingerprint(problem: str) -> bytes:
    """Digest of a problem's sentences, whatever their order."""
    sentences = sorted(sentence.strip() for sentence in re.split(r"(?<=[.?])\s+", problem.strip()))
    return hashlib.sha256("\n".join(sentences).encode()).digest()


def training_fingerprints(out: Path, parts: Iterable[Part]) -> set[bytes]:
    """Fingerprints of every problem in the files for bases and fine-tuning."""
    return {
        fingerprint(row["problem"])
        for part in parts
        if part.stream != "test"
        for row in read_rows(out / part.path)
    }


def write_rows(path: Path, rows: Iterable[Row], form: Format) -> None:
    """Write a file of rows in one step: it is there whole or not at all."""

    def write_lines(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def write_table(temporary: Path) -> None:
        parquet.write_table(pa.Table.from_pylist(list(rows), SCHEMA), temporary)

    write_atomically(path, write_lines if form == "jsonl" else write_table)


def read_rows(path: Path) -> list[Row]:
    """Rows of a file of either format.

    Raises:
      ResultsError: if it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return parquet.read_table(path).to_pylist()
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path} cannot be read ({error}); delete it and repeat the command to make it anew"
        ) from error


def summary(out: Path, parts: Iterable[Part]) -> dict[str, dict[str, Any]]:
    """What is in each file, by path.

    Returns:
      For each file: rows; words (mean and largest number in problem and solution together);
      most_common_answer and its share, the accuracy of who always gives it; and for test files
      `in_training`, rows whose problem occurs in a training file, and `dropped`, draws left out.
    """
    parts = list(parts)
    seen = training_fingerprints(out, parts)
    found = {}
    for part in parts:
        rows = read_rows(out / part.path)
        words = [len(f"{row['problem']} {row['solution']}".split()) for row in rows]
        ((answer, times),) = Counter(row["answer"] for row in rows).most_common(1)
        entry = {
            "rows": len(rows),
            "words_mean": round(float(np.mean(words)), 1),
            "words_max": max(words),
            "most_common_answer": answer,
            "most_common_share": round(times / len(rows), 4),
        }
        if part.stream == "test":
            entry["in_training"] = sum(fingerprint(row["problem"]) in seen for row in rows)
            entry["dropped"] = rows[-1]["index"] + 1 - len(rows)
        found[part.path] = entry
    return found


def card(config: ExportConfig, counts: dict[str, dict[str, Any]]) -> str:
    """The dataset card: a YAML header with one configuration per training difficulty, then text."""
    configurations: dict[str, list[Part]] = {}
    for part in config.parts:
        configurations.setdefault(part.configuration, []).append(part)
    header = ["---", "pretty_name: iGSM", "language:", "- en", "task_categories:"]
    header += ["- text-generation", "tags:", "- synthetic", "- reasoning", "configs:"]
    for name, files in configurations.items():
        split = "test" if files[0].stream == "test" else "train"
        header += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", "    path:"]
        header += [f"    - {part.path}" for part in files]
    train = next(part for part in config.parts if part.stream == "train")
    prefix = f"train[:{min(1000, train.size)}]"
    columns = ("file", "problems", "words: mean (most)", "most common answer", "in training")
    table = [f"| {' | '.join(columns)} |", "| --- | --: | --: | --: | --: |"]
    for path, entry in counts.items():
        words = f"{entry['words_mean']:.0f} ({entry['words_max']})"
        answer = f"{entry['most_common_answer']} ({entry['most_common_share']:.1%})"
        repeated = str(entry.get("in_training", "–"))
        table.append(f"| {path} | {entry['rows']:,} | {words} | {answer} | {repeated} |")
    checked = "passed the verifier" if config.verify else "was **not** checked by the verifier"
    return "\n".join(
        [
            *header,
            "---",
            "",
            "# iGSM",
            "",
            "Grade-school-like problems whose difficulty is the number of arithmetic operations",
            f"(modulo {config.modulus}) that the answer needs. Generator preset "
            f"`{config.preset}`, seed {config.seed}, made by sweetspot",
            f"(`sweetspot tasks export igsm`). Every row {checked}.",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            f'train = load_dataset(".", "{train.configuration}", split="{prefix}")',
            'test = load_dataset(".", "test", split="test")  # its column `difficulty` slices it',
            "```",
            "",
            "Problems are independent draws in a fixed order: a smaller data size is a prefix of a",
            "larger one, and `train[:1000]` is nested in `train[:2000]`. Columns: `messages` (a",
            "chat of system, user and assistant), `problem`, `solution`, `answer`, `difficulty`,",
            "and `index`, the position in the stream of draws.",
            "",
            f"**Split `{config.split}`.** {SPLITS[config.split]}",
            "",
            *table,
            "",
            "“Most common answer” is the answer given most often in the file and its share: the",
            "accuracy of always giving it. “In training” counts test problems with the same",
            "sentences, in any order, as a problem in `base` or `train`. How everything was made",
            "stands in `manifest.json`.",
            "",
        ]
    )


def _draw(config: ExportConfig, part: Part, numbers: range) -> Iterator[igsm.Problem]:
    """The problems of a part's stream with these consecutive numbers."""
    split: Literal["train", "test"] | None = None
    if config.split == "template":
        split = "test" if part.stream == "test" else "train"
    with warnings.catch_warnings():
        # The command says once what the generator would say for every file.
        warnings.simplefilter("ignore", UserWarning)
        return igsm.problems(
            part.difficulty,
            len(numbers),
            seed=stream_seed(config.seed, part.stream),
            preset=config.preset,
            split=split,
            start=numbers.start,
        )


def _block(config: ExportConfig, part: Part, numbers: range) -> list[Row]:
    """Rows of consecutive draws, accepted by the verifier if `config` says so.

    Raises:
      ResultsError: at the first row that it rejects.
    """
    draws = zip(_draw(config, part, numbers), numbers, strict=True)
    rows = [_row(problem, number) for problem, number in draws]
    for row in rows if config.verify else ():
        verdict = igsm.verify(
            row["problem"],
            row["messages"][-1]["content"],
            modulus=config.modulus,
            categories=igsm.CATEGORIES,
        )
        if not verdict.ok:
            raise ResultsError(
                f"problem {row['index']} of difficulty {row['difficulty']} fails the verifier: "
                f"{verdict.reason} ({verdict.sentence})"
            )
    return rows


def _new_rows(
    config: ExportConfig, part: Part, seen: Set[bytes], workers: Executor | None
) -> Iterator[Row]:
    """The rows of a part: the first draws of its stream whose problems have not been seen.

    Raises:
      ResultsError: if the verifier rejects a row.
      ValueError: if too few problems are new.
    """
    draw = partial(_block, config, part)
    found, drawn = 0, 0
    while found < part.size:
        if drawn >= MOST_DRAWN * part.size:
            raise ValueError(
                f"split 'deduplicated' needs {part.size} test problems of difficulty "
                f"{part.difficulty} that training does not have, got {found} among the first "
                f"{drawn}; ask for fewer, or for another split"
            )
        numbers = range(drawn, drawn + part.size - found)
        drawn = numbers.stop
        blocks = [numbers[at : at + BLOCK] for at in range(0, len(numbers), BLOCK)]
        for rows in map(draw, blocks) if workers is None else workers.map(draw, blocks):
            for row in rows:
                if not seen or fingerprint(row["problem"]) not in seen:
                    found += 1
                    yield row


def _row(problem: igsm.Problem, index: int) -> Row:
    return {
        "messages": chat(problem.problem, problem.solution, problem.answer),
        "problem": problem.problem,
        "solution": problem.solution,
        "answer": int(problem.answer),
        "difficulty": int(problem.difficulty),
        "index": index,
    }


def _advancing(rows: Iterable[Row], progress: Progress, bar: Any) -> Iterator[Row]:
    for row in rows:
        yield row
        progress.advance(bar)


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[Executor | None]:
    """Processes that draw and verify; None for one process, which is this one."""
    if processes == 1:
        yield None
        return
    # Not forked: JAX has threads in this process.
    context = multiprocessing.get_context("spawn")
    workers = ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_interrupts)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Leave Ctrl-C to the process that started this one, which ends this one in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _session(run: Run) -> Iterator[None]:
    """Keep in the manifest what made the files, and for how long, also if it is interrupted."""
    start = time.monotonic()
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": provenance.commit(),
        "python": platform.python_version(),
        "versions": provenance.versions(PACKAGES),
    }
    earlier = run.manifest.get("sessions", [])
    try:
        yield
    finally:
        entry["wall_time_seconds"] = round(time.monotonic() - start, 1)
        run.update_manifest(sessions=[*earlier, entry])
