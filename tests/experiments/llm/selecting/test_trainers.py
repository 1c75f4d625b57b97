"""The real trainers start from a selection: TRL, and our own."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import warnings
from typing import Any

import datasets
import pytest

from experiments.llm.problems.config import Source
from experiments.llm.problems.data import read
from experiments.llm.selecting.config import SelectConfig
from experiments.llm.selecting.run import select
from experiments.llm.text.encoding import encode
from experiments.llm.text.tokenizer import load_tokenizer
from tests.experiments.llm.rows import write_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def selected(tiny_folder, tmp_path):
    """Eight iGSM chats of level 2: their folder, and what `select` returned."""
    pool = Source(str(write_rows(tmp_path / "pool.jsonl", 40)))
    asked = SelectConfig(8, level=2, model=str(tiny_folder), max_length=1024)
    return tmp_path / "rows", select(asked, pool, tmp_path / "rows")


def test_trl_takes_a_step_on_the_solutions_alone_and_row_ids_survive(
    selected, tiny_folder, torch, tmp_path
):
    out, _ = selected
    chats = datasets.load_dataset(str(out), "chats", split="train", cache_dir=str(tmp_path / "c"))
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "c"))
    assert isinstance(chats, datasets.Dataset)
    assert isinstance(rows, datasets.Dataset)
    with warnings.catch_warnings():
        # Libraries below TRL announce changes to come.
        warnings.simplefilter("ignore")
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        config = SFTConfig(
            output_dir=str(tmp_path / "trained"),
            per_device_train_batch_size=4,
            max_steps=1,
            max_length=1024,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        )
        trainer = SFTTrainer(str(tiny_folder), args=config, train_dataset=chats)
        assert trainer.model is not None
        weights = dict(trainer.model.named_parameters())
        before = {name: each.detach().clone() for name, each in weights.items()}
        loss = trainer.train().training_loss
        moved = sum(not torch.equal(before[name], each) for name, each in weights.items())
    assert math.isfinite(loss)
    assert loss > 0
    assert moved
    # TRL counts the loss on the tokens that ours counts it on.
    prepared: Any = trainer.train_dataset
    tokenizer = load_tokenizer(tiny_folder)
    ours = encode(read(out / "train.parquet"), tokenizer, max_length=1024)
    assert prepared["sweetspot_row"] == rows["sweetspot_row"] == chats["sweetspot_row"]
    for number, example in enumerate(prepared):
        tokens = ours.tokens[number].tolist()
        start = int(ours.prompt_lengths[number])
        assert example["input_ids"][: len(tokens)] == tokens
        counted = [label != -100 for label in example["labels"]]
        assert counted[: len(tokens)] == [place >= start for place in range(len(tokens))]


def test_the_printed_command_of_trl_runs(selected, torch, tmp_path):
    out, made = selected
    del torch
    words = shlex.split(made.commands["TRL"])
    more = ["--max_steps", "1", "--use_cpu", "--report_to", "none", "--save_strategy", "no"]
    code = "import sys; from trl.scripts import sft; p = sft.make_parser(); "
    code += "sft.main(*p.parse_args_and_config(fail_with_unknown_args=False)[:4])"
    assert words[:2] == ["trl", "sft"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words[2:], *more, "--bf16", "false"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "trained" / "model.safetensors").exists()
    assert out.exists()


def test_our_own_printed_command_runs(selected, sweetspot, tmp_path, monkeypatch):
    _, made = selected
    monkeypatch.chdir(tmp_path)
    words = shlex.split(made.commands["sweetspot"])
    quick = ["--compute", "1", "--compute-unit", "steps", "--batch-size", "4"]
    code, text = sweetspot(*words[1:], *quick, "--dtype", "float32", "--no-remat")
    assert code == 0, text
    assert (tmp_path / "runs" / "trained" / "model" / "config.json").exists()
