"""A wheel, built and used far from the checkout, as by somebody who never saw the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from experiments import distribution
from experiments.recipes import RECIPES

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(command: list[str | Path], cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the files that git knows; building leaves nothing in the checkout."""
    source = tmp_path_factory.mktemp("source")
    known = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in known.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", out, source], out)
    (built,) = out.iterdir()
    return built


def test_a_wheel_has_the_templates_and_no_results(wheel):
    assert wheel.name.startswith(distribution.NAME.replace("-", "_"))
    names = zipfile.ZipFile(wheel).namelist()
    templates = {path.name for path in (ROOT / "experiments" / "pages").glob("*.jinja")}
    assert len(templates) >= 3
    assert {Path(name).name for name in names if name.endswith(".jinja")} == templates
    assert not [name for name in names if "results/" in name or name.startswith("tests")]
    for package in ("synth", "theory", "experiments"):
        ours = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert ours <= set(names)


def test_a_wheel_works_far_from_its_checkout(wheel, tmp_path):
    """Dependencies are those of the tests; our own packages come from the wheel alone."""
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "install", "--no-deps", "--target", installed, wheel], elsewhere)
    path = {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    program = installed / "bin" / "sweetspot"

    def sweetspot(*words: str) -> str:
        return run([program, *words], elsewhere, **path)

    where = "import experiments, synth, theory; print(experiments.__file__)"
    assert run([sys.executable, "-c", where], elsewhere, **path).startswith(str(installed))
    assert sweetspot("--version") == f"sweetspot {distribution.version()}\n"
    listed = sweetspot("list")
    for recipe in RECIPES:
        assert recipe in listed
    sweetspot("run", "tradeoff", "smoke", "--out", "run")
    drawn = sweetspot("figures", "run", "--names", "map")
    assert (elsewhere / drawn.splitlines()[0]).is_file()
    sweetspot("report", "run")
    assert "</html>" in (elsewhere / "run" / "report.html").read_text(encoding="utf-8")
    (session,) = json.loads((elsewhere / "run" / "manifest.json").read_text())["sessions"]
    assert session["versions"][distribution.NAME] == distribution.version()
    assert session["commit"] == "unknown"
