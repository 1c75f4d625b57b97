"""The bases of a sweep used again by another: training them is the longest part of a small one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.storage import checkpoint
from experiments.storage.results import ResultsError, check_unchanged, read_manifest, stated
from experiments.sweep.grid import SweepConfig, sweep_config
from synth.decoder import Parameters


@dataclass(frozen=True)
class Bases:
    """Trained bases of a run.

    Attributes:
      parameters: of each base, by base seed.
      origin: which run and which code they come from, for the manifest of the sweep that uses them.
    """

    parameters: list[Parameters]
    origin: dict[str, Any]


def read_bases(directory: Path, config: SweepConfig) -> Bases:
    """Read the bases of a run for another sweep, which would train its own in the same way.

    The runs may differ in everything that comes after the bases, and in `test_hardest`.

    Args:
      directory: of a run whose bases are trained.
      config: of the sweep that needs them.

    Raises:
      ResultsError: if the run's bases are made in another way, too few, changed or missing.
    """
    manifest = read_manifest(directory)
    written = stated(manifest, directory, "config")
    try:
        theirs = sweep_config(written)
    except (ValueError, TypeError) as error:
        raise ResultsError(f"bases must be of a sweep, got {directory}: {error}") from error
    ours, others = _settings(config), _settings(theirs)
    differing = [
        f"{name} (there {others[name]}, here {value})"
        for name, value in ours.items()
        if others[name] != value
    ]
    if differing:
        raise ResultsError(
            f"bases must be trained as those of this sweep, got {directory}, which differs in "
            f"{'; '.join(differing)}"
        )
    if theirs.base_seeds < config.base_seeds:
        raise ResultsError(
            f"bases must be at least {config.base_seeds}, got {directory} with {theirs.base_seeds}"
        )
    paths = [f"bases/base-{seed}" for seed in range(config.base_seeds)]
    for path in paths:
        check_unchanged(directory, path)
    parameters = [checkpoint.load(directory / path)[1] for path in paths]
    sessions = manifest.get("sessions") or [{}]
    names = {name: manifest.get(name) for name in ("recipe", "preset")}
    return Bases(parameters, names | {"commit": sessions[0].get("commit")})


def _settings(config: SweepConfig) -> dict[str, Any]:
    """The settings that decide how a base is trained, each by its name."""
    pretrain = dataclasses.asdict(dataclasses.replace(config.pretrain, max_risk=1.0))
    return {
        "task": config.task,
        "task_options": config.task_options,
        "master_seed": config.master_seed,
        "decoder": dataclasses.asdict(config.decoder),
        **{f"pretrain.{name}": value for name, value in pretrain.items()},
    }
