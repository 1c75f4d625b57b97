"""Problems of reasoning-gym through the real processes: read, written, read again, and graded."""

from __future__ import annotations

import dataclasses
import re
import sys

import pandas as pd
import pytest

from experiments.cli import llm as commands
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import Columns, GraderConfig, Source
from experiments.llm.problems.data import Problems, read, read_source, write_problems
from experiments.llm.problems.grade import check_solutions, grade, references
from experiments.llm.problems.gym.drawing import ORIGINS, draw
from experiments.llm.problems.gym.library import library
from experiments.llm.problems.gym.scoring import score

pytest.importorskip("reasoning_gym", reason="reasoning-gym is no part of the default tests")
# A package that it needs takes a C compiler, so that it is installed for slow tests alone.
pytestmark = pytest.mark.slow

GRADER = GraderConfig("reasoning-gym", processes=1)


def problems_of(*names: str) -> Problems:
    """The first problem of each of these, drawn in this process."""
    drawn = [draw((name, 0, 1))[0] for name in names]
    return Problems(
        prompts=[[{"role": "user", "content": problem}] for problem, *_ in drawn],
        solutions=[solution for _, solution, _, _ in drawn],
        answers=[answer for _, _, answer, _ in drawn],
        ops=[None] * len(drawn),
        origins=[origin for *_, origin in drawn],
    )


def test_a_source_is_read_with_levels_in_turn_and_its_origins_are_kept(tmp_path):
    # This task walks over a set of letters: its problems depend on the hash seed of the process.
    source = "reasoning-gym:ransom_note?note_length=3,5&size=3&seed=1"
    problems = read_source(Source(source, columns=Columns(system="")))
    assert list(problems.ops) == [3, 5] * 3
    assert problems.name == source
    assert [origin.rpartition("#")[2] for origin in problems.origins] == list("001122")
    assert all("note_length=" in origin for origin in problems.origins)
    assert [len(prompt) for prompt in problems.prompts] == [1] * 6
    # What is written is read again, and drawn again to be graded: the same in other processes.
    write_problems(problems.take([4, 1]), tmp_path / "problems.parquet", {})
    again = read(tmp_path / "problems.parquet")
    assert again == dataclasses.replace(problems.take([4, 1]), name=again.name)
    assert again.digest() == problems.take([4, 1]).digest()
    assert ORIGINS in pd.read_parquet(tmp_path / "problems.parquet").columns
    assert check_solutions(again, GRADER) == 1


def test_problems_without_a_solution_are_left_out_and_counted():
    with pytest.warns(UserWarning, match="4 of 50 problems of gsm_symbolic are left out"):
        problems = read("reasoning-gym:gsm_symbolic?size=50&seed=1")
    assert len(problems) == 46
    assert set(problems.ops) == {None}
    # Each still has its own origin.
    numbers = [int(origin.rpartition("#")[2]) for origin in problems.origins]
    assert sorted(set(numbers)) == numbers
    assert numbers[-1] > len(numbers) - 1


def test_a_scorer_judges_the_marked_answer_and_what_makes_it_fail_is_wrong():
    # The scorer of the second raises for what is no number, that of the third hangs at a tower of
    # powers.
    problems = problems_of("chain_sum", "prime_factorization", "simple_integration")
    answer = problems.answers[0]
    chain = [problems.solutions[0], f"so \\boxed{{{answer}}}", f" +{answer}.0\n", f"{answer}1"]
    responses = [
        chain,
        [problems.solutions[1], "#### who knows", "2", ""],
        [problems.solutions[2], "0", "9**9**9**9", ""],
    ]
    told = (
        r"the scorer of reasoning-gym took longer than 2 s for 1 responses and ended its process "
        r"at 0 and failed at \d \(ValueError: invalid literal .*\), which count as wrong: "
        r"rows \[1, 2\]"
    )
    with pytest.warns(UserWarning, match=told):
        correct = grade(problems, responses, dataclasses.replace(GRADER, timeout=2.0))
    assert correct.tolist() == [
        [True, True, True, False],
        [True, False, False, False],
        [True, False, False, False],
    ]


def test_a_problem_that_its_origin_does_not_draw_is_an_error():
    problems = problems_of("chain_sum", "spell_backward")
    changed = dataclasses.replace(
        problems, prompts=[problems.prompts[0], [{"role": "user", "content": "Spell abc."}]]
    )
    message = "row 1: 'spell_backward#0' draws another problem: by another version of reasoning-gym"
    with pytest.raises(ValueError, match=message):
        grade(changed, [["1"], ["cba"]], GRADER)
    told = score(("chain_sm?size=3#0", "?", "5"))
    assert "'chain_sm?size=3#0' draws no problem (ValueError: source must be" in str(told)


def test_the_grader_needs_origins_and_the_library(monkeypatch):
    problems = problems_of("chain_sum", "spell_backward")
    plain = dataclasses.replace(problems, origins=())
    with pytest.raises(ValueError, match=r"problems that reasoning-gym drew .* rows 0, 1 lack it"):
        references(plain, GRADER)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=re.escape("need: pip install 'sweetspot-sft[gym]'")):
        references(problems, GRADER)


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_every_task_gives_its_own_solutions_the_full_score():
    without, doubtful = [], {}
    for task in sorted(set(library().factory.DATASETS) - {"composite"}):
        drawn = draw((f"{task}?size=10&seed=1", 0, 10))
        solved = [(origin, problem, text) for problem, text, _, origin in drawn if text]
        if not solved:
            without.append(task)
            continue
        scores = [score(item) for item in solved]
        assert all(isinstance(each, float) for each in scores), (task, scores)
        if (wrong := sum(float(each) < 1 for each in scores)) > 0:
            doubtful[task] = wrong
    assert without == ["boxnet", "rush_hour"]
    # One of its programs draws from a generator of its own: its answer differs from run to run.
    assert doubtful in ({}, {"codeio": 1})


def test_a_task_without_solutions_is_refused():
    with pytest.raises(ValueError, match="rush_hour must state solutions, got none in 2"):
        read("reasoning-gym:rush_hour?size=2")


def test_prepare_and_evaluate_on_a_checkpoint(tiny_folder, tmp_path, capsys):
    data = Source("reasoning-gym:chain_sum?terms=2..3&digits=1&size=6&seed=7")
    commands.prepare(str(tiny_folder), data, tmp_path / "data")
    assert "difficulty 2: 6, 3: 6" in " ".join(capsys.readouterr().out.split())
    quick = DecodingConfig(max_new_tokens=4, batch_size=8)
    for number, source in enumerate((data, Source(str(tmp_path / "data" / "problems.parquet")))):
        out = tmp_path / str(number)
        commands.evaluate_checkpoint(
            str(tiny_folder), source, out, grader=GRADER, decoding=quick, dtype="float32"
        )
        slices = pd.read_parquet(out / "slices.parquet")
        assert slices["slice"].tolist() == [2, 3]
        assert slices["num_examples"].tolist() == [6, 6]
    # The same answers, wherever the problems came from.
    first, second = (pd.read_parquet(tmp_path / each / "responses.parquet") for each in "01")
    assert first.equals(second)
