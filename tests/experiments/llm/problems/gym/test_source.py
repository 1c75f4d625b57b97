"""What names a task of reasoning-gym: knobs, levels, sizes and seeds, and what is refused."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from experiments.llm.problems.gym.library import library
from experiments.llm.problems.gym.source import Draws, parse
from experiments.llm.problems.sources import load_rows

pytest.importorskip("reasoning_gym", reason="reasoning-gym is no part of the default tests")
# A package that it needs takes a C compiler, so that it is installed for slow tests alone.
pytestmark = pytest.mark.slow


def configurations(source: str) -> dict[int | None, Any]:
    """The library's configuration of each level."""
    return {number: draws.dataset().config for number, draws in parse(source).levels()}


def test_a_source_names_task_knobs_size_and_seed():
    draws = parse("reasoning-gym:chain_sum?num_terms=2..4&size=20&seed=7&max_digits=2")
    assert draws == Draws(
        "chain_sum", (("max_digits", "2"),), "num_terms", ("2", "3", "4"), size=20, seed=7
    )
    assert parse("reasoning-gym:gsm_symbolic") == Draws("gsm_symbolic", size=500, seed=0)
    # The name of one level names it again.
    for _, level in draws.levels():
        ((_, again),) = parse(level.name()).levels()
        assert dict(again.fixed) == dict(level.fixed)
        assert again.name() == level.name()
        assert again.dataset().config == level.dataset().config


def test_a_pair_is_set_by_its_stem_or_by_the_name_in_the_curriculum():
    for knob in ("terms", "num_terms"):
        found = configurations(f"reasoning-gym:chain_sum?{knob}=2,5&digits=3")
        assert list(found) == [2, 5]
        for value, config in found.items():
            assert (config.min_terms, config.max_terms) == (value, value)
            assert (config.min_digits, config.max_digits) == (3, 3)
    (config,) = configurations("reasoning-gym:chain_sum?min_terms=3&max_terms=9").values()
    assert (config.min_terms, config.max_terms, config.min_digits) == (3, 9, 1)


def test_values_that_are_not_whole_numbers_are_levels_by_their_rank():
    found = configurations("reasoning-gym:word_sorting?transformation=original,uppercase&words=3")
    assert [(number, config.transformation.value) for number, config in found.items()] == [
        (1, "original"),
        (2, "uppercase"),
    ]
    found = configurations("reasoning-gym:binary_matrix?p_zero=0.5,0.1")
    assert [(number, config.p_zero) for number, config in found.items()] == [(1, 0.5), (2, 0.1)]


def test_a_list_is_one_value_and_no_levels():
    found = configurations("reasoning-gym:basic_arithmetic?operators=+,-&allow_parentheses=false")
    assert list(found) == [None]
    assert found[None].operators == ["+", "-"]
    assert found[None].allow_parentheses is False


def test_a_level_is_set_as_the_curriculum_sets_it():
    curriculum = library().factory.create_curriculum("chain_sum")
    found = configurations("reasoning-gym:chain_sum?level=0..3&size=10&max_digits=2")
    assert list(found) == [0, 1, 2, 3]
    for level, config in found.items():
        curriculum.set_global_level(level)
        theirs = curriculum.generate_configuration({"max_digits": 2})
        assert (config.min_terms, config.max_terms) == (theirs.min_terms, theirs.max_terms)
        # A knob that is set goes before the curriculum.
        assert config.max_digits == 2
    # One level is a level, too.
    assert list(configurations("reasoning-gym:chain_sum?level=3")) == [3]


def test_seeds_and_levels_draw_other_problems_and_a_larger_size_the_same():
    def questions(source: str) -> list[set[str]]:
        levels = [draws.dataset() for _, draws in parse(source).levels()]
        return [{entry["question"] for entry in dataset} for dataset in levels]

    chains = "reasoning-gym:chain_sum?terms=5,6&digits=4"
    streams = [*questions(f"{chains}&size=200&seed=7"), *questions(f"{chains}&size=200&seed=8")]
    assert len(set.union(*streams)) == 800
    # The library itself shares all but one problem between neighbours.
    theirs = [library().create_dataset("chain_sum", seed=seed, size=200) for seed in (7, 8)]
    assert len({entry["question"] for dataset in theirs for entry in dataset}) < 250
    # A recorded study draws its problems again: they must not change.
    first = parse(f"{chains}&size=200&seed=7").levels()[0][1].dataset()[0]
    assert first["question"].endswith("problem: 7339 - 5886 + 5097 - 2328 + 8013 =")
    small, large = (questions(f"{chains}&size={size}&seed=7") for size in (10, 20))
    assert all(few < many for few, many in zip(small, large, strict=True))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("chain_sm", "NAME, a task of it, got 'chain_sm'; did you mean 'chain_sum'?"),
        ("", "source must be reasoning-gym:NAME, a task of it, got ''"),
        (
            "chain_sum?trms=3",
            "reasoning-gym's chain_sum must be given knobs among allow_negation, digits, level, "
            "max_digits, max_terms, min_digits, min_terms, num_digits, num_terms, terms, or size "
            "and seed, got 'trms'; did you mean 'terms'?",
        ),
        ("gsm_symbolic?level=1", "must be given knobs among difficulty, or size and seed, got"),
        ("chain_sum?terms=2&max_terms=9", "set max_terms once, got it from ['terms', 'max_terms']"),
        ("chain_sum?terms=2,3&digits=1..2", "one knob with several values, got ['digits', 'terms"),
        ("chain_sum?terms=two", "terms must be a whole number, got 'two'"),
        ("chain_sum?terms=2,3.5", "terms must be a whole number, got '3.5'"),
        ("chain_sum?terms=6..2", "terms must rise, as in 2..6, got '6..2'"),
        ("chain_sum?terms=3,03", "terms must have different values, got '3,03'"),
        ("chain_sum?terms=2&terms=3", "source must state 'terms' once"),
        ("chain_sum?terms", "source must be reasoning-gym:NAME?KNOB=VALUE&KNOB=FROM..TO&size=500"),
        ("chain_sum?allow_negation=1", "allow_negation must be one of ['true', 'false'], got '1'"),
        ("basic_arithmetic?whitespace=double", "['no_space', 'single', 'random'], got 'double'"),
        ("rearc?board_format_opts=1", "board_format_opts cannot be set in a source"),
        ("chain_sum?size=0", "size must be at least 1, got 0"),
        ("chain_sum?size=1e3", "size must be a whole number, got '1e3'"),
        ("chain_sum?terms=2..3&size=600000", "at most 1,000,000 problems, got 2 x 600000"),
        ("chain_sum?seed=-1", "seed must be at least 0, got -1"),
        ("chain_sum?terms=0..2", "chain_sum refuses terms=0: min_terms must be positive"),
        ("chain_sum?level=11", "level of reasoning-gym's chain_sum must be 0 to 10, got 11"),
        ("composite", "composite refuses its defaults: Must specify at least one dataset"),
    ],
)
def test_what_names_no_problems_is_refused_in_one_line(query, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_rows(f"reasoning-gym:{query}")
    assert "\n" not in str(caught.value)


def test_split_and_configuration_are_for_other_sources():
    with pytest.raises(ValueError, match="split is for files and hub repositories, got 'train'"):
        load_rows("reasoning-gym:chain_sum", split="train")
    with pytest.raises(ValueError, match="configuration is for files and hub repositories"):
        load_rows("reasoning-gym:chain_sum", configuration="base")


def test_the_library_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=re.escape("need: pip install 'sweetspot-sft[gym]'")):
        load_rows("reasoning-gym:chain_sum")


@pytest.mark.filterwarnings(
    # Of files that the library's tasks leave open.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_every_curriculum_has_levels_that_its_task_accepts():
    factory, refused = library().factory, set()
    for task in sorted(factory.CURRICULA):
        levels = parse(f"reasoning-gym:{task}?level=0..1&size=3").levels()
        assert [number for number, _ in levels] == [0, 1]
        for _, level in levels:
            try:
                level.dataset()
            except ValueError:
                refused.add(task)
    assert refused <= {"knight_swap", "modulo_grid"}
