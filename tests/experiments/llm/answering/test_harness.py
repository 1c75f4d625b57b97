"""Our decoder behind lm-evaluation-harness, on tasks in a local folder."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.model import Model
from experiments.llm.text.tokenizer import CHAT_TEMPLATE, load_tokenizer
from experiments.storage.sharding import make_mesh
from synth.decoder import logits
from tests.experiments.llm.tiny import MAX_POSITIONS

pytestmark = [
    pytest.mark.slow,
    # Warnings of the harness and its imports are not about our code.
    pytest.mark.filterwarnings("default"),
]

DECODING = DecodingConfig(batch_size=2)
QUESTIONS = [f"The number of fish in pond {row} equals {3 * row}. How many" for row in range(4)]
CHOICES = [" 3", " fish there are", " the number"]
read = jax.jit(logits, static_argnums=0)


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    """The module under test."""
    pytest.importorskip("lm_eval", reason="needs: pip install 'sweetspot-sft[harness]'")
    from experiments.llm.answering import harness

    return harness


@pytest.fixture(scope="module")
def model(tiny_folder):
    return Model.load(tiny_folder)


@pytest.fixture(scope="module")
def adapter(harness, model):
    return harness.HarnessModel(model, DECODING)


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each) for each in arguments]


def log_probabilities(model: Model, tokens: list[int]) -> np.ndarray:
    """Log-probability of every token but the first, and of the most probable one in its place."""
    padded = np.zeros(MAX_POSITIONS, np.int32)
    padded[: len(tokens) - 1] = tokens[:-1]
    scores = read(model.decoder, model.parameters, padded, np.arange(MAX_POSITIONS))
    scores = np.asarray(jax.nn.log_softmax(scores))[: len(tokens) - 1]
    return np.stack([scores[np.arange(len(scores)), tokens[1:]], scores.max(axis=1)])


def slow_greedy(model: Model, text: str, new: int) -> str:
    """Continue a text token by token, reading all of it each time."""
    tokens = model.tokenizer.encode(text)
    start = len(tokens)
    for _ in range(new):
        padded = np.zeros(MAX_POSITIONS, np.int32)
        padded[: len(tokens)] = tokens
        scores = read(model.decoder, model.parameters, padded, np.arange(MAX_POSITIONS))
        tokens.append(int(scores[len(tokens) - 1].argmax()))
        if tokens[-1] in model.stop:
            break
    return model.tokenizer.decode(tokens[start:], skip_special_tokens=True)


def test_without_the_harness_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "experiments.llm.answering.harness", raising=False)
    with pytest.raises(ImportError, match=re.escape("pip install 'sweetspot-sft[harness]'")):
        import experiments.llm.answering.harness  # noqa: F401


def test_loglikelihood_of_continuations(adapter, model):
    pairs = [(question, choice) for question in QUESTIONS for choice in CHOICES]
    pairs += [("", "The number"), ("x " * 30, "y " * 80), ("word ", " spaced")]
    results = adapter.loglikelihood(requests(*pairs), disable_tqdm=True)
    for (context, continuation), (total, is_greedy) in zip(pairs, results, strict=True):
        whole = model.tokenizer.encode(context + continuation)
        if context:
            # Spaces between context and continuation belong to the continuation.
            start = len(model.tokenizer.encode(context.rstrip()))
        else:
            whole, start = [adapter.prefix_token_id, *whole], 1
        chosen, highest = log_probabilities(model, whole)[:, start - 1 :]
        assert total == pytest.approx(chosen.sum(), abs=1e-3)
        assert is_greedy == bool((chosen == highest).all())


def test_greedy_tokens_are_greedy_and_others_are_not(harness, model):
    tokens = model.tokenizer.encode(QUESTIONS[1])
    start = len(tokens)
    for _ in range(5):
        scores = read(
            model.decoder,
            model.parameters,
            np.pad(tokens, (0, MAX_POSITIONS - len(tokens))),
            np.arange(MAX_POSITIONS),
        )
        tokens.append(int(scores[len(tokens) - 1].argmax()))
    other = [*tokens[:-1], (tokens[-1] + 1) % model.decoder.vocab_size]
    results = harness.score(model, [tokens, other, tokens], [start, start, 2], DECODING)
    assert [is_greedy for _, is_greedy in results] == [True, False, False]
    assert results[0][0] > results[1][0] > results[2][0]


def test_rolling_loglikelihood_predicts_every_token_once(adapter, model):
    text = " ".join(f"The number {number} is {number**2}." for number in range(150))
    tokens = model.tokenizer.encode(text)
    assert len(tokens) > 2 * MAX_POSITIONS
    totals = adapter.loglikelihood_rolling(requests(("short",), (text,)))
    total, done = 0.0, 0
    while done < len(tokens):
        # The first window starts with the prefix token, the last one reaches back as far as it can.
        end = min(done + MAX_POSITIONS, len(tokens))
        begin = max(end - MAX_POSITIONS, 0)
        before = [adapter.prefix_token_id] if begin == 0 else tokens[begin - 1 : begin]
        window = log_probabilities(model, [*before, *tokens[begin:end]])[0]
        total += window[done - begin :].sum()
        done = end
    assert totals[1] == pytest.approx(total, abs=0.02)
    short = log_probabilities(model, [adapter.prefix_token_id, *model.tokenizer.encode("short")])[0]
    assert totals[0] == pytest.approx(short.sum(), abs=1e-3)


def test_generation_stops_at_texts(adapter, model):
    question = "Q: How many fish? A:"
    free = slow_greedy(model, question, 16)
    until = free[3:5]
    assert until
    texts = adapter.generate_until(
        requests(
            (question, {"until": [], "max_gen_toks": 16}),
            (QUESTIONS[1], {"until": "\n\n", "max_gen_toks": 8, "temperature": 0.0, "top_p": 0.9}),
            (question, {"until": [until, "<|im_start|>"], "max_gen_toks": 16}),
        )
    )
    assert texts == [free, slow_greedy(model, QUESTIONS[1], 8), free.split(until)[0]]
    assert len(texts[2]) < len(texts[0])


def test_samples_differ_and_repeat(adapter):
    settings = {"until": [], "max_gen_toks": 8, "do_sample": True}
    asked = requests((QUESTIONS[0], settings), (QUESTIONS[0], settings))
    first, second = adapter.generate_until(asked)
    assert first != second
    assert adapter.generate_until(asked) == [first, second]


def test_a_long_prompt_loses_its_beginning(adapter, model):
    long = "word " * MAX_POSITIONS
    settings = {"until": [], "max_gen_toks": 8}
    with pytest.warns(
        UserWarning, match=f"1 prompts lost their beginning to fit {MAX_POSITIONS - 8}"
    ):
        (text,) = adapter.generate_until(requests((long, settings)))
    kept = model.tokenizer.decode(model.tokenizer.encode(long)[-(MAX_POSITIONS - 8) :])
    assert text == slow_greedy(model, kept, 8)


def test_texts_and_chats_have_limits(harness, model, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    bomb = "{% if 'bomb' in messages[0]['content'] %}{{ 'a' * 10**10 }}{% endif %}"
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE + bomb)
    guarded = dataclasses.replace(model, tokenizer=load_tokenizer(folder))
    adapter = harness.HarnessModel(guarded, DECODING)
    for generation in (True, False):
        with pytest.raises(ValueError, match=r"the chat template refuses|broken or hostile"):
            adapter.apply_chat_template([{"role": "user", "content": "bomb"}], generation)


def test_tokens_are_those_of_the_tokenizer_itself(adapter):
    tokenizer = adapter.tokenizer
    for text in ("hi", f"{tokenizer.bos_token or ''}hi", "a<|im_end|>b", ""):
        for special in (True, False):
            wanted = tokenizer.encode(text, add_special_tokens=special)
            assert adapter.tok_encode(text, add_special_tokens=special) == wanted


def test_chats(adapter):
    chat = [{"role": "user", "content": "hi"}]
    assert adapter.apply_chat_template(chat).endswith("hi<|im_end|>\n<|im_start|>assistant\n")
    begun = [*chat, {"role": "assistant", "content": "The answer"}]
    text = adapter.apply_chat_template(begun, add_generation_prompt=False)
    assert text.endswith("<|im_start|>assistant\nThe answer")


def test_a_mesh_gives_the_same(harness, adapter, tiny_folder):
    spread = harness.HarnessModel(Model.load(tiny_folder, mesh=make_mesh(fsdp=2)), DECODING)
    pairs = requests(*[(question, CHOICES[0]) for question in QUESTIONS])
    settings = requests((QUESTIONS[0], {"until": [], "max_gen_toks": 8}))
    np.testing.assert_allclose(
        [total for total, _ in spread.loglikelihood(pairs, disable_tqdm=True)],
        [total for total, _ in adapter.loglikelihood(pairs, disable_tqdm=True)],
        rtol=1e-5,
    )
    assert spread.generate_until(settings) == adapter.generate_until(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"do_sample": True, "top_p": 0.9},
            "samples are drawn from all tokens, got {'top_p': 0.9}",
        ),
        ({"num_beams": 4}, "generation_kwargs must be among until, do_sample, temperature"),
        (
            {"max_gen_toks": MAX_POSITIONS},
            f"leaves no room for a prompt in a context of {MAX_POSITIONS}",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(settings, message, adapter):
    with pytest.raises(ValueError, match=re.escape(message)):
        adapter.generate_until(requests((QUESTIONS[0], settings)))


def test_a_continuation_longer_than_the_context(adapter):
    with pytest.raises(ValueError, match=f"does not fit into a context of {MAX_POSITIONS}"):
        adapter.loglikelihood(requests(("a", " word" * MAX_POSITIONS)), disable_tqdm=True)


TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
"""
KINDS = {
    "spoken": """doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "chosen": """doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
}


def test_local_tasks(harness, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = [slow_greedy(model, question, 8).split("\n")[0] for question in QUESTIONS]
    best = []
    for question in QUESTIONS:
        start = len(model.tokenizer.encode(question))
        best.append(
            np.argmax(
                [
                    log_probabilities(model, model.tokenizer.encode(question + choice))[
                        0, start - 1 :
                    ].sum()
                    for choice in CHOICES
                ]
            )
        )
    # The model is right in half of the spoken answers, and in three of four choices.
    rows = [
        {
            "question": question,
            "answer": said[row] if row % 2 else "something else",
            "choices": CHOICES,
            "label": int(best[row] + (row == 0)) % len(CHOICES),
        }
        for row, question in enumerate(QUESTIONS)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind in (("spoken", "generate_until"), ("chosen", "multiple_choice")):
        text = TASK.format(name=name, data=data, kind=kind) + KINDS[name]
        (tmp_path / f"{name}.yaml").write_text(text)
    table = harness.run_tasks(
        model, ["spoken", "chosen"], include=tmp_path, decoding=DECODING
    ).set_index("task")
    assert table["metric"].to_dict() == {"spoken": "exact_match", "chosen": "acc"}
    assert table["value"].to_dict() == {"spoken": 0.5, "chosen": 0.75}
    assert (table["num_examples"] == 4).all()
    assert (table["standard_error"] > 0).all()
    chats = harness.run_tasks(
        model, ["chosen"], include=tmp_path, decoding=DECODING, chat=True, limit=2
    )
    assert chats["num_examples"].tolist() == [2]
