"""The dataset card of an export, and the counts that it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.igsm.config import ExportConfig, ProblemFile, Split
from experiments.igsm.files import fingerprint, read_rows, training_fingerprints

SPLITS: dict[Split, str] = {
    "keys": "Training and test are independent draws from disjoint streams of random keys; what "
    "occurs in both by chance is counted below.",
    "deduplicated": "Training and test are independent draws from disjoint streams of random keys; "
    "test problems that also occur in training were dropped and redrawn.",
    "template": "Training has only templates (solutions with names, numbers and symbols taken out) "
    "of hash bins 0 to 15, the test only those of bins 16 to 22.",
}


def count_rows(out: Path, files: Iterable[ProblemFile]) -> dict[str, dict[str, Any]]:
    """Count the rows of each file, by path.

    Returns:
      For each file: rows; words (mean and largest number in problem and solution together);
      most_common_answer and its share, the accuracy of always giving it; and for test files
      `in_training`, rows whose problem occurs in a training file, and `dropped`, draws left out.
    """
    files = list(files)
    seen = training_fingerprints(out, files)
    counts = {}
    for file in files:
        rows = read_rows(out / file.path)
        words = [len(f"{row['problem']} {row['solution']}".split()) for row in rows]
        ((answer, times),) = Counter(row["answer"] for row in rows).most_common(1)
        entry = {
            "rows": len(rows),
            "words_mean": round(float(np.mean(words)), 1),
            "words_max": max(words),
            "most_common_answer": answer,
            "most_common_share": round(times / len(rows), 4),
        }
        if file.stream == "test":
            entry["in_training"] = sum(fingerprint(row["problem"]) in seen for row in rows)
            entry["dropped"] = rows[-1]["index"] + 1 - len(rows)
        counts[file.path] = entry
    return counts


def card(config: ExportConfig, counts: dict[str, dict[str, Any]]) -> str:
    """The dataset card: a YAML header with one configuration per training difficulty, then text."""
    # Header: every configuration with its files.
    configurations: dict[str, list[ProblemFile]] = {}
    for file in config.files:
        configurations.setdefault(file.configuration, []).append(file)
    header = ["---", "pretty_name: iGSM", "language:", "- en", "task_categories:"]
    header += ["- text-generation", "tags:", "- synthetic", "- reasoning", "configs:"]
    for name, files in configurations.items():
        split = "test" if files[0].stream == "test" else "train"
        header += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", "    path:"]
        header += [f"    - {file.path}" for file in files]
    # Example of loading, and a table of the counts.
    train = next(file for file in config.files if file.stream == "train")
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
