"""Decoded chats and pass rates, against a loop that reads the whole text for every token."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.llm.answering import decoding
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations
from experiments.llm.answering.evaluate import decode, evaluate
from experiments.llm.answering.model import Model
from experiments.llm.answering.pass_rates import summarise
from experiments.llm.problems.data import Problems
from experiments.llm.text.tokenizer import prompt_tokens
from experiments.storage.sharding import make_mesh, parameter_shardings
from synth.config import DecoderConfig
from synth.decoder import initialise, logits
from tests.experiments.llm.tiny import MAX_POSITIONS

NEW = 12
WIDTH = 128
"""Padded width of prompts in most tests: each further width costs a compilation."""
GREEDY = DecodingConfig(max_new_tokens=NEW, batch_size=4, prompt_multiple=WIDTH)
SAMPLED = dataclasses.replace(GREEDY, samples=3, temperature=1.2, batch_size=64, seed=5)

read = jax.jit(logits, static_argnums=0)


@pytest.fixture(scope="module")
def model(tiny_folder):
    """A model with a stop token that occurs in some of its greedy responses, but not in all."""
    model = Model.load(tiny_folder)
    free = [slow_greedy(model, prompt_tokens(model.tokenizer, chat), ())[0] for chat in chats(6)]
    some = (token for token in free[0][1:] if any(token not in tokens for tokens in free))
    return dataclasses.replace(model, stop=(next(some), model.decoder.vocab_size - 1))


def respond(model, prompts, config):
    """Texts of the samples of each prompt."""
    return decode(model, prompts, config).texts


def chats(number: int) -> list[list[dict[str, str]]]:
    """Questions of very different lengths, some below 64 tokens, some above."""
    words = re.findall(
        r"\S+", "How many fish are there, if a pond has 7 and a lake has 15 of them?"
    )
    return [
        [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": " ".join(words[: 1 + (5 * row) % len(words)])},
        ]
        for row in range(number)
    ]


def slow_greedy(model: Model, prompt: list[int], stop: tuple[int, ...]) -> tuple[list[int], bool]:
    """Continue one prompt without padding or cache: new tokens, and whether they were cut off."""
    tokens = np.zeros(256, np.int32)
    tokens[: len(prompt)] = prompt
    for place in range(len(prompt), len(prompt) + NEW):
        scores = read(model.decoder, model.parameters, tokens, np.arange(256))
        tokens[place] = scores[place - 1].argmax()
        if tokens[place] in stop:
            return tokens[len(prompt) : place].tolist(), False
    return tokens[len(prompt) : len(prompt) + NEW].tolist(), True


def test_greedy_is_the_slow_loop_with_stop_tokens(model):
    prompts = [prompt_tokens(model.tokenizer, chat) for chat in chats(6)]
    assert {len(prompt) > 64 for prompt in prompts} == {True, False}
    expected = [slow_greedy(model, prompt, model.stop) for prompt in prompts]
    assert {is_cut for _, is_cut in expected} == {True, False}
    done = []
    config = dataclasses.replace(GREEDY, prompt_multiple=64)
    continued = continuations(model, prompts, config, advance=done.append)
    assert [(one.tokens.tolist(), one.truncated) for (one,) in continued] == expected
    assert sum(done) == 6
    answers = decode(model, chats(6), GREEDY)
    assert answers.num_tokens.tolist() == [[len(tokens)] for tokens, _ in expected]
    assert answers.truncated.tolist() == [[is_cut] for _, is_cut in expected]
    texts = [model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in expected]
    assert answers.texts == [[text] for text in texts]


def test_special_tokens_are_no_part_of_the_text(model):
    # All logits are equal, so that token 0 is always chosen.
    parameters = {**model.parameters, "head": jnp.zeros_like(model.parameters["head"])}
    model = dataclasses.replace(model, parameters=parameters)
    assert model.tokenizer.decode([0]) == "<|endoftext|>"
    answers = decode(model, chats(1), GREEDY)
    assert answers.texts == [[""]]
    assert answers.num_tokens.tolist() == [[NEW]]


def test_samples_depend_on_prompt_and_seed_alone(model):
    asked = chats(6)
    texts = respond(model, asked, SAMPLED)
    assert [len(samples) for samples in texts] == [3] * 6
    assert len({text for samples in texts for text in samples}) == 18
    # Fewer prompts, in another order and in other rows of the batch.
    chosen = [4, 0, 3]
    again = respond(model, [asked[row] for row in chosen], SAMPLED)
    assert again == [texts[row] for row in chosen]
    # Fewer samples are the first of more samples.
    fewer = dataclasses.replace(SAMPLED, samples=1)
    assert respond(model, asked[:2], fewer) == [samples[:1] for samples in texts[:2]]
    # A problem that occurs twice is asked twice.
    twice = respond(model, [asked[0], asked[0]], fewer)
    assert twice[0] == texts[0][:1]
    assert twice[1] != twice[0]
    assert respond(model, asked[:2], dataclasses.replace(fewer, seed=6)) != texts[:2]


def test_samples_are_drawn_from_the_models_distribution(model):
    (chat,) = chats(1)
    prompt = prompt_tokens(model.tokenizer, chat)
    padded = np.pad(prompt, (0, 256 - len(prompt)))
    scores = read(model.decoder, model.parameters, padded, np.arange(256))[len(prompt) - 1]
    expected = np.asarray(jax.nn.softmax(scores / SAMPLED.temperature), float)
    config = dataclasses.replace(SAMPLED, samples=1024)
    # Count first tokens; a response that starts with a stop token has none.
    (samples,) = continuations(model, [prompt], config)
    first = [int(one.tokens[0]) for one in samples if len(one.tokens)]
    expected[list(model.stop)] = 0
    expected *= len(first) / expected.sum()
    counts = np.bincount(first, minlength=len(expected))
    # Rare tokens are pooled, so that the chi-square approximation holds.
    common = expected >= 5
    observed, wanted = (np.append(each[common], each[~common].sum()) for each in (counts, expected))
    assert common.sum() > 10
    assert scipy.stats.chisquare(observed, wanted).pvalue > 1e-3


@pytest.mark.parametrize(
    ("fsdp", "tp", "config"),
    [(2, 1, GREEDY), (1, 2, GREEDY), (2, 1, SAMPLED)],
    ids=["rows", "heads", "sampled rows"],
)
def test_a_mesh_gives_the_same(fsdp, tp, config, model, tiny_folder):
    spread = Model.load(tiny_folder, mesh=make_mesh(fsdp=fsdp, tp=tp))
    spread = dataclasses.replace(spread, stop=model.stop)
    assert respond(spread, chats(6), config) == respond(model, chats(6), config)


# Evaluation.


def parrot(model: Model, texts: list[str], monkeypatch) -> None:
    """Replace the texts that the model decodes by these, in turn."""
    from experiments.llm.answering import evaluate as module

    said = iter(texts)
    monkeypatch.setattr(module, "text_of", lambda model, continuation: next(said))


def boxed(answers: list[str], ops: list[int] | None = None) -> Problems:
    return Problems(
        chats(len(answers)), ["?"] * len(answers), answers, ops or [None] * len(answers), "sums"
    )


def test_evaluate_by_slice(model, monkeypatch):
    parrot(model, [rf"\boxed{{{number}}}" for number in (1, 2, 0, 4, 0, 0)], monkeypatch)
    evaluation = evaluate(
        model,
        boxed(["1", "2", "3", "4", "5", "6"]),
        decoding=GREEDY,
        slices=[7, 2, 7, 2, 2, 5],
    )
    rows = evaluation.responses
    assert rows["row"].tolist() == list(range(6))
    assert rows["slice"].tolist() == [7, 2, 7, 2, 2, 5]
    assert rows["sample"].tolist() == [0] * 6
    assert rows["correct"].tolist() == [True, True, False, True, False, False]
    assert rows["response"].tolist()[3] == r"\boxed{4}"
    assert set(rows) >= {"row", "slice", "sample", "response", "correct", "truncated", "num_tokens"}
    table = evaluation.table.set_index("slice")
    assert table.index.tolist() == [2, 5, 7]
    assert table["pass_at_1"].tolist() == [2 / 3, 0, 0.5]
    assert table["num_examples"].tolist() == [3, 1, 2]
    exact = scipy.stats.binomtest(2, 3).proportion_ci(0.9, method="exact")
    assert table.loc[2, ["low", "high"]].tolist() == pytest.approx([exact.low, exact.high])
    for column, name in (("share_truncated", "truncated"), ("mean_response_tokens", "num_tokens")):
        values = rows[name].to_numpy(float)
        assert table[column].tolist() == pytest.approx(
            [values[[1, 3, 4]].mean(), values[5], values[[0, 2]].mean()]
        )
    unsliced = rows.assign(slice=pd.array([pd.NA] * len(rows), dtype="Int64"))
    (whole,) = summarise(unsliced).to_dict("records")
    assert pd.isna(whole["slice"])
    assert (whole["pass_at_1"], whole["num_examples"]) == (0.5, 6)


def test_evaluate_with_samples(model, monkeypatch):
    right = [[1, 1, 0], [0, 0, 0]]
    texts = [rf"\boxed{{{row if ok else 9}}}" for row, oks in enumerate(right) for ok in oks]
    parrot(model, texts, monkeypatch)
    evaluation = evaluate(model, boxed(["0", "1"]), decoding=SAMPLED)
    assert evaluation.responses["correct"].astype(int).tolist() == right[0] + right[1]
    assert evaluation.responses["sample"].tolist() == [0, 1, 2] * 2
    (row,) = evaluation.table.to_dict("records")
    assert row["pass_at_1"] == pytest.approx(1 / 3)
    assert (row["num_examples"], row["num_samples"]) == (2, 3)
    assert row["low"] < 1 / 3 < row["high"]


# Refusals.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"prompt_multiple": 0}, "prompt_multiple must be at least 1, got 0"),
        ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"samples": 4}, "samples must be 1 at temperature 0, where all are equal; got 4"),
    ],
)
def test_configs_out_of_range(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DecodingConfig(**fields)


@pytest.fixture
def never(monkeypatch):
    """A decoder that must not be used."""
    from experiments.llm.answering import decoding as module

    def refuse(*args, **kwargs):
        raise AssertionError("it is decoded")

    monkeypatch.setattr(module, "_enter", refuse)


def test_bad_input_is_refused_before_decoding(model, never):
    config = DecodingConfig(max_new_tokens=4)
    with pytest.raises(ValueError, match="at least one row, got none in 'sums'"):
        evaluate(model, boxed([]), decoding=config)
    with pytest.raises(ValueError, match="slices must be one for each of 2 problems, got 1"):
        evaluate(model, boxed(["1", "2"]), decoding=config, slices=[1])
    with pytest.raises(ValueError, match=r"grader 'boxed' needs .*; rows 1 lack it"):
        evaluate(model, boxed(["1", ""]), decoding=config)
    with pytest.raises(ValueError, match=re.escape("these are empty: [1]")):
        continuations(model, [[5], []], config)
    with pytest.raises(ValueError, match=r"tokens beyond the \d+ of the checkpoint, .* row 1:"):
        continuations(model, [[5], [5, 100_000]], config)


def test_prompts_longer_than_the_context(model, never):
    prompts = [[5], [5] * 20, [5] * 10]
    config = DecodingConfig(max_new_tokens=MAX_POSITIONS - 10)
    expected = (
        f"the context of the checkpoint, {MAX_POSITIONS} tokens, but 1 of 3 prompts are too long, "
        f"the longest 20 + {MAX_POSITIONS - 10}; the first is row 1"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        continuations(model, prompts, config)


def test_padding_may_reach_beyond_the_context(model):
    # 90 and the new tokens fit; 128, to which prompts are padded, would not.
    decoder = dataclasses.replace(model.decoder, max_positions=90 + NEW)
    model = dataclasses.replace(model, decoder=decoder)
    expected = slow_greedy(model, [5] * 90, model.stop)
    ((one,),) = continuations(model, [[5] * 90], GREEDY)
    assert (one.tokens.tolist(), one.truncated) == expected


def test_one_new_token_and_one_long_prompt(model):
    """A prompt that needs more than twice the capacity of the others has a stream of its own."""
    prompts = [[7] * 3, [5] * 90, [9, 8], [6] * 40]
    config = DecodingConfig(max_new_tokens=1, batch_size=2, prompt_multiple=16)
    first = [one.tokens.tolist() for (one,) in continuations(model, prompts, config)]
    assert first == [slow_greedy(model, prompt, model.stop)[0][:1] for prompt in prompts]


def test_fewer_problems_than_a_mesh_takes_at_once(model, tiny_folder):
    spread = Model.load(tiny_folder, mesh=make_mesh(data=2))
    spread = dataclasses.replace(spread, stop=model.stop)
    config = dataclasses.replace(GREEDY, batch_size=8)
    assert respond(spread, chats(5), config) == respond(model, chats(5), config)


@pytest.mark.parametrize("rows", [2, 3])
def test_heads_that_do_not_divide_over_the_mesh(rows):
    """Rows of the cache are split in their place, if they divide."""
    decoder = DecoderConfig(20, num_heads=2, num_kv_heads=1, positions="sequential")
    parameters, mesh = initialise(decoder, jax.random.key(0)), make_mesh(tp=2)
    spread = jax.device_put(parameters, parameter_shardings(parameters, mesh))
    prompts, config = [[3, 5, 7], [2] * 9, [11]], dataclasses.replace(GREEDY, batch_size=rows)
    one, two = (
        continuations(Model(decoder, each, None, (), where), prompts, config)
        for each, where in ((parameters, None), (spread, mesh))
    )
    assert [a.tokens.tolist() for (a,) in one] == [b.tokens.tolist() for (b,) in two]
    cache = decoding._start(decoder, jnp.dtype("float32"), rows, 16, mesh).cache
    held = {leaf.sharding.shard_shape(leaf.shape)[0] for leaf in jax.tree.leaves(cache)}
    assert held == {1 if rows == 2 else 3}


def test_batches_must_divide_over_the_mesh(tiny_folder, never):
    spread = Model.load(tiny_folder, mesh=make_mesh(fsdp=2))
    with pytest.raises(
        ValueError, match="batch_size must be a multiple of the mesh's data × fsdp, 2; got 3"
    ):
        respond(spread, chats(1), DecodingConfig(batch_size=3, max_new_tokens=4))


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer"):
        Model.load(tmp_path)
