"""Continuations that are kept as they end: an interrupted run need not decode them again."""

from __future__ import annotations

import dataclasses

import pytest

from experiments.llm.decoding import DecodingConfig, continuations
from experiments.llm.kept import Kept
from experiments.llm.model import Model

CONFIG = DecodingConfig(4, samples=2, temperature=1.3, batch_size=4, prompt_multiple=16)
PROMPTS = [[5] * length for length in (3, 7, 2, 9, 4)]
ABOUT = {"checkpoint": "one", "seed": 0}


@pytest.fixture(scope="module")
def model(tiny_folder):
    return Model.load(tiny_folder)


class KilledError(Exception):
    """What stops a run in the middle."""


def decode(model, path, prompts=PROMPTS, *, most=None, config=CONFIG, about=ABOUT):
    """Tokens of all samples, and how many of them were decoded now; `KilledError` after `most`."""
    kept, done = Kept(path, about), []

    def advance(count):
        done.append(count)
        if most is not None and sum(done) >= most:
            raise KilledError

    found = continuations(model, prompts, config, kept=kept, advance=advance)
    parts = [(one.tokens.tolist(), one.truncated) for samples in found for one in samples]
    assert sum(done) == len(parts)
    return parts, len(parts) - done[0]


def test_a_run_that_is_killed_carries_on(model, tmp_path):
    expected, _ = decode(model, tmp_path / "whole")
    path = tmp_path / "decoded.jsonl"
    with pytest.raises(KilledError):
        decode(model, path, most=3)
    kept = Kept(path, ABOUT).num_found
    assert 3 <= kept < 10
    # A line that was cut off is decoded again.
    path.write_bytes(path.read_bytes()[:-5])
    assert decode(model, path) == (expected, 10 - kept + 1)
    assert decode(model, path) == (expected, 0)
    assert path.read_text().count("\n") == 1 + 10


def test_more_problems_and_samples_decode_only_those(model, tmp_path):
    path = tmp_path / "new" / "decoded.jsonl"
    fewer = dataclasses.replace(CONFIG, samples=1)
    first, now = decode(model, path, PROMPTS[1:3], config=fewer)
    assert now == 2
    found, now = decode(model, path)
    assert now == 8
    assert [found[2], found[4]] == first


def test_another_model_begins_anew(model, tmp_path):
    path = tmp_path / "decoded.jsonl"
    decode(model, path)
    assert Kept(path, ABOUT).num_found == 10
    assert Kept(path, ABOUT | {"checkpoint": "another"}).num_found == 0
    assert Kept(path, ABOUT).num_found == 0
