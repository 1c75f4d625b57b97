"""The plan of a sweep, against what the run of the same sweep makes."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.engine.forecast import forecast
from experiments.recipes import RECIPES
from experiments.storage.results import read_manifest
from experiments.sweep.study import SweepStudy, run_sweep
from synth.task import pool


@pytest.mark.slow  # two sweeps, and two plans
@pytest.mark.parametrize("recipe", ["tradeoff", "families"])
def test_a_plan_of_a_smoke_preset_is_right(recipe, tmp_path):
    config, out = RECIPES[recipe].PRESETS["smoke"], tmp_path / "run"
    study = SweepStudy(config, out, recipe=recipe, preset="smoke")
    told = forecast(study, device="h200")
    assert list(tmp_path.iterdir()) == []
    table = run_sweep(config, out, recipe=recipe, preset="smoke")

    # Members, parts and programs are those of the run.
    manifest = read_manifest(out)
    names = {name for chunk in manifest["chunks"] for name in chunk["members"]}
    assert told.whole.units == len(names)
    made = [*(out / "parts").glob("*.parquet"), out / "bases"]
    assert told.whole.parts == len(made)
    (session,) = manifest["sessions"]
    assert told.whole.programs["fine-tuning"] == session["programs_traced"] == session["traces"]
    assert (table["metric"] == "test_risk").sum() == len(names) + config.base_seeds * config.seeds

    # Tokens and disk are about right; tokens counted in data of other seeds.
    draws = study.sweep.draws
    members = [member for chunk in manifest["chunks"] for member in chunk["members"]]
    steps = {
        name: chunk["group"]["steps"] for chunk in manifest["chunks"] for name in chunk["members"]
    }
    lengths = {m.name: draws.training_pool(m).num_tokens for m in config.members}
    tokens = sum(
        steps[name] * config.optimiser.batch_size * float(np.mean(lengths[name]))
        for name in members
    )
    pretraining = config.pretrain
    drawn = pool(study.sweep.task, draws.key("bases"), pretraining.mixture, 512).num_tokens
    shown = pretraining.steps * pretraining.optimiser.batch_size * config.base_seeds
    tokens += shown * float(np.mean(drawn))
    assert told.whole.tokens == pytest.approx(tokens, rel=0.5)
    disk = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert disk / 1.5 < told.whole.disk < disk * 1.5

    # A finished run has nothing left, and its plan leaves it as it is.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert forecast(study, budget=0).left.parts == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
