"""Fidelity of our iGSM to the reference: statistics of both texts, compared at each op count.

The corpus holds problems of the public generator (60 of each op count 1 to 20, heavy style, the
paper's setting); ours are drawn by the preset ``paper``. One extractor of regular expressions reads
both. It sees the text alone and none of our graphs, so that an error in a graph shows in the text.

Commands and cost (one CPU core)::

    python -m experiments.igsm.fidelity            # half a minute: the table
    python -m experiments.igsm.fidelity --record   # the same; keeps it in experiments/results/igsm

Expect: no significant difference after Holm's correction, words within 5% over op 6 to 20, and one
mean in four hundred outside its interval by chance.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy import stats

from experiments.storage import provenance
from experiments.storage.results import write_record
from synth.arguments import check_least, check_seed
from synth.tasks.igsm.problems import problems

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "golden" / "igsm_reference.jsonl.gz"
RESULTS = ROOT / "experiments" / "results" / "igsm"
PACKAGES = ("numpy", "scipy", "pandas")
LEVEL = 0.9975
"""Confidence level of the intervals of the reference's means."""
POOLED = range(6, 21)
"""Op counts over which the length is compared as one."""
BAR = 0.05
"""Largest relative difference of words over `POOLED` that passes."""
SIGNIFICANT = 0.05
"""Corrected p below which a difference counts."""

STATISTICS = {
    "problem_words": "words of the problem",
    "solution_words": "words of the solution",
    "sentences": "sentences",
    "distractors": "distractors",
    "steps": "steps of the solution",
    "depth": "depth: longest chain of steps",
    "operations": "operations of the solution",
    "answer_zero": "answer is 0",
    "constant": "sentences: a number",
    "copy": "sentences: another quantity",
    "more": "sentences: more than",
    "times": "sentences: times as much as",
    "sum": "sentences: a sum",
    "difference": "sentences: a difference",
    "operands": "quantities in a sentence",
}
"""Statistics that are compared, in words. Only sentences that state a quantity count; operators are
shares of these within a problem, `operands` is a mean over them."""

_STATED = re.compile(
    r"The number of each (.+?) equals (.+?)\.(?= The number of each | How many |$)"
)
_DEFINED = re.compile(r"Define (.+?) as ([A-Za-z]); (.+?)\.(?= Define |$)")
_OPERAND = re.compile(r"(?:^| |, |and )each ")
_SYMBOL = re.compile(r"\b[A-Za-z]\b")


def measure_text(problem: str, solution: str, answer: int) -> dict[str, float]:
    """The `STATISTICS` of one problem.

    Args:
      problem, solution: as the reference writes them, at its most detailed level.
      answer: the number asked for.

    Raises:
      ValueError: if a sentence of problem or solution cannot be read.
    """
    # Sentences of the problem, and steps of the solution: name, symbol and text of each.
    stated, defined = dict(_STATED.findall(problem)), _DEFINED.findall(solution)
    if not stated or len(stated) != problem.count("The number of each "):
        raise ValueError(f"problem has sentences that cannot be read, got {problem!r}")
    if not defined or len(defined) != solution.count("Define "):
        raise ValueError(f"solution has sentences that cannot be read, got {solution!r}")
    # A step is one deeper than the deepest step whose symbol it uses.
    depth: dict[str, int] = {}
    operations = 0
    for _, symbol, text in defined:
        steps = [step.split(" = ")[1] for step in text.split("; ")]
        used = [depth[each] for step in steps for each in _SYMBOL.findall(step) if each in depth]
        depth[symbol] = 1 + max(used, default=0)
        operations += len(steps)
    # Kinds of sentences, as shares of all.
    names = {name for name, _, _ in defined}
    sides = list(stated.values())

    def share(phrase: str) -> float:
        return sum(phrase in side for side in sides) / len(sides)

    return {
        "problem_words": len(problem.split()),
        "solution_words": len(solution.split()),
        "sentences": len(stated),
        "distractors": len(stated.keys() - names),
        "steps": len(defined),
        "depth": max(depth.values()),
        "operations": operations,
        "answer_zero": float(answer == 0),
        "constant": sum(side.isdigit() for side in sides) / len(sides),
        "copy": sum(side.startswith("each ") for side in sides) / len(sides),
        "more": share(" more than "),
        "times": share(" times as much as "),
        "sum": share("the sum of each "),
        "difference": share("the difference of each "),
        "operands": sum(len(_OPERAND.findall(side)) for side in sides) / len(sides),
    }


def read_corpus(path: Path = CORPUS) -> pd.DataFrame:
    """Statistics of each problem of the reference, and its op count in `difficulty`.

    Args:
      path: gzipped lines of JSON with op, problem, solution and answer.
    """
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return pd.DataFrame(
        {"difficulty": row["op"]} | measure_text(row["problem"], row["solution"], row["answer"])
        for row in rows
    )


def draw_ours(levels: Iterable[int], problems_per_op: int, seed: int) -> pd.DataFrame:
    """Statistics of problems that we draw, in the columns of `read_corpus`."""
    return pd.DataFrame(
        {"difficulty": level} | measure_text(drawn.problem, drawn.solution, drawn.answer)
        for level in levels
        for drawn in problems(level, problems_per_op, seed=seed, preset="paper")
    )


def interval(values: np.ndarray, name: str) -> tuple[float, float]:
    """Interval of a mean at `LEVEL`: Student's t, for a yes or no Clopper and Pearson's."""
    if name == "answer_zero":
        exact = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, "exact")
        return exact.low, exact.high
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def p_value(reference: np.ndarray, ours: np.ndarray, name: str) -> float:
    """Two-sided p: Fisher's exact test for a yes or no, else Mann and Whitney's with ties."""
    if name == "answer_zero":
        counts = [[int(each.sum()), int(len(each) - each.sum())] for each in (reference, ours)]
        return float(stats.fisher_exact(counts).pvalue)  # type: ignore[attr-defined]
    if len(np.unique(np.concatenate([reference, ours]))) == 1:
        return 1.0
    return float(stats.mannwhitneyu(reference, ours, method="asymptotic").pvalue)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction: p-values that hold for all tests together."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return corrected


def compare(reference: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Compare our problems with the reference's.

    Args:
      reference, ours: one row per problem: `difficulty` and the `STATISTICS`.

    Returns:
      Tidy, one row per statistic and difficulty: `reference`, its interval `low` to `high`, `ours`,
      the standard errors of both means, whether ours is `inside`, `p` and `p_corrected` (Holm, over
      all rows), and the numbers of problems.

    Raises:
      ValueError: if the two do not have the same difficulties.
    """
    levels, own_levels = (sorted(set(part["difficulty"].tolist())) for part in (reference, ours))
    if levels != own_levels:
        raise ValueError(f"ours must have the difficulties {levels} of reference, got {own_levels}")
    # Compare each statistic at each difficulty.
    rows = []
    for name in STATISTICS:
        for level in levels:
            theirs, own = (
                table.loc[table["difficulty"] == level, name].to_numpy(float)
                for table in (reference, ours)
            )
            low, high = interval(theirs, name)
            rows.append(
                {
                    "statistic": name,
                    "difficulty": int(level),
                    "reference": theirs.mean(),
                    "low": low,
                    "high": high,
                    "ours": own.mean(),
                    "reference_error": stats.sem(theirs),
                    "ours_error": stats.sem(own),
                    "inside": bool(low <= own.mean() <= high),
                    "p": p_value(theirs, own, name),
                    "num_reference": len(theirs),
                    "num_ours": len(own),
                }
            )
    # Correct p over all rows.
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p") + 1, "p_corrected", holm(table["p"].to_numpy()))  # type: ignore[arg-type]
    return table


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Each statistic over all difficulties, every one counting once.

    Reveals a small difference of the same sign everywhere, which no single level would show.

    Args:
      table: as `compare` returns it.

    Returns:
      By statistic: `z` of the sum of all differences, `relative` difference of the means over
      `POOLED`, and how many of the means lie `outside` their intervals.
    """
    rows = {}
    for name, part in table.groupby("statistic", sort=False):
        reference, ours = part["reference"].to_numpy(), part["ours"].to_numpy()
        errors = part[["reference_error", "ours_error"]].to_numpy()
        error = float(np.sqrt((errors**2).sum()))
        chosen = part["difficulty"].isin(POOLED).to_numpy()
        theirs = float(reference[chosen].mean()) if chosen.any() else 0.0
        rows[name] = {
            "z": float((ours - reference).sum()) / error if error else 0.0,
            "relative": float(ours[chosen].mean()) / theirs - 1 if theirs else np.nan,
            "outside": int(np.sum(~part["inside"].to_numpy(bool))),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _beside(table: pd.DataFrame, statistic: str, level: int) -> float:
    """Mean of the reference at the neighbouring op counts, to recognise chance in its sample."""
    is_beside = (table["difficulty"] - level).abs() == 1
    return float(table.loc[is_beside & (table["statistic"] == statistic), "reference"].mean())


def summary(table: pd.DataFrame) -> str:
    """The result in sentences.

    Args:
      table: as `compare` returns it.
    """
    over_all, significant = pooled(table), len(table.query(f"p_corrected < {SIGNIFICANT}"))
    outside = table.query("not inside")
    # Words, the statistic that differs most, and the means that lie outside.
    words = {name: over_all.loc[f"{name}_words", "relative"] for name in ("problem", "solution")}
    largest = str(over_all["z"].abs().idxmax())
    said = ", ".join(
        f"{STATISTICS[row['statistic']]} at op {row['difficulty']} ({row['ours']:.4g} against "
        f"[{row['low']:.4g}, {row['high']:.4g}]; the op counts beside it: "
        f"{_beside(table, row['statistic'], row['difficulty']):.4g})"
        for row in outside.to_dict(orient="records")
    )
    # The share of problems that a constant answer solves.
    zero = table.query("statistic == 'answer_zero'")
    chosen = zero.query("difficulty in @POOLED")
    return (
        f"Against {table['num_reference'].min()} problems of the reference generator at each op "
        f"count from {table['difficulty'].min()} to {table['difficulty'].max()}, "
        f"{table['num_ours'].min():,} of ours each. Over op {POOLED[0]} to {POOLED[-1]} our "
        f"problems have {words['problem']:+.1%} words and our solutions {words['solution']:+.1%} "
        f"(bar: within {BAR:.0%}). Of {len(table)} means ({len(STATISTICS)} statistics) "
        f"{len(outside)} lie outside the reference's {LEVEL:.2%} interval, where chance alone puts "
        f"about {(1 - LEVEL) * len(table):.1f}{': ' + said if said else ''}. Of the {len(table)} "
        f"two-sample tests {significant or 'none'} shows a difference at {SIGNIFICANT:.0%} after "
        f"Holm's correction (least corrected p: {table['p_corrected'].min():.2g}). Pooled over all "
        f"op counts, the largest difference is in {STATISTICS[largest]} "
        f"(z = {over_all.loc[largest, 'z']:+.1f}). Always answering 0 is right in "
        f"{zero['ours'].min():.0%} to {zero['ours'].max():.0%} of our problems by op count, "
        f"{chosen['ours'].mean():.1%} over op {POOLED[0]} to {POOLED[-1]} (reference: "
        f"{chosen['reference'].mean():.1%}; a uniform answer: {1 / 23:.1%})."
    )


@dataclasses.dataclass(frozen=True)
class FidelityConfig:
    """Settings of the comparison.

    Attributes:
      corpus: problems of the reference generator.
      problems_per_op: of ours, at each op count of the corpus.
      seed: of ours.
      record: keep table and manifest under experiments/results/igsm.
    """

    corpus: Path = CORPUS
    problems_per_op: int = 2000
    seed: int = 0
    record: bool = False

    def __post_init__(self) -> None:
        check_least(self, 2, "problems_per_op")
        check_seed(self, "seed")


def run(config: FidelityConfig, directory: Path = RESULTS) -> pd.DataFrame:
    """Compare, print the result, and return the table; a record goes to `directory`."""
    start = time.perf_counter()
    reference = read_corpus(config.corpus)
    levels = sorted(set(reference["difficulty"]))
    table = compare(reference, draw_ours(levels, config.problems_per_op, config.seed))
    print(pooled(table).to_string(float_format="{:+.3f}".format), summary(table), sep="\n\n")
    if config.record:
        manifest = {
            "config": {
                "preset": "paper",
                "problems_per_op": config.problems_per_op,
                "seed": config.seed,
            },
            "corpus": config.corpus.name,
            "level": LEVEL,
            "versions": provenance.versions(PACKAGES),
            "commit": provenance.commit(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "wall_time_seconds": round(time.perf_counter() - start, 1),
        }
        for path in write_record(directory, "fidelity", table, manifest):
            print(path)
    return table


def main() -> None:
    """Entry point of ``python -m experiments.igsm.fidelity``."""
    run(tyro.cli(FidelityConfig))


if __name__ == "__main__":
    main()
