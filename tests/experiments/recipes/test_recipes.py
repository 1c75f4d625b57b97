"""Every recipe states how to run it, and each of its presets is a sweep that can be planned."""

import re

import pytest

from experiments.recipes import RECIPES
from experiments.sweep.plan import plan
from experiments.sweep.programs import Sweep

PRESETS = [(recipe, preset) for recipe in RECIPES for preset in RECIPES[recipe].PRESETS]


@pytest.mark.parametrize("recipe", RECIPES)
def test_docstring_states_commands_runtime_and_expectation(recipe: str) -> None:
    text = RECIPES[recipe].__doc__ or ""
    stated = set(re.findall(rf"sweetspot run {recipe} --preset ([\w-]+)", text))
    assert stated == set(RECIPES[recipe].PRESETS)
    assert "Expect" in text
    assert "smoke" in RECIPES[recipe].PRESETS
    hours = RECIPES[recipe].HOURS
    assert set(hours) <= set(RECIPES[recipe].PRESETS)
    assert all(0 < number < 10 for number in hours.values())
    assert RECIPES[recipe].DEVICE


@pytest.mark.parametrize(("recipe", "preset"), PRESETS)
def test_preset_plans_every_member_once(recipe: str, preset: str) -> None:
    config = RECIPES[recipe].PRESETS[preset]
    chunks = plan(Sweep(config).draws)
    planned = [member for chunk in chunks for member in chunk.members]
    assert sorted(planned, key=repr) == sorted(config.members, key=repr)
    assert len(planned) == config.num_members
    assert len({chunk.name for chunk in chunks}) == len(chunks)
