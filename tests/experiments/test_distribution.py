"""The distribution: its name, its version, its extras, and the commit that a run records."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from experiments import distribution
from experiments.storage import provenance

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_name_and_version_are_those_of_the_project():
    assert PROJECT["name"] == distribution.NAME
    assert distribution.version() == PROJECT["version"]
    assert f"version: {PROJECT['version']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_a_hint_names_extras_that_exist():
    assert distribution.install_hint("llm", "bench") == "pip install 'sweetspot-sft[llm,bench]'"
    hints = [
        extra
        for path in (ROOT / "experiments").rglob("*.py")
        for extra in re.findall(r"install_hint\('(\w+)'\)", path.read_text(encoding="utf-8"))
    ]
    assert set(hints) == {"llm", "logging", "harness", "gguf", "gym"}
    assert set(hints) <= set(PROJECT["optional-dependencies"])


def test_no_text_names_the_other_project():
    """On the package index ``sweetspot`` is another project: nobody may be sent to it."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/*.py")]
    assert len(texts) > 100
    for path in texts:
        assert not re.search(r"install\W+sweetspot\b(?!-)", path.read_text(encoding="utf-8")), path


def test_a_wheel_has_the_version_that_pip_recorded(monkeypatch, tmp_path):
    recorded = {distribution.NAME: "7.8.9"}
    monkeypatch.setattr(importlib.metadata, "version", recorded.__getitem__)
    monkeypatch.setattr(distribution, "__file__", str(tmp_path / "experiments" / "x.py"))
    assert distribution.version() == "7.8.9"
    # The file of another project that the packages happen to lie in says nothing.
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "theirs"\nversion = "0.0.1"\n')
    assert distribution.version() == "7.8.9"


def test_code_that_is_not_installed_has_no_version(monkeypatch, tmp_path):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(distribution, "__file__", str(tmp_path / "experiments" / "x.py"))
    assert distribution.version() == "unknown"


@pytest.mark.parametrize("folder", ["", "venv/site-packages/"])
def test_the_commit_is_of_our_own_checkout(monkeypatch, tmp_path, folder):
    """A wheel that lies below somebody else's checkout does not report their commit."""
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    storage = tmp_path / folder / "experiments" / "storage"
    storage.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(storage / "provenance.py"))
    if folder:
        assert provenance.commit() == "unknown"
    else:
        assert re.fullmatch("[0-9a-f]{12}", provenance.commit())
