"""Self-contained HTML pages, made from the templates beside this module."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2

from experiments.storage.writing import write_atomically

UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that HTML forbids, or that reorder the text around them without being seen."""


def readable(value: Any) -> Any:
    """Text with a mark in place of each unseen character; anything else is given back."""
    # Markup, which is a string as well, is our own.
    return UNSEEN.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Fill a template and put the page in place with one rename; returns its path.

    Args:
      path: the HTML file.
      template: name of a file beside this module.
      content: values for the template, in which markup is escaped; a missing one is an error.

    Raises:
      ValueError: if the content is nested too deeply.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=readable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        page = environment.get_template(template).render(content)
    except RecursionError:
        raise ValueError(f"{path} cannot be written: its content is nested too deeply") from None
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path
