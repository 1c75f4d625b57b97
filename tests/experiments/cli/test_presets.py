"""The preset that a command line asks for."""

import pytest

from experiments.cli.presets import Asked, asked_for, preset_of
from experiments.llm.recipes import RECIPES
from experiments.recipes import RECIPES as SWEEPS

PAPER = RECIPES["paper-igsm"].PRESETS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("paper-igsm", PAPER["paper"]),
        ("paper-igsm --preset=500 --seeds 3", PAPER["500"]),
        ("--seeds 3 paper-igsm --preset 10k", PAPER["10k"]),
        ("paper-igsm 500 --seeds 3", PAPER["500"]),
        ("--seeds 3 paper-igsm 10k", PAPER["10k"]),
        ("paper-igsm 500 --preset 500", PAPER["500"]),
        ("custom --checkpoint x", "custom"),
        ("--help", "custom"),
        ("", "custom"),
        ("paper-igsm --help", PAPER["paper"]),
    ],
)
def test_a_recipe_gives_the_defaults_of_its_flags(line, expected):
    assert asked_for(line.split(), RECIPES, custom="custom").config == expected


def test_a_command_may_have_a_preset_of_its_own():
    assert preset_of(RECIPES, "paper-igsm", "500") == PAPER["500"]
    with pytest.raises(ValueError, match=r"recipe must be one of \['paper-igsm', .*got 'custom'"):
        preset_of(RECIPES, "custom", "500")


@pytest.mark.parametrize("recipe", SWEEPS)
def test_the_preset_of_a_sweep_is_demo_or_else_its_first(recipe):
    presets = SWEEPS[recipe].PRESETS
    name = "demo" if "demo" in presets else next(iter(presets))
    assert asked_for([recipe], SWEEPS, custom=None) == Asked(recipe, name, presets[name])


def test_a_flags_value_is_not_taken_for_the_recipe():
    """The first pass, which does not know the flags, cannot tell them apart."""
    asked = asked_for(["--task", "families", "tradeoff"], SWEEPS, custom=None)
    with pytest.raises(ValueError, match="recipe must stand before its flags, got 'tradeoff'"):
        asked.check("tradeoff")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nothing", r"recipe must be one of \['custom', 'paper-igsm', .*got 'nothing'"),
        ("--seeds 2", r"recipe must be one of .*got '--seeds 2'"),
        ("paper-igsm 50", r"preset of paper-igsm must be one of .* got '50'; did you mean '500'\?"),
        ("paper-igsm --preset huge", r"preset of paper-igsm must be one of .* got 'huge'"),
    ],
)
def test_unknown_recipes_and_presets_are_told(line, message):
    with pytest.raises(ValueError, match=message):
        asked_for(line.split(), RECIPES, custom=None)
