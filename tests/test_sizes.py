"""No file, function or class is too long to be read at once."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("synth", "theory", "experiments")
MOST_OF_A_FILE, MOST_OF_A_BODY, MOST_OF_A_CLASS = 450, 60, 200
"""Lines. A body is a function's without its signature and docstring."""


def too_long(code: str, name: str) -> list[str]:
    """Say what in a file has too many lines."""
    found, lines = [], len(code.splitlines())
    if lines > MOST_OF_A_FILE:
        found.append(f"{name} has {lines} lines")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_more = ast.get_docstring(node) is not None and len(node.body) > 1
            first, most = node.body[1 if has_more else 0], MOST_OF_A_BODY
        elif isinstance(node, ast.ClassDef):
            first, most = node, MOST_OF_A_CLASS
        else:
            continue
        lines = (node.end_lineno or 0) - first.lineno + 1
        if lines > most:
            found.append(f"{node.name} in {name} has {lines} lines")
    return found


def test_everything_can_be_read_at_once():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 200
    found = [
        each for path in files for each in too_long(path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert not found, "split by responsibility: " + "; ".join(found)


def test_what_is_too_long_is_found():
    body = "def f():\n    '''Doc.'''\n" + "    pass\n" * 61
    assert too_long(body, "x.py") == ["f in x.py has 61 lines"]
    assert too_long("class A:\n" + "    b = 1\n" * 200, "x.py") == ["A in x.py has 201 lines"]
    assert too_long("a = 1\n" * 451, "x.py") == ["x.py has 451 lines"]
    assert too_long("a = 1\n" * 450 + "", "x.py") == []
