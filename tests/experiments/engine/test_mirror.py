"""A mirror: what is copied up and down, in which order, and what is refused."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from rich.console import Console

from experiments.engine import mirror as mirrors
from experiments.engine.mirror import Mirror
from experiments.engine.run import run_study
from experiments.engine.workers import Workers
from experiments.errors import ExpectedError
from tests.experiments.engine.test_run import Squares

QUIET = Console(file=io.StringIO())


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/mirror"
    else:
        yield f"memory://{tmp_path}/mirror"
        fsspec.filesystem("memory").rm("/", recursive=True)


def run(directory: Path, url: str, **options) -> Squares:
    study = Squares(directory)
    with Workers(mirror=url).start(directory) as executor:
        run_study(study, executor=executor, on=QUIET, **options)
    return study


def names_at(url: str) -> set[str]:
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return {path.split("/mirror/")[1] for path in files.find(root)}


def local(directory: Path) -> set[str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)) for path in files if path.name[0] != "."}


def test_a_run_goes_up_and_another_machine_carries_on(tmp_path, url):
    run(tmp_path / "run", url, max_parts=1)
    assert names_at(url) == local(tmp_path / "run")
    # Another machine: the directory is not there.
    study = run(tmp_path / "elsewhere", url)
    assert study.made == ["check", "n1", "n2"]
    assert names_at(url) == local(tmp_path / "elsewhere")
    # And a third: nothing is left to do.
    assert run(tmp_path / "third", url).made == []
    whole = pd.read_parquet(tmp_path / "third" / "numbers.parquet")
    assert whole["square"].tolist() == [9, 1, 4]


def test_an_empty_directory_is_filled(tmp_path, url):
    run(tmp_path / "run", url)
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", url).made == []


def test_each_part_is_copied_when_it_is_finished(tmp_path, url, monkeypatch):
    copied = []
    put = Mirror._put
    monkeypatch.setattr(Mirror, "_put", lambda self, name: (copied.append(name), put(self, name)))
    run(tmp_path / "run", url)
    parts = [name for name in copied if name.startswith("parts/")]
    # The rows of the first table finish a part: they come last.
    assert parts[:2] == ["parts/n3_digits.parquet", "parts/n3.parquet"]
    assert len(parts) == len(set(parts)) == 6
    # A new mirror begins with the manifest; after that it comes last.
    assert copied[:3] == ["manifest.json", "seeds/all.txt", "manifest.json"]
    assert copied[-1] == "manifest.json"


def test_checkpoints_and_half_written_files_stay(tmp_path, url):
    for name in ("work/x/step.bin", ".lock", "bases/.half/x", "bases/whole/x"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("x")
    Mirror(url, tmp_path / "run").copy_up()
    assert names_at(url) == {"bases/whole/x"}


def test_another_run_is_not_mixed_in(tmp_path, url):
    class Cubes(Squares):
        @property
        def identity(self):
            return {"kind": "cubes"}

    run(tmp_path / "run", url)
    before = names_at(url)
    run_study(Cubes(tmp_path / "cubes"), on=QUIET)
    with pytest.raises(ExpectedError, match=r"holds another run than .*; it differs in kind"):
        run(tmp_path / "cubes", url)
    assert names_at(url) == before


def test_a_failure_is_told_and_mended_by_the_next_part(tmp_path, url, monkeypatch, capsys):
    put, failures = Mirror._put, iter([True, True])

    def fail_twice(self, name):
        if next(failures, False):
            raise OSError("no route to host")
        put(self, name)

    monkeypatch.setattr(Mirror, "_put", fail_twice)
    monkeypatch.setattr(mirrors.console, "_width", 1000)
    run(tmp_path / "run", url)
    assert capsys.readouterr().out.count("OSError: no route to host") == 2
    assert names_at(url) == local(tmp_path / "run")


def test_a_failure_at_the_end_is_an_error(tmp_path, url, monkeypatch):
    def fail(self, name):
        raise OSError("no route to host")

    monkeypatch.setattr(Mirror, "_put", fail)
    with pytest.raises(ExpectedError, match=r"its mirror is not up to date.*no route to host"):
        run(tmp_path / "run", url)
    assert (tmp_path / "run" / "numbers.parquet").exists()


def test_a_copy_down_that_fails_leaves_no_directory(tmp_path, monkeypatch):
    url = f"file://{tmp_path}/mirror"
    run(tmp_path / "run", url)
    mirror = Mirror(url, tmp_path / "other" / "new")

    def fail(*_):
        raise OSError("connection reset")

    monkeypatch.setattr(mirror._files, "get_file", fail)
    with pytest.raises(ExpectedError, match=r"cannot be copied to .*connection reset"):
        mirror.copy_down()
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nonsense://x/y", ValueError, "Protocol not known: nonsense"),
        ("file:///proc/1/fd/x", ExpectedError, "cannot be listed"),
    ],
)
def test_what_cannot_be_opened_is_refused_at_once(tmp_path, url, error, message, monkeypatch):
    if error is ExpectedError:
        monkeypatch.setattr(Mirror, "_there", lambda self: 1 / 0)
    with (
        pytest.raises(error, match=message),
        Workers(mirror=url).start(tmp_path / "run"),
    ):
        raise AssertionError("it was started")
    assert not (tmp_path / "run").exists()


def test_a_kill_between_files_leaves_a_mirror_to_carry_on_with(tmp_path, monkeypatch):
    """For every prefix of the copies: a new machine ends with the same table."""
    url = f"file://{tmp_path}/mirror"
    put = Mirror._put
    for allowed in range(0, 12, 3):
        shutil.rmtree(tmp_path / "mirror", ignore_errors=True)
        left = iter(range(allowed))

        def until_killed(self, name, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            put(self, name)

        monkeypatch.setattr(Mirror, "_put", until_killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"first{allowed}", url)
        monkeypatch.setattr(Mirror, "_put", put)
        directory = tmp_path / f"second{allowed}"
        run(directory, url)
        assert pd.read_parquet(directory / "numbers.parquet")["square"].tolist() == [9, 1, 4]
