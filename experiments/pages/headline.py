"""The generated parts of the documents about the main run: the paper's protocol at toy size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis import gain, optimum
from experiments.analysis.statistics import Interval
from experiments.analysis.studies import studies
from experiments.analysis.verdicts import verdict
from experiments.analysis.vertex import with_ends
from experiments.pages.markdown import markdown_table
from experiments.storage.results import read_manifest, read_parquet, read_table


def verdicts(table: pd.DataFrame) -> dict[str, str]:
    """One sentence on each study of a table, by title: does the best difficulty move?"""
    return {
        study.title: f"**{study.title[:1].upper()}{study.title[1:]}.** "
        f"{verdict(optimum.shift(table, study))[1]}"
        for study in optimum.studies(table)
    }


def minutes_of(manifest: Mapping[str, Any]) -> float:
    """Minutes of all sessions of a run."""
    return sum(session.get("wall_time_seconds", 0.0) for session in manifest["sessions"]) / 60


def points(interval: Interval) -> str:
    """A difference of accuracies in points of percent, with signs."""
    mean, low, high = (f"{100 * end:+.1f}" for end in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def headline(results: Path, kept: Path) -> str:
    """Best difficulty, accuracy and gain on the base by data size, and how it was recorded.

    Args:
      results: a recorded run with one study.
      kept: one with mixtures of 1 to d, which keep the easy levels, over the same bases.
    """
    table, manifest = read_table(results), read_manifest(results)
    (study,) = optimum.studies(table)
    base, gains = gain.base_accuracy(table, study), gain.gains(table, study)
    # One column a data size.
    best = optimum.optimum(table, study).to_dict("records")
    columns = {f"n = {row['data_size']}": row for row in best}
    rows = [
        {"": "best difficulty d\\*"} | {name: str(row["optimum"]) for name, row in columns.items()},
        {"": "test accuracy there, %"}
        | {name: f"{100 * (1 - row['honest_risk']):.1f}" for name, row in columns.items()},
        {"": "minus the untouched base's, points"}
        | {name: points(gains[row["data_size"]]) for name, row in columns.items()},
    ]
    # The run's members, place and time.
    config, last = manifest["config"], manifest["sessions"][-1]
    members = table.loc[table["train_mixture"] != optimum.UNTRAINED, optimum.AXES].drop_duplicates()
    return "\n".join(
        [
            markdown_table(pd.DataFrame(rows)),
            "",
            f"- **Trained on exactly d.** {verdict(optimum.shift(table, study))[1]}",
            f"- {next(each for each in verdicts(read_table(kept)).values() if '1..d' in each)}",
            f"- The untouched bases get {100 * base.mean:.1f}% of the test right. "
            f"{gain.worth_it(gains)}",
            "",
            f"{len(members)} members (fine-tuned models) from {config['base_seeds']} bases, each "
            f"at the best of {len(config['learning_rates'])} learning rates; Student's 90% "
            f"intervals over bases; accuracy is that of a level chosen on the other bases; "
            f"{config['test_examples']} fresh test draws per level and base. Recorded in "
            f"{minutes_of(manifest):.0f} minutes on {last['num_devices']} cores of "
            f"{last['device']} at commit `{last['commit']}`.",
        ]
    )


def optima(results: Path) -> str:
    """Risks and gaps at the best difficulty, for each study of a recorded run."""
    table, parts = read_table(results), []
    rows = optimum.headline(table).rename(columns=lambda name: name.replace("_", " "))
    for title, sentence in verdicts(table).items():
        chosen = rows.loc[rows["study"] == title].drop(columns="study")
        parts += [sentence, markdown_table(chosen)]
    return "\n\n".join([*parts, optimum.intervals_are_over(table)])


def settings(results: Path) -> str:
    """The move of the best difficulty in each setting, with its picture.

    Args:
      results: of `experiments.pages.settings`.
    """
    path = (results / "figures" / "moves.png").relative_to(Path(__file__).parents[2])
    return f"{moves(results / 'moves.parquet')}\n\n![Move of the best difficulty]({path})"


def moves(path: Path) -> str:
    """The move of the best difficulty in each row of a table of `experiments.analysis.settings`."""
    rows = [
        {
            "setting": row["setting"],
            "n": f"{row['from_size']:,} to {row['to_size']:,}",
            "d\\*, least data": _level(row, "from"),
            "d\\*, most data": _level(row, "to"),
            "move": with_ends(row["move"], row["move_low"], row["move_high"]),
            "points above the base, most data": points(
                Interval(row["gain"], row["gain_low"], row["gain_high"])
            ),
            "bases": row["bases"],
            # The precondition of any verdict is that some cell is worth training.
            "claim 1": row["verdict"] + (", below the base" if row["gain_high"] < 0 else ""),
        }
        for row in read_parquet(path).to_dict("records")
    ]
    return markdown_table(pd.DataFrame(rows))


def one_cell(results: Path) -> str:
    """Say how much fine-tuning adds to the accuracy of the bases, in a run with one d and one n.

    Args:
      results: of the run, whose members are trained on the levels 1 to d.
    """
    table, config = read_table(results), read_manifest(results)["config"]
    (study,) = studies(table)
    ((size, gained),) = gain.gains(table, study).items()
    (hardest,) = config["difficulties"]
    return (
        f"With {size:,} examples of the levels 1 to {hardest} (`{results.name}`), fine-tuning adds "
        f"{points(gained)} points to the test accuracy of the {config['base_seeds']} untouched "
        "bases (90% interval over them)."
    )


def _level(row: Mapping[Any, Any], end: str) -> str:
    return with_ends(*(row[f"{end}_{part}"] for part in ("position", "low", "high")))
