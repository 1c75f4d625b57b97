"""The iGSM generator: structure, op counts, values, text, splits and the closed vocabulary.

Solutions are judged by `verify`, which has its own tests against the reference's problems.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import string
from random import Random

import jax
import numpy as np
import pytest

from synth.task import Mixture, pool
from synth.tasks.igsm import CATEGORIES, PRESETS, Preset, problems, verify
from synth.tasks.igsm.draw import draw, draw_num_ops
from synth.tasks.igsm.graph import Settings
from synth.tasks.igsm.layers import worlds
from synth.tasks.igsm.names import CHAINS, draw_names
from synth.tasks.igsm.needed import choose, order_backward
from synth.tasks.igsm.parse import read_problem
from synth.tasks.igsm.problems import BINS, NUM_BINS
from synth.tasks.igsm.structure import Sizes, draw_structure, is_hopeless
from synth.tasks.igsm.task import IGSM
from synth.tasks.igsm.text import Detail, OutOfSymbolsError, Wording
from synth.tasks.igsm.tokens import LENGTHS
from synth.tasks.igsm.work import canonical_order, dependencies, work

SETTINGS = {
    "paper": Settings(),
    "light": Settings("light", max_op=15, max_edge=20),
    "small": Settings(modulus=5, max_edge=9, shuffle=6),
    "jittered": Settings(shuffle=2),
}


def drawn_problems(settings: Settings, number: int = 40, most: int = 14):
    """Problems at op counts 1 .. most in turn."""
    for index in range(number):
        num_ops = 1 + index % most
        yield num_ops, draw(settings, num_ops, Random(index))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_op_count_and_order_of_computation(settings):
    for num_ops, drawn in drawn_problems(settings, 150):
        known: set[int] = set()
        cost = 0
        for parameter in drawn.order:
            needed = dependencies(drawn, parameter)
            assert set(needed) <= known
            assert len(set(needed)) == len(needed)
            known.add(parameter)
            inputs = len(needed)
            if not drawn.structure.is_abstract(parameter):
                inputs += drawn.rules[parameter].constant is not None
                assert 1 <= inputs <= 4
            cost += max(inputs - 1, 1)
        assert cost == num_ops
        # Each parameter in the order is needed by a later one, except the question.
        used = {each for parameter in drawn.order for each in dependencies(drawn, parameter)}
        assert used == set(drawn.order[:-1])


@pytest.mark.parametrize(("preset", "num_ops"), [("paper", 20), ("hard", 21), ("paper", 30)])
def test_what_two_parts_share_is_counted_once(preset, num_ops):
    # Only in hard problems do two inputs of an abstract parameter share an input.
    for index in range(100):
        drawn = draw(PRESETS[preset].settings, num_ops, Random(index))
        steps = [max(len(work(drawn, parameter).steps), 1) for parameter in drawn.order]
        assert sum(steps) == num_ops


@pytest.mark.parametrize(("depth", "width", "least"), [(3, 2, 18), (3, 3, 45), (4, 2, 36)])
def test_sizes_that_are_skipped_have_no_order(depth, width, least):
    shape = {"depth": depth, "narrow": width, "wide": width, "growth": 0.5}
    shape["edges"] = edges = (depth - 1) * width**2
    for ops, hopeless in ((least - 1, False), (least, True), (least + 2, True)):
        sizes = Sizes(abstract_ops=ops, least_ops=ops, ops=ops, **shape)
        assert is_hopeless(sizes) is hopeless
    assert not is_hopeless(dataclasses.replace(sizes, edges=edges - 1))
    assert not is_hopeless(dataclasses.replace(sizes, wide=width + 1))
    rng = Random(0)
    for _ in range(50):
        structure = draw_structure(sizes, rng)
        chosen, _ = choose(structure, sizes, rng)
        assert order_backward(structure, chosen, rng) is None


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_structure_graph(settings):
    for num_ops, drawn in drawn_problems(settings):
        structure = drawn.structure
        assert 2 <= structure.depth <= 4
        assert all(2 <= width <= 4 for width in structure.widths)
        most = max(settings.edges(num_ops), 4 * (structure.depth - 1))
        assert sum(structure.widths[1:]) <= len(structure.edges) <= most
        assert len(set(structure.edges)) == len(structure.edges)
        assert all(structure.layer[b] == structure.layer[a] + 1 for a, b in structure.edges)
        below_first = {item for item, layer in enumerate(structure.layer) if layer}
        assert {child for _, child in structure.edges} == below_first
        assert sorted(drawn.sentences) == list(range(len(structure.edges)))


def test_sentences_stand_as_asked():
    for _, drawn in drawn_problems(Settings(shuffle=6)):
        needed = [edge for edge in drawn.order if not drawn.structure.is_abstract(edge)]
        assert list(drawn.sentences[: len(needed)]) == needed
        assert len(drawn.sentences) - len(needed) == drawn.num_distractors
    orders = {draw(Settings(shuffle=5), 8, Random(seed)).sentences for seed in range(20)}
    assert len(orders) == 20
    for _, drawn in drawn_problems(Settings(shuffle=0)):
        # No jitter: each sentence comes after those that it needs.
        known: set[int] = set()
        for edge in drawn.sentences:
            assert {e for e in dependencies(drawn, edge) if e in drawn.sentences} <= known
            known.add(edge)


def test_names_are_distinct_within_a_chain_and_cannot_confuse_a_reader():
    for chain in CHAINS:
        assert len(chain) == 4
        assert all(len(category.kinds) == 5 for category in chain)
        names = [name for category in chain for kind in category.kinds for name in kind]
        assert all(12 <= len(kind) <= 20 for category in chain for kind in category.kinds)
        words = [*names, *(category.name for category in chain)]
        assert len(set(words)) == len(words)
        assert all(re.fullmatch(r"[A-Z][A-Za-z-]*( [A-Z][A-Za-z-]*)*", name) for name in words)
    assert len({name for chain in CHAINS for each in chain for kind in each.kinds for name in kind})


LAYOUTS = list(itertools.product(range(12), ("last", "first"), (False, True)))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_solution_is_accepted(settings):
    for (level, question, canonical), (_, drawn) in zip(
        itertools.cycle(LAYOUTS), drawn_problems(settings, 240), strict=False
    ):
        rng = Random(level)
        wording = Wording(drawn, draw_names(drawn.structure.widths, rng))
        detail = Detail.level(level)
        detail = Detail(detail.definition, detail.hints, detail.calculations, canonical)
        problem, solution = wording.problem(question), wording.solution(detail, rng)
        verdict = verify(problem, solution, modulus=settings.modulus, categories=CATEGORIES)
        assert verdict.ok, (verdict, problem, solution)


MUSEUMS = (
    "The number of each Canal City's Toy Museum equals 2. "
    "The number of each Toy Museum's Blue Room equals 5. "
    "The number of each Blue Room's Delft Vase equals 3. How many Room does Canal City have?"
)
AS_MUSEUMS = (
    "Define Canal City's Toy Museum as a; so a = 2. Define Canal City's Room as b; so b = a = 2."
)
AS_ROOMS = (
    "Define Canal City's Toy Museum as a; so a = 2. Define Toy Museum's Blue Room as b; so b = 5. "
    "Define Toy Museum's Room as c; so c = b = 5. "
    "Define Canal City's Room as d; so d = a * c = 2 * 5 = 10."
)


def test_a_misread_category_is_accepted_unless_ours_are_given():
    for solution, with_ours in ((AS_MUSEUMS, False), (AS_ROOMS, True)):
        assert verify(MUSEUMS, solution).ok
        assert verify(MUSEUMS, solution, categories=CATEGORIES).ok == with_ours


def test_our_categories_settle_every_problem_of_ours():
    left_open = 0
    for one in problems(6, 60, seed=0):
        stated = read_problem(one.problem)
        left_open += len(worlds(stated)) > 1
        assert len(worlds(stated, CATEGORIES)) == 1
    assert left_open > 5


def test_canonical_order_depends_on_the_text_alone_and_holds_what_is_needed():
    moved = 0
    for _, drawn in drawn_problems(Settings(), 100):
        order = canonical_order(drawn)
        assert set(order) == set(drawn.order)
        assert order[-1] == drawn.query
        moved += order != list(drawn.order)
    assert moved > 20
    for _, drawn in drawn_problems(Settings(shuffle=6), 50):
        needed = [edge for edge in canonical_order(drawn) if edge in drawn.sentences]
        assert needed == [edge for edge in drawn.order if edge in drawn.sentences]


def test_a_solution_that_needs_more_letters_than_there_are_is_an_error():
    drawn = draw(Settings("heavy", max_edge=40), 75, Random(0))
    wording = Wording(drawn, draw_names(drawn.structure.widths, Random(0)))
    with pytest.raises(OutOfSymbolsError, match="needs more than the 52 letters"):
        wording.solution(Detail(), Random(0))


def test_light_and_heavy_op_counts():
    settings = {style: Settings(style, max_op=15, max_edge=20) for style in ("light", "heavy")}
    rng = Random(0)
    light, heavy = (
        np.array([draw_num_ops(settings[style], rng) for _ in range(4000)])
        for style in ("light", "heavy")
    )
    assert (light.min(), light.max(), heavy.max()) == (1, 15, 15)
    # Means: of the least of two uniform draws on 1 .. 15; and of 8, moved half-way to 15 twice.
    assert abs(light.mean() - sum((16 - k) ** 2 for k in range(1, 16)) / 225) < 0.2
    assert abs(heavy.mean() - 13.25) < 0.15
    difficulties = [one.difficulty for one in problems(None, 300, seed=0, preset="med")]
    assert abs(np.mean(difficulties) - light.mean()) < 0.8
    assert max(difficulties) <= 15


# Streams.


def test_a_problem_depends_on_its_number_alone():
    few, many = (list(problems(6, count, seed=3)) for count in (5, 12))
    assert few == many[:5]
    assert list(problems(6, 4, seed=3, start=8)) == many[8:]
    texts = {one.problem for seed in (3, 4) for one in problems(6, 12, seed=seed)}
    assert len(texts) == 24
    others = {one.problem for preset in PRESETS for one in problems(6, 5, seed=3, preset=preset)}
    assert len(others) == 5 * len(PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_change_nothing(processes):
    alone = list(problems(5, 300, seed=1))
    assert list(problems(5, 300, seed=1, processes=processes)) == alone


@pytest.mark.parametrize("preset", PRESETS)
def test_records_of_every_preset_are_right(preset):
    modulus = PRESETS[preset].settings.modulus
    for difficulty in (1, 2, 5, 10, 20):
        for one in problems(difficulty, 10, seed=0, preset=preset):
            assert one.difficulty == difficulty
            assert 0 <= one.answer < modulus
            assert one.solution.endswith(f" = {one.answer}.")
            assert verify(one.problem, one.solution, modulus=modulus, categories=CATEGORIES).ok
            assert 0 <= one.template < NUM_BINS


def test_length_matched_problems_have_one_length_at_every_op():
    sentences = [
        np.mean([one.problem.count(" equals ") for one in problems(op, 60, seed=0, preset=preset)])
        for preset in ("length_matched", "paper")
        for op in (2, 8, 14)
    ]
    assert max(sentences[:3]) - min(sentences[:3]) < 3
    assert sentences[5] > 2 * sentences[3]


def test_tiny_problems_are_short_and_from_few_names():
    items, distractors = set(), set()
    for one in problems(3, 200, seed=0, preset="tiny"):
        read = read_problem(one.problem)
        assert one.problem.startswith("How many ")
        stated = set(read.statements)
        used = {step.partition(";")[0] for step in one.solution.split(". ")}
        distractors.add(len(stated - used))
        items |= {part for name in stated for part in name.split("'s ")}
    assert distractors == {0, 1, 2}
    assert len(items) == 16
    # With another modulus than the preset's, the same text is wrong.
    assert any(
        not verify(one.problem, one.solution, categories=CATEGORIES).ok
        for one in problems(3, 20, seed=0, preset="tiny")
    )
    with pytest.raises(ValueError, match="max_distractors must be at least 0, or None, got -1"):
        Preset(Settings(), max_distractors=-1)


def test_splits_by_template():
    for split in ("train", "test"):
        bins = {one.template for one in problems(6, 40, seed=0, split=split)}
        assert bins <= set(BINS[split])
    assert len({one.template for one in problems(8, 200, seed=0)}) > 20
    with pytest.warns(UserWarning, match="at difficulty 3 there are so few templates"):
        next(problems(3, 1, seed=0, split="test"))
    with pytest.raises(ValueError, match="split 'test' holds no template of difficulty 1, whose"):
        problems(1, 1, seed=0, split="test")
    # One operation is a constant, or a category that is empty: two templates.
    counts = [len({one.template for one in problems(op, 300, seed=0)}) for op in (1, 2, 6)]
    assert counts[0] == 2
    assert counts[0] < counts[1] <= 7 < counts[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "papr"}, "preset must be one of ['hard', 'length_matched', 'med', 'paper', 't"),
        ({"difficulty": 0}, "difficulty must be at least 1, got 0"),
        ({"difficulty": 99, "preset": "med"}, "num_ops must be at most 2 * max_edge = 40 for the"),
        ({"count": -1}, "count must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"processes": 0}, "processes must be at least 1, got 0"),
        ({"split": "valid"}, "split must be one of ('train', 'test') or None, got 'valid'"),
    ],
)
def test_problems_refuses(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        problems(**{"difficulty": 3, "count": 1, "seed": 0, **arguments})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"style": "medium"}, "style must be one of ('light', 'heavy'), got 'medium'"),
        ({"max_op": 0}, "max_op must be at least 1, got 0"),
        ({"max_edge": 1}, "max_edge must be at least 2, or None, got 1"),
        ({"max_edge": 5, "min_edge": 6}, "min_edge must be between 0 and max_edge = 5, or None, g"),
        ({"modulus": 1}, "modulus must be at least 2, got 1"),
        ({"shuffle": 7}, "shuffle must be between 0 and 6, got 7"),
    ],
)
def test_settings_refuse(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**fields)


def test_detail_refuses():
    with pytest.raises(ValueError, match=r"definition must be one of .*, got 'none'"):
        Detail("none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="detail level must be between 0 and 11, got 12"):
        Detail.level(12)


# The closed vocabulary.

TASKS = {
    "words": IGSM(),
    "terse": IGSM(form="terse", modulus=5),
    "question first": IGSM(form="terse", shuffle=6, question="first"),
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_lengths_hold_nearly_all_problems(task):
    wide = IGSM(form=task.form, modulus=task.modulus, shuffle=task.shuffle, tokens_fixed=10**4)
    fixed, per_op = LENGTHS[task.form]
    for difficulty in (1, 4, 12):
        drawn = [wide.sample(np.random.default_rng(seed), difficulty) for seed in range(150)]
        lengths = [len(each.problem.split()) + len(each.solution.split()) for each in drawn]
        assert np.mean(np.array(lengths) > fixed + per_op * difficulty) <= 0.02
    assert IGSM().max_length(12) <= 512
    assert IGSM(form="terse", hardest=24).max_length(24) <= 512


def test_short_lengths_are_kept_to():
    task = IGSM(form="terse", modulus=5, tokens_fixed=30)
    drawn = pool(task, jax.random.key(0), Mixture.up_to(6), 60)
    limits = 30 + 15 * np.asarray(drawn.difficulty)
    assert (np.asarray(drawn.num_tokens) <= limits).all()


def test_terse_solutions_compute():
    """Every equation of a terse solution holds, and names stand for the values given before."""
    for seed in range(60):
        text = TASKS["terse"].sample(np.random.default_rng(seed), 1 + seed % 12)
        values: dict[str, int] = {}
        steps = text.solution.removesuffix(" .").removesuffix(" ;").split(" ; ")
        for step in steps:
            name, _, equations = step.partition(" : ")
            for equation in equations.split(" , "):
                sides = [
                    " ".join(str(values.get(word, word)) for word in side.split())
                    for side in equation.split(" = ")
                ]
                results = {eval(side) % 5 for side in sides}
                assert len(results) == 1, step
                (result,) = results
            values[name] = result
        assert steps[-1].startswith(text.problem.split(" ? ")[1].removesuffix(" :"))


def test_word_form_says_what_the_text_says():
    for seed in range(40):
        example = TASKS["words"].sample(np.random.default_rng(seed), 1 + seed % 10)
        problem = example.problem.removeprefix("| ").removesuffix(" :")
        solution = example.solution.removesuffix(" <end>")
        texts = [
            re.sub(r" ('s|[,.;])", r"\1", part).replace("_", " ") for part in (problem, solution)
        ]
        assert verify(*texts, categories=CATEGORIES).ok, texts


def test_symbols_of_the_word_form_come_in_turn():
    example = TASKS["words"].sample(np.random.default_rng(0), 8)
    letters = re.findall(r"(?:[;:.] |^)(?:so )?([a-zA-Z]) =", example.solution)
    first = list(dict.fromkeys(letters))
    assert first == list(string.ascii_letters[: len(first)])
    assert len(first) >= 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hardest": 0}, "hardest must be at least 1, got 0"),
        ({"form": "short"}, "form must be one of ('words', 'terse'), got 'short'"),
        ({"question": "none"}, "question must be one of ('last', 'first'), got 'none'"),
        ({"tokens_fixed": -1}, "tokens_fixed must be at least 0, got -1"),
        ({"modulus": 1}, "modulus must be at least 2, got 1"),
        ({"hardest": 50, "max_edge": 9}, "num_ops must be at most 2 * max_edge = 18 for these s"),
    ],
)
def test_igsm_refuses(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        IGSM(**fields)
