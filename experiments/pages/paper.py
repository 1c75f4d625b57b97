"""The paper's figures, table and claims, each with what stands for it here.

`ITEMS` lists the figures and the table by their numbers in the paper; `ledger` computes from the
tracked tables what each claim's predictions came to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis import claims
from experiments.analysis.claims import Finding
from experiments.analysis.contrasts import Contrast, Covered, Rise
from experiments.analysis.verdicts import FAILS, HOLDS, UNDECIDED
from experiments.recipes import RECIPES
from experiments.storage.results import read_manifest, read_tables

RESULTS = Path(__file__).parents[1] / "results"

CLAIMS = {
    1: "The best difficulty moves to harder data as n grows.",
    2: "The generalization gap grows with difficulty and shrinks with n; the extrapolation gap "
    "shrinks with difficulty.",
    3: "Accuracy is an inverted U in difficulty and saturates in n.",
    4: "Leaving out hard examples helps at small n and hurts at large n; leaving out easy ones "
    "does the reverse.",
    5: "Easy data do not lift hard levels; hard data at small n lower all levels.",
    6: "A stronger base moves the best difficulty to harder data.",
    7: "DFT beats SFT at small n on hard data, and loses to it at large n.",
    8: "A PAC-Bayes bound with its prior at the base covers the test risk.",
}
"""The paper's claims in short; docs/results.md has them in full."""


@dataclass(frozen=True)
class Item:
    """A figure or table of the paper, and what stands for it here.

    Attributes:
      paper: what the paper shows.
      ours: what is shown here.
      command: records the run.
      run: folder of the recorded run under experiments/results.
      figure: name of the figure that is drawn from it.
    """

    paper: str
    ours: str
    command: str
    run: str
    figure: str

    @property
    def directory(self) -> Path:
        """Folder of the recorded run."""
        return RESULTS / self.run

    @property
    def is_recorded(self) -> bool:
        """Whether the run's table is tracked."""
        return (self.directory / "manifest.json").is_file()


ITEMS = {
    "fig1": Item(
        "length of the chain of thought against the pass rate of another model",
        "operations, length and perplexity against the base's pass rate, on iGSM text",
        "sweetspot llm difficulty --model MODEL --source ROWS --out DIR",
        "difficulty",
        "difficulty_measures",
    ),
    "fig2": Item(
        "leaving out the hardest or the easiest examples, over n",
        "the same on chains of operations",
        "sweetspot run leave-out cpu",
        "leave-out",
        "leave_out",
    ),
    "fig3": Item(
        "accuracy over n and difficulty (Qwen2.5-Math-7B)",
        "the same for small transformers, exact levels, three epochs",
        "sweetspot run paper-protocol cpu",
        "paper-protocol",
        "map",
    ),
    "fig4": Item(
        "rows and columns of that map (Qwen2.5-Math-1.5B)",
        "accuracy over difficulty, a line for each n",
        "sweetspot run paper-protocol cpu",
        "paper-protocol",
        "accuracy_over_difficulty",
    ),
    "fig6": Item(
        "improvement over the base by test level, on iGSM",
        "change of accuracy by test level",
        "sweetspot run paper-protocol cpu",
        "paper-protocol",
        "change_by_slice",
    ),
    "table1": Item(
        "easy, medium and hard thirds of three data sets",
        "thirds of the levels at three sizes",
        "sweetspot run thirds cpu",
        "thirds",
        "accuracy_over_size",
    ),
    "claim6": Item(
        "bases of several strengths",
        "the best difficulty for four kinds of bases on one grid and one test",
        "sweetspot run base-strength ratio-40 (and -50, -60, -70)",
        "settings",
        "strengths",
    ),
    "claim7": Item(
        "DFT against SFT",
        "the same cells trained by DFT, each loss at its own tuned rate",
        "sweetspot run paper-protocol dft",
        "losses",
        "losses",
    ),
    "controls": Item(
        "none of its own",
        "whether the best difficulty moves when one thing is changed, or the test is another",
        "sweetspot run controls fixed-rate (and its other presets)",
        "settings",
        "moves",
    ),
    "prop4.1": Item(
        "a PAC-Bayes bound, used qualitatively",
        "total bounds, this one among them, over the measured test risk; levels 1 to d",
        "sweetspot run controls range, then sweetspot bound --master-seed 1",
        "controls-range",
        "bound_over_curve",
    ),
}
"""By the paper's numbers; claims 6 and 7 have no figure that we know of.

`experiments.pages.settings` puts together the tables of claims 6 and 7 and of the controls.
"""


@dataclass(frozen=True)
class Recorded:
    """A recorded sweep.

    Attributes:
      name: of its folder under experiments/results.
      manifest: of the run.
      table: its rows.
      certificates: its certificates; None if it is not certified.
    """

    name: str
    manifest: dict[str, Any]
    table: pd.DataFrame
    certificates: pd.DataFrame | None


def recorded_sweeps(results: Path = RESULTS) -> Iterator[Recorded]:
    """The tracked sweeps of recipes that wrote down what they predict."""
    for path in sorted(results.glob("*/manifest.json")):
        manifest = read_manifest(path.parent)
        recipe = RECIPES.get(str(manifest.get("recipe")))
        if recipe is not None and hasattr(recipe, "PREREGISTERED"):
            tables = read_tables(path.parent)
            yield Recorded(path.parent.name, manifest, tables["table"], tables.get("certificates"))


def ledger(results: Path = RESULTS) -> list[Finding]:
    """What the predictions of all recorded sweeps came to, claim by claim.

    A prediction that compares runs of one recipe, such as two losses, is computed from the rows of
    all of them: they have the same bases and data.
    """
    found: list[Finding] = []
    by_recipe: dict[str, list[Recorded]] = {}
    for run in recorded_sweeps(results):
        by_recipe.setdefault(run.manifest["recipe"], []).append(run)
    for recipe, runs in by_recipe.items():
        predictions = RECIPES[recipe].PREREGISTERED
        for run in runs:
            found += claims.findings(run.name, run.table, predictions)
            if run.certificates is not None:
                found += [
                    claims.covered(run.name, run.certificates, each)
                    for each in predictions
                    if isinstance(each, Covered) and each.method in set(run.certificates["method"])
                ]
        # Comparisons of runs: those that no run alone could compute.
        told, names = {each.prediction for each in found}, " + ".join(run.name for run in runs)
        together = pd.concat([run.table for run in runs], ignore_index=True)
        left = [each for each in predictions if each not in told and len(runs) > 1]
        found += claims.findings(names, together, left)
        tables = {str(run.manifest.get("preset")): run.table for run in runs}
        for prediction in left:
            if isinstance(prediction, Rise) and set(prediction.presets) <= set(tables):
                found.append(claims.rise(recipe, tables, prediction))
    return sorted(found, key=lambda each: each.prediction.claim)


def ledger_rows(found: list[Finding]) -> list[tuple[str, ...]]:
    """The ledger as text: claim, run, prediction, effect, p, bases, verdict."""
    return [
        (
            str(each.prediction.claim),
            each.run,
            each.prediction.says,
            signed(each),
            f"{each.p:.2g}",
            str(each.number),
            each.verdict,
        )
        for each in found
    ]


LEDGER_COLUMNS = ("claim", "run", "predicted to be above zero", "effect", "p", "bases", "verdict")


def signed(found: Finding) -> str:
    """An effect and its 90% interval, with signs: points of percent, or levels for a move."""
    effect = found.effect
    is_risk = isinstance(found.prediction, (Contrast, Covered))
    scale, digits, unit = (100, 1, " points") if is_risk else (1, 1, " levels")
    low, high = (f"{scale * end:+.{digits}f}" for end in (effect.low, effect.high))
    return f"{scale * effect.mean:+.{digits}f}{unit} [{low}, {high}]"


def told(found: list[Finding], *runs: str) -> str:
    """Effects and verdicts of the predictions of some runs, as a list in Markdown."""
    own = [each for each in found if each.run in runs]
    return "\n".join(
        f"- Claim {each.prediction.claim}, {each.prediction.says}: {signed(each)}, "
        f"p = {each.p:.2g} over {each.number} bases; **{each.verdict}**."
        for each in own
    )


ELSEWHERE = ("controls", "families", "prediction")
"""Beginnings of the names of runs that ask whether a verdict holds under other conditions."""


def in_short(found: list[Finding]) -> list[tuple[str, str, str, str]]:
    """Each claim with its verdict in the runs that follow the paper, and in how many others.

    Returns:
      Rows of claim, verdict, verdicts elsewhere, and the fewest bases behind one of the first.
    """
    rows = []
    for number, words in CLAIMS.items():
        by_run: dict[str, list[Finding]] = {}
        for each in found:
            if each.prediction.claim == number:
                by_run.setdefault(each.run, []).append(each)
        judged = {run: claims.claim_verdict(own) for run, own in by_run.items()}
        main = {run: word for run, word in judged.items() if not run.startswith(ELSEWHERE)}
        others = [word for run, word in judged.items() if run not in main]
        if not main:
            main, others = judged, []
        said = "; ".join(f"{word} ({run})" for run, word in main.items())
        counts = [(word, others.count(word)) for word in (HOLDS, FAILS, UNDECIDED)]
        elsewhere = ", ".join(f"{word} in {count}" for word, count in counts if count)
        fewest = min((each.number for run in main for each in by_run[run]), default=None)
        bases = "–" if fewest is None else str(fewest)
        row = f"{number}. {words}", said or "not tested this way yet", elsewhere or "–", bases
        rows.append(row)
    return rows
