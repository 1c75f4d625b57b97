"""The faults that tests once let pass are noticed, and what makes faults makes them."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.mutants.__main__ import counts, merged
from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.generate import mutants_of
from tests.mutants.mutant import Mutant, guards
from tests.mutants.named import FAULTS, ROOT, named_mutants
from tests.mutants.run import copied, pass_in

SOURCE = '''"""Words."""

SIZE: int = 3


def pick(values: list[int], limit=0.5, *, is_strict=True) -> int | None:
    """More words."""
    if not values or limit <= -1:
        raise ValueError(f"{1 + 1} values must not be empty")
    values.sort()
    chosen = [v for v in values if 0 < v < limit * 2]
    return min(chosen) if is_strict and chosen else None
'''


def test_every_kind_of_mutant_is_made_where_it_means_something():
    made = {mutant.mutation for mutant in mutants_of("m.py", SOURCE)}
    assert made == {
        "3 → 4",
        "pick: 0.5 → 5.0",
        "pick: True → False",
        "pick: not values or limit <= -1 → (not values and limit <= -1)",
        "pick: not values → (values)",
        "pick: limit <= -1 → (limit < -1)",
        "pick: limit <= -1 → (limit > -1)",
        "pick: -1 → (1)",
        "pick: 1 → 2",
        'pick: raise ValueError(f"{1 + 1} values must not be empty") → pass',
        "pick: values.sort() → pass",
        "pick: 0 < v < limit * 2 → (0 <= v < limit * 2)",
        "pick: 0 < v < limit * 2 → (0 >= v < limit * 2)",
        "pick: 0 < v < limit * 2 → (0 < v <= limit * 2)",
        "pick: 0 < v < limit * 2 → (0 < v >= limit * 2)",
        "pick: 0 → 1",
        "pick: limit * 2 → (limit / 2)",
        "pick: 2 → 3",
        "pick: return min(chosen) if is_strict and chosen else None → return None",
        "pick: min → max",
        "pick: is_strict and chosen → (is_strict or chosen)",
    }


def test_mutants_can_be_compiled_and_differ_from_the_source():
    module = "theory/predictor.py"
    source = (ROOT / module).read_text()
    mutants = mutants_of(module, source)
    assert len(mutants) > 100
    for mutant in mutants:
        compile(mutant.source, module, "exec")
        assert mutant.source != source
        first = mutant.old.splitlines()[0]
        assert first in source.splitlines()[mutant.line - 1]


def test_named_faults_stand_in_the_code_and_their_tests_are_there():
    for mutant in named_mutants():
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text() or not name


def test_equivalent_mutants_are_still_made():
    modules = {module for module, _ in EQUIVALENT}
    made = {
        (module, mutant.mutation)
        for module in modules
        for mutant in mutants_of(module, (ROOT / module).read_text())
    }
    assert set(EQUIVALENT) <= made


def test_every_module_of_the_theory_is_guarded():
    for path in (ROOT / "theory").rglob("*.py"):
        if path.stem != "__init__":
            for test in guards(str(path.relative_to(ROOT))):
                assert (ROOT / test).is_file()
    with pytest.raises(ValueError, match="module must be one that"):
        guards("synth/task.py")


def test_a_record_keeps_what_earlier_calls_found():
    """Of a mutant that ran anew the new outcome counts, of one no longer made none."""
    module = "experiments/storage/integrity.py"
    first, second = "fingerprint: not path.is_dir() → (path.is_dir())", "set_aside: 1 → 2"
    fault = next(iter(FAULTS))

    def table(*rows: tuple[str, int, str, str]) -> pd.DataFrame:
        names = ["module", "line", "mutation", "outcome"]
        return pd.DataFrame(rows, columns=names).assign(seconds=1.0)

    earlier = table(
        (module, 15, first, "survived"),
        (module, 36, second, "killed"),
        (module, 9, "no longer: 1 → 2", "killed"),
        (FAULTS[fault][0], 5, fault, "killed"),
    )
    both = merged(table((module, 15, first, "killed")), earlier)
    assert both["outcome"].tolist() == ["killed"] * 3
    assert both["mutation"].tolist() == [first, second, fault]
    assert both["is_named"].tolist() == [False, False, True]
    found = counts(both)
    assert found[FAULTS[fault][0]] == {"named": 1}
    made = len(mutants_of(module, (ROOT / module).read_text()))
    assert found[module] == {"named": 0, "made": made, "sampled": 2, "killed": 2}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", named_mutants(), ids=list(FAULTS))
def test_named_faults_are_noticed(mutant: Mutant, tmp_path):
    """The tests pass without the fault, as `make test` sees, and fail with it."""
    with copied(tmp_path / "copy") as folder:
        (folder / mutant.module).write_text(mutant.source)
        assert pass_in(folder, mutant.tests, limit=120) is False
