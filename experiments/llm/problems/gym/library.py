"""The library reasoning-gym, an extra that is loaded when a source names one of its tasks."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from experiments.distribution import install_hint

PREFIX = "reasoning-gym:"
"""Beginning of a source that names a task."""

ENVIRONMENT = {"PYTHONHASHSEED": "0"}
"""Of processes that draw problems. Some tasks walk over sets of strings, whose order would else
differ from one process to the next, and the problems with it."""


def is_gym(source: object) -> bool:
    """Return whether a source is a task of reasoning-gym."""
    return str(source).startswith(PREFIX)


def check_installed() -> None:
    """Refuse to go on without the library.

    Raises:
      ImportError: says how it is installed.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ImportError(f"tasks of reasoning-gym need: {install_hint('gym')}")


def library() -> Any:
    """Load the module reasoning_gym, which takes a second.

    Raises:
      ImportError: if it is not installed.
    """
    check_installed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import reasoning_gym
    return reasoning_gym
