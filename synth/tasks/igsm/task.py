"""iGSM in a closed vocabulary, for the small decoder.

Knob: `difficulty`, the op count. Length grows with it.

The problems are those of the text (`synth.tasks.igsm.problems`), each with one solution, in the
order of `synth.tasks.igsm.work.canonical_order`. There are two forms (see
`synth.tasks.igsm.tokens`): ``words`` is the text with names and fixed phrases as single tokens (348
tokens on average at difficulty 12, at most 472); ``terse`` has one token for each parameter (180 on
average, at most 246).

Worked example (``terse``, modulus 5, difficulty 2; A, B, C, D are the layers)::

    | A1>B1 = 2 ; A1>B2 = 4 * A1>B1 ; ? A1>B2 : A1>B1 : 2 ; A1>B2 : 4 * A1>B1 = 4 * 2 = 3 ; .

What is known: a problem needs planning, since the sentences are shuffled and the answer depends on
some of them only; decoders of 100 million parameters learn it and solve problems with more
operations than they were trained on (Ye et al. 2024, arXiv 2407.20311). A toy decoder learns it
slowly: with three layers of width 64, normalised queries and keys and sequential positions, bases
solve 82, 62, 41, 29 and 8% of difficulties 1 to 5 after 192,000 short problems (the preset
``igsm-shuffled`` of the recipe ``families``, six bases). With ``shuffle=6`` the sentences stand in
an order of computation, which is learnt sooner.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar, get_args

import numpy as np

from synth.task import TextExample, TextTask, check_difficulty
from synth.tasks.igsm.draw import draw
from synth.tasks.igsm.graph import Settings, Style
from synth.tasks.igsm.text import Question
from synth.tasks.igsm.tokens import LENGTHS, Form, ids, vocabulary, write


@dataclass(frozen=True)
class IGSM(TextTask):
    """iGSM problems as tokens; difficulty is the op count.

    Attributes:
      hardest: largest difficulty.
      modulus: of all arithmetic: 23 as in the reference, or less for small models.
      form: ``words`` or ``terse``.
      style, max_edge, min_edge, shuffle: see `synth.tasks.igsm.graph.Settings`.
      question: stands ``last`` or ``first``.
      tokens_fixed, tokens_per_op: `max_length` is the first plus the second times the difficulty; 0
        for the form's own values, in which all but about 1 in 1000 fit. A problem that does not fit
        is drawn again, so lower values select shorter problems.

    Raises:
      ValueError: if a field is out of range.
    """

    name: ClassVar[str] = "igsm"

    hardest: int = 12
    modulus: int = 23
    form: Form = "words"
    style: Style = "heavy"
    max_edge: int | None = None
    min_edge: int | None = None
    shuffle: int = 5
    question: Question = "last"
    tokens_fixed: int = 0
    tokens_per_op: int = 0

    def __post_init__(self) -> None:
        if self.hardest < 1:
            raise ValueError(f"hardest must be at least 1, got {self.hardest}")
        for name, kind in {"form": Form, "question": Question}.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}"
                )
        for name in ("tokens_fixed", "tokens_per_op"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        self._settings.check(self.hardest)

    @property
    def _settings(self) -> Settings:
        return Settings(
            style=self.style,
            max_edge=self.max_edge,
            min_edge=self.min_edge,
            modulus=self.modulus,
            shuffle=self.shuffle,
        )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return vocabulary(self.form, self.modulus)

    def max_length(self, difficulty: int) -> int:
        """Most tokens of a problem with its solution; `sample` draws longer ones again."""
        check_difficulty(difficulty, self.hardest)
        fixed, per_op = LENGTHS[self.form]
        return (self.tokens_fixed or fixed) + (self.tokens_per_op or per_op) * difficulty

    def sample(self, generator: np.random.Generator, difficulty: int) -> TextExample:
        """Draw one problem with `difficulty` operations, as words joined by spaces."""
        rng, length = Random(int(generator.integers(2**63))), self.max_length(difficulty)
        while True:
            drawn = draw(self._settings, difficulty, rng)
            problem, solution = write(drawn, self.form, self.question, rng)
            if len(problem.split()) + len(solution.split()) <= length:
                return TextExample(problem, solution)

    def encode(self, text: str) -> list[int]:
        """Token ids of words joined by spaces."""
        known = ids(self.form, self.modulus)
        return [known[word] for word in text.split()]
