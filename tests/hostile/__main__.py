"""Attack what reads files of others, and recorded runs, and record what became of each file.

    python -m tests.hostile --number 1000 --record

Every file is given to the function that a command reads it with, in a forked process. It must be
read or refused with one line (an error that the command line shows without a traceback), within
`MOST_SECONDS` and `MOST_MEBIBYTES`, processes that it starts included. The seconds are those of a
processor, which do not depend on what else the machine does; those by the clock are recorded beside
them, and a file that takes `PATIENCE` times as long by the clock fails too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.hostile.attacks import SHARES, write_attack

MOST_SECONDS, MOST_MEBIBYTES = 10.0, 2048.0
PATIENCE = 3
RECORDS = Path("experiments/results/robustness")
PACKAGES = ("jax", "safetensors", "tokenizers", "transformers", "datasets", "pyarrow", "jinja2")


def read(kind: str, folder: Path) -> None:
    """Do what a command does with files of this kind."""
    from experiments.llm.answering.kept import Kept
    from experiments.llm.problems import data, grade
    from experiments.llm.problems.config import GraderConfig
    from experiments.llm.text import tokenizer
    from experiments.storage import checkpoint
    from synth.tasks.igsm.verify import verify

    if kind in ("config", "tensors", "index"):
        checkpoint.load(folder)
    elif kind == "tokenizer":
        loaded = tokenizer.load_tokenizer(folder)
        tokenizer.stop_tokens(loaded, folder)
        tokenizer.prompt_tokens(loaded, [{"role": "user", "content": "How many Owl?"}])
    elif kind == "source":
        data.read(folder)
    elif kind == "kept":
        with Kept(folder / "run", {"seed": 0}) as kept:
            path = kept.path
        with path.open("ab") as file:
            file.write((folder / "kept").read_bytes())
        with Kept(folder / "run", {"seed": 0}):
            pass
    elif kind in ("manifest", "table"):
        show(folder / "run", **json.loads((folder / "request.json").read_text()))
    elif kind == "igsm":
        verify(*json.loads((folder / "texts.json").read_text()))
    else:
        grader, response = json.loads((folder / "texts.json").read_text())
        chat = [{"role": "user", "content": "1 + 1?"}]
        answer = "A" if grader == "multiple-choice" else "2"
        problems = data.Problems([chat], ["\\boxed{2}"], [answer], [1])
        grade.grade(problems, [[response]], GraderConfig(grader))


def show(run: Path, reader: str, figure: str) -> None:
    """Do what a command does that shows a recorded run; no page may hold an attack's element."""
    from experiments.cli import pages, studies, tasks
    from experiments.errors import refusing
    from experiments.pages import report
    from experiments.storage.results import read_manifest, read_tables

    if reader == "figures":
        pages.draw_figures(run, names=(figure,))
    elif reader == "compare":
        studies.compare_families((run,), out=run.parent / "out")
    elif reader == "recommend":
        studies.recommend_difficulty(1000, run)
    else:
        if reader == "gallery":
            page = tasks.show_gallery((run,), run / "page.html", names=("parity",))
        else:
            # Without figures, which "figures" draws one by one.
            with refusing(run):
                page = report.write_report(run, read_tables(run), read_manifest(run), [])
        text = page.read_text(encoding="utf-8")
        assert not any(mark in text for mark in ("<script>alert", "<img", "\0", "\u202e"))


def _child(kind: str, folder: Path, told: Path) -> None:
    """Body of the forked process: 0 if the file was read, 2 if it was refused."""
    from experiments.cli.main import EXPECTED

    # A group of its own, so that what it starts can be ended with it.
    os.setpgid(0, 0)
    warnings.simplefilter("ignore")
    code, text = 0, ""
    try:
        read(kind, folder)
    except EXPECTED as error:
        code, text = 2, str(error)
    except BaseException as error:
        code, text = 1, f"traceback: {type(error).__name__}: {str(error)[:300]}"
    told.write_text(text)
    os._exit(code)


def _resident(group: int) -> float:
    """Mebibytes of memory of all processes of a group."""
    total = 0
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group:
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total / 1024**2


def attack(kind: str, seed: int, valid: Path, directory: Path) -> dict[str, Any]:
    """Write one attack, have it read, and say what became of it."""
    folder, told = directory / f"{kind}-{seed}", directory / "told"
    write_attack(kind, valid, folder, seed)
    told.write_text("")
    began, peak = time.monotonic(), 0.0
    with warnings.catch_warnings():
        # Nothing runs in this process but Python: JAX has not started its backend.
        warnings.simplefilter("ignore", RuntimeWarning)
        process = os.fork()
    if process == 0:
        _child(kind, folder, told)
    status = None
    while status is None:
        ended, code, usage = os.wait4(process, os.WNOHANG)
        seconds = time.monotonic() - began
        if ended:
            status = os.waitstatus_to_exitcode(code)
            break
        peak = max(peak, _resident(process))
        if seconds > PATIENCE * MOST_SECONDS:
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.02)
    text = told.read_text()
    is_line = status == 0 or (status == 2 and 0 < len(text) < 5000 and "\n" not in text)
    processor = usage.ru_utime + usage.ru_stime
    passes = is_line and processor <= MOST_SECONDS and peak <= MOST_MEBIBYTES
    return {
        "kind": kind,
        "seed": seed,
        "code": status,
        "seconds": round(seconds, 3),
        "processor_seconds": round(processor, 3),
        "peak_mebibytes": round(peak, 1),
        "passes": passes,
        "message": text.replace(str(directory), "")[:200],
    }


def attack_all(
    number: int,
    directory: Path,
    seed: int = 0,
    minutes: float = 60,
    shares: Mapping[str, float] = SHARES,
) -> pd.DataFrame:
    """Outcomes of `number` attacks of all kinds, one row each; fewer if the minutes are over."""
    end = time.monotonic() + 60 * minutes
    # Imported before the forks, each of which then takes a tenth of a second.
    import experiments.analysis.recommend
    import experiments.cli.main
    import experiments.llm.answering.kept
    import experiments.llm.problems.grade
    import experiments.pages.gallery
    import experiments.storage.checkpoint  # noqa: F401
    from experiments.figures import FIGURES
    from experiments.figures.style import settings

    assert FIGURES
    assert settings()

    # Made in a process of its own: this one must not start JAX's backend.
    valid = directory / "valid"
    process = os.spawnv(
        os.P_WAIT,
        sys.executable,
        [
            *(sys.executable, "-c"),
            "import sys; from pathlib import Path; from tests.experiments.llm import tiny; "
            "tiny.write_tiny_folder(Path(sys.argv[1]))",
            str(valid),
        ],
    )
    assert process == 0, "no valid checkpoint could be made"
    kinds = [kind for kind, share in shares.items() for _ in range(max(1, round(share * number)))]
    random.Random(seed).shuffle(kinds)
    rows = []
    for place, kind in enumerate(kinds[:number]):
        if time.monotonic() > end:
            break
        rows.append(attack(kind, 10_000 * seed + place, valid, directory))
        if not rows[-1]["passes"]:
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Attack, print a summary, and record the outcomes if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="begin no attack after these")
    parser.add_argument("--record", action="store_true", help=f"write {RECORDS}/hostile.*")
    parser.add_argument("--kinds", nargs="+", default=list(SHARES), choices=list(SHARES))
    arguments = parser.parse_args()
    chosen = {kind: SHARES[kind] for kind in arguments.kinds}
    shares = {kind: share / sum(chosen.values()) for kind, share in chosen.items()}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        table = attack_all(
            arguments.number, Path(directory), arguments.seed, arguments.minutes, shares
        )
    failed = int(np.sum(~table["passes"].to_numpy(bool)))
    by_kind = table.groupby("kind")
    summary = by_kind.agg(
        number=("kind", "size"),
        read=("code", lambda codes: int((codes == 0).sum())),
        refused=("code", lambda codes: int((codes == 2).sum())),
        most_seconds=("seconds", "max"),
        most_processor_seconds=("processor_seconds", "max"),
        most_mebibytes=("peak_mebibytes", "max"),
        failed=("passes", lambda passes: int((~passes).sum())),
    )
    print(summary.to_string())
    print(
        f"{len(table)} files in {time.monotonic() - began:.0f} s, {(~table['passes']).sum()} failed"
    )
    if arguments.record:
        from experiments.storage.provenance import commit, device_name, versions
        from experiments.storage.results import write_record

        about = {
            "number": len(table),
            "failed": failed,
            "most_seconds": MOST_SECONDS,
            "most_mebibytes": MOST_MEBIBYTES,
            "seed": arguments.seed,
            "by_kind": summary.reset_index().to_dict("records"),
            "commit": commit(),
            "device": device_name(),
            "versions": versions(PACKAGES),
        }
        write_record(RECORDS, "hostile", table, about)
    sys.exit(int(failed > 0))


if __name__ == "__main__":
    main()
