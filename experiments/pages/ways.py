"""Other ways of training a real model, against SFT of all weights, for the documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.answers import Answers
from experiments.analysis.claims import verdict
from experiments.analysis.statistics import Interval
from experiments.analysis.studies import UNTRAINED, studies_of_answers
from experiments.analysis.verdicts import UNDECIDED
from experiments.pages.headline import minutes_of, points
from experiments.pages.markdown import markdown_table
from experiments.storage.results import read_manifest, read_tables

SFT, DFT, ADAPTERS = "SFT of all weights", "DFT of all weights", "SFT of adapters"
SLICES = {
    "all levels": None,
    "levels 1 and 2": (1, 2),
    "levels 1 to 3": (1, 2, 3),
    "levels 4 and 5": (4, 5),
}
"""Levels of the test for which predictions were written down, by their name."""
PREDICTED = (
    (DFT, "levels 1 and 2", 1, "(4) DFT loses less than SFT on one and two operations"),
    (ADAPTERS, "levels 1 to 3", 1, "(6) adapters lose less than all weights on one to three"),
    (ADAPTERS, "levels 4 and 5", -1, "(6) they gain less on four and five"),
)
"""Way of training, levels, sign of its difference from SFT of all weights, and words; written down
before the runs, in the recipe."""


def ways(reference: Path, others: Mapping[str, Path]) -> str:
    """Say what other ways of training change in the one cell in which they were tried.

    Args:
      reference: recorded scan by SFT of all weights, with this cell among others.
      others: recorded scans of this cell alone, by the name of the way of training.

    Raises:
      ValueError: if a scan has other test problems than the reference.
    """
    manifests = {name: read_manifest(path) for name, path in others.items()}
    recorded = read_manifest(reference)
    for name, manifest in manifests.items():
        if manifest["data"]["test"] != recorded["data"]["test"]:
            raise ValueError(f"{name}: must have the test problems of {reference.name}")
    last = next(reversed(manifests.values()))
    (difficulty,), (size,) = (last["config"][name] for name in ("difficulties", "data_sizes"))
    paths = {SFT: reference, **others}
    answers = {name: _one_cell(path, difficulty, size) for name, path in paths.items()}
    differences = {name: answers[name].minus(answers[SFT]) for name in others}
    above = pd.DataFrame([_told_by_slices(each) for each in answers.values()])
    above.insert(0, "above the base", list(answers))
    change = pd.DataFrame([_told_by_slices(each) for each in differences.values()])
    change.insert(0, f"against {SFT}", list(others))
    minutes = ", ".join(
        f"{minutes_of(manifest) / len(manifest['chunks']):.1f} minutes a member by {name}"
        for name, manifest in manifests.items()
    )
    session = last["sessions"][-1]
    return "\n\n".join(
        [
            f"Exactly {difficulty} operations at n = {size}, {last['config']['seeds']} seeds. "
            f"{_alike(recorded, manifests.values())} Accuracy above the untouched base, in "
            f"points, with 90% intervals over seeds and test problems:",
            markdown_table(above),
            f"The same less that of {SFT}, paired by seed and problem:",
            markdown_table(change),
            _verdicts(differences),
            f"With training and answers, {minutes}, on {session['num_devices']} cores of "
            f"{session['device']} at commit `{session['commit']}`.",
        ]
    )


def _alike(reference: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> str:
    """Say whether the scans share a base, as far as its answers to the test tell."""
    expected = _base_answers(reference)
    if all(_base_answers(each) == expected for each in others):
        return "Their bases give the same answers, letter by letter."
    return "Their bases give other answers, so that their difference is in those below."


def _base_answers(manifest: Mapping[str, Any]) -> str:
    """Fingerprint of the base's answers to the test."""
    return manifest["fingerprints"]["base"]["responses/base.parquet"]


def _one_cell(directory: Path, difficulty: int, size: int) -> Answers:
    """Answers of one cell of exact levels, and of the base."""
    table = read_tables(directory, "answers")["answers"]
    is_cell = (table["difficulty"] == difficulty) & (table["data_size"] == size)
    is_own = (table["train_mixture"] == "exact") & is_cell
    cell = table.loc[is_own | (table["train_mixture"] == UNTRAINED)]
    (study,) = studies_of_answers(cell)
    return Answers.of(cell, study)


def _verdicts(differences: Mapping[str, Answers]) -> str:
    """Say of each prediction about these ways whether the interval lies on its side of zero."""
    told = []
    for name, levels, sign, words in PREDICTED:
        if name in differences:
            found = _on(differences[name], levels)
            low, high = sorted((sign * found.low, sign * found.high))
            word = verdict(Interval(sign * found.mean, low, high))
            told.append(f"- {words}: {'cannot be told' if word == UNDECIDED else word}.")
    return "\n".join(["Of what was written down before the run:", "", *told])


def _told_by_slices(answers: Answers) -> dict[str, str]:
    return {levels: points(_on(answers, levels)) for levels in SLICES}


def _on(answers: Answers, levels: str) -> Interval:
    """Accuracy of the one cell above that of the base, on one of `SLICES`."""
    cell = (int(answers.difficulties[0]), int(answers.data_sizes[0]))
    own = SLICES[levels]
    return (answers if own is None else answers.on(own)).contrast({cell: 1.0}, of_base=-1.0)
