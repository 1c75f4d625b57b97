"""Which preset a command line asks for."""

import pytest

from experiments.cli.presets import asked_for
from experiments.llm.recipes import RECIPES

PAPER = RECIPES["paper-igsm"].PRESETS


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("paper-igsm", PAPER["paper"]),
        ("paper-igsm --preset=500 --seeds 3", PAPER["500"]),
        ("--seeds 3 paper-igsm --preset 10k", PAPER["10k"]),
        ("custom --checkpoint x", "custom"),
        ("--help", "custom"),
        ("", "custom"),
        ("paper-igsm --help", PAPER["paper"]),
    ],
)
def test_a_recipe_gives_the_defaults_of_its_flags(line, expected):
    assert asked_for(line.split(), RECIPES, custom="custom") == expected


def test_a_command_may_have_a_preset_of_its_own():
    assert asked_for(["paper-igsm"], RECIPES, custom=None, preset="500") == PAPER["500"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nothing", r"recipe must be one of \['custom', 'paper-igsm', .*got 'nothing'"),
        ("--seeds 2", r"recipe must be one of .*got '--seeds 2'"),
        ("paper-igsm --preset huge", r"preset of paper-igsm must be one of .* got 'huge'"),
    ],
)
def test_unknown_recipes_and_presets_are_told(line, message):
    with pytest.raises(ValueError, match=message):
        asked_for(line.split(), RECIPES, custom=None)
