"""Errors that explain themselves, so that the command line shows one line and no traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class ExpectedError(RuntimeError):
    """A run cannot begin or go on, for a reason that the message tells and the user can mend."""


@contextlib.contextmanager
def refusing(subject: object) -> Iterator[None]:
    """Turn whatever nonsense in recorded files leads to into one line that names them.

    Tables and manifests can hold anything, and it reaches pandas and Matplotlib at every depth, as
    errors of many kinds. For commands that only read what was recorded.

    Args:
      subject: what is read, usually a directory, for the message.

    Raises:
      ExpectedError: in place of every error that does not explain itself.
    """
    try:
        yield
    except (ValueError, OSError, ImportError, ExpectedError):
        raise
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise ExpectedError(
            f"{subject} cannot be shown: its tables or its manifest are not as a run writes them "
            f"({type(error).__name__}: {lines[0][:300]})"
        ) from error
