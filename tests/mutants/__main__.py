"""Command: ``python -m tests.mutants [--module GLOB …] [--sample N] [--jobs N] [--record]``."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from experiments.storage import provenance
from experiments.storage.results import read_parquet, write_record
from tests.mutants.generate import mutants_of
from tests.mutants.mutant import GUARDS, Mutant
from tests.mutants.named import FAULTS, named_mutants
from tests.mutants.run import ROOT, Result, Runner

RECORD = ROOT / "experiments" / "results" / "robustness"


def modules(patterns: list[str]) -> list[str]:
    """Guarded modules that fit a pattern."""
    found = (
        str(path.relative_to(ROOT))
        for folder in ("theory", "experiments")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.stem != "__init__"
    )
    guarded = [name for name in found if any(fnmatch(name, pattern) for pattern, _ in GUARDS)]
    return [name for name in guarded if any(fnmatch(name, pattern) for pattern in patterns)]


def chosen(arguments: argparse.Namespace) -> list[Mutant]:
    """The named mutants and a sample of those of the modules, equal for equal seeds."""
    mutants = [] if arguments.only_generated else named_mutants()
    mutants = [
        each
        for each in mutants
        if not arguments.module or any(fnmatch(each.module, own) for own in arguments.module)
    ]
    generated, found = [], 0
    for module in modules(arguments.module or ["*"]):
        made = mutants_of(module, (ROOT / module).read_text())
        found += len(made)
        generated += sampled(made, arguments.each, arguments.seed) if arguments.each else made
    if not arguments.each:
        generated = sampled(generated, arguments.sample, arguments.seed)
    print(f"{len(mutants)} named mutants, {len(generated)} of {found} generated ones")
    return mutants + generated


def sampled(mutants: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """Some of the mutants in their order, or all if there are no more than `number`."""
    number = min(number, len(mutants))
    places = random.Random(seed).sample(range(len(mutants)), number)
    return [mutants[place] for place in sorted(places)]


def merged(new: pd.DataFrame, earlier: pd.DataFrame) -> pd.DataFrame:
    """Outcomes with those of earlier calls, of mutants that are still made and did not run anew.

    Args:
      new, earlier: one row per mutant, with the columns of `Result` at least.
    """
    earlier = earlier.reindex(columns=new.columns)
    again = set(zip(new["module"], new["mutation"], strict=True))
    made = {(mutant.module, mutant.mutation) for mutant in named_mutants()}
    for module in set(earlier["module"]) & set(modules(["*"])):
        source = (ROOT / module).read_text()
        made |= {(module, mutant.mutation) for mutant in mutants_of(module, source)}
    pairs = zip(earlier["module"], earlier["mutation"], strict=True)
    kept = earlier[[pair in made - again for pair in pairs]]
    table = pd.concat([kept, new]) if len(kept) else new
    table = table.assign(is_named=[mutation in FAULTS for mutation in table["mutation"]])
    return table.sort_values(["module", "line", "mutation"], ignore_index=True)


def counts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """For each module how many mutants can be made, how many of them ran, and what became of them.

    Named mutants are counted apart, under "named".
    """
    rows = table.to_dict("records")
    result: dict[str, dict[str, int]] = {}
    for module in sorted({row["module"] for row in rows}):
        own = [row for row in rows if row["module"] == module]
        outcomes = Counter(row["outcome"] for row in own if not row["is_named"])
        result[module] = {"named": sum(row["is_named"] for row in own)}
        if outcomes:
            made = len(mutants_of(module, (ROOT / module).read_text()))
            result[module] |= {"made": made, "sampled": outcomes.total(), **outcomes}
    return result


def record(results: list[Result], arguments: argparse.Namespace) -> list[Path]:
    """Write the table and what ran into experiments/results/robustness, merged with what is there.

    The outcomes of earlier calls stay for mutants that this call does not run.
    """
    table = pd.DataFrame([asdict(result) | {"killed": result.killed} for result in results])
    path = RECORD / "mutants.parquet"
    table = merged(table, read_parquet(path) if path.exists() else table.iloc[:0])
    rows = table.to_dict("records")
    settings = {
        "command": "python -m tests.mutants",
        "seed": arguments.seed,
        "modules": counts(table),
        "outcomes": dict(Counter(row["outcome"] for row in rows)),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "device": provenance.device_name(),
        "versions": provenance.versions(("jax", "numpy", "scipy", "pytest")),
        "commit": provenance.commit(),
    }
    RECORD.mkdir(parents=True, exist_ok=True)
    return write_record(RECORD, "mutants", table, settings)


def main() -> int:
    """Run mutants; exit with 1 if one lives that is not listed as equivalent."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--module", action="append", default=[], help="glob of paths; repeatable")
    parser.add_argument("--sample", type=int, default=0, help="generated mutants to run")
    parser.add_argument("--each", type=int, default=0, help="instead: to run of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at once")
    parser.add_argument("--only-generated", action="store_true", help="leave out the named ones")
    parser.add_argument("--fresh", action="store_true", help="forget the outcomes of earlier calls")
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    parser.add_argument("--record", action="store_true", help=f"write a table into {RECORD.name}/")
    arguments = parser.parse_args()
    mutants = chosen(arguments)
    if arguments.list:
        for mutant in mutants:
            print(f"{mutant.module}:{mutant.line}: {mutant.mutation}")
        return 0
    results = []
    for result in Runner(jobs=arguments.jobs, is_fresh=arguments.fresh).run(mutants):
        results.append(result)
        told = f"{result.outcome:10} {result.seconds:5.1f} s  {result.module}:{result.line}"
        print(f"{told}: {result.mutation}", flush=True)
    alive = [result for result in results if result.outcome == "survived"]
    print(f"{sum(result.killed for result in results)} killed, {len(alive)} alive")
    if arguments.record:
        print(*record(results, arguments), sep="\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
