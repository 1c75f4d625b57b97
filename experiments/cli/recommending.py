"""Recommendations of ``recommend`` and ``llm recommend`` in words, as JSON and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from experiments.cli.terminal import print_named, print_paths, print_rows, print_sentences
from experiments.engine.progress import console

if TYPE_CHECKING:
    import pandas as pd

    from experiments.analysis.pilot import Mixtures
    from experiments.analysis.recommend import Recommendation

AsJson = Annotated[bool, tyro.conf.arg(name="json")]
FiguresFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIRECTORY")]


def tell(
    table: pd.DataFrame,
    mixtures: Mixtures,
    data_size: int,
    *,
    manifest: Mapping[str, Any],
    answers: pd.DataFrame | None = None,
    as_json: bool = False,
    figures: Path | None = None,
) -> None:
    """Recommend a difficulty for a budget from each study of a pilot, and tell it.

    Args:
      table: of the pilot.
      mixtures: see `experiments.analysis.recommend.recommend`.
      data_size: the budget.
      manifest: of the pilot, which tells how long it took.
      answers: of a scan's models, see `recommend`.
      as_json: print one JSON document in place of words and tables.
      figures: folder to draw the learning curves into; None for none.
    """
    from experiments.analysis import optimum
    from experiments.analysis.recommend import recommend

    told = [
        recommend(table, study, mixtures, data_size, answers=answers)
        for study in optimum.studies(table)
    ]
    hours_each = hours_of_a_member(table, manifest)
    paths = []
    if figures is not None:
        from experiments import figures as drawing
        from experiments.analysis.curves import learning_curves

        curves = {"curves": learning_curves(told)}
        paths = drawing.draw(curves, figures, ["learning_curves"])
    if as_json:
        print(json.dumps([as_record(answer, hours_each) for answer in told], indent=1))
        return
    for answer in told:
        _print(answer, hours_each)
    print_sentences(optimum.left_out(table))
    console.print(
        "Predictions with 90% intervals; no certificate, and none would certify which difficulty "
        "is best."
    )
    print_paths(paths)


def hours_of_a_member(table: pd.DataFrame, manifest: Mapping[str, Any]) -> float | None:
    """Mean hours of a member, with its share of everything else; None if the run does not tell."""
    seconds = [session.get("wall_time_seconds") for session in manifest.get("sessions", [])]
    trained = table.loc[table["train_mixture"] != "none"]
    cell = ["train_mixture", "loss", "difficulty", "data_size", "base_seed", "seed"]
    number = len(trained[cell].drop_duplicates())
    if not seconds or None in seconds or not number:
        return None
    return sum(seconds) / 3600 / number


def as_record(answer: Recommendation, hours_each: float | None) -> dict[str, Any]:
    """A recommendation as plain values; infinite ends of intervals become None."""
    record = _plain(dataclasses.asdict(answer))
    return record | {
        "study": answer.study.title,
        "abstains": answer.abstains,
        "verdict": answer.verdict,
        "to_be_surer": answer.surer.sentence(hours_each),
    }


def _plain(value: Any) -> Any:
    """Values that JSON has: names as text, tuples as lists, numbers that are not finite as None."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def _print(answer: Recommendation, hours_each: float | None) -> None:
    """Print a recommendation, the risks that it rests on, and the choices of other rules."""
    console.print()
    print_named(answer.study.title, answer.verdict)
    print_rows(
        ("d", "predicted test risk", "above the recommended one"),
        ((level, risk, answer.excess.get(level, "–")) for level, risk in answer.predicted.items()),
    )
    rules = ", ".join(f"{rule} {level}" for rule, level in answer.choices.items())
    sizes = ", ".join(map(str, answer.pilot_sizes))
    console.print(f"Fitted to n = {sizes}. Choices of all rules: {rules}.")
    print_sentences(filter(None, (answer.noise, answer.surer.sentence(hours_each))))
