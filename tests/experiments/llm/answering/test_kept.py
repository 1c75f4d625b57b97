"""Continuations are kept as they end, and a later run does not decode them again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations
from experiments.llm.answering.kept import Continuation, Kept
from experiments.llm.answering.model import Model
from experiments.storage.results import ResultsError

CONFIG = DecodingConfig(4, samples=2, temperature=1.3, batch_size=4, prompt_multiple=16)
PROMPTS = [[5] * length for length in (3, 7, 2, 9, 4)]
ABOUT = {"checkpoint": "one", "seed": 0}


@pytest.fixture(scope="module")
def model(tiny_folder):
    return Model.load(tiny_folder)


class KilledError(Exception):
    """Stops a run in the middle."""


def decode(model, directory, prompts=PROMPTS, *, most=None, config=CONFIG):
    """Samples, and the number that were decoded now; raises `KilledError` after `most` of them."""
    done = []

    def advance(count):
        done.append(count)
        if most is not None and sum(done) >= most:
            raise KilledError

    with Kept(directory, ABOUT) as kept:
        continued = continuations(model, prompts, config, kept=kept, advance=advance)
    parts = [(one.tokens.tolist(), one.truncated) for samples in continued for one in samples]
    assert sum(done) == len(parts)
    return parts, len(parts) - done[0]


def num_found(directory, about=ABOUT):
    with Kept(directory, about) as kept:
        return kept.num_found


def test_a_run_that_is_killed_carries_on(model, tmp_path):
    expected, _ = decode(model, tmp_path / "whole")
    directory = tmp_path / "run"
    with pytest.raises(KilledError):
        decode(model, directory, most=3)
    kept = num_found(directory)
    assert 3 <= kept < 10
    # A line that was cut off is decoded again.
    (path,) = directory.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert decode(model, directory) == (expected, 10 - kept + 1)
    assert decode(model, directory) == (expected, 0)
    assert path.read_text().count("\n") == 1 + 10


def test_what_ended_is_kept_though_others_of_its_batch_go_on(model, tmp_path):
    free, _ = decode(model, tmp_path / "free", config=dataclasses.replace(CONFIG, samples=1))
    # One prompt ends at once, and there are more rows than prompts, so that none waits.
    model = dataclasses.replace(model, stop=(free[0][0][0],))
    config = dataclasses.replace(CONFIG, samples=1, batch_size=8, max_new_tokens=12)
    with pytest.raises(KilledError):
        decode(model, tmp_path / "run", most=1, config=config)
    assert 1 <= num_found(tmp_path / "run") < len(PROMPTS)


def test_more_problems_and_samples_decode_only_those(model, tmp_path):
    fewer = dataclasses.replace(CONFIG, samples=1)
    first, now = decode(model, tmp_path / "new", PROMPTS[1:3], config=fewer)
    assert now == 2
    parts, now = decode(model, tmp_path / "new")
    assert now == 8
    assert [parts[2], parts[4]] == first


def test_another_model_has_a_file_of_its_own(model, tmp_path):
    decode(model, tmp_path)
    assert num_found(tmp_path) == 10
    assert num_found(tmp_path, ABOUT | {"checkpoint": "another"}) == 0
    assert num_found(tmp_path) == 10


@pytest.mark.parametrize("place", ["header", "row"])
def test_what_cannot_be_read_is_decoded_again(place, model, tmp_path):
    expected, _ = decode(model, tmp_path)
    (path,) = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[0 if place == "header" else 4] = bytes(20) + b"\n"
    path.write_bytes(b"".join(lines))
    assert num_found(tmp_path) == (0 if place == "header" else 9)
    assert decode(model, tmp_path)[0] == expected
    assert num_found(tmp_path) == 10


def test_two_processes_do_not_share_a_file(tmp_path):
    with Kept(tmp_path, ABOUT), pytest.raises(ResultsError, match="in use by another process"):
        Kept(tmp_path, ABOUT)


@pytest.mark.parametrize(
    "line",
    [
        "5",
        "null",
        '["a", 5, false]',
        '[["a"], [1], false]',
        '["a", [1.5], false]',
        '["a", [[1]], false]',
        '["a", [99999999999], false]',
        '["a", [1], 7]',
        '["a", "12", false]',
        "[" * 100_000,
        "1" * 10_000,
    ],
)
def test_a_line_of_another_form_is_passed_over(line, tmp_path):
    with Kept(tmp_path, ABOUT) as kept:
        kept.add([("first", Continuation(np.array([1, 2], np.int32), False))])
        path = kept.path
    with path.open("a") as file:
        file.write(line + "\n")
    with Kept(tmp_path, ABOUT) as kept:
        assert kept.num_found == 1
        kept.add([("last", Continuation(np.array([3], np.int32), True))])
    with Kept(tmp_path, ABOUT) as kept:
        assert kept.num_found == 2


def test_no_changed_bit_changes_an_answer(tmp_path):
    """Each answer is found as it was, or is decoded again."""
    answers = {
        name: Continuation(np.array(tokens, np.int32), name == "b")
        for name, tokens in (("a", [1, 2]), ("b", []), ("c", [30, 41, 52]))
    }
    with Kept(tmp_path, ABOUT) as kept:
        kept.add(answers.items())
        path = kept.path
    whole, found = path.read_bytes(), 0
    start = whole.index(b"\n") + 1
    for bit in range(8 * start, 8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(content)
        with Kept(tmp_path, ABOUT) as kept:
            for name, answer in answers.items():
                if (one := kept.get(name)) is not None:
                    found += 1
                    assert one.tokens.tolist() == answer.tokens.tolist()
                    assert one.truncated == answer.truncated
    # All but those of the changed line, or of the two around a changed line's end.
    assert found > 8 * (len(whole) - start)
