"""Trackers that a fine-tuning reports its numbers to, besides its own ``log.jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from experiments.distribution import install_hint

Tracker = Literal["none", "tensorboard", "wandb"]


class Log(Protocol):
    """Receives numbers and texts by step, and is closed at the end."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None: ...

    def close(self) -> None: ...


class _Nowhere:
    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        pass

    def close(self) -> None:
        pass


class _TensorBoard:
    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(directory / "tensorboard"))
        self._writer.add_text("config", "\n".join(f"- {k}: {v}" for k, v in settings.items()))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            self._writer.add_text(name, text, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        import wandb

        # With the same id a resumed run continues its curves.
        self._run = wandb.init(
            dir=directory,
            name=directory.name,
            id=str(settings["id"]),
            resume="allow",
            config=dict(settings),
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        import wandb

        table = wandb.Table(columns=["name", "text"], data=[list(pair) for pair in texts.items()])
        self._run.log({"responses": table}, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[Tracker, Callable[[Path, Mapping[str, Any]], Log]] = {
    "none": lambda directory, settings: _Nowhere(),
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}


def open_log(tracker: Tracker, directory: Path, settings: Mapping[str, Any]) -> Log:
    """Open the log of a tracker, or continue the one of a resumed run.

    Args:
      tracker: a name in `TRACKERS`; the last two need the extra ``logging``.
      directory: of the run.
      settings: shown beside the curves; ``id`` names the run.

    Raises:
      ValueError: if the tracker is unknown, its package is not installed, or it cannot start.
    """
    if tracker not in TRACKERS:
        raise ValueError(f"tracker must be one of {tuple(TRACKERS)}, got {tracker!r}")
    try:
        return TRACKERS[tracker](directory, settings)
    except ImportError as error:
        raise ValueError(
            f"tracker {tracker!r} needs: {install_hint('logging')} ({error})"
        ) from error
    # Trackers raise errors of their own, for example where a key is missing.
    except Exception as error:
        raise ValueError(f"tracker {tracker!r} cannot begin: {error}") from error
