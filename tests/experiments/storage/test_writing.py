"""Files and folders appear whole, readable and on the disk, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from experiments.storage import writing


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """What is synchronised and renamed, in order."""
    made: list[str] = []
    replace, rename = os.replace, Path.rename

    def synchronise(path: Path) -> None:
        made.append("partial" if path.name.endswith(writing.PARTIAL) else path.name)

    def replaced(source, target):
        made.append("rename")
        replace(source, target)

    def renamed(source: Path, target: Path) -> Path:
        made.append("rename")
        return rename(source, target)

    monkeypatch.setattr(writing, "synchronise", synchronise)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    return made


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, calls):
    path = tmp_path / "new" / "deep" / "file.txt"
    writing.write_atomically(path, lambda p: p.write_text("whole"))
    writing.write_atomically(path, lambda p: p.write_text("once more"))
    assert calls == 2 * ["partial", "rename", "deep"]
    assert path.read_text() == "once more"
    assert mode(path) == 0o644
    assert os.listdir(path.parent) == ["file.txt"]


def test_the_handle_of_the_hidden_file_is_closed(tmp_path, monkeypatch):
    opened, mkstemp = [], tempfile.mkstemp

    def recorded(*arguments):
        opened.append(mkstemp(*arguments))
        return opened[-1]

    def write(path: Path) -> None:
        # Before the file is opened again, which would take the same number.
        [(handle, name)] = opened
        assert Path(name) == path
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)

    monkeypatch.setattr(tempfile, "mkstemp", recorded)
    writing.write_atomically(tmp_path / "a", write)
    assert len(opened) == 1


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, calls):
    path = tmp_path / "new" / "deep" / "folder"

    def write(folder: Path) -> None:
        (folder / "a").touch(0o600)

    writing.write_folder_atomically(path, write)
    assert calls == ["a", "rename", "deep"]
    assert (mode(path), mode(path / "a")) == (0o755, 0o644)
    assert os.listdir(path.parent) == ["folder"]
    with pytest.raises(FileExistsError, match=r"must be a new folder, but '.*folder' exists$"):
        writing.write_folder_atomically(path, write)


@pytest.mark.parametrize("write", [writing.write_atomically, writing.write_folder_atomically])
def test_a_write_that_fails_leaves_nothing(tmp_path, write):
    def fail(path: Path) -> None:
        (path / "a" if path.is_dir() else path).write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "name", fail)
    assert not os.listdir(tmp_path)


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "folder"

    def write(folder: Path) -> None:
        (folder / "a").write_text("mine")
        path.mkdir()
        (path / "a").write_text("of another")

    with pytest.raises(FileExistsError, match="appeared meanwhile"):
        writing.write_folder_atomically(path, write)
    assert (path / "a").read_text() == "of another"
    assert os.listdir(tmp_path) == ["folder"]


def test_another_error_of_the_rename_is_not_called_an_existing_folder(tmp_path, monkeypatch):
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match=r"^read only$"):
        writing.write_folder_atomically(tmp_path / "folder", lambda folder: None)
    assert not os.listdir(tmp_path)


def test_synchronising_asks_the_system_and_closes_the_file(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "fsync", lambda handle: asked.append((handle, os.fstat(handle).st_ino)))
    writing.synchronise(tmp_path)
    [(handle, number)] = asked
    assert number == tmp_path.stat().st_ino
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_only_what_is_half_written_is_removed(tmp_path):
    kept = tmp_path / "kept"
    (kept / ".folder.1.partial" / "deep").mkdir(parents=True)
    (kept / ".folder.1.partial" / "deep" / "a").touch()
    (kept / ".file.2.partial").touch()
    other = tmp_path / "other"
    other.mkdir()
    (other / "a").touch()
    (kept / ".link.3.partial").symlink_to(other)
    (kept / ".hidden").touch()
    (kept / "visible.partial").touch()
    writing.remove_partial(tmp_path)
    assert sorted(os.listdir(kept)) == [".hidden", "visible.partial"]
    assert os.listdir(other) == ["a"]


def test_what_is_gone_already_needs_no_removing(tmp_path, monkeypatch):
    path = tmp_path / "._.partial"
    path.touch()
    found = [tmp_path / ".gone.partial", path]
    monkeypatch.setattr(Path, "rglob", lambda directory, pattern: found)
    writing.remove_partial(tmp_path)
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_removed_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("read only")

    (tmp_path / ".folder.partial").mkdir()
    monkeypatch.setattr(os, "rmdir", refuse)
    writing.remove_partial(tmp_path)
    assert os.listdir(tmp_path) == [".folder.partial"]


def test_json_is_text_that_people_read(tmp_path):
    writing.write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_text() == '{\n "a": 1\n}\n'


def test_a_table_is_written_without_its_index(tmp_path):
    table = pd.DataFrame({"a": [1, 2]}, index=pd.Index([5, 6], name="index"))
    writing.write_parquet(tmp_path / "a.parquet", table)
    assert pd.read_parquet(tmp_path / "a.parquet").to_dict("list") == {"a": [1, 2]}
