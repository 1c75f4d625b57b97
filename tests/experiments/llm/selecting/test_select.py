"""Rows to train on: which ones, in what order, in which files, and what the card says."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import yaml

from experiments.engine import cost
from experiments.llm.difficulty.columns import column_values
from experiments.llm.problems.config import Columns, Source
from experiments.llm.problems.data import read
from experiments.llm.scan.data import ScanProblems
from experiments.llm.scan.grid import NO_DATA, Member, ScanConfig
from experiments.llm.scan.levels import Levels, measure_problems
from experiments.llm.selecting.choice import choose, in_units_of, price
from experiments.llm.selecting.config import SelectConfig
from experiments.llm.selecting.pool import read_pool
from experiments.llm.selecting.run import Selected, select
from experiments.llm.selecting.scanned import Scanned
from experiments.storage import checkpoint
from experiments.storage.results import ResultsError
from tests.experiments.llm.rows import write_sums
from tests.experiments.llm.selecting import llama_factory
from tests.experiments.llm.selecting.scans import write_scan

CHOICE = SelectConfig(256)


def chosen(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "train.parquet")


def load(out: Path, cache: Path, name: str | None = None) -> datasets.Dataset:
    loaded = datasets.load_dataset(str(out), name, split="train", cache_dir=str(cache))
    assert isinstance(loaded, datasets.Dataset)
    return loaded


@pytest.fixture(scope="module")
def scan(tiny_folder, tmp_path_factory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan"), tiny_folder)


@pytest.fixture(scope="module")
def made(scan, tmp_path_factory) -> tuple[Path, Selected]:
    """256 rows by the recommendation."""
    out = tmp_path_factory.mktemp("made") / "rows"
    return out, select(CHOICE, NO_DATA, out, scan_directory=scan)


@pytest.fixture(scope="module")
def sums(tmp_path_factory) -> Source:
    """Sums with columns of their own, an id, and numbers that may be missing."""
    path = tmp_path_factory.mktemp("sums") / "sums.jsonl"
    rows = [
        {
            "id": f"sum-{number}",
            "question": f"What is {number} + 1? " + "Think. " * (number % 5),
            "solution": f"It is {number + 1}. " * (number % 4 + 1) + f"\\boxed{{{number + 1}}}",
            "difficulty": number % 3,
            "rate": None if number % 7 == 0 else number / 7,
            "about": {"tags": ["a", "ß"], "n": number},
        }
        for number in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(str(path))


@pytest.fixture(scope="module")
def written(sums, tmp_path_factory) -> Path:
    """12 sums of level 2."""
    out = tmp_path_factory.mktemp("written") / "rows"
    select(SelectConfig(12, level=2), sums, out)
    return out


# From a scan.


def test_the_recommended_level_is_taken_and_the_card_says_why(made, scan):
    out, selected = made
    found = selected.record["recommendation"]
    assert selected.record["level"] == found["difficulty"] == 9
    assert found["low"] <= 9 <= found["high"]
    assert not found["abstains"]
    rows = chosen(out)
    assert len(rows) == selected.record["rows"] == 256
    assert set(rows["sweetspot_level"]) == set(range(1, 10))
    text = (out / "README.md").read_text()
    digest = json.loads((scan / "manifest.json").read_text())["data"]["train"]
    for told in (
        found["verdict"],
        f"`{digest}`",
        "level 9 and all easier ones, as the data state it",
        "the range 9 alone.",
        "Budget: 256 examples.",
        "Drawn with seed 0",
        "| 9 | ",
    ):
        assert told in text
    assert "sweetspot 0." in text


@pytest.mark.slow
def test_a_scans_member_trains_on_a_prefix_of_it(made, scan):
    """Also with another seed, and where rows are too long for the scan."""
    out, _ = made
    config = dataclasses.replace(Scanned.read(scan).config, export=None, data_sizes=(16, 64))
    problems = ScanProblems.read(config, scan, checkpoint.folder(config.checkpoint))
    levels = Levels.cut(problems, measure_problems(problems, problems.tokenizer))
    trained_on, _ = levels.rows(Member(0, "range", 9, 64, "sft", 1e-3))
    assert chosen(out)["sweetspot_row"][:64].tolist() == trained_on.tolist()


def test_a_larger_budget_holds_the_smaller_one(made, scan, tmp_path):
    out, _ = made
    stated = dataclasses.replace(CHOICE, budget=30, level=9)
    select(stated, NO_DATA, tmp_path / "small", scan_directory=scan)
    rows = chosen(tmp_path / "small")["sweetspot_row"].tolist()
    assert rows == chosen(out)["sweetspot_row"][:30].tolist()
    select(dataclasses.replace(stated, seed=1), NO_DATA, tmp_path / "other", scan_directory=scan)
    assert chosen(tmp_path / "other")["sweetspot_row"].tolist() != rows


@pytest.mark.slow
def test_a_scan_that_recommends_nothing_is_refused_unless_accepted(tiny_folder, tmp_path):
    flat = write_scan(tmp_path, tiny_folder, is_flat=True)
    with pytest.raises(
        ValueError, match=r"No recommendation for n = 256: .*--level.*--accept-doubt"
    ):
        select(CHOICE, NO_DATA, tmp_path / "rows", scan_directory=flat)
    assert not (tmp_path / "rows").exists()
    accepted = dataclasses.replace(CHOICE, accept_doubt=True)
    selected = select(accepted, NO_DATA, tmp_path / "rows", scan_directory=flat)
    assert selected.record["recommendation"]["abstains"]
    assert "It was taken all the same" in (tmp_path / "rows" / "README.md").read_text()
    stated = dataclasses.replace(CHOICE, budget=40, level=4, selection="exact")
    select(stated, NO_DATA, tmp_path / "stated", scan_directory=flat)
    assert set(chosen(tmp_path / "stated")["sweetspot_level"]) == {4}


@pytest.mark.slow
def test_budgets_within_the_scan_and_changed_data_are_refused(scan, tiny_folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"at least the pilot's largest, 64.*--level states a level"
    ):
        select(SelectConfig(20), NO_DATA, tmp_path / "rows", scan_directory=scan)
    with pytest.raises(ValueError, match="loss must be one of the scan's"):
        select(SelectConfig(256, loss="dft"), NO_DATA, tmp_path / "r", scan_directory=scan)
    with pytest.raises(ValueError, match=r"edges are the scan's.*measure=op"):
        select(SelectConfig(256, measure="op"), NO_DATA, tmp_path / "r", scan_directory=scan)
    (tmp_path / "changed").mkdir()
    changed = write_scan(tmp_path / "changed", tiny_folder)
    write_sums(tmp_path / "changed" / "train.jsonl", 480, levels=tuple(range(1, 13)), seed=1)
    with pytest.raises(ValueError, match="has changed since the scan"):
        select(CHOICE, NO_DATA, tmp_path / "rows", scan_directory=changed)
    with pytest.raises(ResultsError, match="is not a run"):
        select(CHOICE, NO_DATA, tmp_path / "rows", scan_directory=tmp_path)


def test_the_commands_name_the_scans_training(made, tiny_folder):
    out, selected = made
    trl, factory, own = (selected.commands[name] for name in ("TRL", "LLaMA-Factory", "sweetspot"))
    assert f"--model_name_or_path {tiny_folder} --dataset_name {out} --dataset_config chats" in trl
    assert "--max_length 1024 --learning_rate 0.001 --num_train_epochs 3" in trl
    assert f"--dataset_dir {out} --dataset sweetspot --finetuning_type full" in factory
    assert f"--source {out}/train.parquet --max-length 1024 --loss sft" in own
    for line in (out / "README.md").read_text().splitlines():
        assert str(out) not in line


# Another pool, by a measure.


@pytest.mark.slow
def test_another_pool_is_measured_as_the_scans_was(tiny_folder, sums, tmp_path):
    changes = {"measure": "cot_tokens", "difficulties": (1, 2)}
    scan = write_scan(tmp_path, tiny_folder, **changes)
    manifest = json.loads((scan / "manifest.json").read_text())
    manifest["buckets"] = {"measure": "cot_tokens", "edges": [20.0]}
    (scan / "manifest.json").write_text(json.dumps(manifest))
    asked = SelectConfig(10, level=2, selection="exact", order="easy-to-hard")
    selected = select(asked, sums, tmp_path / "rows", scan_directory=scan)
    assert selected.record["edges"] == [20.0]
    assert "by cot_tokens cut at 20" in (tmp_path / "rows" / "README.md").read_text()
    stated = select(
        SelectConfig(
            10,
            level=2,
            measure="cot_tokens",
            edges=(20.0,),
            model=str(tiny_folder),
            order="easy-to-hard",
        ),
        sums,
        tmp_path / "stated",
    )
    rows = chosen(tmp_path / "rows")
    numbers = rows["sweetspot_row"].tolist()
    assert numbers == chosen(tmp_path / "stated")["sweetspot_row"].tolist()
    assert stated.record["recommendation"] is None
    # From easy to hard: the tokenizer counts more for a longer solution of the same words.
    lengths = rows["solution"].str.count("It is").tolist()
    assert lengths == sorted(lengths)
    assert "--train_sampling_strategy sequential" in selected.commands["TRL"]
    assert "--disable_shuffling true" in selected.commands["LLaMA-Factory"]


@pytest.mark.slow
def test_a_measure_of_a_model_comes_from_a_table(sums, tmp_path):
    asked = SelectConfig(6, level=1, measure="pass_rate", edges=(0.5,))
    with pytest.raises(
        ValueError, match=r"needs a model: run `sweetspot llm difficulty .*pass_rate"
    ):
        select(asked, sums, tmp_path / "rows")
    rates = np.linspace(0, 1, 60)
    table = pd.DataFrame({"row": np.arange(60), "pass_rate": rates})
    table.to_parquet(tmp_path / "measures.parquet")
    asked = dataclasses.replace(asked, measures=tmp_path / "measures.parquet", order="easy-to-hard")
    select(asked, sums, tmp_path / "rows")
    easy = rates[chosen(tmp_path / "rows")["sweetspot_row"]]
    assert (easy >= 0.5).all()
    assert easy.tolist() == sorted(easy, reverse=True)
    table[:50].to_parquet(tmp_path / "short.parquet")
    short = dataclasses.replace(asked, measures=tmp_path / "short.parquet")
    with pytest.raises(ValueError, match=r"each of the pool's 60 problems, got 50 rows"):
        select(short, sums, tmp_path / "other")


@pytest.mark.slow
def test_counts_of_another_pool_are_shrunk_as_the_scans_were(tiny_folder, sums, tmp_path):
    measure = "passes:right/8"
    scan = write_scan(tmp_path, tiny_folder, measure=measure, difficulties=(1, 2))
    train = tmp_path / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    counted = [row | {"right": number % 9} for number, row in enumerate(rows)]
    train.write_text("".join(json.dumps(row) + "\n" for row in counted))
    manifest = json.loads((scan / "manifest.json").read_text())
    manifest["buckets"] = {"measure": measure, "edges": [0.5]}
    manifest["data"]["train"] = (known := read(train, numbers=["right"])).digest()
    (scan / "manifest.json").write_text(json.dumps(manifest))
    few = [row | {"right": 8} for row in rows[:9]]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in few))
    config, scanned = SelectConfig(2, level=1), Scanned.read(scan)
    pool = read_pool(config, Source(str(tmp_path / "few.jsonl")), scanned)
    expected = column_values(measure, pool.problems, fitted_to=known)
    np.testing.assert_allclose(pool.hardness, -expected)
    assert pool.levels.tolist() == [1] * 9
    own = read_pool(config, NO_DATA, scanned)
    np.testing.assert_allclose(own.hardness, -column_values(measure, known))


@pytest.mark.slow
def test_a_column_of_the_data_is_a_measure_and_missing_values_are_counted(sums, tmp_path):
    """9 of the 60 sums state no rate; rows keep their numbers in the whole pool."""
    asked = SelectConfig(5, level=1, measure="column:rate", harder="lower", edges=(4.0,))
    with pytest.raises(ValueError, match=r"column:rate must be .* missing for 9 of 60"):
        select(asked, sums, tmp_path / "rows")
    dropped = dataclasses.replace(asked, missing="drop", order="easy-to-hard")
    record = select(dropped, sums, tmp_path / "rows").record
    rows = chosen(tmp_path / "rows")
    assert record["pool"]["left_out"] == 9
    assert rows["rate"].tolist() == [number / 7 for number in rows["sweetspot_row"]]
    assert rows["rate"].tolist() == sorted(rows["rate"], reverse=True)
    assert min(rows["rate"]) >= 4
    with pytest.raises(ValueError, match=r"harder must say which values of 'column:rate'"):
        SelectConfig(5, level=1, measure="column:rate")
    wrong = dataclasses.replace(asked, measure="column:rates")
    with pytest.raises(ValueError, match=r"did you mean 'rate'"):
        select(wrong, sums, tmp_path / "other")


# Budgets.


def test_tokens_and_hours_buy_the_longest_affordable_prefix(tiny_folder, sums):
    def asked(budget: float, unit: Any) -> SelectConfig:
        model = str(tiny_folder)
        return SelectConfig(budget, unit, model=model, device="a100", epochs=3)

    pool = read_pool(asked(1, "tokens"), sums, None)
    assert pool.lengths is not None
    whole = choose(
        asked(20, "examples"), pool, price(asked(20, "examples"), pool, None), "exact", 1
    )
    tokens = int(pool.lengths[whole].sum())
    for budget, number in ((tokens, 20), (tokens - 1, 19)):
        config = asked(budget, "tokens")
        bought = choose(config, pool, price(config, pool, None), "exact", 1)
        assert bought.tolist() == whole[:number].tolist()
    # Hours: every example has its own attention, which the mean length nearly gives.
    config = asked(1e-9, "gpu-hours")
    hours = price(config, pool, None)
    assert "3 epochs of training all parameters at 40% of the 312 TFLOP/s" in hours.assumption
    bought = choose(config, pool, hours, "exact", 1)
    assert bought.tolist() == whole[: len(bought)].tolist()
    decoder = checkpoint.read_config(tiny_folder)
    mean = pool.lengths[bought].mean()
    flops = cost.finetuning_flops(decoder, len(bought), 3, mean)
    spent = hours.each[bought].sum()
    assert 0 < spent <= 1e-9 < hours.each[whole[: len(bought) + 1]].sum()
    assert spent == pytest.approx(cost.device_hours(flops, 0, device="A100"), rel=0.02)
    # A scan's data sizes in another unit: by the pool's mean example.
    scanned = Scanned(Path(), ScanConfig(data_unit="tokens"), {})
    assert in_units_of(scanned, asked(500, "tokens"), pool, price(config, pool, None)) == 500
    examples = asked(60, "examples")
    converted = in_units_of(scanned, examples, pool, price(examples, pool, None))
    assert converted == pool.lengths.sum()


def test_a_budget_larger_than_the_pool_says_so(sums, tmp_path):
    large = SelectConfig(1000, level=1)
    told = r"what the pool holds at level 1 \(exact\), 20 examples; got 1,000 examples\. --take-all"
    with pytest.raises(ValueError, match=told):
        select(large, sums, tmp_path / "rows")
    record = select(dataclasses.replace(large, take_all=True), sums, tmp_path / "rows").record
    assert record["rows"] == 20
    assert "all rows that the pool has" in (tmp_path / "rows" / "README.md").read_text()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"budget": 0}, "budget must be positive, got 0"),
        ({"budget": 0.5}, "budget must be at least one of its unit, examples, got 0.5"),
        ({"budget": 2.5}, "budget must be a whole number of examples, got 2.5"),
        ({"budget": float("nan")}, "budget must be positive, got nan"),
        ({"budget": 1, "budget_unit": "hours"}, "budget_unit must be one of"),
        ({"budget": 1, "order": "hard-to-easy"}, "order must be one of"),
        ({"budget": 1, "level": -1}, "level must be at least 0"),
    ],
)
def test_nonsense_is_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        SelectConfig(**fields)


def test_arguments_that_buy_nothing_are_refused(tiny_folder, sums, tmp_path):
    def refused(told: str, source: Source = sums, **fields: Any) -> None:
        with pytest.raises(ValueError, match=told):
            select(SelectConfig(**fields), source, tmp_path / "rows")
        assert not (tmp_path / "rows").exists()

    refused("level must be stated without a scan", budget=5)
    refused("source must name a data set", NO_DATA, budget=5, level=1)
    refused("level must have problems, but 9 .* levels of the pool are", budget=5, level=9)
    refused("model must name a checkpoint for a budget in tokens", **hours(1, "tokens"))
    model = str(tiny_folder)
    refused("budget must buy at least one example", **hours(1, "tokens", model=model))
    unknown = hours(1, "gpu-hours", model=model, device="abacus")
    refused("device must be one of", **unknown)


def hours(budget: float, unit: str, **more: Any) -> dict[str, Any]:
    return {"budget": budget, "budget_unit": unit, "level": 1, **more}


# Files.


def test_columns_and_ids_are_kept_exactly(sums, written, tmp_path):
    source = [json.loads(line) for line in Path(sums.source).read_text().splitlines()]
    rows = load(written, tmp_path / "cache").to_list()
    lines = [json.loads(line) for line in (written / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert rows == lines
    for row in rows:
        added = {"sweetspot_row": row["sweetspot_row"], "sweetspot_level": 2}
        assert row == source[row["sweetspot_row"]] | added
    # What was written is a pool that our own trainer reads.
    again, first = read(written / "train.parquet"), read(sums.source)
    assert again.prompts == first.take(row["sweetspot_row"] for row in rows).prompts
    pool = Source(str(written / "train.parquet"))
    with pytest.raises(ValueError, match=r"source must have no columns .*sweetspot_row"):
        select(SelectConfig(3, level=2), pool, tmp_path / "again")


def test_the_chats_are_those_that_our_trainer_sees(sums, written, tmp_path):
    problems = read(sums.source)
    chats = load(written, tmp_path / "cache", "chats")
    assert len(chats) == 12
    for chat in chats.to_list():
        row = chat["sweetspot_row"]
        assert chat["prompt"] == problems.prompts[row]
        assert chat["completion"] == [{"role": "assistant", "content": problems.solutions[row]}]
        assert chat["messages"] == chat["prompt"] + chat["completion"]
    header = yaml.safe_load((written / "README.md").read_text().split("---")[1])
    assert [each["config_name"] for each in header["configs"]] == ["default", "chats"]


def test_llama_factory_reads_the_chats_and_columns_of_texts(sums, written, tmp_path):
    problems = read(sums.source).take(chosen(written)["sweetspot_row"])
    chats = llama_factory.read(written, "sweetspot", tmp_path / "cache")
    columns = llama_factory.read(written, "sweetspot_columns", tmp_path / "cache")
    for number, (chat, plain) in enumerate(zip(chats, columns, strict=True)):
        system, user = problems.prompts[number]
        assert chat["system"] == system["content"]
        assert plain["system"] == ""
        assert chat["prompt"] == plain["prompt"] == [user["content"]]
        assert chat["response"] == plain["response"] == problems.solutions[number]


def test_pools_of_chats_and_choices_are_described_as_chats_alone(tmp_path):
    chats = write_sums(tmp_path / "chats.jsonl", 8, levels=(1,))
    rows = [
        {"question": f"Pick {n}", "choices": ["0", "1"], "answer": n % 2, "op": 1, "extra": n}
        for n in range(8)
    ]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, columns in (("chats", Columns()), ("choices", Columns(answer="answer"))):
        pool, out = Source(str(tmp_path / f"{name}.jsonl"), columns=columns), tmp_path / name
        selected = select(SelectConfig(4, level=1), pool, out)
        assert list(json.loads((out / "dataset_info.json").read_text())) == ["sweetspot"]
        assert len(llama_factory.read(out, "sweetspot", tmp_path / "cache")) == 4
    assert "--columns.answer answer" in selected.commands["sweetspot"]
    turns = llama_factory.read(tmp_path / "choices", "sweetspot", tmp_path / "cache")
    assert re.fullmatch(r"Pick \d\nA\. 0\nB\. 1", turns[0]["prompt"][0])
    assert chats.exists()


def test_a_folder_is_written_whole_once_and_never_over_something_else(sums, tmp_path):
    out = tmp_path / "rows"
    out.mkdir()
    asked = SelectConfig(5, level=1)
    assert select(asked, sums, out).is_new
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert not select(asked, sums, out).is_new
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(ResultsError, match=r"another selection; it differs in budget \(there 5"):
        select(SelectConfig(6, level=1), sums, out)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match="is not empty and is no selection"):
        select(asked, sums, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["notes.txt"]


# The command.


def test_the_command_prints_how_rows_were_chosen_and_what_comes_next(sweetspot, sums, tmp_path):
    words = ("llm", "select", "--level", 1, "--source", sums.source, "--budget", 5)
    code, text = sweetspot(*words, "--out", tmp_path / "rows")
    assert code == 0
    assert "Budget: 5 examples. It bought 5 rows." in text
    for told in ("TRL: trl sft ", "LLaMA-Factory: llamafactory-cli train ", "sweetspot: sweetspot"):
        assert told in text
    assert text.endswith(f"Rows: {tmp_path / 'rows'}\n")
    code, text = sweetspot(*words, "--out", tmp_path / "rows")
    assert (code, text.splitlines()[-1]) == (0, f"Rows, written before: {tmp_path / 'rows'}")
    code, text = sweetspot(*words, "--out", tmp_path / "other", "--push-to-hub", "mine")
    assert (code, (tmp_path / "other").exists()) == (2, False)
    assert "push_to_hub must be OWNER/NAME, got 'mine'" in text


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_one_line_and_the_files_stay(sums, tmp_path):
    words = ["--level", "1", "--source", sums.source, "--budget", "5", "--out", "rows"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "llm", "select", *words, "--push-to-hub", "me/mine"],
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "error: push_to_hub: the Hugging Face hub did not take 'me/mine'" in done.stderr
    assert "the files are whole in rows" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(chosen(tmp_path / "rows")) == 5
