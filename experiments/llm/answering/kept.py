"""Continuations in a file, a line each as they end: an interrupted run loses none of them.

The first line says what made them; then each states who it is (see
`experiments.llm.answering.decoding.identities`), its tokens, and whether it was cut off::

    {"checkpoint": "6f…", "temperature": 0.0, …}
    ["00c1…", [17, 5, 9], false]

A later run of the same model in the same way takes them from there: one that carries on, grades
anew, or asks more problems. Another model, or another way, has a file of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from experiments.storage.results import ResultsError

KEPT_FILES = "decoded-*.jsonl"
"""Pattern of the files of a directory."""


@dataclass(frozen=True)
class Continuation:
    """New tokens after a prompt.

    Attributes:
      tokens: their ids, without the stop token.
      truncated: whether there was no stop token.
    """

    tokens: Int[np.ndarray, " tokens"]
    truncated: bool


class Kept:
    """Continuations of one model, decoded in one way; a context manager, which closes the file.

    Attributes:
      path: of the file, DIRECTORY/decoded-NUMBER.jsonl.
      num_found: how many were there when it was opened.
    """

    def __init__(self, directory: Path, about: Mapping[str, Any]):
        """Open a file, or begin one.

        Args:
          directory: where it is; made if it is not there.
          about: what its continuations depend on, beside their identity, as JSON.

        Raises:
          ResultsError: if another process writes it.
        """
        header = json.dumps(about, sort_keys=True).encode() + b"\n"
        self.path = directory / f"decoded-{hashlib.sha256(header).hexdigest()[:8]}.jsonl"
        directory.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ResultsError(f"{self.path} is in use by another process") from None
        self._found: dict[str, Continuation] = {}
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        good = len(header) if lines[:1] == [header] else 0
        for line in lines[1:] if good else []:
            try:
                identity, tokens, is_truncated = json.loads(line)
                continuation = Continuation(np.array(tokens, np.int32), bool(is_truncated))
            except ValueError:
                # A kill or a full disk cut it off: it is decoded again, with what follows.
                break
            if not line.endswith(b"\n"):
                break
            self._found[identity] = continuation
            good += len(line)
        self._file.truncate(good)
        if not good:
            self._write(header)
        self.num_found = len(self._found)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._file.flush()

    def get(self, identity: str) -> Continuation | None:
        """A continuation, if it is there."""
        return self._found.get(identity)

    def add(self, new: Iterable[tuple[str, Continuation]]) -> None:
        """Keep continuations.

        Raises:
          OSError: if they cannot be written; those before are safe.
        """
        new = list(new)
        rows = ((who, one.tokens.tolist(), one.truncated) for who, one in new)
        self._write("".join(json.dumps(row) + "\n" for row in rows).encode())
        self._found |= new
