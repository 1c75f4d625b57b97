"""The level that a scan recommends for a budget, or the reason why none is taken."""

from __future__ import annotations

from experiments.analysis.optimum import Study, studies
from experiments.analysis.pilot import read_answers, read_scan
from experiments.analysis.recommend import Recommendation, recommend
from experiments.llm.selecting.config import SelectConfig
from experiments.llm.selecting.scanned import Scanned


def recommended(config: SelectConfig, scan: Scanned, data_size: int) -> Recommendation:
    """Recommend a level for a budget.

    Args:
      config: of the choice.
      scan: a finished scan.
      data_size: the budget in the unit of the scan's data sizes.

    Raises:
      ValueError: if the scan has several studies and it is not stated which is meant, if the budget
        lies below the scan's data sizes, or if the scan recommends nothing and this is not
        accepted.
    """
    table, levels = read_scan(scan.directory)
    study = _study(config, studies(table))
    try:
        answers = read_answers(scan.directory)
        found = recommend(table, study, levels, data_size, answers=answers)
    except ValueError as error:
        raise ValueError(f"{error}; --level states a level") from error
    if found.abstains and not config.accept_doubt:
        raise ValueError(
            f"{found.verdict} --level states a level; --accept-doubt takes difficulty "
            f"{found.difficulty} all the same"
        )
    return found


def _study(config: SelectConfig, known: list[Study]) -> Study:
    """The study of a scan that selection and loss name."""
    chosen = [
        study
        for study in known
        if config.selection in (None, study.train_mixture)
        and (config.loss is None or study.loss in (None, config.loss))
    ]
    if len(chosen) != 1:
        titles = "; ".join(study.title for study in known)
        raise ValueError(
            f"selection and loss must name one study of the scan (such as --loss dft), got "
            f"selection={config.selection}, loss={config.loss} for: {titles}"
        )
    return chosen[0]
