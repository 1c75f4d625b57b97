"""One figure per file: `TABLES` names the tables it needs, `plot(tables)` returns a Figure.

A new figure is one new file here; it is found by its `plot`. Nothing here trains or imports JAX.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import matplotlib
import pandas as pd

from experiments.figures import style


def _find() -> dict[str, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "plot")}


FIGURES = _find()


def caption(name: str) -> str:
    """First paragraph of a figure's docstring, on one line."""
    return " ".join((FIGURES[name].__doc__ or "").split("\n\n")[0].split())


def draw(
    tables: Mapping[str, pd.DataFrame], out_dir: Path, names: Sequence[str] | None = None
) -> list[Path]:
    """Draw figures as PNG (200 dots per inch) and SVG (the same bytes for the same tables).

    Args:
      tables: name -> table, as `results.read_tables` gives them.
      out_dir: where the files go; made if missing.
      names: which figures; by default all whose tables are there.

    Returns:
      The files written, NAME.png and NAME.svg in turn. A figure that was asked for and whose
      tables are missing is skipped with a logged warning that names them.

    Raises:
      ValueError: if a name is not a figure.
    """
    if names is None:
        names = [name for name, figure in FIGURES.items() if set(figure.TABLES) <= set(tables)]
    if unknown := sorted(set(names) - set(FIGURES)):
        raise ValueError(f"names: {unknown} are not figures; there are {list(FIGURES)}")
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        if missing := [table for table in FIGURES[name].TABLES if table not in tables]:
            logging.getLogger(__name__).warning(
                "figure %s is skipped: it needs the tables %s, there are %s",
                name,
                missing,
                sorted(tables),
            )
            continue
        figure = FIGURES[name].plot(tables)
        with matplotlib.rc_context(style.RC):
            for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
                path = Path(out_dir) / f"{name}.{suffix}"
                figure.savefig(path, dpi=200, metadata=metadata)
                paths.append(path)
        figure.clear()
    return paths
