"""Makes the parts of a study by workers on a Ray cluster.

The driver (this process) opens the run, hands out parts and writes what comes back. A worker is a
Ray actor that lives for the whole run, so that it compiles a program once, and makes one part at a
time. What parts share (see `Study.shared`) is put into Ray's object store once for a stage.

A part whose worker or node dies is made again by another worker. An exception that `make` raises
is not: it is raised here, as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from experiments.devices import leave_accelerators, worker_environment
from experiments.engine.connection import (
    connect,
    describe_largest,
    describe_nodes,
    request_node,
    workers_that_fit,
)
from experiments.engine.maker import Made, Maker
from experiments.engine.parcel import Folder
from experiments.engine.progress import console
from experiments.engine.study import Output, Part, Study
from experiments.engine.workers import Workers
from experiments.errors import ExpectedError

LOOK_AGAIN = 5.0
"""Seconds after which the driver looks for nodes that have joined or left."""
FAREWELL = 5.0
"""Seconds that a worker has to remove its scratch folder at the end."""


@dataclass(eq=False)
class _Worker:
    """One worker, as the driver sees it.

    Attributes:
      actor: its handle.
      stage: number of the last stage that it was prepared for.
      part: the part that it makes now; None while it is prepared.
      fields: what it last said about itself.
      num_parts: parts that it has made.
    """

    actor: Any
    stage: int = 0
    part: Part | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    num_parts: int = 0


class Cluster:
    """An `Executor` whose parts are made by workers on a Ray cluster.

    Use it as a context manager: at the end, or when the driver is interrupted, it stops all workers
    and, if it has started a Ray of its own, that too.
    """

    def __init__(self, config: Workers):
        """Join or start a cluster.

        Raises:
          ExpectedError: if it cannot be reached, or no node has what a worker needs.
        """
        self._config = config
        self._environment = worker_environment(
            num_devices=config.num_cpus_per_task, has_gpu=config.num_gpus_per_task > 0
        )
        leave_accelerators()
        self._exit = contextlib.ExitStack()
        self._study: Study | None = None
        self._workers: list[_Worker] = []
        self._gone: list[_Worker] = []
        self._stage = 0
        with contextlib.ExitStack() as stack:
            is_own, dashboard = stack.enter_context(connect(config))
            _await_node(config, is_own=is_own)
            self._exit = stack.pop_all()
        console.print(f"Ray: {describe_nodes()}", highlight=False)
        if dashboard:
            console.print(f"Dashboard: http://{dashboard}", highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._exit:
            self._stop_workers(is_orderly=error[0] is None)

    def __call__(
        self, study: Study, parts: Sequence[Part], started: Callable[[Part], None]
    ) -> Iterator[tuple[Part, Output]]:
        """Make the parts of a stage, see `experiments.engine.run.Executor`.

        Raises:
          ExpectedError: if a part's workers died too often, or no node is left.
        """
        for part in parts:
            if part.stays:
                started(part)
                yield part, study.make(part)
        sent = [part for part in parts if not part.stays]
        if not sent:
            return
        if self._study is not study:
            self._stop_workers(is_orderly=True)
            self._study, self._gone, self._stage = study, [], 0
        self._stage += 1
        with _marker(study.directory) as marker:
            stage = _Stage(self._stage, study, sent, marker)
            yield from self._make(stage, started)

    def _make(
        self, stage: _Stage, started: Callable[[Part], None]
    ) -> Iterator[tuple[Part, Output]]:
        """Hand out the parts of a stage, and yield them as they end."""
        # Calls that have not ended, each with the worker that answers it.
        busy: dict[ray.ObjectRef, _Worker] = {}
        for worker in self._workers[: len(stage.queue)]:
            busy[self._prepared(worker, stage)] = worker
        looked = idle_since = -math.inf
        while stage.queue or any(worker.part for worker in busy.values()):
            # Look for room for more workers, and for a node that is left at all.
            if time.monotonic() - looked > LOOK_AGAIN:
                looked = time.monotonic()
                busy |= self._more_workers(stage, len(busy))
            if any(worker.part for worker in busy.values()) or workers_that_fit(self._config):
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > self._config.patience:
                raise ExpectedError(
                    f"no node of the Ray cluster with {_needs(self._config)} is left "
                    f"({describe_nodes()}). Repeat the command to carry on."
                )
            # Wait until something ends.
            ended, _ = ray.wait(list(busy), num_returns=1, timeout=1.0) if busy else ([], [])
            if not busy:
                time.sleep(0.2)
            for reference in ended:
                worker = busy.pop(reference)
                part, worker.part = worker.part, None
                try:
                    result = ray.get(reference)
                except RayTaskError as error:
                    raise getattr(error, "cause", None) or error from None
                except RayError as error:
                    self._bury(worker, part, error, stage)
                    looked = -math.inf
                    continue
                # The next part first, so that the worker need not wait for this one's files.
                next_one = self._next(worker, part, result, stage, started)
                if next_one is not None:
                    busy[next_one] = worker
                if part is not None:
                    yield part, self._received(worker, result)
        # Workers that never got ready are not needed any more.
        for worker in busy.values():
            self._kill(worker)

    def _next(
        self,
        worker: _Worker,
        part: Part | None,
        result: Any,
        stage: _Stage,
        started: Callable[[Part], None],
    ) -> ray.ObjectRef | None:
        """Give a worker what it does next: receive folders that it lacks, or make a part."""
        if part is None and result:
            parcels = [stage.parcel(name) for name in result]
            return worker.actor.receive.remote(list(result), *parcels)
        if not stage.queue or (isinstance(result, Made) and result.error is not None):
            return None
        worker.part = stage.queue.popleft()
        started(worker.part)
        return worker.actor.make.remote(worker.part)

    def _received(self, worker: _Worker, made: Made) -> Output:
        """The output of a part, with what all workers have said about themselves."""
        worker.fields, worker.num_parts = made.fields, worker.num_parts + 1
        if made.error is not None:
            raise made.error
        assert made.output is not None  # it is None only beside an error
        session = _session_fields([*self._gone, *self._workers])
        return dataclasses.replace(made.output, session=session)

    # Workers.

    def _more_workers(self, stage: _Stage, num_busy: int) -> dict[ray.ObjectRef, _Worker]:
        """Start workers if there is room and work for them."""
        room = self._config.num_workers or workers_that_fit(self._config)
        wanted = min(room, len(stage.queue) + num_busy) - len(self._workers)
        started = {}
        for _ in range(wanted):
            worker = _new_worker(self._config, self._environment)
            self._workers.append(worker)
            started[self._prepared(worker, stage)] = worker
        return started

    def _prepared(self, worker: _Worker, stage: _Stage) -> ray.ObjectRef:
        """Send a worker what the parts of a stage share, and the study if it is new."""
        study = None if worker.stage else stage.study
        worker.stage = stage.number
        return worker.actor.prepare.remote(study, stage.shared, stage.marker)

    def _bury(self, worker: _Worker, part: Part | None, error: RayError, stage: _Stage) -> None:
        """Put the part of a dead worker back, unless workers die of it.

        Raises:
          ExpectedError: if the part has been given up too often.
        """
        self._kill(worker)
        what = part.name if part else ""
        stage.deaths[what] += 1
        reason = " ".join(str(error).split()).removesuffix(".")
        if stage.deaths[what] > self._config.retries:
            raise ExpectedError(
                f"a worker died {stage.deaths[what]} times while {_doing(part)}, the last time "
                f"because: {reason[:400]}. Finished parts are kept; repeat the command to carry on."
            )
        if part is not None:
            stage.queue.appendleft(part)
        console.print(
            f"A worker died while {_doing(part)}; another one takes over "
            f"({stage.deaths[what]} of {self._config.retries} retries).",
            highlight=False,
            markup=False,
        )

    def _kill(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._gone.append(worker)
        with contextlib.suppress(Exception):
            ray.kill(worker.actor)

    def _stop_workers(self, *, is_orderly: bool) -> None:
        """Stop all workers; in an orderly way they remove their scratch folders first."""
        if is_orderly and self._workers:
            with contextlib.suppress(RayError):
                closing = [worker.actor.close.remote() for worker in self._workers]
                ray.wait(closing, num_returns=len(closing), timeout=FAREWELL)
        for worker in list(self._workers):
            self._kill(worker)


class _Stage:
    """Parts of a stage that are left, and what they share.

    Attributes:
      number: of the stage, from 1.
      queue: parts that no worker makes yet.
      study, shared: references to the study and to `Study.shared`, in the object store.
      marker: a file in the directory of the study.
      deaths: how often a worker died while it made each part.
    """

    def __init__(self, number: int, study: Study, parts: Sequence[Part], marker: Path):
        self.number, self.queue, self.marker = number, deque(parts), marker
        shared = study.shared(parts)
        self._folders = {
            name: Folder.of(value) for name, value in shared.items() if isinstance(value, Path)
        }
        self.study, self.shared = ray.put(study), ray.put({**shared, **self._folders})
        self.deaths: Counter[str] = Counter()
        self._parcels: dict[str, ray.ObjectRef] = {}

    def parcel(self, name: str) -> ray.ObjectRef:
        """Reference to a folder's files in the object store; read when a worker first lacks it."""
        if name not in self._parcels:
            self._parcels[name] = ray.put(self._folders[name].parcel())
        return self._parcels[name]


@contextlib.contextmanager
def _marker(directory: Path) -> Iterator[Path]:
    """A file in a run directory by which a worker tells whether it sees this directory."""
    with tempfile.NamedTemporaryFile(dir=directory.absolute(), prefix=".visible-") as file:
        yield Path(file.name)


def _new_worker(config: Workers, environment: Mapping[str, str]) -> _Worker:
    """Start an actor somewhere on the cluster."""
    options = {
        "num_cpus": config.num_cpus_per_task,
        "num_gpus": config.num_gpus_per_task,
        "max_restarts": 0,
    }
    return _Worker(ray.remote(Maker).options(**options).remote(environment))


def _session_fields(workers: Sequence[_Worker]) -> dict[str, Any]:
    """Fields of the session: of each worker that made a part, and the sums of their numbers."""
    working = [worker for worker in workers if worker.num_parts]
    totals: Counter[str] = Counter()
    for worker in working:
        numbers = {n: v for n, v in worker.fields.items() if isinstance(v, int | float)}
        totals.update(numbers)
    told = [{**worker.fields, "parts": worker.num_parts} for worker in working]
    return {**totals, "workers": told}


def _await_node(config: Workers, *, is_own: bool) -> None:
    """Wait for a node that has what a worker needs.

    Args:
      config: what a worker needs.
      is_own: whether this process has started the Ray, to which no node will be added.

    Raises:
      ExpectedError: if there is none within the patience; at once in a Ray of one's own.
    """
    end = time.monotonic() + (0 if is_own else config.patience)
    if not is_own and not workers_that_fit(config):
        request_node(config)
    while not workers_that_fit(config):
        if time.monotonic() >= end:
            raise ExpectedError(
                f"no node of the Ray cluster has {_needs(config)} for a worker "
                f"(num_cpus_per_task, num_gpus_per_task); {describe_largest()}"
            )
        time.sleep(0.5)


def _needs(config: Workers) -> str:
    return f"{config.num_cpus_per_task} CPUs and {config.num_gpus_per_task:g} GPUs"


def _doing(part: Part | None) -> str:
    return f"making {part.title or part.name!r}" if part else "getting ready"
