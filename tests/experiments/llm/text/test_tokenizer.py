"""Tokenizers: texts round-trip, prompts are the template's own, end markers are found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

pytest.importorskip("transformers", reason="pip install 'sweetspot-sft[llm]'")

from experiments.llm.text.tokenizer import (
    closing,
    encode_texts,
    has_thoughts,
    load_tokenizer,
    prompt_tokens,
    render,
    save_tokenizer,
    stop_tokens,
    train_tokenizer,
)
from experiments.storage import checkpoint

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How much is 12 + 30?"},
]
TEXTS = ["The number of each Room's Chair equals 12 more than 30.\n"] * 3


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return load_tokenizer(tiny_folder)


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """Copy of the tiny checkpoint, which tests may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "copy")


def edit(path: Path, **changes) -> None:
    """Change keys of a JSON file; None removes a key."""
    contents = json.loads(path.read_text()) | changes
    path.write_text(
        json.dumps({key: value for key, value in contents.items() if value is not None})
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_decodes_to_itself(tokenizer, text):
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(tokens) == unicodedata.normalize("NFC", text)


def test_special_tokens_are_single_ids_within_the_size(tokenizer):
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    ids = [tokens.tolist() for tokens in encode_texts(tokenizer, specials)]
    assert [len(tokens) for tokens in ids] == [1, 1, 1]
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1


def test_the_decoder_of_the_tiny_folder_has_an_embedding_for_every_token(tiny_folder, tokenizer):
    assert checkpoint.read_config(tiny_folder).vocab_size == len(tokenizer)


def test_every_digit_is_a_token(tokenizer):
    (tokens,) = encode_texts(tokenizer, ["31415"])
    assert [tokenizer.decode([token]) for token in tokens] == ["3", "1", "4", "1", "5"]


def test_training_is_deterministic_and_fills_the_size(tokenizer):
    first, second = train_tokenizer(TEXTS, 270), train_tokenizer(iter(TEXTS), 270)
    assert len(first) == 270
    assert first.get_vocab() == second.get_vocab()
    text = TEXTS[0]
    assert len(first.encode(text)) < len(text.encode()), "merges were learnt"


def test_a_size_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"vocab_size must be at least 259 .*got 100"):
        train_tokenizer(TEXTS, 100)


def test_set_phrases_can_be_single_tokens():
    phrase = "The number of each Research Ship's Brass Trunk equals 2 more than each Cable Ship."
    tokenizer = train_tokenizer([phrase] * 3, 500, pieces="phrases")
    tokens = [tokenizer.decode([token]) for token in tokenizer.encode(phrase)]
    assert tokens[:4] == ["The number of each", " Research Ship's", " Brass Trunk", " equals"]
    for text in (phrase, "héllo  Wörld\n\tx=3, A_b – 漢字"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    with pytest.raises(ValueError, match=r"pieces must be one of \('words', 'phrases'\), got 'x'"):
        train_tokenizer([phrase], 500, pieces="x")  # pyright: ignore[reportArgumentType]


def test_a_saved_tokenizer_is_read_back(tmp_path):
    trained = train_tokenizer(TEXTS, 270)
    save_tokenizer(trained, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == trained.get_vocab()
    assert prompt_tokens(loaded, CHAT) == prompt_tokens(trained, CHAT)
    assert stop_tokens(loaded, tmp_path) == (trained.eos_token_id,)


def test_a_prompt_is_the_chat_and_the_opening_of_the_answer(tokenizer):
    text = tokenizer.decode(prompt_tokens(tokenizer, CHAT))
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHow much is 12 + 30?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_prompt_has_the_tokens_that_transformers_gives_it(tokenizer):
    expected = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert prompt_tokens(tokenizer, CHAT) == expected


def test_stops_are_those_of_tokenizer_template_and_generation(folder):
    # As in the base models of Qwen2.5, texts end with another token than chats.
    edit(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    (folder / "generation_config.json").unlink()
    tokenizer = load_tokenizer(folder)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    text_end, turn_start, turn_end = map(tokenizer.get_vocab().__getitem__, specials)
    assert stop_tokens(tokenizer, folder) == tuple(sorted([text_end, turn_end]))
    stated = [turn_start, turn_end]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stated}))
    assert stop_tokens(tokenizer, folder) == tuple(sorted([text_end, turn_start, turn_end]))


def test_a_generation_config_that_is_not_json_is_refused(folder, tokenizer):
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"generation_config.json' is not JSON"):
        stop_tokens(tokenizer, folder)


def test_what_closes_a_solution_is_the_templates_marker(folder, tokenizer):
    assert (closing(tokenizer).marker, closing(tokenizer).tail) == ("<|im_end|>", "\n")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    end = closing(tokenizer)
    assert (end.marker, end.tail, end.written) == ("<|im_end|>", "\n", False)


def test_todays_date_is_in_no_prompt(folder):
    tokenizer = load_tokenizer(folder)
    # The form that Llama 3.2 has.
    tokenizer.chat_template = (
        "{% if not date_string is defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }} {{ messages[0]['content'] }}"
    )
    assert render(tokenizer, CHAT, generation=True) == "26 Jul 2024 Be brief."


QWEN3 = (
    "{%- set ns = namespace(searching=true, last_query_index=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}"
    "{%- if ns.searching and message.role == 'user' %}{%- set ns.searching = false %}"
    "{%- set ns.last_query_index = messages|length - 1 - loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if message.role != 'assistant' %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}"
    "{%- else %}{%- set reasoning_content = '' %}{%- if '</think>' in content %}"
    "{%- set reasoning_content = "
    "content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}"
    "{{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n')"
    " + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}"
    "{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
"""Template of Qwen3 without tools: the last turn keeps its thoughts, or gets empty ones."""


@pytest.mark.parametrize(
    ("solution", "said"),
    [
        ("It is 42.", "It is 42."),
        ("<think>\n12 + 30.\n</think>\n\nIt is 42.",) * 2,
        ("<think>\n\n</think>\n\nIt is 42.",) * 2,
    ],
    ids=["plain", "thoughts", "empty"],
)
def test_a_solution_continues_the_prompt_with_its_own_thoughts(folder, solution, said):
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = QWEN3
    thinking = has_thoughts(solution)
    asked = render(tokenizer, CHAT, generation=True, thinking=thinking)
    chat = [*CHAT, {"role": "assistant", "content": solution}]
    whole = render(tokenizer, chat, generation=False, thinking=thinking)
    assert whole == f"{asked}{said}<|im_end|>\n"
    assert tokenizer.decode(prompt_tokens(tokenizer, CHAT, thinking=thinking)) == asked
    # Without `thinking` the prompt leaves no room for thoughts.
    assert render(tokenizer, CHAT, generation=True).endswith("<think>\n\n</think>\n\n")


def test_limits_saved_with_a_tokenizer_do_not_cut_texts(folder, tokenizer):
    short = load_tokenizer(folder)
    short.backend_tokenizer.enable_truncation(5)
    short.backend_tokenizer.enable_padding(length=50)
    short.backend_tokenizer.save(str(folder / "tokenizer.json"))
    assert prompt_tokens(load_tokenizer(folder), CHAT) == prompt_tokens(tokenizer, CHAT)


def test_a_tokenizer_without_a_chat_template_is_refused(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="has no chat template"):
        load_tokenizer(folder)


def test_a_template_without_a_place_for_the_solution_is_refused(folder):
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(ValueError, match="leaves out the assistant's content"):
        load_tokenizer(folder)


def test_a_template_that_refuses_a_chat_says_so(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ValueError, match=r"refuses a chat of \['system', 'user'\]: System role"):
        prompt_tokens(tokenizer, CHAT)


def test_a_folder_without_a_fast_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer.json"):
        load_tokenizer(folder)


def test_a_broken_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        load_tokenizer(folder)


def test_no_code_of_a_checkpoint_runs(folder):
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: ...\n")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Evil"]})
    assert len(load_tokenizer(folder)) > 0
    assert not (folder / "ran").exists()


def test_reading_is_silent_without_torch(tiny_folder):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from experiments.llm.text.tokenizer import load_tokenizer\n"
        f"print(len(load_tokenizer({str(tiny_folder)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().isdigit()
    assert done.stderr == ""
