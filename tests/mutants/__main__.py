"""Command: ``python -m tests.mutants [--module GLOB …] [--sample N] [--jobs N] [--record]``."""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from tests.mutants.generate import mutants_of
from tests.mutants.mutant import GUARDS, Mutant
from tests.mutants.named import named_mutants
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
    generated = [
        mutant
        for module in modules(arguments.module or ["*"])
        for mutant in mutants_of(module, (ROOT / module).read_text())
    ]
    number = min(arguments.sample, len(generated))
    sample = random.Random(arguments.seed).sample(range(len(generated)), number)
    print(f"{len(mutants)} named mutants, {number} of {len(generated)} generated ones")
    return mutants + [generated[place] for place in sorted(sample)]


def record(results: list[Result], arguments: argparse.Namespace) -> list[Path]:
    """Write the table and what ran into experiments/results/robustness."""
    import pandas as pd

    from experiments.storage import provenance
    from experiments.storage.results import write_record

    table = pd.DataFrame([asdict(result) | {"killed": result.killed} for result in results])
    settings = {
        "command": "python -m tests.mutants",
        "seed": arguments.seed,
        "sample": arguments.sample,
        "modules": arguments.module or ["*"],
        "outcomes": table["outcome"].value_counts().to_dict(),
        "seconds": round(float(table["seconds"].sum()), 1),
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
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
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
