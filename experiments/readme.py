"""Fill the generated parts of README.md from recorded results: no number in it is typed by hand.

A part stands between ``<!-- begin:NAME -->`` and ``<!-- end:NAME -->``. Run
``python -m experiments.readme`` after a run or a benchmark has been recorded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from experiments import optimum
from experiments.benchmarks import generation, grid, read_record
from experiments.report import verdict
from experiments.results import read_manifest, read_table

ROOT = Path(__file__).parents[1]
TRADEOFF = ROOT / "experiments" / "results" / "tradeoff"


def markdown_table(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table, every value as text."""
    rows = [[str(name) for name in frame.columns], ["---"] * len(frame.columns)]
    rows += [[str(value) for value in row] for row in frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def headline() -> str:
    """The best difficulty for each data size in the tracked run, and what can be said of it."""
    table, manifest = read_table(TRADEOFF), read_manifest(TRADEOFF)
    parts = []
    for study in optimum.studies(table):
        chosen = optimum.headline(
            table.loc[table["train_mixture"].isin([study.train_mixture, "none"])]
        )
        chosen = chosen.drop(columns="study").rename(columns=lambda name: name.replace("_", " "))
        said = verdict(optimum.shift(table, study))
        parts.append(f"**{study.title[:1].upper()}{study.title[1:]}.** {said}\n")
        parts.append(markdown_table(chosen) + "\n")
    config = manifest["config"]
    seconds = sum(session["wall_time_seconds"] for session in manifest["sessions"])
    last = manifest["sessions"][-1]
    members = table.loc[table["train_mixture"] != "none"].groupby(
        ["base_seed", "seed", "train_mixture", "difficulty", "data_size"]
    )
    parts.append(
        f"{members.ngroups} members from {config['base_seeds']} bases × {config['seeds']} seeds; "
        f"means with 90% hierarchical bootstrap intervals; {config['test_examples']} fresh test "
        f"draws per level, base and seed. Recorded in {seconds / 60:.0f} minutes on "
        f"{last['num_devices']} cores of {last['device']} at commit `{last['commit']}`."
    )
    return "\n".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "performance": lambda: grid.markdown(*read_record("grid")),
    "generation": lambda: generation.markdown(*read_record("generation")),
}


def filled(text: str) -> str:
    """`text` with every generated part made anew.

    Raises:
      ValueError: if a part of `PARTS` has no place in the text.
    """
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- begin:{name} -->\n).*?(<!-- end:{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"README.md has no part between begin:{name} and end:{name}")
        part = make().rstrip()
        text = pattern.sub(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)
    return text


def main() -> None:
    """Rewrite README.md in place."""
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
