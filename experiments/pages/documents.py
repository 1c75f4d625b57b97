"""Fill the generated parts of README.md and docs/ from recorded results.

No number of a result is typed by hand. A part stands between ``<!-- begin:NAME -->`` and
``<!-- end:NAME -->`` in one of the documents; `PARTS` says which function makes it. When a run or a
benchmark has been recorded, fill them again::

    python -m experiments.pages.documents
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis import coverage, families, premise
from experiments.analysis.claims import Finding
from experiments.analysis.verdicts import RULE
from experiments.benchmarks import (
    bounds,
    cluster,
    finetuning,
    generation,
    grid,
    growth,
    llm,
    phases,
    plan,
    read_record,
)
from experiments.benchmarks import igsm as igsm_speed
from experiments.benchmarks import smollm2 as smollm2_speed
from experiments.figures.style import ledger_line
from experiments.igsm import fidelity
from experiments.pages import headline, paper, real, rules, totals, ways
from experiments.pages.headline import minutes_of, verdicts
from experiments.pages.markdown import markdown_table
from experiments.storage.results import read_manifest, read_parquet, read_table
from synth.task import Task
from synth.tasks import TASKS, make_task

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
PROTOCOL, TRADEOFF = RESULTS / "paper-protocol", RESULTS / "tradeoff"
CERTIFICATES = RESULTS / "certificates"
ROBUSTNESS = RESULTS / "robustness"
SMOLLM2, SMOLLM2_IGSM = RESULTS / "smollm2-gsm", RESULTS / "smollm2-igsm"
WAYS = {
    ways.DFT: RESULTS / "smollm2-igsm-dft",
    ways.ADAPTERS: RESULTS / "smollm2-igsm-lora",
}
"""Other ways of training the best cell of `SMOLLM2_IGSM`."""
PREDICTION, FAMILIES, TINY_IGSM = (RESULTS / n for n in ("prediction", "families", "tiny-igsm"))


def picture(results: Path, figure: str, caption: str) -> str:
    """A figure of a directory of results as a Markdown image, its path relative to the project."""
    return f"![{caption}]({(results / 'figures' / f'{figure}.png').relative_to(ROOT)})"


TOLERANCES = {256: 0.15, 1024: 0.08, 4096: 0.05}
"""Amount by which a certificate may exceed 1.5 times the plain member's risk, at each n."""


def certificates() -> str:
    """Bounds of the tracked run beside the plain member's risk, and how many meet their bar."""
    table = read_parquet(CERTIFICATES / "certificates.parquet")
    rows, met, better = [], 0, []
    for cell, members in table.groupby(["difficulty", "data_size"]):
        level, size = cell  # type: ignore[misc]
        plain = float(np.mean(members["plain_risk"]))
        means = members.pivot_table(["risk_bound", "gibbs_risk"], "method").to_dict("index")
        bound = {name: risks["risk_bound"] for name, risks in means.items()}
        # The bar is for the better of the two methods that hold out half of the sample.
        held_out = min(bound["held-out"], bound["candidates"])
        bar = 1.5 * plain + TOLERANCES[size]
        met += held_out <= bar
        row = {"d": level, "n": size, "plain member": f"{plain:.3f}"}
        row |= {name: f"{bound[name]:.3f}" for name in ("test-set", "held-out", "candidates")}
        row["bar"] = f"{bar:.3f}" + ("" if held_out <= bar else " missed")
        for name in ("base", "gains", "lora"):
            row[f"{name} (own risk)"] = bound_and_risk(means[name]) if name in means else "–"
        rows.append(row)
        better += [
            f"{name} at d = {level}, n = {size}"
            for name in ("gains", "lora")
            if bound.get(name, 1.0) < bound["base"]
        ]
    return "\n".join(
        [
            markdown_table(pd.DataFrame(rows)),
            "",
            f"{met} of {len(rows)} cells meet the bar for held-out prior or candidates: 1.5 "
            f"times the plain member's risk, plus {', '.join(map(str, TOLERANCES.values()))} at "
            f"n = {', '.join(map(str, TOLERANCES))}. Means over {table['base_seed'].nunique()} "
            f"bases; {ledger_line(table)}. Posteriors trained from the base get below the bound of "
            f"the base itself here: {'; '.join(better) or 'nowhere'}.",
        ]
    )


def bound_and_risk(row: Mapping[str, float]) -> str:
    """A certificate's bound, and in brackets the measured risk of the predictor it is about."""
    return f"{row['risk_bound']:.3f} ({row['gibbs_risk']:.3f})"


def premise_verdict() -> str:
    """Counts of the comparisons in which the generalization bound is as the paper assumes."""
    table = read_parquet(CERTIFICATES / "certificates.parquet")
    complexity = read_parquet(CERTIFICATES / "complexity.parquet")
    lines = []
    for method in complexity["method"].unique():
        terms = premise.generalization_terms(table, method)
        paths = premise.nats_at_risk(complexity, method, max(complexity["data_size"]))
        bounds_grow = premise.grows_with_difficulty(premise.risk_bounds(table, method))
        lines.append(
            f"- `{method}`: the bound itself grows with difficulty in {bounds_grow} steps at equal "
            f"n; what it adds to the risk on the sample grows in "
            f"{premise.grows_with_difficulty(terms)} and shrinks with n in "
            f"{premise.shrinks_with_size(terms)} steps; at equal risk the harder level needs more "
            f"nats in {premise.harder_costs_more(paths)} pairs (or never gets to where the easier "
            f"one starts)."
        )
    return "\n".join(lines)


def igsm() -> str:
    """Comparison of our iGSM with the reference generator, in text and in speed."""
    summary = fidelity.summary(read_parquet(fidelity.RESULTS / "fidelity.parquet"))
    return f"{summary}\n\n{igsm_speed.markdown(*read_record('igsm'))}"


def tasks() -> str:
    """Table of all tasks by module: the knob and what moves with it, from docstrings; lengths."""
    modules: dict[str, dict[str, Task]] = {}
    for name in TASKS:
        task = make_task(name)
        modules.setdefault(type(task).__module__, {})[name] = task
    return markdown_table(pd.DataFrame([_family(named) for named in modules.values()]))


def _family(named: dict[str, Task]) -> dict[str, str]:
    """One row of the table of tasks: those of one module.

    Raises:
      ValueError: if the module's docstring does not name the knob and say how length moves.
    """
    module = inspect.getmodule(type(next(iter(named.values()))))
    text = inspect.getdoc(module) or ""
    paragraph = re.search(r"Knob: (.+?)(?:\n\n|$)", text, re.DOTALL)
    said = " ".join(paragraph[1].split()).rstrip(".") if paragraph else ""
    # "the number of hops. Length is fixed", or with a semicolon between the two.
    knob, *rest = re.split(r"[.;]\s+", said, maxsplit=1)
    lengths = [part for part in re.split(r"\.\s+", "".join(rest)) if "length" in part.lower()]
    if not lengths:
        raise ValueError(
            f"the docstring of {type(next(iter(named.values()))).__module__} must say "
            f"'Knob: what it is. Length …', got {text[:80]!r}"
        )
    most = [(task.max_length(1), task.max_length(task.hardest)) for task in named.values()]
    return {
        "task": ", ".join(f"`{name}`" for name in named),
        "what it is": re.split(r"\.(?:\s|$)", text, maxsplit=1)[0],
        "difficulty": knob.removeprefix("`difficulty`, "),
        "length": lengths[0][0].lower() + lengths[0][1:],
        "tokens": ", ".join(f"{low}–{high}" if low < high else f"{low}" for low, high in most),
    }


def family_verdicts() -> str:
    """Verdict on the shift in each family, with pictures; empty until they are recorded."""
    if not (FAMILIES / "families.parquet").exists():
        return ""
    judged = families.verdicts(read_parquet(FAMILIES / "families.parquet"))
    rows = families.shown(judged)
    sentences = zip(rows["family"], rows["in words"], strict=True)
    parts = [
        markdown_table(rows.drop(columns="in words")),
        "\n".join(f"- **{family}**: {sentence}" for family, sentence in sentences),
        families.pooled(judged),
        RULE,
        picture(FAMILIES, "families_optimum", "Best difficulty over data size, by family"),
        picture(FAMILIES, "families_map", "Test accuracy over data size and difficulty, by family"),
    ]
    return "\n\n".join(parts)


def smollm2(results: Path) -> str:
    """A recorded scan of a real pre-trained model: set-up, gains, verdict, figures."""
    parts = [
        real.scan(results),
        picture(results, "scan_gains", "Accuracy above the untouched base over data size"),
        picture(results, "change_by_slice", "Change of accuracy against the base by level"),
    ]
    return "\n\n".join(parts)


def tiny_igsm() -> str:
    """The recorded scan of a checkpoint that was made here: set-up, verdicts, figures."""
    table, manifest = read_table(TINY_IGSM), read_manifest(TINY_IGSM)
    config, sessions = manifest["config"], manifest["sessions"]
    # The base's accuracy on the levels that it was trained to know.
    levels = config["base"]["levels"]
    base = table.loc[(table["train_mixture"] == "none") & (table["metric"] == "risk")]
    accuracy = 1 - base.loc[base["slice"].isin(levels), "value"].mean()
    tested = [int(level) for level in manifest["levels"]["test"]]
    base_minutes, minutes = minutes_of(read_manifest(TINY_IGSM, "base.json")), minutes_of(manifest)
    setup = (
        "A byte-level BPE tokenizer and a Qwen2 of 196 thousand parameters are trained on iGSM "
        f"text (modulo {config['grader']['modulus']}); this base gets {accuracy:.0%} of op "
        f"{min(levels)} to {max(levels)} right. Members are fine-tuned on n problems of 1 to d "
        f"operations; test: op {min(tested)} to {max(tested)}, "
        f"{config['export']['test_examples']} problems each, greedy decoding, graded by the "
        f"verifier. {len(manifest['chunks'])} members from one base, {config['seeds']} seeds a "
        f"cell. Recorded in {minutes:.0f} minutes, {base_minutes:.0f} of them for the base, on "
        f"{sessions[-1]['num_devices']} cores of {sessions[-1]['device']} at commit "
        f"`{sessions[-1]['commit']}`."
    )
    parts = [
        setup,
        "\n".join([*(f"- {each}" for each in verdicts(table).values()), loss_at_the_corner(table)]),
        picture(TINY_IGSM, "map", "Test accuracy by difficulty and data size, SFT and DFT"),
        picture(TINY_IGSM, "change_by_slice", "Change of accuracy against the base by op"),
        tiny_certificates(),
    ]
    return "\n\n".join(parts)


def loss_at_the_corner(table: pd.DataFrame) -> str:
    """Compare DFT with SFT at the hardest level and the largest n, seed by seed."""
    trained = table.loc[(table["train_mixture"] != "none") & (table["status"] == "ok")]
    risks = trained.loc[trained["metric"] == "test_risk"]
    corner = risks["difficulty"].max(), risks["data_size"].max()
    own = risks.loc[(risks["difficulty"] == corner[0]) & (risks["data_size"] == corner[1])]
    by_seed = own.pivot_table("value", "seed", "loss")
    more = 100 * (by_seed["dft"] - by_seed["sft"])
    word = "lower" if more.mean() < 0 else "higher"
    same = int((np.sign(more) == np.sign(more.mean())).sum())
    return (
        f"- At the hardest level and the largest n (d = {corner[0]}, n = {corner[1]}) the test "
        f"risk of DFT is {abs(more.mean()):.1f} points {word} than that of SFT, and {word} in "
        f"{same} of {len(more)} seeds. Claim 7 says that DFT loses at large n."
    )


def tiny_certificates() -> str:
    """Bounds for a fine-tuned checkpoint of the recorded scan's base."""
    table = read_parquet(TINY_IGSM / "certificates.parquet")
    manifest = read_manifest(TINY_IGSM, "certificates.json")
    session = manifest["sessions"][-1]
    rows = []
    for level, certificates in table.groupby("difficulty"):
        by_method = certificates.set_index("method").to_dict("index")
        row = {"op": level, "measured": f"{by_method['checkpoint']['plain_risk']:.3f}"}
        for name in ("checkpoint", "held-out"):
            row[name] = f"{by_method[name]['risk_bound']:.3f}"
        for name in ("lora", "subspace"):
            row[f"{name} (own risk)"] = bound_and_risk(by_method[name])
        rows.append(row)
    (size,) = table["data_size"].unique()
    ledger = ledger_line(table)
    setup = (
        f"Certified: its base, fine-tuned on {manifest['finetune']['num_examples']:,} of these "
        f"problems, on {size} others of each level. Risk: argmax does not give the reference "
        f"solution, end marker included, which is stricter than the verifier. `checkpoint` is "
        f"the test-set bound, `held-out` PAC-Bayes-kl at a KL of zero; `lora` and `subspace` "
        f"are Gaussians around the checkpoint that the bound itself trains on these {size}. "
        f"{ledger[:1].upper()}{ledger[1:]}. Recorded in {minutes_of(manifest):.0f} "
        f"minutes on {session['device']} at commit `{session['commit']}`."
    )
    tightness = picture(TINY_IGSM, "tightness", "Bound over measured risk")
    return "\n\n".join([setup, markdown_table(pd.DataFrame(rows)), tightness])


def campaigns() -> str:
    """A table of the campaigns: ended commands, fuzzed lines, hostile files and mutants."""
    rows = []
    names = ("kills", "fuzz", "hostile", "mutants")
    tables: list[Any] = [read_parquet(ROBUSTNESS / f"{name}.parquet") for name in names]
    kills, fuzz, hostile, mutants = tables
    for sent, own in kills.groupby("signal"):
        ended = own[~own["has_ended_before"]]
        faults = ended["lost"].sum() + ended["differing"].sum() + own["differing_at_the_end"].sum()
        told = f"{len(ended)} in {ended['scenario'].nunique()} kinds of studies"
        slowest = f"{ended['seconds_to_end'].max():.1f} s at most to the end"
        rows.append((f"ended by {sent} at a random moment", told, int(faults), slowest))
    waited = fuzz.loc[~fuzz["has_begun"], "seconds"].max()
    told = f"{waited:.1f} s and {fuzz['mebibytes'].max():,} MiB at most"
    rows.append(("fuzzed command lines", f"{len(fuzz):,}", int((fuzz["fault"] != "").sum()), told))
    most = hostile[["processor_seconds", "peak_mebibytes"]].max()
    told = f"{most.iloc[0]:.1f} s of a processor and {most.iloc[1]:,.0f} MiB at most"
    faults = int((~hostile["passes"]).sum())
    rows.append(("hostile files", f"{len(hostile):,}", faults, told))
    same = mutants["outcome"] == "equivalent"
    alive = int((~mutants["killed"] & ~same).sum())
    told = f"a fault is one that lives; {same.sum()} change nothing"
    rows.append(("mutants of our code", f"{len(mutants):,}", alive, told))
    columns = ["what was tried", "how often", "faults", ""]
    return markdown_table(pd.DataFrame(dict(zip(columns, zip(*rows, strict=True), strict=True))))


@functools.cache
def ledger() -> list[Finding]:
    """Effects and verdicts of the predictions of all recorded runs."""
    return paper.ledger()


def study(run: str, *others: str) -> str:
    """Effects and verdicts of a recorded run's predictions, and whether its best difficulty moves.

    Args:
      run: its folder.
      others: names of comparisons with other runs in the ledger.
    """
    sentences = verdicts(read_table(RESULTS / run)).values()
    return "\n".join([paper.told(ledger(), run, *others), *(f"- {each}" for each in sentences)])


def claims_in_short() -> str:
    """The paper's claims with their verdicts."""
    rows = paper.in_short(ledger())
    return markdown_table(
        pd.DataFrame(rows, columns=["claim", "verdict", "controls, families", "bases"])
    )


def claims_in_full() -> str:
    """Every prediction that was written down, and what it came to."""
    rows = paper.ledger_rows(ledger())
    return markdown_table(pd.DataFrame(rows, columns=[*paper.LEDGER_COLUMNS]))


PARTS: dict[str, Callable[[], str]] = {
    "headline": lambda: headline.headline(PROTOCOL, RESULTS / "leave-out"),
    "optima": lambda: headline.optima(PROTOCOL),
    "leave-out": lambda: study("leave-out"),
    "thirds": lambda: study("thirds"),
    "losses": lambda: study("paper-protocol-dft", "paper-protocol + paper-protocol-dft"),
    "covered": lambda: paper.told(
        [each for each in ledger() if each.prediction.claim == 8], "controls-fixed-rate"
    ),
    "base-strength": lambda: paper.told(ledger(), "base-strength"),
    "settings": lambda: headline.settings(RESULTS / "settings"),
    "uniform": lambda: headline.moves(RESULTS / "settings" / "uniform.parquet"),
    "fixed-steps": lambda: headline.optima(TRADEOFF),
    "coverage": lambda: coverage.markdown(read_parquet(coverage.RESULTS / "coverage.parquet")),
    "certificates": certificates,
    "premise": premise_verdict,
    "regret": lambda: rules.trial(PREDICTION),
    "totals": lambda: totals.total_bounds(RESULTS),
    "families": family_verdicts,
    "shuffled": lambda: headline.one_cell(RESULTS / "igsm-shuffled-more"),
    "smollm2": lambda: smollm2(SMOLLM2),
    "smollm2-igsm": lambda: smollm2(SMOLLM2_IGSM),
    "smollm2-ways": lambda: ways.ways(SMOLLM2_IGSM, WAYS),
    "tiny-igsm": tiny_igsm,
    "tasks": tasks,
    "igsm": igsm,
    "performance": lambda: grid.markdown(*read_record("grid")),
    "phases": lambda: phases.markdown(*read_record("phases")),
    "growth": lambda: growth.markdown(*read_record("growth")),
    "bounds": lambda: bounds.markdown(*read_record("bounds")),
    "finetuning": lambda: finetuning.markdown(*read_record("finetuning")),
    "smollm2-speed": lambda: finetuning.markdown(*read_record(smollm2_speed.RECORD)),
    "llm": lambda: llm.markdown(*read_record("llm")),
    "generation": lambda: generation.markdown(*read_record("generation")),
    "cluster": lambda: cluster.markdown(*read_record("cluster")),
    "plan": lambda: plan.markdown(*read_record("plan")),
    "campaigns": campaigns,
    "claims": claims_in_short,
    "ledger": claims_in_full,
}
"""Every generated part by name; each has exactly one place in the documents."""
PLACE = re.compile(r"(<!-- begin:(\S+) -->\n).*?(<!-- end:\2 -->)", re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)[^)\s]+(?=\))")
"""Target of a Markdown link or picture that is a path."""


def documents() -> list[Path]:
    """Return README.md and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(texts: Mapping[Path, str]) -> dict[Path, str]:
    """Documents with every generated part made anew.

    Args:
      texts: text of each document by its path.

    Raises:
      ValueError: unless each part of `PARTS`, and nothing else, has one place in the documents.
    """
    places = [match[2] for text in texts.values() for match in PLACE.finditer(text)]
    for name in PARTS:
        if places.count(name) != 1:
            raise ValueError(
                f"the documents must have one place from begin:{name} to end:{name}, "
                f"got {places.count(name)}"
            )
    if unknown := sorted(set(places) - set(PARTS)):
        raise ValueError(f"the documents have places for {unknown}, the parts are {list(PARTS)}")
    parts = {name: make().rstrip() for name, make in PARTS.items()}

    def fill(text: str, folder: Path) -> str:
        def place(match: re.Match[str]) -> str:
            # Parts give paths relative to the project; a page of docs/ needs them from there.
            part = LINK.sub(lambda link: os.path.relpath(ROOT / link[0], folder), parts[match[2]])
            return f"{match[1]}{part}\n{match[3]}"

        return PLACE.sub(place, text)

    return {path: fill(text, path.parent) for path, text in texts.items()}


def main() -> None:
    """Rewrite the documents in place."""
    texts = {path: path.read_text(encoding="utf-8") for path in documents()}
    for path, text in filled(texts).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
