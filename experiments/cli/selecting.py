"""The command ``sweetspot llm select``."""

from __future__ import annotations

from typing import Annotated

import tyro

from experiments.cli.arguments import Directory, ResultsFlag, RunDirectory, one_directory
from experiments.cli.terminal import print_named, print_sentences
from experiments.engine.progress import console
from experiments.errors import refusing
from experiments.llm.problems.config import Source
from experiments.llm.scan.grid import NO_DATA
from experiments.llm.selecting.config import SelectConfig

HubName = Annotated[str | None, tyro.conf.arg(metavar="OWNER/NAME")]


def select_rows(
    config: Annotated[SelectConfig, tyro.conf.arg(name="")],
    out: Directory,
    directory: RunDirectory = None,
    results: ResultsFlag = None,
    data: Annotated[Source, tyro.conf.arg(name="")] = NO_DATA,
    push_to_hub: HubName = None,
) -> None:
    """Write the rows of a pool to train on, for TRL, LLaMA-Factory or our own trainer.

    The level is what a scan recommends for the budget, or stated with --level. Writes the rows with
    all their columns to OUT/train.parquet and OUT/train.jsonl, as chats to OUT/chats.parquet, their
    description for LLaMA-Factory to OUT/dataset_info.json, and how they were chosen to
    OUT/README.md and OUT/selection.json. Prints the command line of each trainer.

    Args:
      config: what to choose.
      out: folder to write.
      directory: a finished scan; none where the level is stated.
      results: the same, as a flag.
      data: the pool; by default the scan's training data.
      push_to_hub: upload the folder as this data set of the Hugging Face hub, private if it is new.
    """
    from experiments.llm.selecting.card import sentences
    from experiments.llm.selecting.run import check_hub_name, push, select

    if push_to_hub is not None:
        check_hub_name(push_to_hub)
    scan = None
    if directory is not None or results is not None:
        scan = one_directory(directory, results)
    with refusing(scan or data.source):
        selected = select(config, data, out, scan_directory=scan)
    print_sentences(sentences(selected.record))
    for trainer, command in selected.commands.items():
        print_named(trainer, command)
    console.print(f"{'Rows' if selected.is_new else 'Rows, written before'}: {out}")
    if push_to_hub is not None:
        console.print(f"Data set: {push(out, push_to_hub)}")
