"""The recorded scan of a real pre-trained model, for the documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis.answers import Answers
from experiments.analysis.statistics import Interval
from experiments.analysis.studies import studies_of_answers
from experiments.figures import finding
from experiments.pages.headline import minutes_of, points
from experiments.pages.markdown import markdown_table
from experiments.storage.results import read_manifest, read_tables


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
