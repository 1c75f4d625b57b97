"""Saved states of a fine-tuning, from which an interrupted one carries on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from experiments.engine.progress import console
from experiments.llm.training.distributed import first_decides, is_first
from experiments.llm.training.step import State
from experiments.storage.integrity import fingerprint, set_aside
from experiments.storage.writing import write_json

LOG = "log.jsonl"
"""A line for each step, which the meter writes."""
FINGERPRINTS = "checkpoints.json"


class SavedStates:
    """Saved states, by the number of steps done; none are saved without a directory.

    Beside a state its fingerprint is saved, and that of the log so far. If a file has changed
    since, training begins anew.

    Args:
      directory: of the run; None to save nothing.
      every: steps between states; 0 for none.
      steps: of the run.
      keeps_best: whether a state that is not the last one may be kept beside it.
    """

    def __init__(self, directory: Path | None, every: int, steps: int, *, keeps_best: bool = False):
        self._every, self._steps, self._manager = every, steps, None
        if directory is not None and (every or keeps_best):
            self._directory, self._states = directory, directory / "checkpoints"
            self._options = ocp.CheckpointManagerOptions(
                max_to_keep=None if keeps_best else 1,
                cleanup_tmp_directories=True,
                # On a CPU the next step would overwrite the donated arrays while they are saved.
                enable_async_checkpointing=False,
            )
            self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(self._states.absolute(), options=self._options)

    def __enter__(self) -> SavedStates:
        return self

    def __exit__(self, *_: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def latest(self, state: State) -> tuple[int, State]:
        """Number of steps done and the state after them; 0 and `state` if none was saved."""
        if self._manager is None or (step := self._manager.latest_step()) is None:
            return 0, state
        if not first_decides(lambda: self._is_intact(step)):
            self._manager.close()
            first_decides(self._set_aside)
            self._manager = self._open()
            return 0, state
        if is_first():
            told = (
                f"Carries on after step {step} of {self._steps}, from {self._states / str(step)}."
            )
            console.print(told)
        return step, self.restore(step, state)

    def restore(self, step: int, like: State) -> State:
        """The state after this number of steps, which was saved, in the places of another one."""
        assert self._manager is not None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, vars(like))
        return State(**self._manager.restore(step, args=ocp.args.StandardRestore(shapes)))

    def is_due(self, steps_done: int) -> bool:
        """Return whether to save the state after this number of steps; the last one always is."""
        if self._manager is None:
            return False
        is_due = bool(self._every) and steps_done % self._every == 0
        return is_due or steps_done == self._steps

    def save(self, steps_done: int, state: State, *, best: int | None = None) -> None:
        """Save a state in place of the one before.

        Args:
          steps_done: number of steps behind it.
          state: the state.
          best: number of steps behind the best state, which stays; None if none has to.
        """
        if self._manager is None:
            return
        self._manager.save(steps_done, args=ocp.args.StandardSave(vars(state)))
        if is_first():
            write_json(self._directory / FINGERPRINTS, self._fingerprints(steps_done, best))
        if best is not None:
            # Only now: until the new state was there, the old one was needed.
            for step in self._manager.all_steps():
                if step not in (steps_done, best):
                    self._manager.delete(step)

    def _fingerprints(self, step: int, best: int | None) -> dict[str, str | int]:
        """Of a state and of the log before it, and of the best state if it is another one."""
        log = self._directory / LOG
        lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
        found: dict[str, str | int] = {
            "step": step,
            "state": fingerprint(self._states / str(step)),
            "log": hashlib.sha256(b"".join(lines[:step])).hexdigest(),
        }
        if best is not None:
            found |= {"best": best, "best_state": fingerprint(self._states / str(best))}
        return found

    def _is_intact(self, step: int) -> bool:
        """Compare a state with its fingerprints; a kill may have come before they were written."""
        try:
            stated = json.loads((self._directory / FINGERPRINTS).read_text())
        except (OSError, ValueError):
            return True
        if not isinstance(stated, dict) or stated.get("step") != step:
            return True
        best = stated.get("best")
        if best is not None and not (self._states / str(best)).is_dir():
            return False
        return stated == self._fingerprints(step, best)

    def _set_aside(self) -> bool:
        target = set_aside(self._states, self._directory)
        console.print(
            f"{self._states} or {LOG} is damaged (it has changed since it was written): "
            f"moved to {target}; training begins anew.",
            style="yellow",
        )
        return True
