"""Faults that tests once let pass, or that a mended defect could return as; each must be killed."""

from __future__ import annotations

from pathlib import Path

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]

GOLDEN, BOUNDS = "tests/theory/test_golden.py", "tests/theory/test_bounds.py"
DIVERGENCE = "tests/theory/test_divergence.py"
POSTERIORS = "tests/experiments/certify/test_posteriors.py"

RESULTS = "tests/experiments/storage/test_results.py"
ENGINE = "tests/experiments/engine/test_run.py"

FILES = """        for path, write in output.files.items():
            write(self._run.directory / path)
"""
ROWS = """        for table in reversed(part.tables):
            self._run.write_part(part.file_name(table), output.tables[table])
            path = self._run.directory / self._row_path(part, table)
            self._rows[part.name, table] = read_parquet(path)
"""

FAULTS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "the Monte Carlo estimate does not split delta over its grid": (
        "theory/certificate.py",
        "delta=estimate.each)",
        "delta=estimate.delta)",
        (f"{GOLDEN}::test_certificates_split_delta_over_cells_steps_and_grids",),
    ),
    "the bound does not split delta over its grid": (
        "theory/certificate.py",
        "delta=theorem.each)",
        "delta=theorem.delta)",
        (f"{GOLDEN}::test_certificates_split_delta_over_cells_steps_and_grids",),
    ),
    "closed forms are not rounded up": (
        "theory/bounds/arguments.py",
        "bound * (1 + 16 * np.finfo(np.float64).eps)",
        "bound",
        (f"{GOLDEN}::test_closed_forms_are_rounded_up",),
    ),
    "the number of subsets is not rounded up": (
        "theory/bounds/compression.py",
        "subsets + 8 * np.finfo(np.float64).eps * all_orders",
        "subsets",
        (f"{GOLDEN}::test_the_number_of_subsets_is_rounded_up",),
    ),
    "a KL may be slightly negative": (
        "theory/bounds/arguments.py",
        'known_range("kl", kl, 0, np.inf)',
        'known_range("kl", kl, -1e-6, np.inf)',
        (f"{BOUNDS}::test_bad_arguments_are_named",),
    ),
    "nats are not raised above the level of underflow": (
        "theory/divergence.py",
        "_raised(c, float(limits.tiny / limits.eps**2))",
        "c",
        (f"{GOLDEN}::test_nats_near_the_smallest_numbers_are_rounded_outward",),
    ),
    "a subnormal known argument is taken for 0": (
        "theory/divergence.py",
        "inner = _raised(known, float(jnp.finfo(c.dtype).tiny))",
        "inner = known",
        (f"{DIVERGENCE}::test_subnormal_numbers_are_rounded_outward",),
    ),
    "no margin on the nats": (
        "theory/divergence.py",
        "* (1 + MARGIN * limits.eps)",
        "",
        (f"{DIVERGENCE}::test_inverses_are_never_on_the_wrong_side_and_tight",),
    ),
    "slopes at small nats come from the difference of two floats": (
        "theory/divergence.py",
        "is_near = usable & (",
        "is_near = ~usable & (",
        (f"{DIVERGENCE}::test_slopes_keep_their_digits_at_small_nats",),
    ),
    "SciPy's inverse is trusted at every delta": (
        "theory/bounds/clopper_pearson.py",
        "SMALLEST_DELTA = 1e-200",
        "SMALLEST_DELTA = 0.0",
        (f"{GOLDEN}::test_clopper_pearson",),
    ),
    "counts stay integers, and twice a large one wraps round": (
        "theory/bounds/arguments.py",
        "check_count(name, values, lowest).astype(np.float64)",
        "check_count(name, values, lowest)",
        (f"{BOUNDS}::test_the_largest_numbers_of_examples",),
    ),
    "masked arrays pass": (
        "theory/checks.py",
        "isinstance(values, np.ma.MaskedArray)",
        "False",
        (f"{BOUNDS}::test_bad_arguments_are_named",),
    ),
    "the prior guess of the predictor weighs ten times as much": (
        "theory/predictor.py",
        "PRIOR_WEIGHT = 0.03",
        "PRIOR_WEIGHT = 0.3",
        (
            "tests/theory/test_predictor.py"
            "::test_the_prior_weighs_as_much_as_two_sizes_between_which_the_gap_changes_by_a_quarter",
        ),
    ),
    "the weights of candidates cost nothing": (
        "experiments/certify/points.py",
        "kl=weights.kl",
        "kl=0.0",
        ("tests/experiments/certify/test_points.py",),
    ),
    "a member's draws share the key of its training": (
        "experiments/certify/posteriors.py",
        "errors(posterior, sample, keys[1], number, num_draws)",
        "errors(posterior, sample, keys[0], number, num_draws)",
        (POSTERIORS,),
    ),
    "a checkpoint's draws share the key of its training": (
        "experiments/certify/posteriors.py",
        "errors(posterior, sample, key_errors, num_examples",
        "errors(posterior, sample, key_fit, num_examples",
        (POSTERIORS,),
    ),
    "hidden files make a directory foreign": (
        "experiments/storage/results.py",
        "foreign = {name for name in visible if",
        "foreign = {name for name in entries if",
        (f"{RESULTS}::test_hidden_files_of_others_are_no_obstacle",),
    ),
    "the rows of a part are written before its files": (
        "experiments/engine/finished.py",
        FILES + ROWS,
        ROWS + FILES,
        (f"{ENGINE}::test_a_part_whose_file_cannot_be_written_is_not_finished",),
    ),
    "the tables are written once more when nothing is left": (
        "experiments/engine/finished.py",
        "if part.tables and self._study.shows_progress and not self.has_all():",
        "if part.tables and self._study.shows_progress:",
        (f"{ENGINE}::test_each_part_writes_the_tables_once",),
    ),
    "all bases are trained again when one is lost": (
        "experiments/sweep/study.py",
        "for path, seed in self._bases.items() if not self.has_file(path)}",
        "for path, seed in self._bases.items()}",
        ("tests/experiments/sweep/test_study.py::test_only_a_lost_base_is_trained_again",),
    ),
    "the figure of certified gaps draws the looser bound": (
        "experiments/figures/certified_gaps.py",
        '"risk_bound", "test_bound_unconditional"',
        '"risk_bound", "test_bound_monotone"',
        (
            "tests/experiments/figures/test_certificate_figures.py"
            "::test_pieces_add_up_at_the_level_they_are_drawn_over",
        ),
    ),
}
"""By what the fault is: module, text before and after, and the tests that notice it."""


def named_mutants() -> list[Mutant]:
    """All named mutants.

    Raises:
      ValueError: if the text of one does not stand exactly once in its module.
    """
    mutants = []
    for name, (module, old, new, tests) in FAULTS.items():
        source = (ROOT / module).read_text()
        if source.count(old) != 1:
            raise ValueError(
                f"{old!r} must stand once in {module} for the mutant {name!r}, "
                f"got {source.count(old)} times"
            )
        line = source[: source.index(old)].count("\n") + 1
        mutants.append(Mutant(module, line, name, old, new, source.replace(old, new), tests))
    return mutants
