"""Presets of recipes: their values are the defaults of a command's other flags.

A command line is therefore parsed twice. The first pass takes recipe and preset; the second parses
everything, with the preset's fields as defaults, so that ``--help`` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import tyro

from experiments.cli.help import HELP
from synth.arguments import closest


@dataclass(frozen=True)
class Asked:
    """The recipe and preset of a command line, and the configuration that they name."""

    recipe: str
    preset: str
    config: Any

    def check(self, recipe: str, size: str | None = None) -> None:
        """Raise ValueError if the second pass has another recipe: its flags' defaults are wrong.

        That happens when the value of a flag before the recipe was taken for the recipe, or when
        the preset, `size`, does not follow the recipe.
        """
        if recipe != self.recipe:
            raise ValueError(f"recipe must stand before its flags, got {recipe!r} after them")
        if size not in (None, self.preset):
            raise ValueError(f"preset must stand right after the recipe, got {size!r} elsewhere")


@dataclass(frozen=True)
class _FirstPass:
    """The one flag that the first pass knows."""

    preset: str = ""


def asked_for(arguments: Sequence[str], recipes: Mapping[str, ModuleType], *, custom: Any) -> Asked:
    """Return the recipe and preset that a command line asks for.

    Args:
      arguments: of one command, flags included; the recipe may stand anywhere among them.
      recipes: recipes by name, each with its `PRESETS`.
      custom: configuration for the recipe "custom", and for a command line that asks for none
        because it is empty or asks for help alone.

    Raises:
      ValueError: if no recipe is named, or the preset is unknown.
    """
    stated, words = tyro.cli(
        _FirstPass, prog="sweetspot", args=arguments, return_unknown_args=True, add_help=False
    )
    recipe = next((word for word in words if word in {*recipes, "custom"}), None)
    if not arguments or (recipe is None and HELP & {*words}):
        return Asked("custom", "custom", custom)
    if recipe is None:
        known = ["custom", *sorted(recipes)]
        hint = closest(next((word for word in words if not word.startswith("-")), ""), known)
        raise ValueError(f"recipe must be one of {known}, got {' '.join(arguments)!r}{hint}")
    # A word right after the recipe is the preset, as --preset is. Another recipe there is none: the
    # first was the value of a flag, which the second pass tells.
    follows = next(iter(words[words.index(recipe) + 1 :]), "")
    positional = "" if follows.startswith("-") or follows in recipes else follows
    if positional and stated.preset and positional != stated.preset:
        raise ValueError(f"preset must be one, got {positional!r} and --preset {stated.preset}")
    preset = positional or stated.preset
    if recipe == "custom":
        if preset not in ("", "custom"):
            raise ValueError(f"recipe 'custom' has no presets, got {preset!r}")
        return Asked("custom", "custom", custom)
    presets = recipes[recipe].PRESETS
    preset = preset or ("demo" if "demo" in presets else next(iter(presets)))
    return Asked(recipe, preset, preset_of(recipes, recipe, preset))


def preset_of(recipes: Mapping[str, ModuleType], recipe: str, preset: str) -> Any:
    """Return the configuration of a recipe's preset.

    Raises:
      ValueError: if either is unknown.
    """
    if recipe not in recipes:
        hint = closest(recipe, recipes)
        raise ValueError(f"recipe must be one of {sorted(recipes)}, got {recipe!r}{hint}")
    presets = recipes[recipe].PRESETS
    if preset not in presets:
        raise ValueError(
            f"preset of {recipe} must be one of {sorted(presets)}, got {preset!r}"
            f"{closest(preset, presets)}"
        )
    return presets[preset]
