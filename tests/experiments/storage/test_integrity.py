"""Fingerprints change with what they are of; damaged files go where nothing is overwritten."""

from __future__ import annotations

import hashlib

from experiments.storage.integrity import fingerprint, set_aside


def test_the_fingerprint_of_a_file_is_its_digest(tmp_path):
    path = tmp_path / "numbers.bin"
    path.write_bytes(b"1234")
    assert fingerprint(path) == hashlib.sha256(b"1234").hexdigest()


def test_the_fingerprint_of_a_folder_changes_with_every_name_and_byte(tmp_path):
    def made(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        return fingerprint(tmp_path / name)

    whole = made("a", {"1": "x", "deep/2": "y"})
    assert made("b", {"deep/2": "y", "1": "x"}) == whole
    others = [
        made("c", {"1": "x", "deep/2": "z"}),
        made("d", {"1": "x", "deep/3": "y"}),
        made("e", {"1": "x", "2": "y"}),
        made("f", {"1": "x"}),
        made("g", {"1": "y", "deep/2": "x"}),
    ]
    assert len({whole, *others}) == 6
    # Recorded in the manifests of earlier runs, so the way to compute it must stay.
    digests = [hashlib.sha256(text).hexdigest() for text in (b"x", b"y")]
    text = f"1\0{digests[0]}\ndeep/2\0{digests[1]}\n"
    assert whole == hashlib.sha256(text.encode()).hexdigest()


def test_damaged_files_and_folders_are_kept_under_numbered_names(tmp_path):
    path = tmp_path / "parts" / "n1.parquet"
    path.parent.mkdir()
    damaged = tmp_path / "damaged" / "parts"
    for number, name in enumerate(["n1.parquet", "n1.parquet-2", "n1.parquet-3"]):
        path.write_text(str(number))
        assert set_aside(path, tmp_path) == damaged / name
        assert not path.exists()
    assert [file.read_text() for file in sorted(damaged.iterdir())] == ["0", "1", "2"]
    assert set_aside(path.parent, tmp_path) == tmp_path / "damaged" / "parts-2"
