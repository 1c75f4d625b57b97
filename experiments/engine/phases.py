"""Where the time of a session goes: wall seconds of this process by phase.

``with phases("train"):`` stands around the code of a phase. The time of a phase inside another one
is counted for the inner one alone, and what no phase covers is ``rest``. JAX tells what it traces,
compiles or loads from its cache. This is ``compile``, in whichever phase it happens.

JAX answers before its devices are done: a phase that waits for results gets their time.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

COMPILATION = "/jax/core/compile/"
"""JAX's events of tracing, lowering, and compiling or loading begin with this."""


class Phases:
    """A clock that always runs for one phase.

    Attributes:
      seconds: of each phase so far.
      began: Unix time at which each phase was first entered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Begin with ``rest``.

        Args:
          clock: tells the time in seconds.
        """
        self._clock, self._since = clock, clock()
        self._entered = ["rest"]
        self._compilations: list[tuple[float, float]] = []
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.began: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time of a block for a phase."""
        self._count()
        self._entered.append(name)
        self.began.setdefault(name, time.time())
        try:
            yield
        finally:
            self._count()
            self._entered.pop()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let the clock run, compilation told apart; the time before this block is not counted."""
        # Imported here, because workers import studies before their environment is set.
        from jax import monitoring

        def listen(event: str, duration_secs: float, **_: object) -> None:
            if event.startswith(COMPILATION):
                self.compiled(duration_secs)

        self._since = self._clock()
        monitoring.register_event_duration_secs_listener(listen)
        try:
            yield
        finally:
            self._count()
            monitoring.unregister_event_duration_listener(listen)

    def compiled(self, seconds: float) -> None:
        """Count the last seconds for ``compile``; to be called when a compilation ends.

        Args:
          seconds: that it took, with those of compilations inside it.
        """
        self._count()
        start, inside = self._since - seconds, 0.0
        while self._compilations and self._compilations[-1][0] >= start:
            inside += self._compilations.pop()[1]
        self._compilations.append((start, seconds))
        self.seconds[self._entered[-1]] -= seconds - inside
        self.seconds["compile"] += seconds - inside

    def _count(self) -> None:
        """Count the time since the last call for the phase that was entered last."""
        now = self._clock()
        self.seconds[self._entered[-1]] += now - self._since
        self._since = now

    def told(self) -> dict[str, float]:
        """Seconds of each phase up to now, in milliseconds' precision."""
        self._count()
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}
