"""Configuration files: what is written is read back, and a wrong file is told in one line."""

from __future__ import annotations

import dataclasses

import pytest
import tyro
import yaml

from experiments.cli.arguments import REGISTRY
from experiments.cli.help import MAIN_FLAGS
from experiments.cli.main import expanded
from experiments.cli.settings import Files, captured, flags_of, named_in

LINES = [
    "run tradeoff",
    "run tradeoff smoke --seeds 2 --decoder.no-qkv-bias --mixtures range exact",
    "run custom --task-options modulus 5 layout running --out some/where",
    "llm scan paper-igsm 500 --seeds 3 --grader gsm8k --training.batch-size 4",
    "llm scan tiny-igsm --edges --training.packed",
    "llm finetune --model m --source s --out o --columns.system=--dashed --compute 1e-3",
    "llm evaluate --model m --source s --out o --decoding.samples 2 --decoding.temperature 0.5",
    "llm difficulty --model m --source s --out o --measures op cot_tokens --edges -1.5 2",
    "llm prepare --model m --source s --out o",
    "llm bound --model m --source s --out o --data-sizes 3 4",
    "bound some/run --methods base",
]


def arguments(words) -> tuple[str, dict]:
    """Name of the command of a command line, and what it would be called with."""
    _, name, command, rest = expanded(named_in(words))
    assert command is not None
    return name, tyro.cli(captured(command), args=rest, registry=REGISTRY)


@pytest.mark.parametrize("line", LINES)
def test_what_is_written_is_read_back(sweetspot, tmp_path, line):
    file = tmp_path / "run.yaml"
    code, said = sweetspot(*line.split(), "--write-config", file)
    assert (code, said.splitlines()[-1].startswith("Configuration: sweetspot ")) == (0, True), said
    name, expected = arguments(line.split())
    assert arguments([*name.split(), "--config", str(file)]) == (name, expected)
    # All flags are in the file, and the command line has the last word.
    again = tmp_path / "again.yaml"
    assert sweetspot(*name.split(), "--config", file, "--write-config", again)[0] == 0
    stated = yaml.safe_load(file.read_text())
    assert yaml.safe_load(again.read_text()) == stated
    assert stated["command"] == name


def test_the_command_line_wins(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("recipe: tradeoff\npreset: smoke\nseeds: 5\n")
    assert arguments(["run", "--config", str(file)])[1]["config"].seeds == 5
    found = arguments(["run", f"--config={file}", "--seeds", "7"])[1]
    assert (found["recipe"], found["preset"], found["config"].seeds) == ("tradeoff", "smoke", 7)
    # Another preset's other defaults come with its name.
    found = arguments(["run", "tradeoff", "demo", "--config", str(file)])[1]
    expected = dataclasses.replace(arguments(["run", "tradeoff", "demo"])[1]["config"], seeds=5)
    assert (found["preset"], found["config"]) == ("demo", expected)
    file.write_text("grader: gsm8k\n")
    words = [
        *["llm", "evaluate", "--model", "m", "--source", "s", "--out", "o", "--config"],
        str(file),
    ]
    assert arguments(words)[1]["grader"].name == "gsm8k"
    assert arguments([*words, "--grader.name", "igsm"])[1]["grader"].name == "igsm"
    file.write_text("packed: true\n")
    words = ["llm", "finetune", "--model", "m", "--source", "s", "--out", "o", "--no-packed"]
    assert not arguments([*words, "--config", str(file)])[1]["config"].packed


def test_a_file_may_be_written_by_hand(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: m\nsource: 2024\nout: o\nlearning-rate: 5e-5\ncolumns.system: ''\n"
        "columns:\n  problem: question\nsplit: none\n"
    )
    found = arguments(["llm", "finetune", "--config", str(file)])[1]
    assert found["config"].learning_rate == 5e-5
    assert (found["data"].source, found["data"].split) == ("2024", None)
    assert (found["data"].columns.system, found["data"].columns.problem) == ("", "question")


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "learning_rat: 1",
            "'learning_rat' is no flag of the command; did you mean 'learning_r",
        ),
        ("columns: 3", "'columns' is no flag of the command"),
        ("columns: {colour: red}", "'columns.colour' is no flag of the command"),
        ("compute: fast", "compute must be a number, got str 'fast'"),
        ("batch_size: 1.5", "batch_size must be a whole number, got float '1.5'"),
        ("packed: 1", "packed must be true or false, got int '1'"),
        ("seed: [1, 2]", "seed must be a whole number, got list"),
        ("seed: {a: 1}", "'seed.a' is no flag of the command"),
        ("difficulty: hard", "difficulty must be a whole number or null, got str 'hard'"),
        ("loss: mse", "loss must be one of ('sft', 'dft'), got str 'mse'"),
        ("split: 2024-01-01", "split must be text or null, got date '2024-01-01'"),
        ("seed: 1\nseed: 2", "has the key 'seed' twice"),
        ("1: 2", "keys must be names of flags, got 1"),
        ("[1, 2]", "must hold keys and values, such as 'seed: 0', got list"),
        ("", "must hold keys and values, such as 'seed: 0', got NoneType"),
        ("a: [", "cannot be read as YAML"),
        ("a: !!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        (BOMB, "has the alias *a"),
        ("[" * 50_000, "nests more than 12 levels"),
        ("seed: " + "9" * 5000, "cannot be read as YAML"),
        ("command: llm scan", "is a configuration of 'llm scan', got the command 'llm finetune'"),
        ("seed: -1", "seed must be at least 0, got -1"),
        ("\x00", "cannot be read as YAML"),
    ],
)
def test_a_wrong_file_is_one_clear_line(sweetspot, tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    words = ["llm", "finetune", "--model", "m", "--source", "s", "--out", "o"]
    code, said = sweetspot(*words, "--config", file)
    assert code == 2
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert message in said


def test_what_is_no_file_is_told(sweetspot, tmp_path):
    finetune = ["llm", "finetune"]
    assert "cannot be opened" in sweetspot(*finetune, "--config", tmp_path / "none.yaml")[1]
    assert "must be a file, not a folder" in sweetspot(*finetune, "--config", tmp_path)[1]
    assert (
        "--config must be followed by a file, got 'nothing'"
        in (sweetspot(*finetune, "--config")[1])
    )
    large = tmp_path / "large.yaml"
    large.write_text(" " * (2**20 + 1))
    assert "must have at most 1 MiB" in sweetspot(*finetune, "--config", large)[1]
    assert (
        f"write_config must name a new file, {large} exists"
        in (sweetspot(*finetune, "--write-config", large)[1])
    )
    assert "got it twice" in sweetspot(*finetune, "--config", large, "--config", large)[1]
    assert (
        "need one of the commands ['run', "
        in (sweetspot("report", "--write-config", tmp_path / "x.yaml")[1])
    )


def test_every_flag_of_a_command_is_known(sweetspot, monkeypatch):
    """The flags that a file may name are those that tyro shows."""
    monkeypatch.setenv("COLUMNS", "400")
    for name in MAIN_FLAGS:
        recipe = {"run": ["tradeoff"], "llm scan": ["tiny-igsm"]}.get(name, [])
        text = sweetspot(*name.split(), *recipe, "--help-all")[1]
        command = expanded(Files((*name.split(), *recipe)))[2]
        assert command is not None
        flags = [flag for flag in flags_of(command) if not flag.is_positional]
        assert len(flags) > 4
        for flag in flags:
            shown = {flag.names[0], *(["--grader"] if flag.key == "grader.name" else [])}
            assert any(f"{each} " in text or f"{each}," in text for each in shown), flag.key


def test_help_tells_of_files(sweetspot):
    assert "--write-config FILE" in sweetspot("run", "tradeoff", "--help-all")[1]
