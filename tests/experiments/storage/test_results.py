"""Files of a run: whole or absent, and a directory that refuses what it does not hold."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.storage.integrity import fingerprint
from experiments.storage.results import (
    COLUMNS,
    ResultsError,
    Run,
    open_run,
    read_finished,
    read_manifest,
    read_parquet,
    read_table,
    read_tables,
    stated,
    tidy,
    write_record,
)
from experiments.storage.writing import write_atomically, write_parquet

ROW = {
    "task": "chain",
    "base": "base-0",
    "base_seed": 0,
    "train_mixture": "range",
    "loss": "sft",
    "difficulty": 4,
    "data_size": 16,
    "compute": "20 steps",
    "data_unit": "examples",
    "learning_rate": 1e-3,
    "seed": 1,
    "slice": None,
    "metric": "test_risk",
    "value": 0.25,
    "num_examples": 64,
    "status": "ok",
}
IDENTITY = {"recipe": "tradeoff", "config": {"sizes": (16, 64), "decoder": {"width": 8}}}


def files(directory: Path) -> set[str]:
    """Every file below a directory, hidden ones as well."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def full_disk(monkeypatch):
    """Parquet files that break off halfway, as on a disk without space."""

    def write(self, path, **options):
        del self, options
        Path(path).write_bytes(b"PAR1 and then")
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(pd.DataFrame, "to_parquet", write)


# Writing.


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_nothing_behind(tmp_path, error):
    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(tmp_path / "new.txt", write)
    assert files(tmp_path) == set()

    (tmp_path / "old.txt").write_text("whole")
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "old.txt", write)
    assert files(tmp_path) == {"old.txt"}
    assert (tmp_path / "old.txt").read_text() == "whole"


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "file.txt"

    def write(temporary: Path) -> None:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent

    write_atomically(path, write)
    assert path.read_text() == "whole"
    assert files(tmp_path) == {"folder/file.txt"}
    assert path.stat().st_mode & 0o777 == 0o644


def test_finished_parts_survive_a_full_disk(tmp_path, full_disk):
    run, table = Run(tmp_path), tidy([ROW])
    run.write_part("first", table)
    write_parquet(tmp_path / "table.parquet", table)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    full_disk()
    for write in (
        lambda: run.write_part("second", table),
        lambda: write_parquet(tmp_path / "table.parquet", table),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert not run.part_path("second").exists()
    pd.testing.assert_frame_equal(read_parquet(run.part_path("first")), table)


# Tables.


def test_tidy_gives_columns_and_types_that_a_file_keeps(tmp_path):
    table = tidy([ROW, ROW | {"slice": 3, "value": float("nan")}])
    assert list(table.columns) == list(COLUMNS)
    assert table["slice"].tolist() == [pd.NA, 3]
    write_parquet(tmp_path / "table.parquet", table)
    pd.testing.assert_frame_equal(read_table(tmp_path), table)
    assert read_table(tmp_path)["slice"].dtype == "Int64"


@pytest.mark.parametrize(
    "row", [{name: ROW[name] for name in list(ROW)[1:]}, ROW | {"more": 1}], ids=["less", "more"]
)
def test_tidy_refuses_other_columns(row):
    with pytest.raises(ValueError, match=r"row must have columns \['task', 'base'"):
        tidy([ROW, row])


def test_a_table_that_cannot_be_read(tmp_path):
    with pytest.raises(ResultsError, match="does not exist; has the run finished a chunk"):
        read_table(tmp_path)
    (tmp_path / "table.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(
        ResultsError, match=r"table.parquet is not a readable Parquet file .*run the same"
    ):
        read_table(tmp_path)
    write_parquet(tmp_path / "table.parquet", tidy([ROW]).drop(columns=["slice", "value"]))
    with pytest.raises(ResultsError, match=re.escape("lacks the columns ['slice', 'value']")):
        read_table(tmp_path)


def test_a_part_that_cannot_be_read(tmp_path):
    run = Run(tmp_path)
    run.write_part("first", tidy([ROW]))
    whole = run.part_path("first").read_bytes()
    run.part_path("first").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultsError, match=r"first.parquet is not a readable Parquet file"):
        read_parquet(run.part_path("first"))


def test_read_tables_gives_every_table_at_the_top(tmp_path):
    run = Run(tmp_path)
    write_parquet(tmp_path / "table.parquet", tidy([ROW]))
    run.write_part("first", tidy([ROW]))
    pd.DataFrame({"bound": [0.5]}).to_parquet(tmp_path / "certificates.parquet")
    tables = read_tables(tmp_path)
    assert set(tables) == {"table", "certificates"}
    pd.testing.assert_frame_equal(tables["table"], tidy([ROW]))
    assert read_parquet(tmp_path / "certificates.parquet")["bound"].item() == 0.5


# Manifests.


def test_a_manifest_that_cannot_be_read(tmp_path):
    with pytest.raises(ResultsError, match=r"is not a run: it has no manifest.json"):
        read_manifest(tmp_path)
    for text, message in [
        ('{"recipe": "tra', r"manifest.json is not valid JSON \(.*line 1"),
        ("[1, 2]", "manifest.json must hold a JSON object"),
    ]:
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ResultsError, match=message):
            read_manifest(tmp_path)
        with (
            pytest.raises(ResultsError, match=message),
            open_run(tmp_path, IDENTITY),
        ):
            pass
        assert (tmp_path / "manifest.json").read_text() == text


def test_fields_of_the_manifest_are_replaced_one_by_one(tmp_path):
    with open_run(tmp_path, IDENTITY) as run:
        run.update_manifest(status="complete", sessions=[1])
        run.update_manifest(sessions=[1, 2])
    manifest = read_manifest(tmp_path)
    assert manifest == json.loads(json.dumps(IDENTITY)) | {"status": "complete", "sessions": [1, 2]}


def test_only_a_run_that_is_complete_is_finished(tmp_path):
    with open_run(tmp_path, IDENTITY) as run:
        with pytest.raises(ResultsError, match=r'is not finished \(status "running"\)'):
            read_finished(tmp_path)
        run.update_manifest(status="complete")
    assert read_finished(tmp_path) == run.manifest


def test_a_value_of_the_manifest_is_found_or_missed_by_its_whole_name(tmp_path):
    manifest = {"config": {"seeds": 3, "none": None}}
    assert stated(manifest, tmp_path, "config", "seeds") == 3
    assert stated(manifest, tmp_path, "config", "none") is None
    assert stated(manifest, tmp_path) == manifest
    for names in (("config", "sizes"), ("other",), ("config", "seeds", "first")):
        message = re.escape(
            f"manifest.json is not the manifest of such a run: it states no {'.'.join(names)}"
        )
        with pytest.raises(ResultsError, match=f"{message}$"):
            stated(manifest, tmp_path, *names)


def test_a_field_that_is_pinned_stays(tmp_path):
    with open_run(tmp_path, IDENTITY) as run:
        run.pin("layout", {"levels": (1, 2)})
        run.pin("layout", {"levels": (1, 2)})
        assert run.manifest["layout"] == {"levels": [1, 2]}
        with pytest.raises(ResultsError, match=r"begun with something else; it differs in layout"):
            run.pin("layout", {"levels": (1, 3)})
        assert run.manifest["layout"] == {"levels": [1, 2]}


def test_a_record_is_a_table_and_what_made_it(tmp_path):
    write_record(tmp_path, "sizes", tidy([ROW]), {"seed": 4})
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "sizes.parquet"), tidy([ROW]))
    assert json.loads((tmp_path / "sizes.json").read_text()) == {"seed": 4}


# Opening a run.


def test_a_manifest_that_was_damaged_is_restored_from_its_copy(tmp_path):
    with open_run(tmp_path, IDENTITY) as run:
        whole, notices = run.manifest, run.notices
    assert not notices
    (tmp_path / "manifest.json").write_text("{")
    with open_run(tmp_path, IDENTITY) as run:
        assert run.manifest == whole
        [notice] = run.notices
    assert "manifest.json is not as it was written" in notice
    with open_run(tmp_path, IDENTITY) as run:
        assert not run.notices


def test_a_run_is_opened_anew_and_again(tmp_path):
    directory = tmp_path / "a" / "run"
    with open_run(directory, IDENTITY) as run:
        assert run.manifest["status"] == "running"
        run.update_manifest(status="complete")
    with open_run(directory, IDENTITY) as run:
        assert run.manifest["status"] == "complete"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"recipe": "loss"}, 'differs in recipe (there "tradeoff", here "loss")'),
        (
            {"config": {"sizes": (16, 65), "decoder": {"width": 8}}},
            "config.sizes (there [16, 64], here [16, 65])",
        ),
        (
            {"config": {"sizes": (16, 64), "decoder": {"width": 9}}},
            "config.decoder.width (there 8, here 9)",
        ),
        (
            {"config": {"sizes": (16, 64), "decoder": {"width": 8}, "seeds": 2}},
            "config.seeds (there null, here 2)",
        ),
        ({"config": {"sizes": (16, 64)}}, 'config.decoder (there {"width": 8}, here null)'),
        ({"chunks": list(range(100))}, "chunks (there null, here [0, 1, 2, 3"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path, other, message):
    with open_run(tmp_path, IDENTITY):
        pass
    before = read_manifest(tmp_path)
    with (
        pytest.raises(ResultsError, match=re.escape(message)) as caught,
        open_run(tmp_path, IDENTITY | other),
    ):
        pass
    assert "holds another run" in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    assert read_manifest(tmp_path) == before


def test_a_directory_that_is_not_a_run_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with (
        pytest.raises(ResultsError, match="is not empty and is not a run"),
        open_run(tmp_path, IDENTITY),
    ):
        pass
    assert files(tmp_path) == {"thesis.tex"}
    with (
        pytest.raises(ResultsError, match=r"out must be a directory, .*thesis.tex is a file"),
        open_run(tmp_path / "thesis.tex", IDENTITY),
    ):
        pass


def test_a_directory_in_use_is_refused_until_it_is_left(tmp_path):
    with open_run(tmp_path, IDENTITY):
        with (
            pytest.raises(ResultsError, match="is in use by another process"),
            open_run(tmp_path, IDENTITY),
        ):
            pass
        # Being refused must not release the lock of the one inside.
        with pytest.raises(ResultsError, match="in use"), open_run(tmp_path, IDENTITY):
            pass
    with pytest.raises(KeyError), open_run(tmp_path, IDENTITY):
        raise KeyError
    with open_run(tmp_path, IDENTITY) as run:
        assert run.directory == tmp_path


def test_a_lock_that_is_no_file_is_refused(tmp_path):
    """Opening a link would empty its target; opening a pipe would wait for ever."""
    target = tmp_path / "thesis.tex"
    target.write_text("ten years of work")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / ".lock").symlink_to(target)
    with (
        pytest.raises(ResultsError, match=r"\.lock must be a file, it is a link"),
        open_run(tmp_path / "link", IDENTITY),
    ):
        pass
    assert target.read_text() == "ten years of work"
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / ".lock")
    with (
        pytest.raises(ResultsError, match=r"\.lock must be a file, it is something else"),
        open_run(tmp_path / "pipe", IDENTITY),
    ):
        pass


def test_a_table_that_changed_after_the_end_of_its_run_is_refused(tmp_path):
    """Single bits change numbers in silence; until the end the table is newer than what is told."""
    path = tmp_path / "table.parquet"
    with open_run(tmp_path, IDENTITY) as run:
        write_parquet(path, tidy([ROW]))
        run.update_manifest(tables={"table": fingerprint(path)})
        write_parquet(path, tidy([ROW | {"value": 0.5}]))
        assert read_table(tmp_path)["value"].tolist() == [0.5]
        run.update_manifest(status="complete")
    with pytest.raises(ResultsError, match=r"table\.parquet has changed since the run wrote it"):
        read_table(tmp_path)
    with pytest.raises(ResultsError, match=r"table\.parquet has changed since the run wrote it"):
        read_tables(tmp_path)
    write_parquet(path, tidy([ROW]))
    assert read_table(tmp_path)["value"].tolist() == [0.25]


def test_pages_of_a_table_have_checksums(tmp_path):
    path = tmp_path / "table.parquet"
    write_parquet(path, pd.DataFrame({"value": np.arange(1000.0)}))
    whole = path.read_bytes()
    number, silent = 0, []
    for place in range(4, len(whole) // 2, 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        number += 1
        try:
            if not read_parquet(path)["value"].equals(pd.Series(np.arange(1000.0))):
                silent.append(place)
        except ResultsError:
            pass
    assert number > 50
    assert silent == []


def test_hidden_files_of_others_are_no_obstacle(tmp_path):
    """Such as a file browser leaves in a new folder."""
    (tmp_path / ".DS_Store").write_text("icons")
    with open_run(tmp_path, IDENTITY) as run:
        assert run.manifest["status"]
    assert (tmp_path / ".DS_Store").read_text() == "icons"
