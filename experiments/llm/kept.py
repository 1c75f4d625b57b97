"""Continuations in a file, a line each as they end: an interrupted run loses none of them.

The first line says what made them; then each states who it is (see
`experiments.llm.decoding.identities`), its tokens, and whether it was cut off::

    {"checkpoint": "6f…", "temperature": 0.0, …}
    ["00c1…", [17, 5, 9], false]

A later run of the same model in the same way takes them from there: one that carries on, grades
anew, or asks more problems.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int


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
    """Continuations of one model, decoded in one way.

    Attributes:
      num_found: how many were there when it was opened: none in a new file, or in one of another
        model or way, which is written over.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]):
        """Open a file, or begin one.

        Args:
          path: of the file; its directory is made.
          about: what its continuations depend on, beside their identity; must survive JSON.
        """
        self._path = path
        self._found: dict[str, Continuation] = {}
        first = json.dumps(about, sort_keys=True) + "\n"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if not lines or lines[0] != first.encode():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(first)
        else:
            # What a kill cut off in the middle of a line is decoded again.
            whole = [line for line in lines if line.endswith(b"\n")]
            for line in whole[1:]:
                identity, tokens, is_truncated = json.loads(line)
                self._found[identity] = Continuation(np.array(tokens, np.int32), is_truncated)
            if len(whole) < len(lines):
                with path.open("rb+") as file:
                    file.truncate(sum(map(len, whole)))
        self.num_found = len(self._found)

    def get(self, identity: str) -> Continuation | None:
        """A continuation, if it is there."""
        return self._found.get(identity)

    def add(self, new: Iterable[tuple[str, Continuation]]) -> None:
        """Keep continuations.

        Raises:
          OSError: if they cannot be written; those before are safe.
        """
        new = list(new)
        self._found |= new
        rows = ((who, one.tokens.tolist(), one.truncated) for who, one in new)
        with self._path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
