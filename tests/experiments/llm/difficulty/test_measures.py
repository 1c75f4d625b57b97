"""Table of measures of a tiny untrained model, and arguments that are refused before any work."""

from __future__ import annotations

import dataclasses
import io
import sys

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("transformers", reason="tokenizers need: pip install 'sweetspot-sft[llm]'")

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.evaluate import decode
from experiments.llm.answering.model import Model
from experiments.llm.answering.perplexity import perplexities
from experiments.llm.difficulty.measures import measure
from experiments.llm.problems.config import GraderConfig
from experiments.llm.problems.data import Problems, read
from experiments.llm.text.encoding import encode
from tests.experiments.llm.rows import write_rows
from tests.experiments.llm.tiny import write_tiny_folder

DECODING = DecodingConfig(max_new_tokens=1, batch_size=32, prompt_multiple=256)
SAMPLES, TEMPERATURE = 8, 0.7


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return Model.load(write_tiny_folder(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> Problems:
    return read(write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", 8))


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_a_tokenizer_is_enough_for_lengths_and_stated_levels(model, problems):
    table = measure(model.tokenizer, problems, measures=("op", "cot_tokens"))
    assert table.columns.tolist() == ["row", "op", "cot_tokens"]
    assert table["row"].tolist() == list(range(8))
    assert table["op"].tolist() == list(problems.ops)
    expected = [len(model.tokenizer.encode(text)) for text in problems.solutions]
    assert table["cot_tokens"].tolist() == expected


def test_op_is_there_if_stated_and_may_be_missing_for_some(model, problems):
    some = dataclasses.replace(problems, ops=[None, *problems.ops[1:]])
    table = measure(model.tokenizer, some, measures=["cot_tokens"])
    assert table["op"].isna().tolist() == [True] + [False] * 7
    none = dataclasses.replace(problems, ops=[None] * 8)
    assert "op" not in measure(model.tokenizer, none, measures=["cot_tokens"])


def digits_alone(model: Model) -> Model:
    """The same model, but it says hardly anything but digits."""
    digits = [model.tokenizer.convert_tokens_to_ids(digit) for digit in "0123456789"]
    head = np.zeros_like(model.parameters["head"])
    head[:, digits] = 8 * np.asarray(model.parameters["head"])[:, digits]
    return dataclasses.replace(model, parameters={**model.parameters, "head": head})


def test_pass_rate_is_the_share_of_samples_that_are_right(model, problems):
    # Short problems, which one compiled program answers.
    problems, model = problems.take([0, 2, 5, 7]), digits_alone(model)
    config = dataclasses.replace(DECODING, samples=SAMPLES, temperature=TEMPERATURE)
    said = decode(model, problems.prompts, config).texts
    asked = dataclasses.replace(problems, answers=[texts[0] for texts in said])
    console = quiet()
    table = measure(
        model,
        asked,
        measures=["pass_rate"],
        grader=GraderConfig("gsm8k"),
        decoding=config,
        console=console,
    )
    expected = [np.mean([text == texts[0] for text in texts]) for texts in said]
    assert min(expected) < 1
    np.testing.assert_allclose(table["pass_rate"], expected)
    assert table.columns.tolist() == ["row", "op", "pass_rate", "share_truncated", "samples"]
    assert set(table["samples"]) == {SAMPLES}
    assert set(table["share_truncated"]) == {1.0}
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "100% of the samples reached max_new_tokens 1 and were cut" in output
    assert "of 32 responses" in output


def test_perplexity_stays_with_its_problem(model, problems):
    encoded = encode(problems, model.tokenizer, max_length=sys.maxsize)
    expected = perplexities(model.decoder, model.parameters, encoded)
    order = [5, 0, 3, 7, 1, 2, 6, 4]
    table = measure(model, problems.take(order), measures=["perplexity"], console=quiet())
    np.testing.assert_allclose(table["perplexity"], expected[order], rtol=1e-5)
    # An untrained model has a perplexity of about the number of tokens in its vocabulary.
    assert (expected > 50).all()


def test_nothing_is_done_before_the_arguments_are_checked(model, problems):
    def refused(match, problems=problems, model=model, **options):
        with pytest.raises(ValueError, match=match):
            measure(model, problems, **options)

    refused(r"some of \['op', .*\], got \['length'\]", measures=["length"])
    refused(r"some of \['op', .*\], got \[\]", measures=[])
    refused("at least one row", problems=problems.take([]), measures=["op"])
    refused(
        "must be stated by the data set",
        problems=dataclasses.replace(problems, ops=[None] * 8),
        measures=["op"],
    )
    refused(
        r"\['perplexity'\] need a model",
        model=model.tokenizer,
        measures=["cot_tokens", "perplexity"],
    )
    unknown = dataclasses.replace(problems, answers=[""] * 8, solutions=["no number"] * 8)
    refused(
        "rows 0, 1, .* lack it",
        problems=unknown,
        measures=["pass_rate"],
        grader=GraderConfig("gsm8k"),
    )
    long = dataclasses.replace(problems, solutions=["word " * 2000, *problems.solutions[1:]])
    refused(
        "context of the checkpoint, 1024 tokens, but 1 of 8 are longer",
        problems=long,
        measures=["pass_rate", "perplexity"],
    )
