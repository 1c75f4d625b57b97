"""Mutants of a file, made from its syntax tree.

What is changed, one at a time: comparisons (boundary and sense), ``+`` and ``-``, ``*`` and ``/``,
integers by 1, floats times 10, True and False, ``not`` and signs dropped, ``and`` and ``or``,
``min`` and ``max``, a call or raise that is a statement left out, what is returned replaced by
None.
Annotations, docstrings, decorators and the messages of errors are left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.mutants.mutant import Mutant

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
NAMES = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "argmin": "argmax",
    "argmax": "argmin",
    "any": "all",
    "all": "any",
}


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What takes the place of a node, if it is one that can be changed."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in COMPARISONS[type(node.ops[0])]:
            yield ast.Compare(node.left, [operator()], node.comparators)
    elif isinstance(node, ast.Compare):
        for place, own in enumerate(node.ops):
            for operator in COMPARISONS[type(own)]:
                operators = [*node.ops[:place], operator(), *node.ops[place + 1 :]]
                yield ast.Compare(node.left, operators, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield ast.BoolOp(other, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(10 * node.value if node.value else 1.0)
    elif isinstance(node, ast.Name) and node.id in ("min", "max", "any", "all"):
        yield ast.Name(NAMES[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr])
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below one, but for those that only people or type checkers read."""
    if isinstance(node, ast.Raise):
        return
    skipped: list[ast.AST | None] = []
    if isinstance(node, ast.FunctionDef):
        skipped += [node.returns, *node.decorator_list]
    elif isinstance(node, ast.ClassDef):
        skipped += [*node.decorator_list, *node.bases]
    elif isinstance(node, ast.arg | ast.AnnAssign):
        skipped += [node.annotation]
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        if child not in skipped:
            yield child


def _walk(node: ast.AST, function: str = "") -> Iterator[tuple[ast.AST, str]]:
    """All nodes that may change, with the function or class that each is in."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".lstrip(".")
    yield node, function
    for child in _children(node):
        yield from _walk(child, function)


def mutants_of(module: str, source: str) -> list[Mutant]:
    """All mutants of a file, in the order of its lines.

    Args:
      module: path of the file.
      source: its text.
    """
    # Places in the tree are counted in bytes of a line.
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    text, found = source.encode(), []
    for node, function in _walk(ast.parse(source)):
        for changed in _changed(node):
            place: ast.expr | ast.stmt = node  # pyright: ignore[reportAssignmentType]
            assert place.end_lineno is not None
            assert place.end_col_offset is not None
            first = starts[place.lineno - 1] + place.col_offset
            last = starts[place.end_lineno - 1] + place.end_col_offset
            new = ast.unparse(ast.fix_missing_locations(changed))
            # A part of an expression keeps its place among the others.
            if isinstance(node, ast.Compare | ast.BinOp | ast.BoolOp | ast.UnaryOp):
                new = f"({new})"
            old = text[first:last].decode()
            mutated = (text[:first] + new.encode() + text[last:]).decode()
            found.append(Mutant(module, place.lineno, function, old, new, mutated))
    return found
