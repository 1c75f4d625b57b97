"""Data sets that attack whoever reads them: refused with one line, in bounded time and memory."""

from __future__ import annotations

import gzip
import os
import pickle
import time

import pyarrow as pa
import pytest
from pyarrow import parquet

from experiments.llm.problems import sources
from experiments.llm.problems.data import read

pytest.importorskip("datasets", reason="pip install 'sweetspot-sft[llm]'")


class _Command:
    """Runs a command where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch unpickled",)


def write_deep(path):
    (path / "x.jsonl").write_text('{"problem": ' + "[" * 100_000 + "]" * 100_000 + "}\n")


def write_zip_bomb(path):
    """50 million cells of 200 characters in a file of some kilobytes: 10 GB."""
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["a" * 200])
    batch = pa.table({"problem": cells, "solution": cells})
    with parquet.ParquetWriter(path / "x.parquet", batch.schema) as writer:
        for _ in range(50):
            writer.write_table(batch)


def write_pickle(path):
    (path / "x.parquet").write_bytes(pickle.dumps(_Command()))
    (path / "x.pkl").write_bytes(pickle.dumps(_Command()))


def write_gzip_bomb(path):
    """Four gigabytes of blanks in four megabytes, behind an innocent ending."""
    part = gzip.compress(b" " * 2**26)
    (path / "x.jsonl").write_bytes(part * 64)


def write_script(path):
    (path / f"{path.name}.py").write_text("import os\nos.system('touch unpickled')\n")


def write_pipe(path):
    os.mkfifo(path / "x.jsonl")


def write_sparse(path):
    with (path / "x.jsonl").open("wb") as file:
        file.truncate(2**42)


WRITERS = [
    write_deep,
    write_zip_bomb,
    write_pickle,
    write_gzip_bomb,
    write_script,
    write_pipe,
    write_sparse,
]


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS)
def test_hostile_data_sets_are_refused_with_one_line(write, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    write(folder)
    began = time.monotonic()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read(folder)
    print(write.__name__, round(time.monotonic() - began, 1), caught.value)
    assert time.monotonic() - began < 30
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "unpickled").exists()


def test_a_deep_line_is_named(tmp_path):
    write_deep(tmp_path)
    with pytest.raises(ValueError, match=r"line 1 of .* is nested too deeply"):
        read(tmp_path / "x.jsonl")


@pytest.mark.parametrize("source", ["", "  "])
def test_no_source_is_not_the_working_directory(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"problem": "a", "solution": "b"}\n')
    with pytest.raises(ValueError, match="source must name a data set"):
        read(source)


def test_a_missing_path_whose_parent_is_here_is_not_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="source must be a file"):
        read("data/train")


class _Panic(BaseException):
    """What a library in another language raises."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (_Panic("index out\nof bounds"), "index out of bounds"),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), "no longer supp"),
        (OSError("a\nb" * 1000), "the Hugging Face hub did not give it"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_whatever_a_hub_repository_leads_to_is_one_line(error, said, monkeypatch):
    def load(**asked):
        assert not asked.get("trust_remote_code")
        raise error

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises((ValueError, OSError), match=said) as caught:
        sources.load_rows("owner/name")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def test_columns_of_a_hub_repository_that_cannot_be_decoded_are_one_line(monkeypatch):
    class Columns:
        column_names = ("problem",)
        info = type("Info", (), {"builder_name": "parquet"})

        def __len__(self):
            return 1

        def __getitem__(self, name):
            raise _Panic(f"{name} is no UTF-8")

    monkeypatch.setattr("datasets.load_dataset", lambda **_: Columns())
    with pytest.raises(ValueError, match="problem is no UTF-8"):
        sources.load_rows("owner/name")
