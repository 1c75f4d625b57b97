"""One entry of the manifest for each session: versions, commit, device and time."""

from __future__ import annotations

import platform
import time
from typing import Any

import jax
from rich.console import Console

from experiments.engine.progress import console
from experiments.storage import provenance
from experiments.storage.results import Run

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "pandas", "pyarrow", "matplotlib"),
    *("orbax-checkpoint", "grain", "transformers"),
)
"""Packages whose versions are recorded, if they are installed."""


class Session:
    """The entry of this process in the manifest's list of sessions."""

    def __init__(self, run: Run, on: Console = console):
        """Begin a session; warn if the last one had another commit, device or version."""
        self._run, self._start = run, time.monotonic()
        self._earlier: list[dict[str, Any]] = run.manifest.get("sessions", [])
        self.entry: dict[str, Any] = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": provenance.versions(PACKAGES),
            "python": platform.python_version(),
            "commit": provenance.commit(),
            "platform": jax.default_backend(),
            "device": provenance.device_name(),
            "num_devices": jax.device_count(),
        }
        # Its time is not known yet: a session that is killed before it keeps a part states none.
        self._run.update_manifest(sessions=[*self._earlier, self.entry])
        if self._earlier and self._differs(self._earlier[-1]):
            on.print(
                "This run was begun with another commit, device or other versions; "
                "the manifest lists each session.",
                style="yellow",
            )

    def _differs(self, earlier: dict[str, Any]) -> bool:
        """Return whether an earlier session states another commit, device or version."""
        versions = earlier.get("versions", {})
        shared = versions.keys() & self.entry["versions"].keys()
        return any(versions[name] != self.entry["versions"][name] for name in shared) or any(
            earlier.get(name, self.entry[name]) != self.entry[name] for name in ("commit", "device")
        )

    def save(self, **fields: Any) -> None:
        """Write the entry as it is now; called after each part, so that a kill loses little."""
        self.entry |= {"wall_time_seconds": round(time.monotonic() - self._start, 1), **fields}
        self._run.update_manifest(sessions=[*self._earlier, self.entry])
