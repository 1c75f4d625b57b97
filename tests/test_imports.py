"""Who may import whom, by the syntax of every file and by a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for folder in ("synth", "theory", "experiments") for path in (ROOT / folder).rglob("*.py")
)
PLOTTING = {"matplotlib", "seaborn", "plotly", "altair", "bokeh", "PIL"}
ACCELERATED = {"jax", "jaxlib", "flax", "optax", "orbax"}

FLOORS: tuple[tuple[str, ...], ...] = (
    ("devices", "distribution", "errors", "interrupts"),
    ("storage",),
    ("engine",),
    ("igsm", "sweep", "llm.published", "llm.smollm2"),
    ("llm.problems",),
    ("llm.text",),
    ("llm.training",),
    ("llm.answering",),
    ("llm.difficulty",),
    ("analysis", "certify", "llm.scan"),
    ("figures", "llm.recipes", "llm.selecting", "recipes"),
    ("benchmarks",),
    ("pages",),
    ("cli",),
    ("__main__",),
)
"""Folders (or files) of `experiments`, lowest floor first. A file imports from its own folder, and
from folders on lower floors."""
HALLS = {"experiments", "experiments.llm"}
"""Packages that only hold others."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str, *, is_package: bool) -> set[str]:
    """Dotted names that a file imports, anywhere in it; ``from a import b`` gives a and a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                start = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {start} | {f"{start}.{alias.name}" for alias in node.names}
    return found


def floor_of(module: str) -> tuple[int, str]:
    """Floor of a module of `experiments`, and the entry of `FLOORS` that it belongs to."""
    for floor, folders in enumerate(FLOORS):
        for folder in folders:
            prefix = f"experiments.{folder}"
            if module == prefix or module.startswith(prefix + "."):
                return floor, folder
    raise ValueError(f"{module} has no floor: name its folder in FLOORS")


def upward(module: str, found: set[str]) -> set[str]:
    """Imports of a module of `experiments` from a higher floor, or a neighbour on its own."""
    floor, folder = floor_of(module)
    return {
        name
        for name in found
        if name.startswith("experiments.") and name not in HALLS
        for other, neighbour in [floor_of(name)]
        if other > floor or (other == floor and neighbour != folder)
    }


def violations(module: str, found: set[str]) -> set[str]:
    """The imports of a module that the design forbids."""
    package, *folders = module.split(".")

    def within(*names: str) -> set[str]:
        return {
            name
            for name in found
            if any(name == prefix or name.startswith(prefix + ".") for prefix in names)
        }

    forbidden = set()
    if package in ("synth", "theory"):
        other = "theory" if package == "synth" else "synth"
        forbidden |= within(other, "experiments", *PLOTTING)
    # The list of tasks (or bounds) itself names every one of them.
    if folders[:1] == ["tasks"] and len(folders) > 1:
        own = ".".join([package, *folders[:2]])
        is_family = (ROOT / "synth" / "tasks" / folders[1]).is_dir()
        forbidden |= (
            within("synth") - within("synth.task", *([own] if is_family else [])) - {"synth"}
        )
        forbidden |= {
            name
            for name in found
            if name.split(".")[0]
            not in sys.stdlib_module_names | {"synth", "jax", "jaxtyping", "numpy"}
        }
    if package == "theory" and folders[:1] == ["bounds"] and len(folders) > 1:
        allowed = within(
            *(f"theory.{name}" for name in ("bounds", "checks", "divergence", "maurer"))
        )
        forbidden |= within("theory") - allowed - {"theory"}
    if module.startswith("experiments.figures"):
        forbidden |= within("synth", "theory", *ACCELERATED)
    if package == "experiments" and module not in HALLS:
        forbidden |= upward(module, found)
    return forbidden


def module_level(body: list[ast.stmt]) -> Iterator[ast.expr]:
    """Expressions that run when a module is imported: not those inside functions."""
    for statement in body:
        waiting: list[ast.AST] = [statement]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                waiting += [*node.decorator_list, *node.args.defaults]
                waiting += [default for default in node.args.kw_defaults if default]
                continue
            if isinstance(node, ast.Lambda):
                continue
            if isinstance(node, ast.Call):
                yield node
            waiting += ast.iter_child_nodes(node)


def makes_an_array(call: ast.expr) -> bool:
    """Return whether a call is one of ``jnp.…`` or of a JAX function that starts the backend."""
    name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
    started = ("jnp.", "jax.numpy.", "jax.random.", "jax.nn.", "jax.lax.", "jax.device")
    return name.startswith((*started, "jax.local_device")) and name not in {"jnp.dtype"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_design(path):
    module = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = imports(tree, module, is_package=path.name == "__init__.py")
    assert violations(module, found) == set()
    assert [ast.unparse(call) for call in module_level(tree.body) if makes_an_array(call)] == []


def test_every_package_is_looked_at():
    names = {module_name(path) for path in FILES}
    assert {
        "synth.tasks.chain",
        "theory",
        "experiments.figures.map",
        "experiments.sweep.study",
    } <= names


@pytest.mark.parametrize(
    ("module", "source", "forbidden"),
    [
        ("synth.gaps", "import theory.shift", {"theory.shift"}),
        ("synth.gaps", "from experiments import sweep", {"experiments", "experiments.sweep"}),
        ("synth.gaps", "def f():\n    import matplotlib.pyplot", {"matplotlib.pyplot"}),
        ("theory.shift", "from synth.task import pool", {"synth.task", "synth.task.pool"}),
        ("theory.shift", "from ..synth import task", {"synth", "synth.task"}),
        ("synth.tasks.chain", "from synth.task import Example\nimport jax, math", set()),
        (
            "synth.tasks.chain",
            "from ..decoder import logits",
            {"synth.decoder", "synth.decoder.logits"},
        ),
        ("synth.tasks.chain", "import pandas", {"pandas"}),
        ("synth.tasks", "from synth.tasks.chain import Chain", set()),
        ("theory.bounds.catoni", "from theory import shift", {"theory.shift"}),
        ("theory.bounds.catoni", "from theory.divergence import kl", set()),
        ("theory.bounds.catoni", "from theory.checks import check_count", set()),
        ("theory.bounds.catoni", "from theory.bounds.arguments import check", set()),
        ("experiments.figures.map", "import jax.numpy as jnp", {"jax.numpy"}),
        ("experiments.figures.map", "from synth import task", {"synth", "synth.task"}),
        ("experiments.sweep.study", "import jax, matplotlib, synth.task", set()),
        ("experiments.sweep.study", "from experiments.storage import results", set()),
        ("experiments.sweep.study", "from experiments.sweep.grid import Member", set()),
        (
            "experiments.sweep.study",
            "from experiments.igsm import export",
            {"experiments.igsm", "experiments.igsm.export"},
        ),
        (
            "experiments.storage.results",
            "from experiments.engine.session import Session",
            {"experiments.engine.session", "experiments.engine.session.Session"},
        ),
        (
            "experiments.llm.text.encoding",
            "from experiments.llm.training import loss",
            {"experiments.llm.training", "experiments.llm.training.loss"},
        ),
        ("experiments.cli.main", "from experiments.figures import draw", set()),
    ],
)
def test_a_forbidden_import_would_be_found(module, source, forbidden):
    found = imports(ast.parse(source), module, is_package=module == "synth.tasks")
    assert violations(module, found) == forbidden


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("TABLE = jnp.arange(3)", True),
        ("class A:\n    b: object = jnp.zeros(2) + 1", True),
        ("def f(x=jax.random.key(0)):\n    return x", True),
        ("def f():\n    return jnp.arange(3)", False),
        ("f = lambda: jnp.arange(3)", False),
        ("KIND = jnp.float32\nfast = jax.jit(f)", False),
    ],
)
def test_a_module_level_array_would_be_found(source, is_found):
    assert any(makes_an_array(call) for call in module_level(ast.parse(source).body)) == is_found


def in_a_fresh_interpreter(source: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_simulator_and_the_theory_has_no_side_effects():
    modules = [module_name(path) for path in FILES if path.parts[len(ROOT.parts)] != "experiments"]
    in_a_fresh_interpreter(
        f"""
import importlib, os, sys
before = dict(os.environ)
for name in {modules}:
    importlib.import_module(name)
import jax._src.xla_bridge as bridge
assert dict(os.environ) == before, "environment changed"
assert not bridge.backends_are_initialized(), "a backend was started"
loaded = set(sys.modules) & {PLOTTING | {"experiments"}}
assert not loaded, loaded
"""
    )


def test_drawing_figures_loads_no_jax():
    """Also not by way of another module: a table is enough to redraw every figure."""
    in_a_fresh_interpreter(
        f"""
import sys
import experiments.figures
assert experiments.figures.FIGURES
loaded = set(sys.modules) & {ACCELERATED | {"synth"}}
assert not loaded, loaded
"""
    )


def test_configurations_load_without_what_computes():
    """Recipes, and every module that holds a configuration: help is shown in a second."""
    modules = [
        "synth.config",
        "synth.tasks",
        "theory.config",
        "experiments.recipes",
        "experiments.llm.recipes",
        *(module_name(path) for path in FILES if path.name in ("config.py", "grid.py")),
    ]
    modules = [name for name in modules if not name.startswith("experiments.benchmarks")]
    heavy = ACCELERATED | PLOTTING | {"transformers", "pandas", "scipy"}
    in_a_fresh_interpreter(
        f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
loaded = set(sys.modules) & {heavy}
assert not loaded, loaded
"""
    )
