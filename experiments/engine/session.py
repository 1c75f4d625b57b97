"""One entry of the manifest for each session: versions, commit, device, settings and time."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import jax
from rich.console import Console

from experiments.devices import DEVICE_COUNT
from experiments.engine.phases import Phases
from experiments.engine.progress import console
from experiments.storage import provenance
from experiments.storage.results import Run

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "pandas", "pyarrow", "matplotlib"),
    *("orbax-checkpoint", "grain", "transformers"),
)
"""Packages whose versions are recorded, if they are installed."""


SETTINGS = (
    *("jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64"),
    *("jax_default_matmul_precision", "jax_numpy_dtype_promotion"),
)
"""Settings of JAX that change its random numbers, or how it rounds."""

COMPARED = ("commit", "platform", "device", "num_devices", "python", "xla_flags")
"""Fields of a session's entry that are compared with those of the last session."""

KEPT_VALUE = 60
"""Characters of a value that a message shows."""


def settings() -> dict[str, Any]:
    """The values of `SETTINGS` that this version of JAX has."""
    return {name: getattr(jax.config, name) for name in SETTINGS if hasattr(jax.config, name)}


def xla_flags() -> list[str]:
    """Flags in ``XLA_FLAGS`` in order, but for the number of devices and those that write files."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return sorted(flag for flag in flags if not flag.startswith((DEVICE_COUNT, "--xla_dump")))


def check_precision() -> None:
    """Refuse JAX's double precision for a whole process.

    All results are in float32. Under x64 some arrays would not be, and bases and tables of two
    sessions of a run would not fit together. Bounds ask for double precision where they need it.

    Raises:
      ValueError: if it is on.
    """
    if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "jax_enable_x64 must be off (JAX_ENABLE_X64=0), got on: studies compute in float32, "
            "and bounds take double precision by themselves"
        )


class Session:
    """The entry of this process in the manifest's list of sessions."""

    def __init__(self, run: Run, on: Console = console, *, phases: Phases | None = None):
        """Begin a session; say in what its surroundings differ from those of the last one.

        Args:
          run: the run that it is a session of.
          on: the console that shows this.
          phases: the clock whose seconds by phase the entry states; None to state none.
        """
        self._start, self._phases = time.monotonic(), phases
        self._earlier: list[dict[str, Any]] = run.manifest.get("sessions", [])
        self.entry: dict[str, Any] = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": provenance.versions(PACKAGES),
            "python": platform.python_version(),
            "commit": provenance.commit(),
            "platform": jax.default_backend(),
            "device": provenance.device_name(),
            "num_devices": jax.device_count(),
            "settings": settings(),
            "xla_flags": xla_flags(),
        }
        # Its time is not known yet: a session that is killed before it keeps a part states none.
        run.update_manifest(sessions=[*self._earlier, self.entry])
        if differing := _differing(self._earlier[-1], self.entry) if self._earlier else []:
            on.print(
                f"The last session of this run had other surroundings, so that results may differ: "
                f"{'; '.join(differing)}. The manifest lists each session.",
                style="yellow",
            )

    def fields(self, **fields: Any) -> dict[str, Any]:
        """Fields of the manifest with the entry as it is now.

        They are written after each part, so that a kill loses little.
        """
        self.entry |= {"wall_time_seconds": round(time.monotonic() - self._start, 1), **fields}
        if self._phases is not None:
            self.entry["phases"] = self._phases.told()
        return {"sessions": [*self._earlier, self.entry]}


def _differing(earlier: dict[str, Any], entry: dict[str, Any]) -> list[str]:
    """Name what differs between two sessions, as ``name (then …, now …)``.

    What the earlier one does not state is no difference.
    """
    pairs = [(name, earlier.get(name), entry.get(name)) for name in COMPARED]
    for group in ("settings", "versions"):
        before, now = earlier.get(group), entry[group]
        if isinstance(before, dict):
            pairs += [(name, before.get(name), now.get(name)) for name in sorted(before)]
    return [
        f"{name.removeprefix('jax_')} (then {_shown(before)}, now {_shown(now)})"
        for name, before, now in pairs
        if before is not None and now is not None and before != now
    ]


def _shown(value: Any) -> str:
    text = " ".join(value) or "none" if isinstance(value, list) else str(value)
    return text if len(text) <= KEPT_VALUE else f"{text[:KEPT_VALUE]}…"
