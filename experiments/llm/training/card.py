"""The model card of a fine-tuned checkpoint: ``README.md`` in its folder.

The front matter is what the Hugging Face hub reads of a card. Folders of this machine are named
without what leads to them, because cards are published.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments import distribution
from experiments.storage.writing import write_atomically

CARD = "README.md"
PACKAGES = ("jax", "flax", "optax", "numpy", "transformers")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(model: Path, identity: Mapping[str, Any], log: Path) -> None:
    """Write the card of a checkpoint.

    Args:
      model: its folder.
      identity: what the manifest says of the run: base, config, num_examples, data and so on.
      log: file with a line for each step.
    """
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    text = model_card(identity, lines, model.absolute().parent.name)
    write_atomically(model / CARD, lambda path: path.write_text(text, encoding="utf-8"))


def model_card(identity: Mapping[str, Any], lines: list[dict[str, Any]], name: str) -> str:
    """Text of the card of a checkpoint.

    Args:
      identity, lines: see `write_card`.
      name: what to call the checkpoint.
    """
    import yaml

    config, base = identity["config"], str(identity["base"])
    source = identity.get("source") or {}
    # What the hub reads: only what is on the hub may be named.
    tags = ["sweetspot", config["loss"], *(["lora"] if config["lora_rank"] else [])]
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if _is_on_hub(base):
        front |= {"base_model": base, "base_model_relation": "finetune"}
    if _is_on_hub(str(source.get("source", ""))):
        front["datasets"] = [source["source"]]
    front["tags"] = tags
    # What a reader wants to know, in the order of its making.
    adapters = f", by adapters of rank {config['lora_rank']}, merged" if config["lora_rank"] else ""
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {name}",
        f"{_called(base)}, fine-tuned with {config['loss'].upper()}{adapters}.",
        "## Data",
        _table(_data(identity, source)),
        "## Training",
        _table(_settings(config)),
        "## Losses",
        "In nats per token of solutions and their ends.",
        _table(_losses(lines)),
        "## Versions",
        _table(_versions()),
    ]
    return "\n\n".join(parts) + "\n"


def _is_on_hub(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _called(name: str) -> str:
    """A hub id as it is, and of a path the last part."""
    return name if _is_on_hub(name) else Path(name).name or name


def _data(identity: Mapping[str, Any], source: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if source:
        yield "source", _called(str(source["source"]))
    for name in ("split", "configuration"):
        if source.get(name):
            yield name, source[name]
    if identity.get("difficulty") is not None:
        yield "difficulty", identity["difficulty"]
    yield "examples", f"{identity['num_examples']:,}"
    yield "SHA-256 of their tokens begins with", identity["data"]
    if (watch := identity.get("watch")) and "num_examples" in watch:
        yield "examples of the validation loss", f"{watch['num_examples']:,}"


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value)
        else:
            yield name.replace("_", " "), value


def _losses(lines: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    if not lines:
        return
    yield "steps", f"{len(lines):,}"
    yield "first step", f"{lines[0]['loss']:.4f}"
    yield "last step", f"{lines[-1]['loss']:.4f}"
    found = {
        line["step"] + 1: line["validation_loss"] for line in lines if "validation_loss" in line
    }
    if found:
        best = min(found, key=lambda steps: found[steps])
        yield "lowest validation loss", f"{found[best]:.4f}, after step {best}"
        yield "last validation loss", f"{[*found.values()][-1]:.4f}"


def _versions() -> Iterator[tuple[str, Any]]:
    yield "sweetspot", distribution.version()
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _table(rows: Iterator[tuple[str, Any]]) -> str:
    cells = [(name, str(value).replace("|", r"\|").replace("\n", " ")) for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells)])
