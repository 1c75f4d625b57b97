"""Names of measures, and whether their high or their low values are hard.

A measure is a word. Four are known by name, see `MEASURES`. The others are made of columns of the
data set itself, see `OfColumns`::

    column:NAME          the numbers of a column: a pass rate, a reward, a rating, a level of 1.5
    passes:NAME/TRIALS   counts of passes, and the column of the numbers of attempts (or one number)
    rasch:A,B,C          passes of several models, a column each; rasch:A,B,C/8 of 8 attempts each
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Measure = str
"""Name of a measure; `check_measure` tells what is accepted."""

Direction = Literal["higher", "lower"]
"""Side of a measure on which the harder values are."""

FORMS = {
    "column": "column:NAME",
    "passes": "passes:NAME/TRIALS",
    "rasch": "rasch:A,B",
}
"""Written form of each measure that is made of columns."""


@dataclass(frozen=True)
class Scale:
    """Meaning of a measure's values.

    Attributes:
      label: name and unit.
      hard_is_high: true if higher values mean harder problems; None if that has to be stated.
    """

    label: str
    hard_is_high: bool | None


MEASURES: dict[Measure, Scale] = {
    "op": Scale("stated difficulty (level)", True),
    "cot_tokens": Scale("length of the solution (tokens)", True),
    "pass_rate": Scale("pass rate of the base (share of samples)", False),
    "perplexity": Scale("perplexity per solution token", True),
}
"""The only list of measures that are known by name."""

ACCEPTED = [*MEASURES, *FORMS.values()]
"""Names and forms that are accepted as a measure, for errors."""


@dataclass(frozen=True)
class OfColumns:
    """A measure that is made of columns of the data set.

    Attributes:
      kind: what is made of them: ``column``, ``passes`` or ``rasch``.
      columns: the column of values or passes; of ``rasch`` one for each model.
      trials: number of attempts behind each count of passes, or the column that holds it; 1 where
        none is stated.
    """

    kind: str
    columns: tuple[str, ...]
    trials: str | int = 1

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column that has to be read."""
        return (*self.columns, *([self.trials] if isinstance(self.trials, str) else []))


def of_columns(measure: Measure) -> OfColumns | None:
    """Columns that a measure is made of; None if it is known by name.

    Raises:
      ValueError: if it is neither, or columns or attempts are not named as they should be.
    """
    if measure in MEASURES:
        return None
    kind, _, rest = str(measure).partition(":")
    if kind not in FORMS:
        from synth.arguments import closest

        hint = f"{closest(str(measure), MEASURES)}; a column of the data is column:{measure}"
        raise ValueError(f"measure must be one of {ACCEPTED}, got {measure!r}{hint}")
    # After the last slash the number of attempts, or of `passes` the column that has it.
    columns, trials = (rest,), 1
    before, _, last = rest.rpartition("/")
    if kind == "passes":
        columns, trials = (before,), int(last) if last.isdecimal() else last
    elif kind == "rasch":
        before, trials = (before, int(last)) if last.isdecimal() else (rest, 1)
        columns = tuple(before.split(","))
    found = OfColumns(kind, columns, trials)
    is_short = kind == "rasch" and len(columns) < 2
    if not all(found.needed) or trials == 0 or is_short or len({*columns}) < len(columns):
        raise ValueError(f"measure must be written as {FORMS[kind]}, got {measure!r}")
    return found


def needed_columns(*measures: Measure) -> list[str]:
    """Columns that measures are made of, each once; errors as `of_columns`."""
    found = [made.needed for each in measures if (made := of_columns(each)) is not None]
    return list(dict.fromkeys(name for names in found for name in names))


def is_measure(name: str) -> bool:
    """Return whether a column of a table is a measure."""
    return name in MEASURES or name.partition(":")[0] in FORMS


def scale(measure: Measure) -> Scale:
    """Meaning of a measure's values; errors as `of_columns`."""
    made = of_columns(measure)
    if made is None:
        return MEASURES[measure]
    if made.kind == "rasch":
        return Scale(f"difficulty for {len(made.columns)} models (logits)", True)
    if made.kind == "passes":
        return Scale(f"{made.columns[0]} (share of attempts, shrunk)", False)
    return Scale(made.columns[0], None)


def hard_is_high(measure: Measure, harder: Direction | None = None) -> bool:
    """Return whether higher values of a measure are harder.

    Args:
      measure: its name.
      harder: which values are; needed for ``column:NAME`` alone, None for the others.

    Raises:
      ValueError: see `of_columns`; or if `harder` is missing, unknown or contradicts the measure.
    """
    known = scale(measure).hard_is_high
    if harder is None and known is None:
        raise ValueError(
            f"harder must say which values of {measure!r} are the harder ones, higher or lower "
            f"(lower for a pass rate, higher for a rating), got None"
        )
    if harder not in (None, *get_args(Direction)):
        raise ValueError(f"harder must be one of {get_args(Direction)}, got {harder!r}")
    if known is None:
        return harder == "higher"
    own = "higher" if known else "lower"
    if harder not in (None, own):
        raise ValueError(f"harder must be {own!r} or none for {measure!r}, got {harder!r}")
    return known
