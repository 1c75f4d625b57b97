"""One figure per file: `TABLES` names the tables it needs, `plot(tables)` returns a Figure.

`TITLE` is its title in words; the docstring's first paragraph is its caption. A figure for some
tables alone has a function `applies(tables)`, which says whether it can be drawn. A figure that
bears on a claim may have `finding(tables)`, which says in a sentence what these tables show.

A new figure is one new file here; it is found by its `plot`. Nothing here trains or imports JAX.
Importing this package is cheap: the figures, and the plotting libraries with them, are imported
when `FIGURES` is first asked for.
"""

from __future__ import annotations

import functools
import importlib
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    # FIGURES is made by __getattr__ below on first use; this declares it for the type checker.
    FIGURES: dict[str, ModuleType]
    """Module of each figure, by its name."""


@functools.cache
def _find() -> dict[str, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "plot")}


def __getattr__(name: str) -> dict[str, ModuleType]:
    """Import the figures on the first use of `FIGURES` (PEP 562)."""
    if name == "FIGURES":
        return _find()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def caption(name: str) -> str:
    """First paragraph of a figure's docstring, on one line."""
    return " ".join((_find()[name].__doc__ or "").split("\n\n")[0].split())


def title(name: str) -> str:
    """Title of a figure in words."""
    return _find()[name].TITLE


def finding(name: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """Say what the tables show in a figure, in a sentence or two; empty if the figure has none."""
    module = _find()[name]
    return module.finding(tables) if hasattr(module, "finding") else ""


def _applies(figure: ModuleType, tables: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether a figure's tables are there, and are of its kind."""
    is_there = set(figure.TABLES) <= set(tables)
    return is_there and (not hasattr(figure, "applies") or figure.applies(tables))


def draw(
    tables: Mapping[str, pd.DataFrame], out_dir: Path, names: Sequence[str] | None = None
) -> list[Path]:
    """Draw figures as PNG (200 dots per inch) and SVG (the same bytes for the same tables).

    Args:
      tables: name -> table, as `results.read_tables` gives them.
      out_dir: where the files go; made if missing.
      names: which figures; by default all whose tables are there and of their kind.

    Returns:
      The files written, NAME.png and NAME.svg in turn. A figure that was asked for and whose
      tables are missing is skipped with a logged warning that names them.

    Raises:
      ValueError: if a name is not a figure.
    """
    import matplotlib

    from experiments.figures import hover, style

    modules = _find()
    if names is None:
        names = [name for name, figure in modules.items() if _applies(figure, tables)]
    if unknown := sorted(set(names) - set(modules)):
        raise ValueError(f"names: {unknown} are not figures; there are {list(modules)}")
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        if missing := [table for table in modules[name].TABLES if table not in tables]:
            logging.getLogger(__name__).warning(
                "figure %s is skipped: it needs the tables %s, there are %s",
                name,
                missing,
                sorted(tables),
            )
            continue
        figure = modules[name].plot(tables)
        # Saving lays the figure out and draws it, for which it needs the settings again.
        with matplotlib.rc_context(style.settings()):
            texts = hover.mark(figure)
            for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
                path = Path(out_dir) / f"{name}.{suffix}"
                figure.savefig(path, dpi=200, metadata=metadata)
                paths.append(path)
            hover.add_titles(path, texts)
        figure.clear()
    return paths
