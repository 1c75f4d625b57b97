"""The engine on a study of numbers: what is made, kept, resumed, refused and shown."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import pandas as pd
import pytest
from rich.console import Console

from experiments.devices import DEVICE_COUNT
from experiments.engine import finished as finished_parts
from experiments.engine import session
from experiments.engine.run import run_study
from experiments.engine.study import Output, Part, Study
from experiments.storage import writing
from experiments.storage.results import ResultsError, read_manifest
from experiments.storage.writing import write_atomically

TABLES = ("numbers", "digits")


def write_text(text: str, path: Path) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))


@dataclass
class Squares(Study):
    """A file of seeds, a check in every session, and the squares of some numbers."""

    directory: Path
    numbers: tuple[int, ...] = (3, 1, 2)
    data: str = "as it was"
    made: list[str] = field(default_factory=list)
    unit = "squares"
    adopts = ("*.log",)

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "squares", "numbers": self.numbers}

    def stages(self) -> list[list[Part]]:
        squares = [Part(f"n{number}", f"square {number}", TABLES) for number in self.numbers]
        return [[Part("seeds", files=("seeds/all.txt",))], [Part("check")], squares]

    def make(self, part: Part) -> Output:
        self.made.append(part.name)
        if part.name == "seeds":
            return Output(files={"seeds/all.txt": partial(write_text, "1 2 3")})
        if part.name == "check":
            return Output(pins={"data": self.data}, manifest={"checked": len(self.made)})
        number = int(part.name[1:])
        if number == 0:
            raise ValueError("numbers must not be 0, got 0")
        # A part may read what earlier stages left.
        assert (self.directory / "seeds" / "all.txt").read_text() == "1 2 3"
        digits = pd.DataFrame({"number": number, "digit": list(str(number**2))})
        squares = pd.DataFrame({"number": [number], "square": [number**2]})
        return Output({"numbers": squares, "digits": digits})

    def assembled(self, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(total=table["square"].sum())

    def note(self, tables) -> str:
        return f"largest so far: {tables['numbers']['square'].max()}" if tables else ""

    def session_fields(self) -> dict[str, int]:
        return {"made": len(self.made)}


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=200, file=io.StringIO())


@pytest.fixture
def finished(tmp_path, console) -> Path:
    run_study(Squares(tmp_path / "run"), on=console)
    return tmp_path / "run"


def files(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


# Parts, tables and files.


def test_tables_have_the_parts_in_the_order_of_the_plan(finished):
    numbers = pd.read_parquet(finished / "numbers.parquet")
    assert numbers["square"].tolist() == [9, 1, 4]
    assert set(numbers["total"]) == {14}
    assert pd.read_parquet(finished / "digits.parquet")["digit"].tolist() == ["9", "1", "4"]


def test_files_and_manifest_of_a_finished_study(finished):
    parts = [f"parts/n{number}{table}.parquet" for number in (3, 1, 2) for table in ("", "_digits")]
    tables = ["numbers.parquet", "digits.parquet"]
    assert set(files(finished)) == {*parts, *tables, "manifest.json", "seeds/all.txt"}
    manifest = read_manifest(finished)
    assert manifest["status"] == "complete"
    assert (manifest["kind"], manifest["numbers"]) == ("squares", [3, 1, 2])
    assert (manifest["data"], manifest["checked"]) == ("as it was", 2)
    (session,) = manifest["sessions"]
    assert session["made"] == 5
    assert {"commit", "device", "versions", "wall_time_seconds"} <= set(session)


def test_without_a_terminal_a_short_run_says_what_it_begins_and_what_it_did(finished, console):
    first, last, note = console.export_text().splitlines()
    assert first.startswith("1 of 4 squares")
    assert first.endswith(", 1 of 3: square 3")
    assert last.startswith("4 of 4 squares are done after ")
    assert note == "largest so far: 9"


def test_the_thread_that_tells_of_a_run_ends_with_it(tmp_path, console):
    run_study(Squares(tmp_path / "whole"), on=console)
    with pytest.raises(ValueError, match="numbers must not be 0"):
        run_study(Squares(tmp_path / "fails", numbers=(3, 0)), on=console)
    assert "progress in lines" not in [thread.name for thread in threading.enumerate()]


def test_a_terminal_shows_the_note(tmp_path):
    console = Console(record=True, width=200, force_terminal=True, file=io.StringIO())
    run_study(Squares(tmp_path / "run"), on=console)
    assert "largest so far: 9" in console.export_text()


# Parts that are not made again.


def test_a_complete_study_is_left_as_it_is(finished, console):
    before, study = files(finished), Squares(finished)
    tables = run_study(study, on=console)
    assert tables["numbers"]["square"].tolist() == [9, 1, 4]
    assert study.made == []
    assert files(finished) == before
    assert "is complete: nothing left to run." in console.export_text()


@pytest.mark.parametrize(
    ("lost", "made"),
    [
        ("parts/n1.parquet", ["check", "n1"]),
        ("parts/n1_digits.parquet", ["check", "n1"]),
        ("numbers.parquet", ["check"]),
    ],
)
def test_only_what_is_lost_is_made_again(finished, console, lost, made):
    expected = pd.read_parquet(finished / "numbers.parquet")
    before = files(finished)
    (finished / lost).unlink()
    study = Squares(finished)
    pd.testing.assert_frame_equal(run_study(study, on=console)["numbers"], expected)
    assert study.made == made
    kept = [name for name in before if name.startswith(("parts", "seeds")) and name != lost]
    changed = [name for name in kept if files(finished)[name] != before[name]]
    assert [name for name in changed if "n1" not in name] == []
    assert read_manifest(finished)["status"] == "complete"


def test_a_file_that_was_deleted_is_made_again_alone(finished, console):
    """As a base of a complete run: its members stay as they are."""
    before = files(finished)
    (finished / "seeds" / "all.txt").unlink()
    study = Squares(finished)
    run_study(study, on=console)
    assert study.made == ["seeds", "check"]
    parts = [name for name in before if name.startswith("parts")]
    assert {name: files(finished)[name] for name in parts} == {name: before[name] for name in parts}


@pytest.mark.parametrize("lost", ["parts/n3.parquet", "manifest.json"])
def test_a_disk_that_is_full_in_the_middle_of_a_part_loses_nothing(
    tmp_path, console, monkeypatch, lost
):
    """Fields of the manifest as well: a part whose rows are there is not made again."""
    whole, is_full = writing.write_atomically, True

    def write(path: Path, writer: Callable[[Path], object]) -> None:
        begun = (tmp_path / "run" / "manifest.json").exists()
        if is_full and begun and str(path).endswith(lost) and study.made[-1:] == ["n3"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, writer)

    class Told(Squares):
        def make(self, part: Part) -> Output:
            output = super().make(part)
            told = {"last": part.name} if part.name == "n3" else output.manifest
            return dataclasses.replace(output, manifest=told)

    study = Told(tmp_path / "run")
    monkeypatch.setattr(writing, "write_atomically", write)
    with pytest.raises(OSError, match="No space left"):
        run_study(study, on=console)
    is_full = False
    run_study(study, on=console)
    assert study.made == ["seeds", "check", "n3", "check", "n3", "n1", "n2"]
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["status"], manifest["last"]) == ("complete", "n3")


def test_a_part_whose_file_cannot_be_written_is_not_finished(tmp_path, console):
    """Rows finish a part, so its files come first: else they would be missing for ever."""
    is_full = True

    def write(path: Path) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_text("1", path)

    class Weighty(Squares):
        def make(self, part: Part) -> Output:
            output = super().make(part)
            files = {"weights/n1.txt": write} if part.name == "n1" else output.files
            return dataclasses.replace(output, files=files)

    study = Weighty(tmp_path / "run")
    with pytest.raises(OSError, match="No space left"):
        run_study(study, on=console)
    is_full = False
    run_study(study, on=console)
    assert study.made == ["seeds", "check", "n3", "n1", "check", "n1", "n2"]
    assert (tmp_path / "run" / "weights" / "n1.txt").read_text() == "1"


def test_each_part_writes_the_tables_once(tmp_path, console, monkeypatch):
    written, write = [], finished_parts.write_parquet

    def count(path: Path, table: pd.DataFrame) -> None:
        written.append(path.name)
        write(path, table)

    monkeypatch.setattr(finished_parts, "write_parquet", count)
    run_study(Squares(tmp_path / "run"), on=console)
    assert written == 3 * ["numbers.parquet", "digits.parquet"]


def test_a_table_appears_at_the_end_if_a_part_of_it_would_mislead(tmp_path, console):
    study = Squares(tmp_path / "run")
    study.shows_progress = False
    run_study(study, max_parts=2, on=console)
    assert not (tmp_path / "run" / "numbers.parquet").exists()
    run_study(study, on=console)
    assert len(pd.read_parquet(tmp_path / "run" / "numbers.parquet")) == 3


def test_a_study_is_told_when_a_part_is_on_disk(tmp_path, console, monkeypatch):
    told = []

    def kept(study: Study, part: Part) -> None:
        told.append((part.name, (study.directory / "parts" / f"{part.name}.parquet").exists()))

    monkeypatch.setattr(Squares, "kept", kept)
    run_study(Squares(tmp_path / "run"), on=console)
    assert told[2:] == [("n3", True), ("n1", True), ("n2", True)]


def test_a_study_stops_after_some_parts_and_carries_on(tmp_path, console):
    directory = tmp_path / "run"
    first = run_study(Squares(directory), max_parts=1, on=console)["numbers"]
    assert first["square"].tolist() == [9]
    assert read_manifest(directory)["status"] == "running"
    study = Squares(directory)
    assert run_study(study, on=console)["numbers"]["square"].tolist() == [9, 1, 4]
    assert study.made == ["check", "n1", "n2"]
    assert [entry["made"] for entry in read_manifest(directory)["sessions"]] == [3, 3]


def test_a_part_that_fails_leaves_the_others(tmp_path, console):
    directory = tmp_path / "run"
    with pytest.raises(ValueError, match="numbers must not be 0, got 0"):
        run_study(Squares(directory, numbers=(3, 0, 2)), on=console)
    assert sorted(path.stem for path in (directory / "parts").iterdir()) == ["n3", "n3_digits"]
    assert pd.read_parquet(directory / "numbers.parquet")["square"].tolist() == [9]
    assert read_manifest(directory)["status"] == "running"


def test_recorded_tables_without_parts_are_complete(finished, console):
    """As under experiments/results: only tables and manifest are kept."""
    shutil.rmtree(finished / "parts")
    shutil.rmtree(finished / "seeds")
    study = Squares(finished)
    assert run_study(study, on=console)["numbers"]["square"].tolist() == [9, 1, 4]
    assert study.made == []


def test_results_alone_are_checked_before_they_are_taken_for_complete(finished, console):
    shutil.rmtree(finished / "parts")
    flip(finished / "numbers.parquet", 40)
    study = Squares(finished)
    assert run_study(study, on=console)["numbers"]["square"].tolist() == [9, 1, 4]
    assert study.made == ["check", "n3", "n1", "n2"]


# Damage.


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << (place % 8)
    path.write_bytes(content)


def contents(directory: Path) -> dict[str, bytes]:
    """All files but the manifest, which tells times, and what was moved aside."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "damaged" not in path.parts and "manifest" not in path.name
    }


DAMAGE: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "deleted": lambda path: path.unlink(),
    **{f"bit {place}": partial(flip, place=place) for place in (0, 9, 133, 1000, 4001, 7777)},
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name", ["parts/n1.parquet", "parts/n1_digits.parquet", "seeds/all.txt", "numbers.parquet"]
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_damaged_file_is_noticed_and_made_anew(tmp_path, console, name, damage, is_finished):
    """Bit for bit what it was, whether the run is finished or not."""
    run_study(Squares(tmp_path / "whole"), on=console)
    run_study(Squares(tmp_path / "run"), max_parts=None if is_finished else 2, on=console)
    DAMAGE[damage](tmp_path / "run" / name)
    run_study(Squares(tmp_path / "run"), on=console)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    has_damaged = name != "numbers.parquet" and damage != "deleted"
    assert (tmp_path / "run" / "damaged" / name).exists() == has_damaged
    assert ("is damaged (it has changed since" in console.export_text()) == has_damaged


def test_rows_that_belong_to_another_part_are_noticed(finished, console):
    shutil.copy(finished / "parts" / "n3.parquet", finished / "parts" / "n1.parquet")
    assert run_study(Squares(finished), on=console)["numbers"]["square"].tolist() == [9, 1, 4]


def test_files_without_fingerprints_get_them(finished, console):
    """A run of an earlier version, or a kill between a file and the manifest."""
    manifest = read_manifest(finished)
    expected = manifest.pop("fingerprints")
    del manifest["tables"]
    (finished / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    study = Squares(finished)
    run_study(study, on=console)
    assert study.made == ["check"]
    flip(finished / "parts" / "n1.parquet", 100)
    study = Squares(finished)
    run_study(study, on=console)
    assert study.made == ["check", "n1"]
    assert read_manifest(finished)["fingerprints"] == expected


def test_damage_without_a_fingerprint_is_kept_and_told_as_well(finished, console):
    manifest = {**read_manifest(finished), "fingerprints": {}, "status": "running"}
    (finished / "manifest.json").write_text(json.dumps(manifest))
    path = finished / "parts" / "n1.parquet"
    damaged = path.read_bytes()[:-8]
    path.write_bytes(damaged)
    study = Squares(finished)
    run_study(study, on=console)
    assert study.made == ["check", "n1"]
    assert (finished / "damaged" / "parts" / "n1.parquet").read_bytes() == damaged
    assert "n1.parquet is damaged (" in console.export_text()


@pytest.mark.parametrize("rows", [0, 1])
def test_rows_of_an_earlier_version_are_compared_with_the_plan(finished, console, rows):
    """Without a fingerprint an emptied table is still no finished part."""
    manifest = read_manifest(finished)
    del manifest["fingerprints"]
    (finished / "manifest.json").write_text(json.dumps(manifest))
    table = pd.DataFrame({"number": [1], "square": [1]}).iloc[:rows]
    table.to_parquet(finished / "parts" / "n1.parquet", index=False)
    study = Squares(finished)
    assert run_study(study, on=console)["numbers"]["square"].tolist() == [9, 1, 4]
    assert ("n1" in study.made) == (rows == 0)
    assert (finished / "damaged" / "parts" / "n1.parquet").exists() == (rows == 0)
    assert ("its rows are not those that the plan expects" in console.export_text()) == (rows == 0)


def test_a_file_that_others_were_made_from_must_come_out_the_same(finished, console, monkeypatch):
    """As bases that another device would train to other weights."""
    (finished / "seeds" / "all.txt").unlink()
    study = Squares(finished)
    make = study.make

    def other(part: Part) -> Output:
        if part.name == "seeds":
            return Output(files={"seeds/all.txt": partial(write_text, "4 5 6")})
        return make(part)

    monkeypatch.setattr(study, "make", other)
    before = contents(finished)
    with pytest.raises(
        ResultsError, match=r"all\.txt was lost, and is not the same when it is made"
    ):
        run_study(study, on=console)
    assert {name: contents(finished)[name] for name in before} == before
    # What it was, restored by hand, is accepted again.
    (finished / "seeds" / "all.txt").write_text("1 2 3")
    run_study(Squares(finished), on=console)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text('{"kind": "squ'),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text(path.read_text().replace("squares", "squaret")),
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"numbers": [3]})),
    ],
)
def test_a_damaged_manifest_is_restored_from_its_copy(finished, console, damage):
    before = contents(finished)
    damage(finished / "manifest.json")
    study = Squares(finished)
    run_study(study, on=console)
    assert study.made == []
    assert contents(finished) == before
    assert read_manifest(finished)["kind"] == "squares"
    assert "manifest.json is not as it was written" in console.export_text()


def test_a_manifest_that_is_wrong_about_its_parts_costs_only_work(finished, console):
    before = contents(finished)
    manifest = read_manifest(finished)
    for fingerprints in ({"n1": {"parts/n1.parquet": "0"}}, {"n1": 3}, [], "none"):
        wrong = json.dumps(manifest | {"fingerprints": fingerprints, "tables": {"numbers": ""}})
        (finished / "manifest.json").write_text(wrong)
        run_study(Squares(finished), on=console)
        assert contents(finished) == before


def test_what_a_kill_left_half_written_is_removed(finished, console):
    (finished / "parts" / ".n7.parquet.abc.partial").write_text("half")
    (finished / "seeds" / ".base.abc.partial").mkdir()
    (finished / "seeds" / ".base.abc.partial" / "weights").write_text("half")
    (finished / ".notes").write_text("of the user")
    run_study(Squares(finished), on=console)
    assert {path.name for path in finished.rglob(".*")} == {".lock", ".manifest.json", ".notes"}


@dataclass
class Powers(Squares):
    """Squares or cubes in one directory: parts of both stay, tables are of the last."""

    power: int = 2

    @property
    def record(self) -> dict[str, Any]:
        return {"tables_of": {"power": self.power, "sizes": (1, 2)}}

    def stages(self) -> list[list[Part]]:
        return [[Part(f"n{number}-{self.power}", tables=("numbers",)) for number in self.numbers]]

    def make(self, part: Part) -> Output:
        self.made.append(part.name)
        number, power = part.name[1:].split("-")
        return Output({"numbers": pd.DataFrame({"square": [int(number) ** int(power)]})})


def test_tables_follow_the_record(tmp_path, console):
    def run(power: int) -> tuple[list[int], list[str]]:
        study = Powers(tmp_path / "run", power=power)
        return run_study(study, on=console)["numbers"]["square"].tolist(), study.made

    assert run(2) == ([9, 1, 4], ["n3-2", "n1-2", "n2-2"])
    assert run(3) == ([27, 1, 8], ["n3-3", "n1-3", "n2-3"])
    assert read_manifest(tmp_path / "run")["tables_of"] == {"power": 3, "sizes": [1, 2]}
    # Nothing is made again, and the tables are those that were asked for.
    assert run(2) == ([9, 1, 4], [])
    assert pd.read_parquet(tmp_path / "run" / "numbers.parquet")["square"].tolist() == [9, 1, 4]
    assert "nothing left to run" not in console.export_text(clear=False)
    assert run(2) == ([9, 1, 4], [])
    assert "nothing left to run" in console.export_text()


# Refusals.


def test_another_identity_is_refused(finished, console):
    with pytest.raises(ResultsError, match=r"numbers \(there \[3, 1, 2\], here \[3\]\)"):
        run_study(Squares(finished, numbers=(3,)), on=console)


def test_a_pinned_field_must_stay(finished, console):
    (finished / "numbers.parquet").unlink()
    with pytest.raises(ResultsError, match=r"something else; it differs in data"):
        run_study(Squares(finished, data="another"), on=console)


def test_a_directory_of_an_earlier_version_is_taken_over(tmp_path, console):
    (tmp_path / "kept.log").write_text("kept")
    run_study(Squares(tmp_path), on=console)
    assert (tmp_path / "kept.log").read_text() == "kept"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(ResultsError, match="is not empty and is not a run"):
        run_study(Squares(other), on=console)


# Executors and sessions.


def test_parts_run_where_the_executor_runs_them(tmp_path, console):
    """In any order: the tables keep that of the plan."""

    def backwards(
        study: Study, parts: Any, started: Callable[[Part], None]
    ) -> Iterator[tuple[Part, Output]]:
        for part in reversed(parts):
            started(part)
            yield part, study.make(part)

    study = Squares(tmp_path / "run")
    tables = run_study(study, executor=backwards, on=console)
    assert study.made == ["seeds", "check", "n2", "n1", "n3"]
    assert tables["numbers"]["square"].tolist() == [9, 1, 4]


def test_studies_and_outputs_travel_to_another_process(tmp_path, console):
    """As a cluster would need it: no program and no open file goes along."""

    def elsewhere(
        study: Study, parts: Any, started: Callable[[Part], None]
    ) -> Iterator[tuple[Part, Output]]:
        for part in parts:
            there, asked = pickle.loads(pickle.dumps((study, part)))
            yield part, pickle.loads(pickle.dumps(there.make(asked)))

    expected = run_study(Squares(tmp_path / "here"), on=console)
    tables = run_study(Squares(tmp_path / "there"), executor=elsewhere, on=console)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(tables[name], table)


def resumed(directory: Path, console: Console, **changes: Any) -> str:
    """What is printed where the last session's entry had other fields; an ellipsis removes one."""
    manifest = json.loads((directory / "manifest.json").read_text())
    entry = manifest["sessions"][-1]
    for name, value in changes.items():
        if value is ...:
            del entry[name]
        else:
            entry[name] = entry[name] | value if isinstance(value, dict) else value
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "numbers.parquet").unlink()
    run_study(Squares(directory), on=console)
    return " ".join(console.export_text().split())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"commit": "another"}, "commit (then another, now "),
        ({"device": "an abacus"}, "device (then an abacus, now "),
        ({"platform": "gpu"}, "platform (then gpu, now cpu)"),
        ({"num_devices": 64}, "num_devices (then 64, now "),
        ({"python": "3.1"}, "python (then 3.1, now "),
        ({"versions": {"jax": "0.0.1"}}, "jax (then 0.0.1, now "),
        ({"settings": {"jax_default_prng_impl": "rbg"}}, "default_prng_impl (then rbg, now thr"),
        ({"settings": {"jax_threefry_partitionable": "x"}}, "threefry_partitionable (then x, now "),
        ({"settings": {"jax_enable_x64": True}}, "enable_x64 (then True, now False)"),
        ({"xla_flags": ["--xla_gpu_x=1"]}, "xla_flags (then --xla_gpu_x=1, now "),
        ({"xla_flags": ["--x" * 99]}, "--x--x…, now "),
    ],
)
def test_a_session_with_other_surroundings_is_told_what_differs(finished, console, changes, told):
    text = resumed(finished, console, **changes)
    assert "The last session of this run had other surroundings" in text
    assert told in text
    assert text.count("(then ") == 1


def test_what_the_last_session_did_not_state_is_no_difference(finished, console):
    text = resumed(finished, console, settings=..., xla_flags=..., num_devices=..., versions=...)
    assert "surroundings" not in text


def test_a_session_states_what_it_ran_with(finished, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=2 --xla_dump_to=/x --xla_a=1 " + f"{DEVICE_COUNT}=7")
    assert session.xla_flags() == ["--xla_a=1", "--xla_b=2"]
    (entry,) = read_manifest(finished)["sessions"]
    assert entry["settings"]["jax_enable_x64"] is False
    assert entry["settings"]["jax_default_prng_impl"] == "threefry2x32"
    assert entry["num_devices"] == jax.device_count()


def test_a_session_states_its_phases(finished):
    (entry,) = read_manifest(finished)["sessions"]
    assert set(entry["phases"]) == {"write", "rest"}
    assert 0 < entry["phases"]["write"] <= sum(entry["phases"].values())


def test_double_precision_is_refused_before_the_directory_is_made(tmp_path, console):
    with jax.enable_x64(True), pytest.raises(ValueError, match="jax_enable_x64 must be off"):
        run_study(Squares(tmp_path / "run"), on=console)
    assert not (tmp_path / "run").exists()
