"""The plan of a scan, against what the run of the same scan makes."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest

from experiments.engine.forecast import forecast
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.work import stream_shapes
from experiments.llm.recipes.tiny_igsm import SMOKE
from experiments.llm.scan.study import ScanStudy, run_scan
from experiments.llm.training import train
from experiments.storage.results import read_manifest


def test_shapes_follow_from_the_lengths_of_prompts():
    config = DecodingConfig(max_new_tokens=32, batch_size=16, prompt_multiple=64)
    # Twenty prompts, two at a time: the streams' rows are full, and widths 192, 128 and 64 occur.
    lengths = [150] * 4 + [100] * 4 + [20] * 12
    reading, decoding = stream_shapes(lengths, config, split=1, context=512)
    # Short prompts need less than half of the first stream's capacity: they have one of their own.
    assert decoding == {(16, 224), (16, 96)}
    assert reading == {(16, 224, 2, 192), (16, 224, 2, 128), (16, 96, 2, 64)}
    # Two samples of each prompt enter one after the other.
    config = dataclasses.replace(config, samples=2, temperature=1.0)
    assert stream_shapes([20], config, split=2, context=512)[1] == {(2, 96)}


@pytest.mark.slow  # a scan from nothing, and its plan
def test_a_plan_of_the_smoke_preset_is_right(tmp_path, monkeypatch):
    out = tmp_path / "run"
    study = ScanStudy(SMOKE, out, recipe="tiny-igsm", preset="smoke")
    told = forecast(study, device="h200")
    assert list(tmp_path.iterdir()) == []

    # Run it, and note the programs of its training steps.
    make_step, shapes = train.make_step, set()

    def noting(decoder, config, mesh=None):
        step = make_step(decoder, config, mesh)

        def noted(frozen, state, batch, rate):
            shapes.add((config, batch.tokens.shape))
            return step(frozen, state, batch, rate)

        return noted

    monkeypatch.setattr(train, "make_step", noting)
    run_scan(SMOKE, out, recipe="tiny-igsm", preset="smoke")

    # Members, parts and programs are those of the run.
    manifest = read_manifest(out)
    assert told.whole.units == len(manifest["chunks"])
    made = [*(out / "parts").glob("*.parquet"), out / "base" / "model", out / "scratch"]
    assert told.whole.parts == len(made)
    assert told.whole.programs["training step"] == len(shapes)
    assert told.counts["test problems"] == sum(manifest["levels"]["test"].values())
    assert told.counts["training problems"] == sum(manifest["levels"]["train"].values())

    # Tokens of the base's training, and of answers to the test, are about right; so is the disk.
    log = [json.loads(line) for line in (out / "base" / "log.jsonl").read_text().splitlines()]
    workload = study.workload()
    parts = {part.name: part for stage in study.stages() for part in stage}
    with workload.opened():
        work = {name: workload.work(part) for name, part in parts.items()}
    base = sum(each.tokens for each in work["train the base"])
    assert base == pytest.approx(sum(line["tokens"] for line in log), rel=0.5)
    answers = pd.read_parquet(out / "responses" / "base.parquet")["num_tokens"].sum()
    assert sum(each.tokens for each in work["base"]) == pytest.approx(answers, rel=0.5)
    disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert disk / 1.5 < told.whole.disk < disk * 1.5

    # A finished run has nothing left.
    assert forecast(study, budget=0).left.parts == 0
