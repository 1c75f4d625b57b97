"""Commands on the paper: ``sweetspot paper`` and ``sweetspot claims``."""

from __future__ import annotations

from typing import Annotated

import tyro

from experiments.cli.arguments import Positional
from experiments.cli.terminal import print_named, print_paths, print_rows
from experiments.engine.progress import console
from synth.arguments import closest


def show_paper(
    item: Annotated[Positional[str | None], tyro.conf.arg(metavar="[ITEM]")] = None,
) -> None:
    """List the paper's figures, table and claims with what stands for each; or redraw one.

    Args:
      item: draw this one again from its recorded run, such as fig2.
    """
    from experiments import figures
    from experiments.pages.paper import ITEMS
    from experiments.storage.results import read_tables

    if item is None:
        for name, each in ITEMS.items():
            state = "recorded" if each.is_recorded else "not recorded yet"
            print_named(name, f"{each.paper}. Ours: {each.ours} ({state}).")
            console.print(f"  {each.command}", highlight=False, markup=False)
        return
    if item not in ITEMS:
        raise ValueError(f"item must be one of {list(ITEMS)}, got {item!r}{closest(item, ITEMS)}")
    chosen = ITEMS[item]
    if not chosen.is_recorded:
        raise ValueError(f"item {item!r} is not recorded yet; record it with: {chosen.command}")
    tables = read_tables(chosen.directory)
    print_paths(figures.draw(tables, chosen.directory / "figures", [chosen.figure]))


def show_claims() -> None:
    """Say for each claim of the paper what the recorded runs found, and with what certainty."""
    from experiments.pages.paper import CLAIMS, LEDGER_COLUMNS, ledger, ledger_rows

    found = ledger()
    for number, words in CLAIMS.items():
        own = [each for each in found if each.prediction.claim == number]
        print_named(f"Claim {number}", words)
        if own:
            rows = [row[1:] for row in ledger_rows(own)]
            print_rows(LEDGER_COLUMNS[1:], rows)
        else:
            console.print("  No recorded run has tested it by a prediction written down before.")
