"""The assistant's turns of a chat, as parts of its rendered text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.llm.problems.data import Message
from experiments.llm.text.tokenizer import Closing, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def assistant_turns(
    asked: str,
    prompt: Sequence[Message],
    tokenizer: PreTrainedTokenizerFast,
    end: Closing,
) -> list[tuple[str, bool]]:
    """Cut a rendered prompt where turns of the assistant begin and end.

    A turn begins where the model would be asked for it, and goes up to its end marker. So these are
    the tokens that the model itself would have to write.

    Args:
      asked: the text of the prompt.
      prompt: its messages.
      tokenizer: has the chat template.
      end: what the template writes after a turn.

    Returns:
      The parts of the text in order, and whether each is a turn with its marker.

    Raises:
      ValueError: if the template writes no end marker, or changes a turn when others follow.
    """
    parts: list[tuple[str, bool]] = []
    place = 0
    for number, message in enumerate(prompt):
        if message["role"] != "assistant":
            continue
        if not end.written:
            raise ValueError("loss_on 'all' needs a chat template that writes ends of turns")
        # Templates with thoughts leave them out of turns that others follow: try both openings.
        openings = (
            render(tokenizer, prompt[:number], generation=True, thinking=thinking)
            for thinking in (False, True)
        )
        start = next((len(text) for text in openings if asked.startswith(text)), -1)
        stop = asked.find(end.marker, start) + len(end.marker)
        content = message["content"].strip()
        if start < place or content not in asked[start : stop - len(end.marker)]:
            raise ValueError(
                f"loss_on 'all' needs a chat template that keeps earlier turns as they are, but it "
                f"changes {content[:40]!r} (turn {number})"
            )
        parts += [(asked[place:start], False), (asked[start:stop], True)]
        place = stop
    return [*parts, (asked[place:], False)]
