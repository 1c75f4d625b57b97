"""Small iGSM problems as lines of a file."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.igsm.files import chat
from synth.tasks.igsm import problems


def write_rows(path: Path, number: int, *, levels: tuple[int, ...] = (1, 2), seed: int = 0) -> Path:
    """Write `number` problems of these levels in turn, as chats with op and answer."""
    streams = [problems(level, number, seed=seed) for level in levels]
    with path.open("w") as file:
        for index in range(number):
            one = next(streams[index % len(streams)])
            row = {
                "messages": chat(one.problem, one.solution, one.answer),
                "answer": one.answer,
                "difficulty": one.difficulty,
            }
            file.write(json.dumps(row) + "\n")
    return path


def write_sums(path: Path, number: int, *, levels: tuple[int, ...] = (), seed: int = 0) -> Path:
    """Write `number` sums with the last steps of some repeated, as chats of some 50 tokens.

    With `levels`, each states one of them, in turn.
    """
    with path.open("w") as file:
        for index in range(number):
            first, second = index % 7 + 1 + seed, index % 5 + 2
            worked = f"{first} + {second} = {first + second}. " + "So. " * (index % 4)
            messages = [
                {"role": "user", "content": f"What is {first} + {second}?"},
                {"role": "assistant", "content": f"{worked}\\boxed{{{first + second}}}"},
            ]
            row = {"messages": messages, "answer": str(first + second)}
            stated = {"difficulty": levels[index % len(levels)]} if levels else {}
            file.write(json.dumps(row | stated) + "\n")
    return path
