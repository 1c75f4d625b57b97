"""Fill the generated parts of README.md from recorded results: no number in it is typed by hand.

A part stands between ``<!-- begin:NAME -->`` and ``<!-- end:NAME -->``. Run
``python -m experiments.pages.readme`` after a run or a benchmark has been recorded.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis import families, optimum, premise
from experiments.analysis.average import average_regret
from experiments.analysis.optimum import Interval
from experiments.benchmarks import RESULTS, bounds, generation, grid, llm, read_record
from experiments.benchmarks import igsm as igsm_speed
from experiments.figures.style import ledger_line
from experiments.igsm import fidelity
from experiments.pages.report import verdict
from experiments.storage.results import read_manifest, read_parquet, read_table
from synth.task import Task
from synth.tasks import TASKS, make_task

ROOT = Path(__file__).parents[2]
TRADEOFF = ROOT / "experiments" / "results" / "tradeoff"
PREDICTION = ROOT / "experiments" / "results" / "prediction"
CERTIFICATES = ROOT / "experiments" / "results" / "certificates"
FAMILIES = ROOT / "experiments" / "results" / "families"
TINY_IGSM = ROOT / "experiments" / "results" / "tiny-igsm"


def markdown_table(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table, every value as text."""
    rows = [[str(name) for name in frame.columns], ["---"] * len(frame.columns)]
    rows += [[str(value) for value in row] for row in frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def optima(table: pd.DataFrame) -> list[str]:
    """For each study of a table, what can be said and the best difficulty for each data size."""
    parts, rows = [], optimum.headline(table)
    for study in optimum.studies(table):
        chosen = rows.loc[rows["study"] == study.title].drop(columns="study")
        said = verdict(optimum.shift(table, study))
        parts.append(f"**{study.title[:1].upper()}{study.title[1:]}.** {said}\n")
        named = chosen.rename(columns=lambda name: name.replace("_", " "))
        parts.append(markdown_table(named) + "\n")
    return parts


def shifts(table: pd.DataFrame) -> list[str]:
    """For each study what can be said, in a line."""
    return [
        f"- **{study.title[:1].upper()}{study.title[1:]}.** {verdict(optimum.shift(table, study))}"
        for study in optimum.studies(table)
    ]


def headline() -> str:
    """The best difficulty for each data size in the tracked run, and what can be said of it."""
    table, manifest = read_table(TRADEOFF), read_manifest(TRADEOFF)
    parts = optima(table)
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


TOLERANCES = {256: 0.15, 1024: 0.08, 4096: 0.05}
"""What a certificate may exceed 1.5 times the plain member's risk by, at each n."""


def certificates() -> str:
    """Bounds of the tracked run beside the plain member's risk, and how many meet their bar."""
    table = read_parquet(CERTIFICATES / "certificates.parquet")
    rows, met, better = [], 0, []
    for cell, members in table.groupby(["difficulty", "data_size"]):
        level, size = cell  # type: ignore[misc]
        plain = float(np.mean(members["plain_risk"]))
        means = members.pivot_table(["risk_bound", "gibbs_risk"], "method").to_dict("index")
        bound = {name: risks["risk_bound"] for name, risks in means.items()}
        held_out = min(bound["held-out"], bound["candidates"])
        bar = 1.5 * plain + TOLERANCES[size]
        met += held_out <= bar
        row = {"d": level, "n": size, "plain member": f"{plain:.3f}"}
        row |= {name: f"{bound[name]:.3f}" for name in ("test-set", "held-out", "candidates")}
        row["bar"] = f"{bar:.3f}" + ("" if held_out <= bar else " missed")
        for name in ("base", "gains", "lora"):
            found = means.get(name)
            row[f"{name} (own risk)"] = (
                f"{found['risk_bound']:.3f} ({found['gibbs_risk']:.3f})" if found else "–"
            )
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


def premise_verdict() -> str:
    """Whether the generalization bound moves with difficulty and n as the paper assumes."""
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


def regret() -> str:
    """Mean regret of every rule on held-out data sizes, and where it comes from."""
    regrets = read_parquet(PREDICTION / "regret.parquet")
    rows = [
        {
            "rule": f"**{row['rule']}** (the predictor)"
            if row["kind"] == "predictor"
            else row["rule"],
            "regret": Interval(row["regret"], row["low"], row["high"]),
            "minus the predictor's": Interval(row["more"], row["more_low"], row["more_high"]),
            "rank correlation": f"{row['rank_correlation']:.2f}",
        }
        for row in average_regret(regrets).to_dict("records")
    ]
    shown = ["bound", "best in pilot", "curve"]
    by_run = regrets.pivot_table("regret", ["run", "study"], "rule", sort=False).loc[:, shown]
    by_run = by_run.map("{:.4f}".format).reset_index()
    bases = regrets.groupby("run")["base"].nunique()
    by_run.insert(2, "bases", by_run["run"].map(bases))
    return (
        f"{markdown_table(pd.DataFrame(rows))}\n\nMeans over bases and data sizes, 90% intervals "
        f"over bases; {regrets['factor'].min():g} to {regrets['factor'].max():g} times beyond the "
        f"pilot. By run (`modulus-7`, another number range, was run after the predictor was fixed):"
        f"\n\n{markdown_table(by_run)}"
    )


def igsm() -> str:
    """How near our iGSM is to the reference generator, and how fast, where that was recorded."""
    parts = [fidelity.summary(read_parquet(fidelity.RESULTS / "fidelity.parquet"))]
    if (RESULTS / "igsm.json").exists():
        parts.append(igsm_speed.markdown(*read_record("igsm")))
    return "\n\n".join(parts)


def tasks() -> str:
    """Every task by module: its knob and what moves with it, as its docstring says, and lengths."""
    modules: dict[str, dict[str, Task]] = {}
    for name in TASKS:
        task = make_task(name)
        modules.setdefault(type(task).__module__, {})[name] = task
    return markdown_table(pd.DataFrame([_family(named) for named in modules.values()]))


def _family(named: dict[str, Task]) -> dict[str, str]:
    """One row of the table of tasks: those of one module.

    Raises:
      ValueError: if the module's docstring does not say what the knob is, and of the length.
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
    """Whether the shift holds in each family, with pictures; nothing until that is recorded."""
    if not (FAMILIES / "families.parquet").exists():
        return ""
    found = families.shown(families.verdicts(read_parquet(FAMILIES / "families.parquet")))
    said = [
        f"- **{family}**: {sentence}"
        for family, sentence in zip(found["family"], found["in words"], strict=True)
    ]
    pictures = FAMILIES.relative_to(ROOT) / "figures"
    parts = [
        "## In other task families",
        "The same question in each family, on its own grid of difficulties and with bases that "
        "know its easy levels alone (`experiments/recipes/families.py`):",
        markdown_table(found.drop(columns="in words")),
        "\n".join(said),
        families.RULE,
        f"![Best difficulty over data size, by family]({pictures / 'families_optimum.png'})",
        f"![Test accuracy over data size and difficulty, by family]"
        f"({pictures / 'families_map.png'})",
    ]
    return "\n\n".join(parts)


def tiny_igsm() -> str:
    """The recorded scan of a checkpoint that was made here; nothing until it is recorded."""
    if not (TINY_IGSM / "table.parquet").exists():
        return ""
    table, manifest = read_table(TINY_IGSM), read_manifest(TINY_IGSM)
    config, sessions = manifest["config"], manifest["sessions"]
    levels = config["base"]["levels"]
    base = table.loc[(table["train_mixture"] == "none") & (table["metric"] == "risk")]
    own = base.loc[base["slice"].isin(levels), "value"].mean()
    hardest = manifest["levels"]["test"]
    base_minutes = json.loads((TINY_IGSM / "base.json").read_text())["wall_time_seconds"] / 60
    minutes = sum(session["wall_time_seconds"] for session in sessions) / 60
    pictures = TINY_IGSM.relative_to(ROOT) / "figures"
    return "\n".join(
        [
            "**`tiny-igsm`**, the whole path on two CPU cores from nothing: a byte-level BPE "
            "tokenizer and a Qwen2 of 196 thousand parameters are trained on iGSM text (modulo "
            f"{config['grader']['modulus']}); this base gets {1 - own:.0%} of op {min(levels)} to "
            f"{max(levels)} right. Members are fine-tuned on n problems of 1 to d operations; "
            f"test: op {min(map(int, hardest))} to {max(map(int, hardest))}, "
            f"{config['export']['test_examples']} problems each, greedy decoding, graded by the "
            f"verifier. {len(manifest['chunks'])} members from one base, {config['seeds']} seeds a "
            f"cell. Recorded in {minutes:.0f} minutes, {base_minutes:.0f} of them for the base, on "
            f"{sessions[-1]['num_devices']} cores of {sessions[-1]['device']} at commit "
            f"`{sessions[-1]['commit']}`.",
            "",
            *shifts(table),
            "",
            f"![Test accuracy by difficulty and data size, SFT and DFT]({pictures / 'map.png'})",
            "",
            f"![Change of accuracy against the base by op]({pictures / 'change_by_slice.png'})",
            "",
            tiny_certificates(),
        ]
    )


def tiny_certificates() -> str:
    """Bounds for a fine-tuned checkpoint of the recorded scan's base."""
    table = read_parquet(TINY_IGSM / "certificates.parquet")
    run = json.loads((TINY_IGSM / "certificates.json").read_text())
    rows = []
    for level, of_level in table.groupby("difficulty"):
        found = of_level.set_index("method").to_dict("index")
        row = {"op": level, "measured": f"{found['checkpoint']['plain_risk']:.3f}"}
        row |= {name: f"{found[name]['risk_bound']:.3f}" for name in ("checkpoint", "held-out")}
        for name in ("lora", "subspace"):
            bound, own = found[name]["risk_bound"], found[name]["gibbs_risk"]
            row[f"{name} (own risk)"] = f"{bound:.3f} ({own:.3f})"
        rows.append(row)
    (size,) = table["data_size"].unique()
    line = ledger_line(table)
    return "\n".join(
        [
            f"Certified: its base, fine-tuned on {run['finetune']['num_examples']:,} of these "
            f"problems, on {size} others of each level. Risk: argmax does not give the reference "
            f"solution, end marker included, which is stricter than the verifier. `checkpoint` is "
            f"the test-set bound, `held-out` PAC-Bayes-kl at a KL of zero; `lora` and `subspace` "
            f"are Gaussians around the checkpoint that the bound itself trains on these {size}. "
            f"{line[:1].upper()}{line[1:]}. Recorded in {run['wall_time_seconds'] / 60:.0f} "
            f"minutes on {run['device']} at commit `{run['commit']}`.",
            "",
            markdown_table(pd.DataFrame(rows)),
            "",
            f"![Bound over measured risk]({TINY_IGSM.relative_to(ROOT) / 'figures/tightness.png'})",
        ]
    )


PARTS: dict[str, Callable[[], str]] = {
    "headline": headline,
    "certificates": certificates,
    "premise": premise_verdict,
    "regret": regret,
    "families": family_verdicts,
    "tiny-igsm": tiny_igsm,
    "tasks": tasks,
    "igsm": igsm,
    "performance": lambda: grid.markdown(*read_record("grid")),
    "bounds": lambda: bounds.markdown(*read_record("bounds")),
    "llm": lambda: llm.markdown(*read_record("llm")) if (RESULTS / "llm.json").exists() else "",
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
