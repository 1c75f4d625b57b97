"""A mutant, and the tests that guard each module."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

GUARDS = (
    ("theory/bounds/*.py", ("test_golden", "test_bounds", "test_coverage")),
    ("theory/certificate.py", ("test_golden", "test_certificate")),
    ("theory/checks.py", ("test_divergence", "test_bounds")),
    ("theory/divergence.py", ("test_golden", "test_divergence")),
    ("theory/distributions.py", ("test_distributions",)),
    ("theory/maurer.py", ("test_golden", "test_maurer")),
    ("theory/posterior.py", ("test_posterior",)),
    ("theory/config.py", ("test_posterior",)),
    ("theory/predictor.py", ("test_predictor",)),
    ("theory/shift/*.py", ("test_shift", "test_total")),
    ("theory/total.py", ("test_total",)),
    ("theory/levels.py", ("test_predictor",)),
    ("experiments/engine/finished.py", ("test_run",)),
    ("experiments/engine/run.py", ("test_run",)),
    ("experiments/engine/session.py", ("test_run",)),
    ("experiments/engine/study.py", ("test_run",)),
    ("experiments/engine/display.py", ("test_run", "test_lines")),
    ("experiments/engine/lines.py", ("test_lines", "test_run")),
    ("experiments/engine/progress.py", ("test_progress",)),
    ("experiments/engine/forecast.py", ("test_forecast",)),
    ("experiments/engine/cost.py", ("test_cost",)),
    ("experiments/interrupts.py", ("test_interrupts",)),
    ("experiments/storage/results.py", ("test_results", "../engine/test_run")),
    ("experiments/storage/writing.py", ("test_writing", "../test_interrupts")),
    ("experiments/storage/integrity.py", ("test_integrity",)),
    ("experiments/analysis/pilot.py", ("test_recommend", "test_regret")),
    ("experiments/analysis/regret*.py", ("test_regret", "test_recommend")),
    ("experiments/analysis/studies.py", ("test_optimum", "test_diverged", "test_recommend")),
    ("experiments/analysis/optimum.py", ("test_optimum", "test_diverged", "test_recommend")),
    ("experiments/certify/points.py", ("test_points", "test_members")),
    ("experiments/certify/posteriors.py", ("test_posteriors", "test_members")),
    ("experiments/certify/members.py", ("test_members",)),
    ("experiments/certify/study.py", ("test_members",)),
    ("experiments/certify/rows.py", ("test_members",)),
    ("experiments/certify/samples.py", ("test_checkpoints",)),
    ("experiments/certify/arrange.py", ("test_checkpoints",)),
    ("experiments/certify/checkpoints.py", ("test_checkpoints",)),
    ("experiments/certify/exact_match.py", ("test_checkpoints",)),
    ("experiments/certify/config.py", ("test_members", "test_checkpoints")),
    ("experiments/certify/blocks.py", ("test_blocks",)),
    ("experiments/analysis/*.py", ("test_{stem}",)),
)
"""Modules by pattern, the first that fits, and the files of tests that guard them, quickest first.

They lie in the folder of the same name under tests/, for a bound or a map in that of `theory`.
"""


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
      module: path of the file.
      line: the first line that changes, from 1.
      function: the function or class that it is in, with dots, "" at the top; of a named mutant,
        what the fault is.
      old, new: text before and after; it stands once in the lines from `line` on that it spans.
      source: the file with the fault.
      tests: files or names of tests, the first to fail ends the run; by default those in `GUARDS`.
    """

    module: str
    line: int
    function: str
    old: str
    new: str
    source: str
    tests: tuple[str, ...] = ()

    @property
    def mutation(self) -> str:
        """One line that says what is changed, for tables; the same after lines above it moved."""
        if self.tests:
            return self.function
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.function}: {old} → {new}" if self.function else f"{old} → {new}"


def guards(module: str) -> tuple[str, ...]:
    """Files of the tests that guard a module.

    Raises:
      ValueError: if none are known.
    """
    folder, _, name = module.rpartition("/")
    folder = folder.removesuffix("/bounds").removesuffix("/shift")
    for pattern, tests in GUARDS:
        if fnmatch(module, pattern):
            stem = name.removesuffix(".py")
            return tuple(f"tests/{folder}/{test.format(stem=stem)}.py" for test in tests)
    raise ValueError(f"module must be one that tests.mutants.mutant.GUARDS names, got {module}")
