"""The card of a selection: a data set card of Hugging Face that says how the rows were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.analysis.recommend import span
from experiments.llm.selecting.commands import CHATS
from experiments.llm.selecting.files import LEVEL, ROW

ORDERS = {
    "random": "in the order of the draw, which is random",
    "easy-to-hard": "from easy to hard, by level and measure, equally hard ones in random order "
    "(sweetspot's own trainer shuffles them)",
}
LEFT_OUT = "too long, or without a value of the measure"
SELECTIONS = {
    "exact": "level {level} alone",
    "range": "level {level} and all easier ones",
    "above": "level {level} and all harder ones",
}


def card(record: Mapping[str, Any], commands: Mapping[str, str]) -> str:
    """The card: a YAML header, by which `datasets.load_dataset` reads the folder, and text.

    Args:
      record: of the selection, see `experiments.llm.selecting.run`.
      commands: command line of each trainer, with this folder as ``.``.
    """
    header = ["---", "task_categories:", "- text-generation", "tags:", "- sweetspot", "configs:"]
    for name, file in (("default", "train"), (CHATS, CHATS)):
        header += [f"- config_name: {name}", *(["  default: true"] if name == "default" else [])]
        header += ["  data_files:", "  - split: train", f"    path: {file}.parquet"]
    lines = [
        *header,
        "---",
        "",
        f"# {record['rows']:,} training rows chosen by difficulty",
        "",
        f"Chosen by sweetspot {record['version']} (`sweetspot llm select`) from the pool below.",
        "",
        *(f"- {sentence}" for sentence in sentences(record)),
        "",
        "| level | rows | values |",
        "| --: | --: | --- |",
        *(
            f"| {level} | {count:,} | {record['words'].get(level, 'stated by the data')} |"
            for level, count in record["levels"].items()
        ),
        "",
        "## Files",
        "",
        f"`train.parquet` and `train.jsonl` have all columns of the pool, and `{ROW}`, the row's",
        f"number in the pool from 0, and `{LEVEL}`. `{CHATS}.parquet` has the same rows as chats:",
        "whole as `messages`, and split into `prompt` and `completion` where the loss begins.",
        "`dataset_info.json` describes the chats to LLaMA-Factory; `selection.json` holds every",
        "setting.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'rows = load_dataset(".", split="train")',
        f'chats = load_dataset(".", "{CHATS}", split="train")',
        "```",
        "",
        "## Training",
        "",
        "In this folder, with one of these trainers. Each counts the loss on the last turn alone.",
    ]
    for trainer, command in commands.items():
        lines += ["", f"{trainer}:", "", "```bash", command, "```"]
    return "\n".join([*lines, ""])


def sentences(record: Mapping[str, Any]) -> list[str]:
    """How the rows were chosen, a sentence for each choice."""
    pool, asked = record["pool"], record["asked"]
    said = [
        f"Pool: {pool['name']}, {pool['problems']:,} problems, digest `{pool['digest']}`"
        + (f"; {pool['left_out']:,} were left out: {LEFT_OUT}." if pool["left_out"] else "."),
        f"Difficulty: {SELECTIONS[record['selection']].format(level=record['level'])}, "
        + _by(record),
        f"Level: {_why(record)}",
        f"Budget: {asked['budget']:,.12g} {asked['budget_unit']}"
        + (f" ({record['assumption']})" if record["assumption"] else "")
        + f". It bought {record['rows']:,} rows{_tokens(record)}.",
        f"Order: {ORDERS[asked['order']]}. Drawn with seed {asked['seed']}: a larger budget holds "
        f"all these rows.",
    ]
    if record["is_all"]:
        said.append("These are all rows that the pool has at this difficulty.")
    return said


def _by(record: Mapping[str, Any]) -> str:
    """The measure and its edges."""
    if record["edges"] is None:
        return "as the data state it." if record["measure"] == "op" else f"by {record['measure']}."
    edges = ", ".join(f"{edge:g}" for edge in record["edges"])
    return f"by {record['measure']} cut at {edges}."


def _why(record: Mapping[str, Any]) -> str:
    """Who says the level: the user, or a scan."""
    found = record["recommendation"]
    if found is None:
        return "stated by the user."
    doubted = " It was taken all the same (accept_doubt)." if found["abstains"] else ""
    within = span(found["low"], found["high"])
    return (
        f"of the scan {record['asked']['scan']}. {found['verdict']}{doubted} The level taken is "
        f"{found['difficulty']}, the range {within}."
    )


def _tokens(record: Mapping[str, Any]) -> str:
    if record["tokens"] is None:
        return ""
    counted = f"prompts included, by the tokenizer of {record['model']}"
    return f" with {record['tokens']:,} tokens, {counted}"
