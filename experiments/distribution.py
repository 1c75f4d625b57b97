"""The distribution that pip installs: its name, its version, and how an extra of it is installed.

The command and the folders are called otherwise: on the package index ``sweetspot`` is another
project.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

NAME = "sweetspot-sft"
"""The name in pyproject.toml, of which an error tells users to install an extra."""


def install_hint(*extras: str) -> str:
    """Return the command that installs extras, such as ``pip install 'sweetspot-sft[llm]'``.

    Args:
      extras: names under ``[project.optional-dependencies]`` in pyproject.toml.
    """
    return f"pip install '{NAME}[{','.join(extras)}]'"


def version() -> str:
    """Return the version of this code.

    A checkout states it in pyproject.toml, which is newer than what pip recorded when the checkout
    was installed. A wheel has no such file, and pip's record is right.

    Returns:
      The version, or ``unknown`` where the code is neither in a checkout nor installed.
    """
    stated = Path(__file__).parents[1] / "pyproject.toml"
    if stated.is_file():
        project = tomllib.loads(stated.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == NAME:
            return project["version"]
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
