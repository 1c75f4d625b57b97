"""Help: a screenful of main flags, and all of them for whoever asks."""

from __future__ import annotations

import dataclasses

import pytest

from experiments.cli.help import MAIN_FLAGS, shortened
from experiments.cli.main import commands
from experiments.llm.training.config import TrainingConfig
from experiments.sweep.grid import SweepConfig

SCREEN = 56
"""Lines of a screenful. A terminal's boxes take some fewer than the plain ones of a test."""

TREE = commands([])
TRAINING = TrainingConfig()
COMMANDS = [
    f"{name} {inner}".strip()
    for name, command in TREE.items()
    for inner in (command if isinstance(command, dict) else [""])
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_screenful_and_names_its_whole(sweetspot, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    code, text = sweetspot(*name.split(), "--help")
    assert code == 0
    assert text.startswith(f"usage: sweetspot {name} [-h]")
    assert len(text.splitlines()) <= SCREEN
    assert sweetspot(*name.split(), "-h")[1] == text
    code, whole = sweetspot(*name.split(), "--help-all")
    assert code == 0
    if name in MAIN_FLAGS:
        assert text.endswith(f"These are the main flags: sweetspot {name} --help-all shows all.\n")
        assert len(whole.splitlines()) > len(text.splitlines())
    else:
        assert whole == text


@pytest.mark.parametrize("name", MAIN_FLAGS)
def test_every_main_flag_is_shown(sweetspot, monkeypatch, name):
    """Also after a field was renamed: its old name here would hide it."""
    monkeypatch.setenv("COLUMNS", "80")
    text = sweetspot(*name.split(), "--help")[1]
    positional = {"recipe": "RECIPE", "size": "PRESET", "directory": "DIRECTORY"}
    for flag in MAIN_FLAGS[name]:
        assert positional.get(flag, f"--{flag.replace('_', '-')}") in text, flag


def test_all_flags_are_those_of_the_configuration(sweetspot):
    text = sweetspot("run", "tradeoff", "--help-all")[1]
    for field in dataclasses.fields(SweepConfig):
        if field.name not in ("optimiser", "decoder", "pretrain"):
            assert f"--{field.name.replace('_', '-')}" in text
    assert "--pretrain.learning-rate" in text


def test_help_says_what_values_are(sweetspot):
    for name in COMMANDS:
        text = sweetspot(*name.split(), "--help-all")[1]
        for jargon in (" STR", " INT ", " FLOAT", "{None}"):
            assert jargon not in text, (name, jargon)
    assert "RECIPE [PRESET]" in sweetspot("run", "--help")[1].splitlines()[0]
    assert "--model MODEL" in sweetspot("llm", "prepare", "--help")[1]


def test_help_keeps_the_recipe_and_its_defaults(sweetspot):
    text = sweetspot("run", "prediction", "smoke", "--help")[1]
    assert "RECIPE" in text
    assert "(default: 8 32)" in text


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_shows_every_flag(sweetspot, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = sweetspot("recommend", "--help")[1]
    assert max(map(len, text.splitlines())) <= width
    for flag in ("--data-size", "--results", "--pilot", "--recipe", "--out"):
        assert flag in text


def test_a_short_form_hides_and_keeps():
    def command(model: str, config: TrainingConfig = TRAINING, seed: int = 0) -> None: ...

    short = shortened(command, {"model", "config.loss"})
    with pytest.raises(AssertionError, match="help ends the program"):
        short()
    assert [*short.__annotations__] == ["model", "config", "seed"]
    assert short.__annotations__["model"] is str
    assert "Suppress" in str(short.__annotations__["seed"])
