"""Put recorded runs side by side: settings of the main run, bases of several strengths, two losses,
and the rules that pick a difficulty.

Writes tables that figures are drawn from, when a run has been recorded::

    python -m experiments.pages.settings
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from experiments.analysis import reweight
from experiments.analysis.regret import write_regret
from experiments.analysis.settings import compared, strengths
from experiments.pages import totals
from experiments.storage.results import read_manifest, read_table
from experiments.storage.writing import write_json, write_parquet
from experiments.sweep.tune import tune

RESULTS = Path(__file__).parents[1] / "results"
MAIN, ONE_EPOCH = "paper-protocol", "controls-one-epoch"
CONTROLS = {
    "paper-protocol-dft": "DFT in place of SFT",
    "controls-fixed-rate": "one learning rate",
    ONE_EPOCH: "one epoch",
    "controls-compute-4": "twelve epochs",
    "controls-steps": "192 steps at every n",
    "controls-tokens": "n counts tokens",
    "controls-window": "levels d − 2 to d",
    "controls-range": "levels 1 to d",
}
"""Recorded runs in which one thing is changed, in words."""

STRENGTHS = {
    "base-strength-ratio-40": "ratio .40",
    "base-strength-ratio-50": "ratio .50",
    "base-strength-ratio-60": "ratio .60",
    MAIN: "ratio .65",
    "base-strength-ratio-70": "ratio .70",
}
OLDER = ("tradeoff", "certificates", "modulus-7")
"""Runs of a fixed number of steps, whose bases know the levels 1 to 4 and nothing beyond."""
REPLICATES = 500
"""Of the bootstrap behind each recommendation in the trial."""
SMALLEST_SIZE = 256
"""Below it nearly all levels are as good as the untouched base, so that no optimum is seen."""
SMALLEST_UNIFORM = 128
"""The same over bases that saw their levels equally often, as written down before those runs."""


def recorded(results: Path, names: dict[str, str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Name, words and table of the runs that are recorded."""
    for name, words in names.items():
        if (results / name / "table.parquet").is_file():
            yield name, words, read_table(results / name)


def early_stopped(results: Path) -> pd.DataFrame | None:
    """The main run where each cell may also stop after one epoch; None if that is not recorded.

    One epoch and three are trainings of their own, each with its whole schedule, at each learning
    rate; the validation draw chooses among all of them.
    """
    if not (results / ONE_EPOCH / "table.parquet").is_file():
        return None
    longer, shorter = (read_table(results / name) for name in (MAIN, ONE_EPOCH))
    joined = pd.concat([longer, shorter.loc[shorter["train_mixture"] != "none"]])
    open_again = joined["status"].replace("not_selected", "ok")
    tuned = tune(joined.assign(status=open_again).reset_index(drop=True))
    # Give the members that are left one compute, so that they are one study.
    kept = tuned.loc[tuned["status"] != "not_selected"]
    is_trained = kept["train_mixture"] != "none"
    return kept.assign(compute=kept["compute"].mask(is_trained, "1 or 3 epochs"))


def settings(results: Path = RESULTS) -> pd.DataFrame:
    """The move of the best difficulty in the main run, its controls, and other test mixtures."""
    main = read_table(results / MAIN)
    rows = [("main", "exactly d, three epochs, tuned rate", main)]
    rows += [("control", words, table) for _, words, table in recorded(results, CONTROLS)]
    if (chosen := early_stopped(results)) is not None:
        rows.append(("control", "one epoch or three, chosen on validation", chosen))
    # Of the two studies of `leave-out`, the one whose mixtures begin at level 1.
    for _, words, table in recorded(results, {"leave-out": "levels 1 to d, d up to 20"}):
        rows.append(("control", words, table.loc[table["train_mixture"] != "above"]))
    levels = main.loc[main["metric"] == "risk", "slice"].nunique()
    rows += [
        ("test", f"{name} test", reweight.reweighted(main, weights))
        for name, weights in reweight.mixtures(levels).items()
        if name != "uniform"
    ]
    for folder in sorted(results.glob("families-*/table.parquet")):
        name = folder.parent.name.removeprefix("families-").replace("-range", ", levels 1 to d")
        rows.append(("family", name, read_table(folder.parent)))
    return compared(rows, smallest_size=SMALLEST_SIZE)


UNIFORM_STUDIES = {
    "uniform": "",
    "range": ", levels 1 to d",
    "again": ", eight other bases",
    "deep": ", deeper grid",
}
"""Words that follow the family in tables, by the last word of a study's name."""


def uniform_bases(results: Path = RESULTS) -> pd.DataFrame:
    """The move of the best difficulty over bases that saw their levels equally often."""
    rows = []
    for folder in sorted(results.glob("prediction-*/table.parquet")):
        family, _, kind = folder.parent.name.removeprefix("prediction-").rpartition("-")
        rows.append((kind, family + UNIFORM_STUDIES[kind], read_table(folder.parent)))
    return compared(rows, smallest_size=SMALLEST_UNIFORM)


def both_losses(results: Path = RESULTS) -> pd.DataFrame:
    """Members by SFT and by DFT in one table, over the same bases and data."""
    sft, dft = (read_table(results / name) for name in (MAIN, f"{MAIN}-dft"))
    return pd.concat([sft, dft.loc[dft["train_mixture"] != "none"]], ignore_index=True)


TOTALS = {
    "controls-range": "chain of operations",
    "prediction-group-words-range": "group words",
    "prediction-parity-range": "parity with scratchpad",
    "prediction-expressions-range": "expressions",
}
"""Runs of the levels 1 to d whose certificates are drawn side by side."""


def total_bounds(results: Path) -> pd.DataFrame:
    """Certificates of the runs in `TOTALS`, with the column ``family``."""
    found = totals.recorded(results)
    parts = [found[name].assign(family=words) for name, words in TOTALS.items() if name in found]
    return pd.concat(parts, ignore_index=True)


def _families(results: Path) -> list[str]:
    """Names of the recorded runs of other families and other bases."""
    patterns = ("families-*", "prediction-*")
    return [each.name for pattern in patterns for each in sorted(results.glob(pattern))]


def trial_runs(results: Path) -> list[Path]:
    """Recorded sweeps on which the rules are judged: the protocol's first, then older ones."""
    names = [MAIN, *CONTROLS, *STRENGTHS, "leave-out", "thirds", *OLDER, *_families(results)]
    return [
        results / name
        for name in dict.fromkeys(names)
        if (results / name / "table.parquet").is_file()
    ]


def write(results: Path = RESULTS) -> None:
    """Write ``settings/``, ``losses/`` and ``prediction/`` into a folder of recorded runs."""
    runs = [(words, table) for _, words, table in recorded(results, STRENGTHS)]
    write_parquet(results / "settings" / "moves.parquet", settings(results))
    write_parquet(results / "settings" / "uniform.parquet", uniform_bases(results))
    write_parquet(results / "settings" / "strengths.parquet", strengths(runs))
    write_parquet(results / "losses" / "table.parquet", both_losses(results))
    write_parquet(results / "settings" / "totals.parquet", total_bounds(results))
    write_regret(trial_runs(results), results / "prediction", replicates=REPLICATES)
    # The commit that made each run.
    names = [MAIN, *CONTROLS, *STRENGTHS, *_families(results)]
    commits = {
        name: read_manifest(results / name)["sessions"][0]["commit"]
        for name in dict.fromkeys(names)
        if (results / name / "table.parquet").is_file()
    }
    for folder in ("settings", "losses"):
        write_json(results / folder / "manifest.json", {"made_from": commits})


if __name__ == "__main__":
    write()
