"""Responses to problems of reasoning-gym, scored by the task that drew them."""

from __future__ import annotations

from experiments.llm.problems.answers import final_answer
from experiments.llm.problems.gym.drawing import dataset, entry_of

RIGHT = 0.99
"""Score from which a response is right. A score is in [0, 1]; what is below 1 is given for parts of
an answer, or for its form alone."""


def score(item: tuple[str, str, str]) -> float | str:
    """Score a response by its task's own scorer.

    A scorer may take long, or raise anything. Call this function under a time limit, see
    `experiments.llm.problems.workers.map_in_workers`, in processes that start with
    `experiments.llm.problems.gym.library.ENVIRONMENT`.

    Args:
      item: origin and text of the problem, and the response. The scorer is given what
        `experiments.llm.problems.answers.final_answer` finds in it.

    Returns:
      The score; or, as text, why the problem cannot be drawn again.
    """
    origin, problem, response = item
    name, _, index = origin.rpartition("#")
    # Draw the problem again: scorers look at more than its text.
    try:
        entry = entry_of(name, int(index))
    except Exception as error:
        return f"{origin!r} draws no problem ({type(error).__name__}: {error})"
    if entry["question"] != problem:
        return f"{origin!r} draws another problem: by another version of reasoning-gym?"
    return float(dataset(name).score_answer(final_answer(response), entry))
