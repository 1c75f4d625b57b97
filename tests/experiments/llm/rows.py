"""Files of small problems: iGSM, and sums."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.igsm.files import chat
from synth.tasks.igsm import problems


def write_rows(path: Path, number: int, *, levels: tuple[int, ...] = (1, 2), seed: int = 0) -> Path:
    """Write `number` iGSM problems, of these levels in turn, as chats with answer and level."""
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
    """Write `number` sums as chats of about 50 tokens; some solutions have filler words.

    With `levels`, the problems state these levels in turn.
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
