"""The export of iGSM: what stands in its files, its splits, and that it is never half written."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from experiments.igsm import export
from experiments.igsm.config import SYSTEM_PROMPT, ExportConfig
from experiments.igsm.export import export_igsm
from experiments.igsm.files import fingerprint, read_rows
from experiments.storage.results import ResultsError, read_manifest
from synth.tasks import igsm

SMALL = ExportConfig(
    difficulties=(3, 4),
    train_sizes=(30, 20),
    base_difficulties=(2,),
    base_sizes=(10,),
    test_difficulties=(2, 5),
    test_examples=12,
)


def files(directory: Path) -> list[str]:
    """Every file that is not hidden, by its path in the directory."""
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def everything(directory: Path) -> dict[str, bytes]:
    """Content of every file but the manifest, which holds times."""
    names = set(files(directory)) - {"manifest.json"}
    return {name: (directory / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "data"
    export_igsm(SMALL, out)
    return out


def test_files_rows_and_manifest(exported):
    data = {"base/op02": 10, "train/op03": 30, "train/op04": 20, "test/op02": 12, "test/op05": 12}
    assert files(exported) == sorted(
        ["README.md", "manifest.json", *(f"{name}.jsonl" for name in data)]
    )
    manifest = read_manifest(exported)
    assert manifest["status"] == "complete"
    assert manifest["settings"]["difficulties"] == [3, 4]
    assert {name: entry["rows"] for name, entry in manifest["files"].items()} == {
        f"{name}.jsonl": rows for name, rows in data.items()
    }
    (session,) = manifest["sessions"]
    assert {"commit", "versions", "python", "started", "wall_time_seconds"} <= set(session)
    for name, size in data.items():
        rows = read_rows(exported / f"{name}.jsonl")
        assert [row["index"] for row in rows] == list(range(size))
        assert {row["difficulty"] for row in rows} == {int(name[-2:])}


def test_rows_are_chats_that_the_verifier_accepts(exported):
    for row in read_rows(exported / "train" / "op04.jsonl"):
        system, user, assistant = row["messages"]
        assert system == {"role": "system", "content": SYSTEM_PROMPT}
        assert system["content"].endswith("put your final answer within \\boxed{}.")
        assert user == {"role": "user", "content": row["problem"]}
        closing = f" So the final answer is \\boxed{{{row['answer']}}}."
        assert assistant == {"role": "assistant", "content": row["solution"] + closing}
        assert igsm.verify(row["problem"], row["solution"], categories=igsm.CATEGORIES).ok


def test_parquet_holds_the_same_rows(exported, tmp_path):
    export_igsm(dataclasses.replace(SMALL, format="parquet"), tmp_path / "data")
    names = [name for name in files(exported) if name.endswith(".jsonl")]
    assert len(names) == 5
    for name in names:
        other = (tmp_path / "data" / name).with_suffix(".parquet")
        assert read_rows(other) == read_rows(exported / name)


def test_smaller_sizes_are_prefixes_and_seeds_share_nothing(exported, tmp_path):
    smaller = dataclasses.replace(SMALL, train_sizes=(12, 7), test_examples=3)
    export_igsm(smaller, tmp_path / "data")
    for name, size in (("train/op03", 12), ("train/op04", 7), ("test/op05", 3)):
        large = read_rows(exported / f"{name}.jsonl")
        assert read_rows(tmp_path / "data" / f"{name}.jsonl") == large[:size]
    export_igsm(dataclasses.replace(smaller, seed=1), tmp_path / "seed")
    one, two = (
        {row["problem"] for row in read_rows(path / "train" / "op04.jsonl")}
        for path in (exported, tmp_path / "seed")
    )
    assert not one & two


def test_streams_have_seeds_of_their_own():
    streams = ("base", "train", "test")
    seeds = [export.stream_seed(seed, stream) for seed in range(50) for stream in streams]
    assert len(set(seeds)) == len(seeds)


def test_two_processes_write_the_same_bytes(exported, tmp_path):
    export_igsm(SMALL, tmp_path / "data", processes=2)
    assert everything(tmp_path / "data") == everything(exported)


def test_templates_of_training_and_test_are_disjoint(tmp_path, monkeypatch):
    asked = []
    real = igsm.problems

    def spy(difficulty: int, count: int, **options) -> Iterator[igsm.Problem]:
        drawn = real(difficulty, count, **options)
        return (asked.append((options["split"], each.template)) or each for each in drawn)

    monkeypatch.setattr(igsm, "problems", spy)
    console = Console(record=True, width=200)
    config = dataclasses.replace(SMALL, split="template")
    export_igsm(config, tmp_path / "data", console=console)
    assert {name for split, name in asked if split == "train"} <= set(range(16))
    assert {name for split, name in asked if split == "test"} <= set(range(16, 23))
    assert {split for split, _ in asked} == {"train", "test"}
    assert "difficulties 2, 3 have so few templates" in console.export_text()
    assert "**Split `template`.**" in (tmp_path / "data" / "README.md").read_text()


# A stream in which the problem numbers repeat: test problems 0 and 1 are training's 0 and 1.


def numbered(difficulty: int, count: int, *, seed: int, start: int = 0, **options):
    """Problems that are told apart by their numbers alone; the test's begin like training's."""
    del options
    stream = {export.stream_seed(0, name): name for name in ("base", "train", "test")}[seed]
    for number in range(start, start + count):
        name = number if number < 2 else f"{stream} {number}"
        text = f"Item {name} has 3. Difficulty {difficulty}. How many?"
        yield igsm.Problem(text, "x = 3.", 3, difficulty, 0)


@pytest.fixture
def repeating(monkeypatch):
    monkeypatch.setattr(igsm, "problems", numbered)
    return dataclasses.replace(SMALL, base_difficulties=(), test_difficulties=(4, 5), verify=False)


def test_repeated_problems_are_counted(repeating, tmp_path):
    manifest = export_igsm(repeating, tmp_path / "data")
    counted = {
        name: (entry["in_training"], entry["dropped"])
        for name, entry in manifest["files"].items()
        if name.startswith("test/")
    }
    assert counted == {"test/op04.jsonl": (2, 0), "test/op05.jsonl": (0, 0)}


def test_repeated_problems_are_redrawn(repeating, tmp_path):
    config = dataclasses.replace(repeating, split="deduplicated")
    manifest = export_igsm(config, tmp_path / "data")
    entry = manifest["files"]["test/op04.jsonl"]
    assert (entry["rows"], entry["in_training"], entry["dropped"]) == (12, 0, 2)
    rows = read_rows(tmp_path / "data" / "test" / "op04.jsonl")
    assert [row["index"] for row in rows] == list(range(2, 14))


def test_a_test_without_new_problems_is_an_error(repeating, tmp_path, monkeypatch):
    def few(difficulty: int, count: int, *, start: int = 0, **options):
        for number in range(start, start + count):
            yield igsm.Problem(f"Problem {number % 4}?", "x = 3.", 3, difficulty, 0)

    monkeypatch.setattr(igsm, "problems", few)
    config = dataclasses.replace(repeating, split="deduplicated")
    with pytest.raises(ValueError, match=r"needs 12 test problems of difficulty 4 .* got 0 among"):
        export_igsm(config, tmp_path / "data")
    assert files(tmp_path / "data") == ["manifest.json", "train/op03.jsonl", "train/op04.jsonl"]


def test_order_of_sentences_does_not_make_a_problem_new():
    assert fingerprint("A is 1. B is 2. How many?") == fingerprint("B is 2. A is 1. How many?")
    assert fingerprint("How many? A is 1. B is 2.") == fingerprint("A is 1. B is 2. How many?")
    assert fingerprint("A is 1. B is 2. How many?") != fingerprint("A is 2. B is 1. How many?")


# Interruptions and mistakes.


def test_an_interruption_leaves_whole_files_and_is_carried_on(exported, tmp_path, monkeypatch):
    real, out = igsm.problems, tmp_path / "data"

    def breaking(difficulty: int, count: int, **options) -> Iterator[igsm.Problem]:
        drawn = real(difficulty, count, **options)
        if difficulty == 4 and count > 1:
            yield from itertools.islice(drawn, 5)
            raise KeyboardInterrupt
        yield from drawn

    monkeypatch.setattr(igsm, "problems", breaking)
    with pytest.raises(KeyboardInterrupt):
        export_igsm(SMALL, out)
    assert files(out) == ["base/op02.jsonl", "manifest.json", "train/op03.jsonl"]
    assert read_manifest(out)["status"] == "running"
    before = (out / "train" / "op03.jsonl").stat().st_mtime_ns

    monkeypatch.setattr(igsm, "problems", real)
    export_igsm(SMALL, out)
    assert everything(out) == everything(exported)
    assert (out / "train" / "op03.jsonl").stat().st_mtime_ns == before
    assert len(read_manifest(out)["sessions"]) == 2
    # And once more: nothing is drawn again.
    export_igsm(SMALL, out)
    assert (out / "train" / "op03.jsonl").stat().st_mtime_ns == before


def test_an_export_that_was_killed_before_its_counts_gets_them(exported, tmp_path):
    """As earlier versions left it: the card was there before the counts in the manifest."""
    out = Path(shutil.copytree(exported, tmp_path / "data"))
    manifest = json.loads((out / "manifest.json").read_text())
    counts = manifest.pop("files")
    (out / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    assert export_igsm(SMALL, out)["files"] == counts
    assert everything(out) == everything(exported)


KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from experiments.igsm import export
from synth.tasks import igsm
from tests.experiments.igsm.test_export import SMALL
real = igsm.problems

def killing(difficulty, count, **options):
    for number, problem in enumerate(real(difficulty, count, **options)):
        if difficulty == 4 and number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        yield problem

igsm.problems = killing
export.export_igsm(SMALL, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_kill_leaves_nothing_under_a_final_name(exported, tmp_path):
    out = tmp_path / "data"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], cwd=root, check=False)
    assert done.returncode == -9
    assert files(out) == ["base/op02.jsonl", "manifest.json", "train/op03.jsonl"]
    export_igsm(SMALL, out)
    assert everything(out) == everything(exported)


def test_a_row_that_fails_the_verifier_stops_the_export(tmp_path, monkeypatch):
    real = igsm.problems

    def wrong(difficulty: int, count: int, **options) -> Iterator[igsm.Problem]:
        for number, problem in enumerate(real(difficulty, count, **options)):
            answer = (problem.answer + (number == 3)) % 23
            yield dataclasses.replace(problem, answer=answer)

    monkeypatch.setattr(igsm, "problems", wrong)
    with pytest.raises(ResultsError, match="problem 3 of difficulty 2 fails the verifier"):
        export_igsm(SMALL, tmp_path / "data")
    assert files(tmp_path / "data") == ["manifest.json"]
    export_igsm(dataclasses.replace(SMALL, verify=False), tmp_path / "unchecked")
    text = (tmp_path / "unchecked" / "README.md").read_text()
    assert "was **not** checked by the verifier" in text


def test_the_modulus_is_the_presets(tmp_path):
    config = dataclasses.replace(SMALL, preset="tiny")
    export_igsm(config, tmp_path / "data")
    assert "(modulo 5) that the answer needs" in (tmp_path / "data" / "README.md").read_text()
    rows = read_rows(tmp_path / "data" / "train" / "op04.jsonl")
    assert {row["answer"] for row in rows} <= set(range(5))


def test_directories_that_are_refused(exported, tmp_path):
    with pytest.raises(ResultsError, match=r"holds another run; it differs in settings.seed"):
        export_igsm(dataclasses.replace(SMALL, seed=5), exported)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match="is not empty and is not a run"):
        export_igsm(SMALL, tmp_path)
    assert files(tmp_path) == ["notes.txt"]
    with pytest.raises(ResultsError, match="is a file"):
        export_igsm(SMALL, tmp_path / "notes.txt")


def test_a_file_that_was_damaged_is_drawn_anew(tmp_path):
    out = tmp_path / "data"
    config = dataclasses.replace(SMALL, test_difficulties=(2,))
    export_igsm(config, out)
    path = out / "train" / "op03.jsonl"
    whole = path.read_bytes()
    for damaged in (b"{half", whole.replace(b"1", b"2", 1)):
        path.write_bytes(damaged)
        export_igsm(config, out)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "easy"}, "preset must be one of"),
        ({"split": "none"}, "split must be one of"),
        ({"format": "csv"}, "format must be one of"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"difficulties": ()}, "difficulties must be distinct integers"),
        ({"difficulties": (4, 3)}, "difficulties must be distinct integers"),
        ({"test_difficulties": (0, 3)}, "test_difficulties must be distinct integers"),
        ({"train_sizes": (5, 6, 7)}, r"train_sizes must be one number, or one for each of .*3, 4"),
        ({"base_sizes": (0,)}, "base_sizes must be at least 1"),
        ({"test_examples": 0}, "test_examples must be at least 1"),
        ({"split": "template", "test_difficulties": (1, 5)}, "no template of difficulty 1"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_mistakes_are_told_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        export_igsm(SMALL, tmp_path / "data", processes=0)
    beyond = dataclasses.replace(SMALL, preset="med", test_difficulties=(2, 90))
    with pytest.raises(ValueError, match="90"):
        export_igsm(beyond, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_default_is_the_papers_grid():
    sizes = {(part.stream, part.difficulty): part.size for part in ExportConfig().files}
    assert {level: sizes["train", level] for level in (6, 8, 10, 12, 14)} == {
        6: 10_000,
        8: 10_000,
        10: 10_000,
        12: 5_000,
        14: 5_000,
    }
    assert {level for stream, level in sizes if stream == "base"} == set(range(2, 9))
    assert {size for (stream, _), size in sizes.items() if stream == "base"} == {2000}
    tests = {level: size for (stream, level), size in sizes.items() if stream == "test"}
    assert set(tests) == set(range(2, 21))
    assert min(tests.values()) >= 500


LOADED = """
import json, sys
from datasets import get_dataset_config_names, load_dataset
out, cache = sys.argv[1:]
found = {name: {} for name in get_dataset_config_names(out)}
for name in found:
    for split, rows in load_dataset(out, name, cache_dir=cache).items():
        found[name][split] = rows.to_list()
found["prefix"] = load_dataset(out, "train-op3", split="train[:12]", cache_dir=cache).to_list()
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_datasets_reads_it_offline(tmp_path, form):
    out = tmp_path / "data"
    export_igsm(dataclasses.replace(SMALL, format=form), out)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(out), str(tmp_path / "cache")],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["train-op3"] == {"train": read_rows(out / "train" / f"op03.{form}")}
    assert found["prefix"] == found["train-op3"]["train"][:12]
    tests = [out / "test" / f"op{level}.{form}" for level in ("02", "05")]
    assert found["test"] == {"test": [row for path in tests for row in read_rows(path)]}
    assert set(found) == {"base", "train-op3", "train-op4", "test", "prefix"}
