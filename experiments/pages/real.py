"""The recorded scan of a real pre-trained model, for the documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis.answers import Answers
from experiments.analysis.statistics import Interval
from experiments.analysis.studies import UNTRAINED, studies_of_answers
from experiments.figures import finding
from experiments.pages.headline import minutes_of, points
from experiments.pages.markdown import markdown_table
from experiments.storage.results import read_manifest, read_tables

SLICES = {
    "all levels": None,
    "levels 1 and 2": (1, 2),
    "levels 1 to 3": (1, 2, 3),
    "levels 4 and 5": (4, 5),
}
"""Levels of the test for which predictions about other ways of training were written down."""


def scan(directory: Path) -> str:
    """The words of a recorded scan: set-up, gains by cell, and the verdict."""
    return "\n\n".join(
        [
            setup(directory),
            gains(directory),
        ]
    )


def setup(directory: Path) -> str:
    """Say what was run, how well the base does by level, and what it took.

    Args:
      directory: of the recorded scan, with its answers.
    """
    manifest, answers = read_manifest(directory), read_tables(directory, "answers")["answers"]
    sessions = manifest["sessions"]
    base = answers.loc[answers["train_mixture"] == "none"]
    shares = base.groupby("slice")["correct"].mean()
    told = ", ".join(f"{share:.0%} of level {level}" for level, share in shares.items())
    words = manifest.get("buckets_in_words", [])
    levels = "; ".join(f"level {place}: {text}" for place, text in enumerate(words, start=1))
    measure = (
        f"Levels are thirds of the training problems ({levels})."
        if words
        else "Levels are numbers of operations."
    )
    minutes = minutes_of(manifest)
    return (
        f"{len(manifest['chunks'])} members from one base, {manifest['config']['seeds']} seeds a "
        f"cell, {len(base)} test problems. {measure} The untouched base "
        f"gets {told} right. Recorded in {minutes:.0f} minutes, "
        f"{minutes / len(manifest['chunks']):.1f} for each member with its share of the base and "
        f"of the answers, on {sessions[-1]['num_devices']} cores of {sessions[-1]['device']} at "
        f"commit `{sessions[-1]['commit']}`."
    )


def gains(directory: Path) -> str:
    """Table of accuracies above the base, one row per data size, and the verdict in words."""
    tables = read_tables(directory, "answers")
    parts = []
    for study in studies_of_answers(tables["answers"]):
        rows = Answers.of(tables["answers"], study).gains()
        shown = pd.DataFrame({"n": sorted(set(rows["data_size"]))})
        for level, own in rows.groupby("difficulty"):
            shown[f"d = {level}"] = [
                points(Interval(row["gain"], row["low"], row["high"]))
                for row in own.to_dict("records")
            ]
        sizes = sorted(set(rows.loc[rows["gain"] > 0, "data_size"]))
        above = ", ".join(map(str, sizes))
        best = f"the best cell is above the base at n = {above}" if above else "no cell is above it"
        parts += [
            f"Accuracy above the untouched base in points, {study.title}, with 90% intervals over "
            f"seeds and test problems; {best}:",
            markdown_table(shown),
        ]
        parts.append(by_slice(Answers.of(tables["answers"], study)))
    return "\n\n".join([*parts, finding("scan_gains", tables)])


def by_slice(answers: Answers) -> str:
    """Say how accuracy changes on each level of the test at the largest data size."""
    sentences = []
    for place, difficulty in enumerate(answers.difficulties):
        change = np.nanmean(answers.correct[place, -1], axis=0) - answers.base
        told = ", ".join(
            # A whole number has no negative zero.
            f"{round(100 * change[answers.slices == level].mean()):+d} on level {level}"
            for level in np.unique(answers.slices)
        )
        sentences.append(f"d = {difficulty}: {told}")
    told = "; ".join(sentences)
    return f"By level of the test, in points, at n = {answers.data_sizes[-1]}: {told}."


def ways(reference: Path, others: Mapping[str, Path]) -> str:
    """What other ways of training change, in the one cell in which they were tried.

    Args:
      reference: recorded scan by SFT of all weights.
      others: recorded scans of one cell, by the words for its way of training.

    Raises:
      ValueError: if a scan has other test problems than the reference.
    """
    manifests = {words: read_manifest(path) for words, path in others.items()}
    manifest = read_manifest(reference)
    for words, own in manifests.items():
        if own["data"]["test"] != manifest["data"]["test"]:
            raise ValueError(f"{words}: must have the test problems of {reference.name}")
    (difficulty,), (size,) = (
        next(iter(manifests.values()))["config"][name] for name in ("difficulties", "data_sizes")
    )
    answers = {
        words: _one_cell(path, difficulty, size)
        for words, path in {"SFT of all weights": reference, **others}.items()
    }
    first, *rest = answers.values()
    above = pd.DataFrame([_by_slices(each) for each in answers.values()])
    above.insert(0, "above the base", list(answers))
    change = pd.DataFrame([_by_slices(each.minus(first)) for each in rest])
    change.insert(0, "against SFT of all weights", list(others))
    minutes = " and ".join(
        f"{words} took {minutes_of(own) / len(own['chunks']):.1f} minutes a member"
        for words, own in manifests.items()
    )
    sessions = next(iter(manifests.values()))["sessions"]
    return "\n\n".join(
        [
            f"Exactly {difficulty} operations at n = {size}, {len(first.correct[0, 0])} seeds. "
            f"Accuracy above the untouched base, in points, with 90% intervals over seeds and test "
            f"problems:",
            markdown_table(above),
            "The difference from SFT of all weights, paired by seed and problem:",
            markdown_table(change),
            f"With training and answers, {minutes}, on {sessions[-1]['num_devices']} cores of "
            f"{sessions[-1]['device']} at commit `{sessions[-1]['commit']}`.",
        ]
    )


def _one_cell(directory: Path, difficulty: int, size: int) -> Answers:
    """Answers of one cell of exact levels, and of the base."""
    table = read_tables(directory, "answers")["answers"]
    is_cell = (table["difficulty"] == difficulty) & (table["data_size"] == size)
    is_own = (table["train_mixture"] == "exact") & is_cell
    cell = table.loc[is_own | (table["train_mixture"] == UNTRAINED)]
    (study,) = studies_of_answers(cell)
    return Answers.of(cell, study)


def _by_slices(answers: Answers) -> dict[str, str]:
    """Accuracy of the one cell above that of the base, for each of `SLICES`."""
    cell = (int(answers.difficulties[0]), int(answers.data_sizes[0]))
    return {
        words: points(
            (answers if levels is None else answers.on(levels)).contrast({cell: 1.0}, of_base=-1.0)
        )
        for words, levels in SLICES.items()
    }
