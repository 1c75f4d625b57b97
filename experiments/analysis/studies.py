"""The studies of a result table: cells that differ only in difficulty and data size.

`studies` lists those with a finished member, `study_rows` gives the rows of one, and `left_out`
names the cells of which no member finished.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

MOST_STUDIES = 100
"""Studies in a table at most; a table with more is damaged."""
UNTRAINED = "none"
"""Training mixture of the rows of untouched bases."""


@dataclass(frozen=True)
class Study:
    """Cells that differ only in difficulty and data size. `None`: the table has a single value."""

    train_mixture: str
    loss: str | None = None
    compute: str | None = None
    data_unit: str | None = None
    task: str | None = None

    @property
    def title(self) -> str:
        """Words for a panel's title, such as "trained on 1..d"."""
        mixtures = {
            "range": "trained on 1..d",
            "exact": "trained on exactly d",
            "above": "trained on d and harder",
        }
        mixture = mixtures.get(self.train_mixture, f"trained on {self.train_mixture} up to d")
        loss = self.loss and self.loss.upper()
        words = (mixture, loss, self.compute, self.data_unit, self.task)
        return ", ".join(word for word in words if word is not None)

    @property
    def untrained(self) -> Study:
        """The bases that this study starts from, as a study of one cell (difficulty 0, size 0)."""
        return Study(UNTRAINED, task=self.task)


def studies(table: pd.DataFrame) -> list[Study]:
    """List the studies with a finished member, "range" first.

    Optional fields with one value in the table stay `None`.
    """
    return [study for study in _all_studies(table) if _split_cells(table, study)[0]]


def studies_of_answers(answers: pd.DataFrame) -> list[Study]:
    """List the studies of a table of answers, see `experiments.llm.scan.answers`, "range" first."""
    trained = answers.loc[answers["train_mixture"] != UNTRAINED]
    several = trained["loss"].nunique() > 1
    pairs = trained[["train_mixture", "loss"]].drop_duplicates().to_numpy().tolist()
    order = sorted(pairs, key=lambda pair: (pair[0] != "range", *pair))
    return [Study(mixture, loss if several else None) for mixture, loss in order]


def left_out(table: pd.DataFrame) -> list[str]:
    """Name the cells without a finished member, which have no mean: a sentence for each study."""
    sentences = []
    for study in _all_studies(table):
        finished, diverged = _split_cells(table, study)
        cells = [f"d = {d} at n = {n}" for d, n in sorted(diverged)]
        words = "; ".join(cells) if finished else "all cells"
        if cells:
            sentences.append(f"Left out, since every member diverged ({study.title}): {words}.")
    return sentences


def _split_cells(table: pd.DataFrame, study: Study) -> tuple[set, set]:
    """Cells (difficulty, data size) with a member of status "ok", and those without."""
    kinds = study_rows(table, study)[["difficulty", "data_size", "status"]].drop_duplicates()
    cells = {(d, n) for d, n, _ in kinds.to_numpy()}
    finished = {(d, n) for d, n, status in kinds.to_numpy() if status == "ok"}
    return finished, cells - finished


def _all_studies(table: pd.DataFrame) -> list[Study]:
    """List the studies, those without a finished member included.

    Raises:
      ValueError: if there are more than anybody would compare: the table is damaged.
    """
    trained = table.loc[table["train_mixture"] != UNTRAINED]
    names = [field.name for field in fields(Study)]
    several = names[:1] + [name for name in names[1:] if trained[name].nunique() > 1]
    kinds = trained[several].drop_duplicates().sort_values(several)
    if len(kinds) > MOST_STUDIES:
        raise ValueError(
            f"table must hold at most {MOST_STUDIES} combinations of {', '.join(several)}, "
            f"got {len(kinds)}"
        )
    listed = [Study(**dict(zip(several, kind, strict=True))) for kind in kinds.to_numpy(dtype=str)]
    return sorted(listed, key=lambda study: study.train_mixture != "range")


def study_rows(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Rows of a study, without those of learning rates that were tried and not selected.

    Raises:
      ValueError: if there are none, or a field left `None` has several values among them.
    """
    rows = table.loc[table["status"] != "not_selected"]
    for field in fields(study):
        wanted = getattr(study, field.name)
        rows = rows if wanted is None else rows.loc[rows[field.name] == wanted]
    if rows.empty:
        raise ValueError(
            f"study: no rows for {study}; the table holds {_told(_all_studies(table))}"
        )
    for field in fields(study) if study.train_mixture != UNTRAINED else ():
        if rows[field.name].nunique() > 1:
            values = sorted(rows[field.name].unique())
            raise ValueError(f"study: {field.name} is None, must be one of {_told(values)}")
    return rows


def _told(values: list[Any]) -> str:
    """Values for a message; those of a table that somebody else made may be of any length."""
    text = str(values)
    return text if len(text) <= 1000 else f"{text[:1000]}…"
