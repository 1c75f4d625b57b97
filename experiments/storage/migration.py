"""Manifests of earlier versions in the form of today: the only place that knows old forms."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]
SIMULATOR = {
    "batch_size": 32,
    "schedule": "cosine",
    "warmup": 0.05,
    "weight_decay": 0.0,
    "b2": 0.98,
    "clip": 1.0,
}
"""Settings that a sweep's training had where its manifest states none."""

PRETRAINING = SIMULATOR | {"batch_size": 64, "weight_decay": 0.01}
CHECKPOINTS = SIMULATOR | {"batch_size": 16, "warmup": 0.03, "b2": 0.999}
ACCOUNT = ("commit", "device", "num_devices", "versions", "wall_time_seconds")
"""Fields of a session that stood at the top."""


def upgrade(manifest: Record) -> Record:
    """A manifest in the form of today; one that has it already is given back as it is.

    Five things have changed:

    - Settings of the optimiser stood flat among the other fields of a sweep, of its pre-training
      and of a checkpoint's training; they are a field `optimiser` now.
    - The first sweeps had no `rope_scaling`, `lora` and `execution` in their decoder, and no
      `text_examples` and `level_ratio` in their pre-training; these get the values that were meant.
    - Certifications and fine-tunings had one account of commit, device, versions and time at the
      top; it is the first of their sessions now.
    - Scans had no measure made of columns, and so neither `harder` nor `missing`.
    - Certifications of a sweep drew samples from its own master seed, and had no other.
    """
    upgraded = dict(manifest)
    if isinstance(config := manifest.get("config"), dict):
        upgraded["config"] = _config(config)
    if isinstance(decoder := manifest.get("decoder"), dict):
        upgraded["decoder"] = _decoder(decoder)
    # A certification holds the manifest of its sweep, and a comparison those of its families.
    if isinstance(sweep := manifest.get("sweep"), dict):
        upgraded["sweep"] = upgrade(sweep)
    if isinstance(families := manifest.get("families"), dict):
        upgraded["families"] = {name: upgrade(run) for name, run in families.items()}
    if isinstance(certify := manifest.get("certify"), dict) and "sweep" in manifest:
        upgraded["certify"] = {"master_seed": None} | certify
    if "wall_time_seconds" in manifest and "sessions" not in manifest:
        account = {name: upgraded.pop(name) for name in ACCOUNT if name in manifest}
        upgraded["sessions"] = [account]
    return upgraded


def _config(config: Record) -> Record:
    """Configuration of a sweep, a scan or a fine-tuning, told apart by their fields."""
    if "pretrain" in config:
        pretrain = {"text_examples": 40_000, "level_ratio": 1.0} | config["pretrain"]
        return _nested(config, SIMULATOR) | {
            "decoder": _decoder(config["decoder"]),
            "pretrain": _nested(pretrain, PRETRAINING),
        }
    if "training" in config:
        base = dict(config["base"])
        if base["training"] is not None:
            base["training"] = _nested(base["training"], CHECKPOINTS)
        measured = {"harder": None, "missing": None} | config
        return measured | {"base": base, "training": _nested(config["training"], CHECKPOINTS)}
    return _nested(config, CHECKPOINTS) if "compute_unit" in config else config


def _nested(config: Record, defaults: Record) -> Record:
    """A configuration with the settings of its optimiser in a field of their own."""
    if "optimiser" in config:
        return config
    others = {name: value for name, value in config.items() if name not in defaults}
    stated = {name: config.get(name, default) for name, default in defaults.items()}
    return others | {"optimiser": stated}


def _decoder(decoder: Record) -> Record:
    """A decoder with the fields that the first sweeps did not have."""
    return {"rope_scaling": None, "lora": None, "execution": None} | decoder
