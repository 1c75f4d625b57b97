"""Problems from files and their tokens: reading, loss masks, examples that are left out."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

pytest.importorskip("transformers", reason="pip install 'sweetspot-sft[llm]'")

from experiments.igsm.config import SYSTEM_PROMPT, ExportConfig
from experiments.igsm.export import export_igsm
from experiments.llm.problems.config import Columns
from experiments.llm.problems.data import Problems, read
from experiments.llm.text.encoding import encode
from experiments.llm.text.tokenizer import encode_texts, load_tokenizer, prompt_tokens

PAIRS = [
    {"problem": "1 + 1?", "solution": "It is 2.", "answer": 2, "op": 1},
    {"problem": "1 + 1 + 1?", "solution": "It is 2, then 3.", "answer": 3, "op": 2},
    {"problem": "2 · 2?", "solution": "It is 4.\nYes, 4.", "answer": None, "op": 1},
]
SYSTEM = {"role": "system", "content": SYSTEM_PROMPT}


def write(path: Path, rows: list) -> Path:
    """Write rows to a file in the format of its ending."""
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(problem: str, solution: str, *before: dict[str, str]) -> dict:
    ends = [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}]
    return {"messages": [*before, *ends]}


def problems(*pairs: tuple[str, str]) -> Problems:
    prompts = [[{"role": "user", "content": problem}] for problem, _ in pairs]
    solutions = [solution for _, solution in pairs]
    return Problems(prompts, solutions, [""] * len(pairs), [None] * len(pairs))


@pytest.fixture
def tokenizer(tiny_folder):
    return load_tokenizer(tiny_folder)


# Reading.


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_columns_are_read_from_every_kind_of_file(tmp_path, ending):
    problems = read(write(tmp_path / f"pairs.{ending}", PAIRS))
    assert len(problems) == 3
    assert problems.problems == [row["problem"] for row in PAIRS]
    assert list(problems.solutions) == [row["solution"] for row in PAIRS]
    assert list(problems.answers) == ["2", "3", ""]
    assert list(problems.ops) == [1, 2, 1]
    assert list(problems.prompts[0]) == [SYSTEM, {"role": "user", "content": "1 + 1?"}]


def test_a_chat_is_a_prompt_and_a_solution(tmp_path):
    before = {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}
    rows = [
        chat("1 + 1?", "2.", {"role": "system", "content": "Be brief."}),
        chat("2?", "2.", *before),
    ]
    problems = read(write(tmp_path / "chats.jsonl", rows))
    assert [list(prompt) for prompt in problems.prompts] == [row["messages"][:-1] for row in rows]
    assert list(problems.solutions) == ["2.", "2."]
    assert (list(problems.answers), list(problems.ops)) == (["", ""], [None, None])


def test_a_chat_goes_before_columns_unless_these_are_named(tmp_path):
    path = write(tmp_path / "both.jsonl", [PAIRS[0] | chat("Chat?", "Chat.")])
    assert list(read(path).solutions) == ["Chat."]
    assert list(read(path, columns=Columns(solution="solution")).solutions) == ["It is 2."]


def test_columns_may_be_named_and_the_system_prompt_left_out(tmp_path):
    rows = [{"aufgabe": "1 + 1?", "lösung": "2.", "stufe": 4}]
    columns = Columns(problem="aufgabe", solution="lösung", difficulty="stufe", system="")
    problems = read(write(tmp_path / "named.jsonl", rows), columns=columns)
    assert list(problems.prompts[0]) == [{"role": "user", "content": "1 + 1?"}]
    assert (list(problems.solutions), list(problems.ops)) == (["2."], [4])


def test_the_answer_stands_in_for_a_missing_solution(tmp_path):
    rows = [{"question": "1 + 1?", "answer": "It is 2.\n#### 2"}, {"question": "7?", "answer": "7"}]
    problems = read(write(tmp_path / "gsm8k.jsonl", rows))
    assert list(problems.solutions) == ["It is 2.\n#### 2", "7"]
    assert list(problems.answers) == ["2", "7"]


def test_choices_are_written_below_the_question(tmp_path):
    rows = [{"question": "Sky?", "choices": ["red", "blue"], "answer": 1}]
    problems = read(write(tmp_path / "mmlu.jsonl", rows))
    assert problems.problems == ["Sky?\nA. red\nB. blue"]
    assert (list(problems.solutions), list(problems.answers)) == (["B"], ["B"])


def test_choices_may_have_labels_that_answers_use(tmp_path):
    letters = {"text": ["red", "blue"], "label": ["A", "B"]}
    numbers = {"text": ["red", "blue"], "label": ["1", "2"]}
    rows = [
        {"question": "Sky?", "choices": letters, "answerKey": "B"},
        {"question": "Sky?", "choices": numbers, "answerKey": "2"},
    ]
    problems = read(write(tmp_path / "arc.jsonl", rows))
    assert problems.problems == ["Sky?\nA. red\nB. blue"] * 2
    assert (list(problems.solutions), list(problems.answers)) == (["B", "B"], ["B", "B"])


def test_numbers_of_choices_may_have_gaps(tmp_path):
    rows = [
        {"question": "Sky?", "choices": ["red", "blue"], "solution": "Look.", "answer": answer}
        for answer in (1, None)
    ]
    problems = read(write(tmp_path / "gaps.parquet", rows))
    assert list(problems.answers) == ["B", ""]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("level", ["easy", 2.5])
def test_what_is_no_level_is_told_of(tmp_path, level, named):
    rows = [
        {"problem": "1?", "solution": "1.", "difficulty": level},
        {"problem": "2?", "solution": "2.", "difficulty": None},
    ]
    path = write(tmp_path / "words.jsonl", rows)
    if named:
        with pytest.raises(ValueError, match=r"columns.difficulty must name whole numbers"):
            read(path, columns=Columns(difficulty="difficulty"))
    else:
        with pytest.warns(UserWarning, match=f"column 'difficulty', row 0: .* got {level!r}"):
            assert list(read(path).ops) == [None, None]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("levels", [[1, 2, None], [1.0, 2.0, None], ["1", "2", None]])
def test_levels_are_read_from_floats_and_digits(tmp_path, levels, ending):
    rows = [row | {"op": level} for row, level in zip(PAIRS, levels, strict=True)]
    assert list(read(write(tmp_path / f"gaps.{ending}", rows)).ops) == [1, 2, None]


def test_prompts_and_completions_may_be_chats(tmp_path):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": "2."}]}]
    problems = read(write(tmp_path / "chats.jsonl", rows))
    assert (list(problems.prompts), list(problems.solutions)) == ([prompt], ["2."])
    rows = [{"prompt": prompt, "answer": 2}]
    problems = read(write(tmp_path / "answers.jsonl", rows))
    assert (list(problems.prompts), list(problems.solutions)) == ([prompt], ["2"])


def test_a_list_of_one_is_what_is_in_it(tmp_path):
    rows = [row | {"answer": [row["answer"]]} for row in PAIRS]
    assert list(read(write(tmp_path / "lists.jsonl", rows)).answers) == ["2", "3", ""]


def test_dates_of_json_stay_as_they_are_written(tmp_path):
    dates = ["2020-01-01", "2020-01-01T12:00:00", None]
    rows = [row | {"answer": day} for row, day in zip(PAIRS, dates, strict=True)]
    path = write(tmp_path / "dates.jsonl", rows)
    assert list(read(path).answers) == ["2020-01-01", "2020-01-01T12:00:00", ""]
    assert list(read(tmp_path, split="train[:1]").answers) == ["2020-01-01"]


def test_files_of_a_pattern_are_read_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "b.jsonl", PAIRS[:1])
    write(tmp_path / "a.jsonl", PAIRS[1:])
    problems = read(str(tmp_path / "*.jsonl"))
    assert problems.problems == [row["problem"] for row in [*PAIRS[1:], *PAIRS[:1]]]


def test_an_export_is_read_by_configuration(tmp_path):
    config = ExportConfig(
        preset="med",
        difficulties=(2, 3),
        train_sizes=(4,),
        base_difficulties=(1,),
        base_sizes=(3,),
        test_difficulties=(1, 2),
        test_examples=2,
        verify=False,
    )
    export_igsm(config, tmp_path / "igsm", console=Console(quiet=True))
    train = read(tmp_path / "igsm", configuration="train-op2")
    test = read(tmp_path / "igsm", configuration="test")
    first = json.loads((tmp_path / "igsm" / "train" / "op02.jsonl").read_text().splitlines()[0])
    assert [*train.prompts[0], {"role": "assistant", "content": train.solutions[0]}] == first[
        "messages"
    ]
    assert (train.answers[0], list(train.ops)) == (str(first["answer"]), [2, 2, 2, 2])
    assert list(test.ops) == [1, 1, 2, 2]
    every = read(str(tmp_path / "igsm" / "train" / "*.jsonl"))
    assert list(every.ops) == [2, 2, 2, 2, 3, 3, 3, 3]
    with pytest.raises(ValueError, match="train-op3"):
        read(tmp_path / "igsm")


def test_a_split_is_chosen_by_name(tmp_path):
    write(tmp_path / "train.jsonl", PAIRS)
    write(tmp_path / "test.jsonl", PAIRS[:1])
    assert len(read(tmp_path, split="train")) == 3
    assert len(read(tmp_path, split="train[1:]")) == 2
    with pytest.raises(ValueError, match=r"split of .* must be one of \['test', 'train'\]"):
        read(tmp_path)


def test_nothing_is_written_to_stderr_and_no_copy_is_kept(tmp_path, capfd):
    from datasets import config

    cache = Path(config.HF_DATASETS_CACHE) / "json"
    before = set(cache.rglob("*")) if cache.exists() else set()
    assert len(read(write(tmp_path / "pairs.jsonl", PAIRS))) == 3
    assert capfd.readouterr().err == ""
    assert (set(cache.rglob("*")) if cache.exists() else set()) == before


def test_taking_rows_keeps_their_fields_together(tmp_path):
    problems = read(write(tmp_path / "pairs.jsonl", PAIRS))
    some = problems.take(np.array([2, 0]))
    assert some.problems == ["2 · 2?", "1 + 1?"]
    assert (list(some.answers), list(some.ops), some.name) == (["", "2"], [1, 1], problems.name)


# Errors of reading.


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_broken_line_is_named_by_its_number(tmp_path, number):
    # The third line is empty, but is counted.
    lines = [json.dumps(row) for row in PAIRS] * 2
    lines.insert(2, "")
    lines[number - 1] = lines[number - 1][:-5]
    path = tmp_path / "broken.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"line {number} of '.*broken.jsonl' is not JSON"):
        read(path)


def test_a_line_that_ends_before_a_value_is_named(tmp_path):
    """The reader of `datasets` reports this fault in another way."""
    path, (first, *_) = tmp_path / "broken.jsonl", [json.dumps(row) for row in PAIRS]
    path.write_text(f'{first}\n{{"problem": "p", "solution": \n{first}\n')
    with pytest.raises(ValueError, match=r"line 2 of '.*broken.jsonl' is not JSON"):
        read(path)


def test_an_answer_that_is_no_choice_is_refused(tmp_path):
    row = {"question": "Sky?", "choices": ["red", "blue"], "answer": "E"}
    with pytest.raises(ValueError, match="answers must be one of 2 choices, got 'E'"):
        read(write(tmp_path / "rows.jsonl", [row]))


def test_a_file_that_breaks_off_is_refused(tmp_path):
    path = write(tmp_path / "cut.jsonl", PAIRS)
    path.write_text(path.read_text()[:-8])
    with pytest.raises(ValueError, match=r"line 3 of .* is not JSON"):
        read(path)


def test_a_broken_line_in_a_folder_is_named_with_its_file(tmp_path):
    write(tmp_path / "a.jsonl", PAIRS)
    (tmp_path / "b.jsonl").write_text(json.dumps(PAIRS[0]) + "\n{oops\n")
    with pytest.raises(ValueError, match=r"line 2 of '.*b.jsonl' is not JSON"):
        read(tmp_path)


def test_a_broken_array_is_named_by_its_line(tmp_path):
    path = tmp_path / "array.json"
    path.write_text('[\n{"problem": "1?", "solution": "1."},\n{"problem": }]')
    with pytest.raises(ValueError, match=r"line 3 of '.*array.json' is not JSON"):
        read(path)


def test_a_line_that_is_no_object_is_refused(tmp_path):
    path = write(tmp_path / "list.jsonl", [PAIRS[0], ["1 + 1?", "2."]])
    with pytest.raises(ValueError, match=r"line 2 of .* must hold an object, got list"):
        read(path)


def test_a_broken_parquet_file_is_refused(tmp_path):
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(ValueError, match="cannot be read as a data set"):
        read(tmp_path / "no.parquet")


def test_without_a_solution_the_columns_are_named(tmp_path):
    path = write(tmp_path / "half.jsonl", [{"problem": "1 + 1?", "level": 1}])
    with pytest.raises(ValueError, match=r"no column of solutions among \['problem', 'level'\]"):
        read(path)


def test_without_a_problem_the_columns_are_named(tmp_path):
    path = write(tmp_path / "half.jsonl", [{"solution": "2."}])
    with pytest.raises(ValueError, match=r"no column of problems among \['solution'\]"):
        read(path)


def test_a_column_that_is_named_must_be_there(tmp_path):
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    with pytest.raises(ValueError, match=r"columns.solution must be one of .* got 'working'"):
        read(path, columns=Columns(solution="working"))


def test_of_several_usual_columns_one_must_be_named(tmp_path):
    rows = [{"instruction": "Add.", "input": "1, 1", "output": "2"}]
    path = write(tmp_path / "alpaca.jsonl", rows)
    with pytest.raises(ValueError, match=r"columns.problem must say which of .*'input'\]"):
        read(path)


@pytest.mark.parametrize("empty", ["", " \n", None])
def test_an_empty_solution_is_named_by_its_row(tmp_path, empty):
    path = write(tmp_path / "empty.jsonl", [PAIRS[0], PAIRS[1] | {"solution": empty}])
    with pytest.raises(ValueError, match=r"empty.jsonl: row 1 has an empty solution"):
        read(path)


def test_an_empty_answer_of_the_assistant_is_named_by_its_row(tmp_path):
    path = write(tmp_path / "empty.jsonl", [chat("1?", "1."), chat("2?", "")])
    with pytest.raises(ValueError, match="row 1 has an empty solution"):
        read(path)


def test_a_chat_must_end_with_the_assistants_answer(tmp_path):
    path = write(tmp_path / "open.jsonl", [{"messages": [{"role": "user", "content": "1?"}]}])
    with pytest.raises(ValueError, match=r"row 0: messages must end with .* got roles \['user'\]"):
        read(path)


USER = {"role": "user", "content": "1?"}
ASSISTANT = {"role": "assistant", "content": "1."}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": ["2", "3"]}, "column 'answer', row 1: must be text .* got a list of 2"),
        ({"answer": {"value": 2}}, "column 'answer', row 1: must be text .* got dict"),
        ({"solution": {"steps": "2"}}, "column 'solution', row 1: must be text .* got dict"),
        ({"problem": [ASSISTANT]}, r"column 'problem', row 1: .* got roles \['assistant'\]"),
        ({"solution": [ASSISTANT, USER]}, r"column 'solution', row 1: .* \['assistant', 'user'\]"),
        ({"choices": "A or B"}, "column 'choices', row 1: must be a list, .* got str"),
        ({"choices": {"A": "1", "B": "2"}}, "column 'choices', row 1: must be a list, .* got dict"),
        ({"choices": ["1", "2"], "answer": 2}, "column 'answer', row 1: .* must be 0 to 1: 2"),
        ({"messages": "1?"}, "column 'messages', row 1: must be a list of turns .* got str"),
        ({"answer": 2**63 + 1}, "column 'answer', row 1: whole numbers this large lose digits"),
    ],
)
def test_cells_of_other_kinds_are_named(tmp_path, fields, message):
    good = {"choices": ["1", "2"], "messages": [USER, ASSISTANT]}
    first = PAIRS[0] | {part: good[part] for part in fields if part in good}
    if "choices" in fields:
        first["answer"] = 1
    path = write(tmp_path / "kinds.jsonl", [first, PAIRS[0] | fields])
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_file_without_rows_is_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no rows"):
        read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["nothing.jsonl", "*.jsonl", "a/b/c"])
def test_what_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="source must be a file, a pattern of files"):
        read(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    with gzip.open(tmp_path / "pairs.zip", "wt") as file:
        file.write("x")
    with pytest.raises(ValueError, match=r"must all end in one of .* got \['.zip'\]"):
        read(tmp_path / "pairs.zip")


def test_a_configuration_of_a_file_is_refused(tmp_path):
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    with pytest.raises(ValueError, match="configuration is for folders and hub repositories"):
        read(path, configuration="main")


def test_a_hub_that_is_out_of_reach_is_an_error(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="the Hugging Face hub did not give it"):
        read("nobody/has-this")


def test_fields_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="must have one length"):
        Problems([], ["2."], [], [])


# Encoding.

SOME = problems(
    ("How much is 12 + 30?", "12 + 30 = 42. So the final answer is \\boxed{42}."),
    ("Wie groß ist das Ω?", "\n  Groß.  "),
    ("?", "!"),
)

QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% set content = m['content'].split('</think>')[-1] %}"
    "<think>\n\n</think>\n\n{{ content.lstrip('\n') }}{% else %}{{ m['content'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Template of Qwen3, shortened."""

LLAMA3 = (
    "{{ '<|endoftext|>' }}{% for m in messages %}[{{ m['role'] }}]\n\n{{ m['content'] | trim }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]\n\n{% endif %}"
)
"""Template of Llama 3, with other names for the special tokens."""

DEEPSEEK = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>{{ m['content'] }}"
    "{% else %}<|im_end|>{{ m['content'] }}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|><think>\n{% endif %}"
)
"""Template of DeepSeek-R1, shortened: its prompt asks for thoughts, which a solution lacks."""


def test_the_loss_is_on_the_solution_and_its_end_alone(tokenizer):
    encoded = encode(SOME, tokenizer, max_length=500)
    for prompt, solution, tokens, length in zip(
        SOME.prompts, SOME.solutions, encoded.tokens, encoded.prompt_lengths, strict=True
    ):
        assert tokens.dtype == np.int32
        assert tokens[:length].tolist() == prompt_tokens(tokenizer, prompt)
        assert tokenizer.decode(tokens[length:]) == solution + "<|im_end|>"
        assert tokens[-1] == tokenizer.eos_token_id
    assert encoded.rows.tolist() == [0, 1, 2]


def test_an_example_is_the_whole_chat_up_to_its_end(tokenizer):
    encoded = encode(SOME, tokenizer, max_length=500)
    for prompt, solution, tokens in zip(SOME.prompts, SOME.solutions, encoded.tokens, strict=True):
        chat = [*prompt, {"role": "assistant", "content": solution}]
        assert tokenizer.decode(tokens) + "\n" == tokenizer.apply_chat_template(
            chat, tokenize=False
        )


def test_the_length_of_a_solution_does_not_count_its_end(tokenizer):
    encoded = encode(SOME, tokenizer, max_length=500)
    expected = [len(tokens) for tokens in encode_texts(tokenizer, SOME.solutions)]
    assert encoded.solution_lengths.tolist() == expected
    assert encoded.take([2, 0]).solution_lengths.tolist() == [expected[2], expected[0]]


def test_many_blocks_are_encoded_as_one_by_one(tokenizer, monkeypatch):
    monkeypatch.setattr("experiments.llm.text.encoding.BLOCK", 2)
    together = encode(SOME, tokenizer, max_length=500)
    for row in range(3):
        alone = encode(SOME.take([row]), tokenizer, max_length=500)
        assert alone.tokens[0].tolist() == together.tokens[row].tolist()


def test_a_template_with_room_for_thoughts_leaves_it_to_the_prompt(tokenizer):
    tokenizer.chat_template = QWEN3
    encoded = encode(SOME.take([0]), tokenizer, max_length=500)
    start = encoded.prompt_lengths[0]
    assert tokenizer.decode(encoded.tokens[0][:start]).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(encoded.tokens[0][start:]) == SOME.solutions[0] + "<|im_end|>"


def test_thoughts_of_a_solution_are_trained_on(tokenizer):
    # Qwen3's template keeps the thoughts of the last turn.
    tokenizer.chat_template = QWEN3.replace(
        "<think>\n\n</think>\n\n{{ content.lstrip('\n') }}",
        "{% if content == m['content'] %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}",
    )
    solution = "<think>\nhm\n</think>\n\nIt is 2."
    encoded = encode(problems(("1?", "1."), ("1 + 1?", solution)), tokenizer, max_length=500)
    for tokens, start, opening, said in zip(
        encoded.tokens,
        encoded.prompt_lengths,
        ("<think>\n\n</think>\n\n", "<|im_start|>assistant\n"),
        ("1.", solution),
        strict=True,
    ):
        assert tokenizer.decode(tokens[:start]).endswith(opening)
        assert tokenizer.decode(tokens[start:]) == said + "<|im_end|>"


def test_a_template_that_trims_is_followed(tokenizer):
    tokenizer.chat_template = LLAMA3
    encoded = encode(SOME, tokenizer, max_length=500)
    start = encoded.prompt_lengths[1]
    assert tokenizer.decode(encoded.tokens[1][start:]) == "Groß.<|im_end|>"


def test_a_template_without_an_end_gets_the_tokenizers(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    encoded = encode(SOME, tokenizer, max_length=500)
    start = encoded.prompt_lengths[0]
    assert tokenizer.decode(encoded.tokens[0][start:]) == SOME.solutions[0] + "<|im_end|>"


def test_a_template_that_changes_the_prompt_afterwards_is_refused(tokenizer):
    tokenizer.chat_template = DEEPSEEK
    with pytest.raises(ValueError, match="changes the prompt of problem 0 when the solution follo"):
        encode(SOME, tokenizer, max_length=500)


def test_a_template_that_cuts_out_thoughts_is_refused(tokenizer):
    tokenizer.chat_template = QWEN3
    thoughts = problems(("1?", "1."), ("1 + 1?", "<think>\nhm\n</think>\n\nIt is 2."))
    with pytest.raises(ValueError, match="changes the solution of problem 1"):
        encode(thoughts, tokenizer, max_length=500)


def test_a_template_that_refuses_a_problem_names_it(tokenizer):
    tokenizer.chat_template += (
        "{% if 'Ω' in messages[0]['content'] %}{{ raise_exception('No Greek') }}{% endif %}"
    )
    with pytest.raises(ValueError, match=r"problem 1: the chat template refuses .*No Greek"):
        encode(SOME, tokenizer, max_length=500)


def test_a_solution_that_contains_its_end_is_refused(tokenizer):
    bad = problems(("1?", "1."), ("2?", "Two.<|im_end|> Or not."))
    with pytest.raises(ValueError, match=r"solution of problem 1 contains '<\|im_end\|>'"):
        encode(bad, tokenizer, max_length=500)


# Examples that are too long.

LONG = problems(("1?", "1."), ("2?", "2 " * 100), ("3 " * 100, "3."), ("4?", "4."))


def test_a_long_example_is_an_error_by_default(tokenizer):
    with pytest.raises(ValueError, match=r"at most max_length 100 tokens, but 2 of 4 .* problem 1"):
        encode(LONG, tokenizer, max_length=100)


def test_long_examples_are_dropped_and_counted(tokenizer):
    with pytest.warns(UserWarning, match=r"2 of 4 examples kept, 2 dropped \(more than 100 tokens"):
        encoded = encode(LONG, tokenizer, max_length=100, on_long="drop")
    assert encoded.rows.tolist() == [0, 3]
    report = encoded.report
    assert (report.read, report.kept, report.truncated) == (4, 2, 0)
    assert sum(report.dropped.values()) == 2


def test_long_solutions_are_cut_and_counted(tokenizer):
    with pytest.warns(UserWarning, match=r"3 of 4 .* 1 dropped \(.*prompt alone\), 1 cut to 100"):
        encoded = encode(LONG, tokenizer, max_length=100, on_long="truncate")
    whole = encode(LONG, tokenizer, max_length=1000)
    assert encoded.rows.tolist() == [0, 1, 3]
    assert encoded.lengths.max() == 100
    assert encoded.tokens[1].tolist() == whole.tokens[1][:100].tolist()
    assert tokenizer.eos_token_id not in encoded.tokens[1][encoded.prompt_lengths[1] :]
    # The difficulty is the length of the whole solution, before it was cut.
    assert encoded.solution_lengths.tolist() == whole.solution_lengths[[0, 1, 3]].tolist()
    assert (encoded.report.kept, encoded.report.truncated) == (3, 1)


@pytest.mark.parametrize("on_long", ["error", "drop", "truncate"])
def test_an_example_that_just_fits_is_kept(tokenizer, on_long):
    longest = int(encode(LONG, tokenizer, max_length=1000).lengths.max())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded = encode(LONG, tokenizer, max_length=longest, on_long=on_long)
    assert len(encoded) == 4
    assert str(encoded.report) == f"4 of 4 examples kept; the longest has {longest} tokens"


@pytest.mark.parametrize("on_long", ["drop", "truncate"])
def test_no_example_left_is_an_error(tokenizer, on_long):
    with pytest.raises(ValueError, match="no example is left to train on: 0 of 4"):
        encode(LONG, tokenizer, max_length=3, on_long=on_long)


def test_arguments_of_encode_are_checked(tokenizer):
    with pytest.raises(ValueError, match="max_length must be at least 2, got 1"):
        encode(SOME, tokenizer, max_length=1)
    with pytest.raises(ValueError, match=r"on_long must be one of .* got 'skip'"):
        encode(SOME, tokenizer, max_length=10, on_long="skip")  # pyright: ignore[reportArgumentType]
