"""Self-contained HTML pages, made from the templates beside this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from experiments.storage.writing import write_atomically


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Fill a template and put the page in place with one rename; returns its path.

    Args:
      path: the HTML file.
      template: name of a file beside this module.
      content: values for the template, in which markup is escaped; a missing one is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(content)
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path
