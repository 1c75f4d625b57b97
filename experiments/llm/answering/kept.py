"""A file of continuations, written line by line as they end: an interrupted run loses none.

The first line states the model and the settings of its decoding. Every other line has the identity
of a continuation (see `experiments.llm.answering.decoding.identities`), its tokens, whether it was
cut off, and a checksum of these three::

    {"checkpoint": "6f…", "temperature": 0.0, …}
    ["00c1…", [17, 5, 9], false, 2405101263]

Later runs with the same model and settings read the continuations from there, for example to
resume, to grade again or to ask more problems. Other models and settings have files of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from experiments.storage.results import ResultsError
from experiments.storage.untrusted import parse_json

KEPT_FILES = "decoded-*.jsonl"
"""Pattern of the files of a directory."""


@dataclass(frozen=True)
class Continuation:
    """New tokens after a prompt.

    Attributes:
      tokens: their ids, without the stop token.
      truncated: true if there was no stop token.
    """

    tokens: Int[np.ndarray, " tokens"]
    truncated: bool


def _checksum(row: Sequence[Any]) -> int:
    """CRC-32 of an identity, its tokens, and whether they were cut off."""
    return zlib.crc32(json.dumps(list(row)).encode())


def _read_line(line: bytes) -> tuple[str, Continuation]:
    """Identity and continuation of a line.

    Raises:
      ValueError: if it is none.
    """
    row = parse_json(line, "line")
    kinds = [type(cell) for cell in row] if isinstance(row, list) else []
    # Earlier versions wrote no checksum.
    if kinds not in ([str, list, bool], [str, list, bool, int]):
        raise ValueError("line must hold an identity, tokens, true or false, and a checksum")
    identity, tokens, is_truncated = row[:3]
    if row[3:] and row[3] != _checksum(row[:3]):
        raise ValueError("the checksum of line is not that of what it holds")
    if not all(type(token) is int and 0 <= token < 2**31 for token in tokens):
        raise ValueError("tokens must be whole numbers from 0 to 2^31 - 1")
    return identity, Continuation(np.array(tokens, np.int32), is_truncated)


class Kept:
    """Continuations of one model with one setting; a context manager, which closes the file.

    Attributes:
      path: of the file, DIRECTORY/decoded-NUMBER.jsonl.
      num_found: number of continuations in the file when it was opened.
    """

    def __init__(self, directory: Path, about: Mapping[str, Any]):
        """Open the file, or create it.

        Args:
          directory: directory of the file; created if missing.
          about: model and settings that its continuations depend on, as JSON values.

        Raises:
          ResultsError: if another process writes the file.
        """
        # Open the file of this header, and lock it.
        header = json.dumps(about, sort_keys=True).encode() + b"\n"
        self.path = directory / f"decoded-{hashlib.sha256(header).hexdigest()[:8]}.jsonl"
        directory.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ResultsError(f"{self.path} is in use by another process") from None
        # Read the lines that are whole. What is in others is decoded again.
        self._continuations: dict[str, Continuation] = {}
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        good = len(header) if lines[:1] == [header] else 0
        for line in lines[1:] if good else []:
            if not line.endswith(b"\n"):
                break
            good += len(line)
            with contextlib.suppress(ValueError):
                identity, continuation = _read_line(line)
                self._continuations[identity] = continuation
        # Cut off a line that a kill or a full disk broke off; new lines are added after the others.
        self._file.truncate(good)
        if not good:
            self._write(header)
        self.num_found = len(self._continuations)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()

    def get(self, identity: str) -> Continuation | None:
        """Continuation of this identity; None if it is not in the file."""
        return self._continuations.get(identity)

    def add(self, new: Iterable[tuple[str, Continuation]]) -> None:
        """Write continuations with their identities.

        Raises:
          OSError: if they cannot be written; those before them are safe.
        """
        new = list(new)
        rows = ([identity, one.tokens.tolist(), one.truncated] for identity, one in new)
        self._write("".join(json.dumps([*row, _checksum(row)]) + "\n" for row in rows).encode())
        self._continuations |= new
