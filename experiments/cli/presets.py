"""The preset that a command line asks for, found before its flags are read: they change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

HELP = {"-h", "--help"}


def asked_for(
    arguments: Sequence[str],
    recipes: Mapping[str, ModuleType],
    *,
    custom: Any,
    preset: str | None = None,
) -> Any:
    """Configuration of the recipe and preset that are named among arguments.

    Args:
      arguments: of a command, flags and all; a recipe may stand anywhere.
      recipes: each with its `PRESETS`.
      custom: configuration for the word "custom", and where help alone is asked for.
      preset: where none is named; None for the recipe's first.

    Raises:
      ValueError: if no recipe is named, or the preset is unknown.
    """
    recipe = next((text for text in arguments if text in {*recipes, "custom"}), None)
    if recipe == "custom" or not arguments or (recipe is None and HELP & {*arguments}):
        return custom
    if recipe is None:
        known = ["custom", *sorted(recipes)]
        raise ValueError(f"recipe must be one of {known}, got {' '.join(arguments)!r}")
    presets = recipes[recipe].PRESETS
    name = preset or next(iter(presets))
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag.startswith("--preset"):
            name = flag.partition("=")[2] or value
    if name not in presets:
        raise ValueError(f"preset of {recipe} must be one of {sorted(presets)}, got {name!r}")
    return presets[name]
