"""Chats of several turns: the loss counts what the assistant says, and where it stops."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers", reason="pip install 'sweetspot-sft[llm]'")

from experiments.llm.problems.data import Problems
from experiments.llm.text.encoding import encode
from experiments.llm.text.loader import Loader
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.llm.training.finetune import digest

MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML that says itself which tokens are the assistant's."""

THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""As Qwen3's: empty thoughts in the last turn alone."""


def chat(*contents: str, system: str = "") -> list[dict[str, str]]:
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": content}
        for number, content in enumerate(contents)
    ]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


CHATS = [
    chat("1 + 1?", "It is 2.", "And 1 more?", "It is 3.", "Thanks. 2 + 2?", "\\boxed{4}"),
    chat("How much is 12 + 30?", "42", system="Be brief."),
    chat("A?", "B B B B B B B.", "C?", "D.", system="Be brief."),
]


def problems(chats=CHATS) -> Problems:
    return Problems(
        [each[:-1] for each in chats],
        [each[-1]["content"] for each in chats],
        [""] * len(chats),
        [None] * len(chats),
    )


@pytest.fixture(scope="module")
def one_tokenizer(tiny_folder):
    return load_tokenizer(tiny_folder)


@pytest.fixture
def tokenizer(one_tokenizer, monkeypatch):
    """The tokenizer, whose template a test may change."""
    monkeypatch.setattr(one_tokenizer, "chat_template", one_tokenizer.chat_template)
    return one_tokenizer


def counted(tokenizer, encoded, number: int) -> list[str]:
    """Texts of the stretches that the loss counts."""
    mask = encoded.loss_mask(number)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    tokens = encoded.tokens[number]
    return [tokenizer.decode(tokens[start:stop]) for start, stop in edges.reshape(-1, 2).tolist()]


def test_every_turn_of_the_assistant_counts_with_its_end(tokenizer):
    encoded = encode(problems(), tokenizer, max_length=500, loss_on="all")
    for number, each in enumerate(CHATS):
        said = [turn["content"] for turn in each if turn["role"] == "assistant"]
        assert counted(tokenizer, encoded, number) == [f"{text}<|im_end|>" for text in said]
    last = encode(problems(), tokenizer, max_length=500)
    for number, each in enumerate(CHATS):
        assert counted(tokenizer, last, number) == [f"{each[-1]['content']}<|im_end|>"]
    # The text is the same, and so is what is asked before the solution.
    for one, two in zip(encoded.tokens, last.tokens, strict=True):
        assert tokenizer.decode(one) == tokenizer.decode(two)
    np.testing.assert_array_equal(encoded.solution_lengths, last.solution_lengths)


def test_one_turn_is_encoded_as_ever(tokenizer):
    one, two = (
        encode(problems(CHATS[1:2]), tokenizer, max_length=500, loss_on=which)
        for which in ("last", "all")
    )
    np.testing.assert_array_equal(one.tokens[0], two.tokens[0])
    np.testing.assert_array_equal(one.loss_mask(0), two.loss_mask(0))
    assert one.prompt_lengths.tolist() == two.prompt_lengths.tolist()
    assert (one.masks is None, two.masks is None) == (True, False)


@pytest.mark.slow
def test_the_mask_is_that_of_transformers(tokenizer):
    tokenizer.chat_template = MARKED
    encoded = encode(problems(), tokenizer, max_length=500, loss_on="all")
    for number, each in enumerate(CHATS):
        expected = tokenizer.apply_chat_template(
            each, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        # The template writes a line break after the last turn, which no model has to say.
        length = len(encoded.tokens[number])
        assert len(expected["input_ids"]) == length + 1
        assert encoded.tokens[number].tolist() == expected["input_ids"][:length]
        mask = encoded.loss_mask(number).astype(int).tolist()
        assert mask == expected["assistant_masks"][:length]
        assert not expected["assistant_masks"][length]


def test_a_template_that_leaves_thoughts_out_of_earlier_turns(tokenizer):
    tokenizer.chat_template = THINKING
    encoded = encode(problems(), tokenizer, max_length=500, loss_on="all")
    assert counted(tokenizer, encoded, 0) == [
        "It is 2.<|im_end|>",
        "It is 3.<|im_end|>",
        "\\boxed{4}<|im_end|>",
    ]


def test_batches_have_the_masks_packed_or_not(tokenizer):
    encoded = encode(problems(), tokenizer, max_length=500, loss_on="all").take([2, 0, 1])
    number = sum(int(encoded.loss_mask(row).sum()) for row in range(3))
    for packed in (False, True):
        options = {"batch_size": 3, "steps": 1, "seed": 0, "packed": packed}
        batch = Loader(encoded, length=256, **options)[0]
        assert batch.loss_mask.sum() == number
        said = tokenizer.decode(np.asarray(batch.tokens)[np.asarray(batch.loss_mask)])
        assert said.count("<|im_end|>") == 6
        assert "1 + 1" not in said
    last = encode(problems(), tokenizer, max_length=500).take([2, 0, 1])
    assert digest(encoded) != digest(last)


def test_a_cut_chat_keeps_the_turns_that_are_left(tokenizer):
    whole = encode(problems(), tokenizer, max_length=500, loss_on="all")
    room = int(whole.prompt_lengths[2])
    with pytest.warns(UserWarning, match="cut to"):
        cut = encode(problems(), tokenizer, max_length=room, on_long="truncate", loss_on="all")
    number = cut.rows.tolist().index(2)
    assert counted(tokenizer, cut, number) == ["B B B B B B B.<|im_end|>"]
    assert cut.solution_lengths[number] == whole.solution_lengths[2]
    # With the loss on the solution alone nothing would be left to count.
    with pytest.warns(UserWarning, match="of the prompt alone"):
        last = encode(problems(), tokenizer, max_length=room, on_long="truncate")
    assert 2 not in last.rows


def test_what_a_template_does_to_turns_is_told(tokenizer):
    with pytest.raises(ValueError, match=r"loss_on must be one of \('last', 'all'\), got 'some'"):
        encode(problems(), tokenizer, max_length=500, loss_on="some")  # pyright: ignore
    usual = tokenizer.chat_template
    tokenizer.chat_template = usual.replace(
        "message['content']",
        "('' if message['role'] == 'assistant' and not loop.last else message['content'])",
    )
    with pytest.raises(ValueError, match=r"problem 0: loss_on 'all' needs .* changes 'It is 2.'"):
        encode(problems(), tokenizer, max_length=500, loss_on="all")
    tokenizer.chat_template = usual.replace("<|im_end|>", "")
    with pytest.raises(ValueError, match=r"problem 0: loss_on 'all' needs .* writes ends of turns"):
        encode(problems(), tokenizer, max_length=500, loss_on="all")
