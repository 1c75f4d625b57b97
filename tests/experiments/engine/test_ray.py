"""Studies on a Ray cluster of two nodes: equal tables, deaths, errors, interrupts."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.certify.checkpoints import certify_checkpoint
from experiments.certify.config import CheckpointConfig, MembersConfig
from experiments.certify.members import certify
from experiments.engine.parcel import Folder
from experiments.engine.run import run_study
from experiments.engine.workers import Workers
from experiments.errors import ExpectedError
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.problems.config import GraderConfig, Source
from experiments.llm.problems.data import read_source
from experiments.llm.scan.grid import ScanConfig
from experiments.llm.scan.study import run_scan
from experiments.llm.text.encoding import encode
from experiments.llm.text.tokenizer import load_tokenizer
from experiments.llm.training.config import PAPER_OPTIMISER, TrainingConfig
from experiments.storage.results import read_manifest
from experiments.sweep.study import run_sweep
from tests.experiments.engine.naps import PATIENCE, Naps
from tests.experiments.llm.rows import write_sums
from tests.experiments.tiny import TINY

pytest.importorskip("ray", reason="the executor ray needs Ray")
from experiments.engine import cluster as clusters

ROOT = Path(__file__).parents[3]
# Starting a cluster takes ten seconds, and its workers import and compile everything anew. Sockets
# and processes of Ray's are closed when it likes.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with one core each. Workers share the tests' cache of programs."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()
    patch.undo()


@pytest.fixture
def workers(nodes) -> Workers:
    return Workers("ray", nodes.address, patience=60.0)


@pytest.fixture
def naps(tmp_path) -> Naps:
    (tmp_path / "notes").mkdir()
    return Naps(tmp_path / "run", tmp_path / "notes")


def assert_equal(first: Path, second: Path, patterns: tuple[str, ...]) -> None:
    """Compare files byte by byte, and tables value by value."""
    names = [
        path.relative_to(first)
        for pattern in patterns
        for path in first.glob(pattern)
        if path.is_file()
    ]
    assert names
    for name in names:
        if name.suffix == ".parquet":
            expected, found = (pd.read_parquet(folder / name) for folder in (first, second))
            pd.testing.assert_frame_equal(found, expected, check_exact=True)
        else:
            assert (first / name).read_bytes() == (second / name).read_bytes(), name


# The same results as in one process.


def test_a_sweep_equals_the_one_in_this_process(workers, finished_run, tmp_path):
    out = tmp_path / "run"
    with workers.start(out) as executor:
        run_sweep(TINY, out, recipe="tiny", preset="test", executor=executor)
    patterns = ("table.parquet", "parts/*", "bases/*/*", "members/*/*", "predictions/*")
    assert_equal(finished_run, out, patterns)
    manifest = read_manifest(out)
    assert manifest["status"] == "complete"
    (session,) = manifest["sessions"]
    assert 1 <= len(session["workers"]) <= 2
    assert sum(worker["parts"] for worker in session["workers"]) == 6
    # Workers train, and the driver writes.
    assert all(worker["phases"]["train"] > 0 for worker in session["workers"])
    assert set(session["phases"]) == {"write", "rest"}
    # A worker compiles a group's program once, however many chunks it makes.
    assert session["traces"] == session["programs_traced"] <= 4
    # No sign of the workers is left in the directory.
    assert list(out.glob(".visible*")) == []


def test_a_certification_equals_the_one_in_this_process(workers, finished_run, tmp_path):
    config = MembersConfig(
        delta=0.5, methods=("base", "test-set"), difficulties=(1, 2), data_sizes=(12,), seeds=(0,)
    )
    for name in ("here", "there"):
        shutil.copytree(finished_run, tmp_path / name)
    certify(tmp_path / "here", config)
    with workers.start(tmp_path / "there") as executor:
        certify(tmp_path / "there", config, executor=executor)
    assert_equal(tmp_path / "here", tmp_path / "there", ("certificates.parquet",))


class Elsewhere(Folder):
    """A folder that no worker sees, as on a cluster without a shared file system."""

    def is_here(self) -> bool:
        return False


@pytest.fixture(params=["shared file system", "nothing shared"])
def sharing(request, monkeypatch, tmp_path) -> None:
    """Without a shared file system, workers see neither the directory nor other folders."""
    if request.param == "nothing shared":
        monkeypatch.setattr(clusters, "Folder", Elsewhere)
        monkeypatch.setattr(clusters, "_marker", NoMarker)


class NoMarker:
    """A marker that workers do not see."""

    def __init__(self, directory: Path):
        self._marker = directory.parent / "nowhere" / "marker"

    def __enter__(self) -> Path:
        return self._marker

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.usefixtures("sharing")
def test_a_scan_equals_the_one_in_this_process(workers, tiny_folder, tmp_path):
    write_sums(tmp_path / "train.jsonl", 16, levels=(1, 2))
    write_sums(tmp_path / "test.jsonl", 4, levels=(1, 2), seed=1)
    config = ScanConfig(
        checkpoint=str(tiny_folder),
        train=Source(str(tmp_path / "train.jsonl")),
        test=Source(str(tmp_path / "test.jsonl")),
        difficulties=(1, 2),
        data_sizes=(4,),
        losses=("sft",),
        learning_rates=(1e-3,),
        training=TrainingConfig(
            compute=2,
            compute_unit="steps",
            optimiser=dataclasses.replace(PAPER_OPTIMISER, batch_size=4),
            dtype="float32",
            remat=False,
            checkpoint_every=0,
        ),
        max_length=1024,
        risk_examples=4,
        decoding=DecodingConfig(max_new_tokens=4, batch_size=16),
        grader=GraderConfig("boxed"),
        save_members=True,
    )
    run_scan(config, tmp_path / "here", recipe="test", preset="test")
    with workers.start(tmp_path / "there") as executor:
        run_scan(config, tmp_path / "there", recipe="test", preset="test", executor=executor)
    patterns = ("table.parquet", "members/*/*", "responses/*")
    assert_equal(tmp_path / "here", tmp_path / "there", patterns)
    assert not (tmp_path / "there" / "work").exists()


@pytest.mark.usefixtures("sharing")
def test_a_checkpoints_certification_equals_the_one_in_this_process(workers, tiny_folder, tmp_path):
    write_sums(tmp_path / "all.jsonl", 35)
    encoded = encode(
        read_source(Source(str(tmp_path / "all.jsonl"))),
        load_tokenizer(tiny_folder),
        max_length=1024,
        on_long="drop",
    )
    config = CheckpointConfig(methods=("checkpoint", "held-out"), data_sizes=(8,), num_fresh=4)
    for name in ("here", "there"):
        with (workers if name == "there" else Workers()).start(tmp_path / name) as executor:
            certify_checkpoint(
                tiny_folder,
                {1: encoded},
                tmp_path / name,
                config,
                rows_trained_on=(),
                executor=executor,
            )
    assert_equal(tmp_path / "here", tmp_path / "there", ("certificates.parquet",))
    table = pd.read_parquet(tmp_path / "there" / "certificates.parquet")
    assert table["base"].unique().tolist() == [tiny_folder.name]


@pytest.mark.usefixtures("sharing")
def test_workers_get_what_earlier_parts_left(workers, naps):
    with workers.start(naps.directory) as executor:
        table = run_study(naps_of(naps), executor=executor)["table"]
    assert table["nap"].tolist() == list(range(6))
    assert set(table["sheet"]) == {"white"}
    # The first part stays in this process, all others do not.
    here = [note["part"] for note in naps.begun() if note["process"] == os.getpid()]
    assert here == ["here"]


# Deaths.


def run_with(naps: Naps, workers: Workers, after: Any) -> pd.DataFrame:
    """Run the study, and call `after` when its second nap is finished."""
    with workers.start(naps.directory) as executor:

        def watched(study, parts, started):
            for number, made in enumerate(executor(study, parts, started)):
                yield made
                if parts[0].name.startswith("nap") and number == 1:
                    after()

        return run_study(naps_of(naps), executor=watched)["table"]


def awaited(found: Callable[[], Any]) -> Any:
    """Call a function until it returns something that is not empty, and return that."""
    end = time.monotonic() + PATIENCE
    while not (result := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


def test_a_killed_worker_loses_nothing(workers, naps, capsys):
    naps.processes, killed = 3, []

    def kill():
        # Naps after the first two wait for a third process, so that this one is in the midst of it.
        killed.append(list(awaited(naps.asleep))[-1])
        os.kill(killed[0], signal.SIGKILL)

    table = run_with(naps, workers, kill)
    assert table["nap"].tolist() == list(range(6))
    begun = [note["part"] for note in naps.begun() if note["part"].startswith("nap")]
    assert len(begun) == 7
    assert len(naps.nappers() - set(killed)) == 2
    assert "A worker died while making 'nap " in capsys.readouterr().out


def test_a_sweep_survives_a_killed_worker(workers, finished_run, tmp_path):
    import psutil

    out, killed = tmp_path / "run", []
    with workers.start(out) as executor:

        def watched(study, parts, started):
            for made in executor(study, parts, started):
                yield made
                if len(parts) == 4 and not killed:
                    # One of the workers, at a chunk.
                    makers = [
                        process
                        for raylet in nodes_of(psutil)
                        for process in raylet.children()
                        if "ray::Maker" in " ".join(process.cmdline())
                    ]
                    killed.append(makers[-1].pid)
                    os.kill(makers[-1].pid, signal.SIGKILL)

        run_sweep(TINY, out, recipe="tiny", preset="test", executor=watched)
    assert killed
    assert_equal(finished_run, out, ("table.parquet", "parts/*", "members/*/*"))


def nodes_of(psutil: Any) -> list[Any]:
    """The raylets that this process has started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name() == "raylet"]


def test_a_node_that_is_removed_loses_nothing(nodes, workers, naps):
    import psutil
    import ray

    # More processes than there are: naps go on until they are woken.
    naps.processes, naps.number = 9, 12
    others = {raylet.pid for raylet in nodes_of(psutil)}
    extra = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    (raylet,) = (raylet for raylet in nodes_of(psutil) if raylet.pid not in others)

    def asleep_there():
        there = {process.pid for process in raylet.children()}
        return [nap for process, nap in naps.asleep().items() if process in there]

    def remove_when_it_naps():
        """Remove the node with its processes in the midst of a nap, and return that nap."""
        (lost_nap,) = awaited(asleep_there)
        for process in raylet.children():
            process.kill()
        nodes.remove_node(extra, allow_graceful=False)
        naps.wake_up()
        return lost_nap

    with workers.start(naps.directory) as executor, ThreadPoolExecutor() as threads:
        removed = threads.submit(remove_when_it_naps)
        table = run_study(naps_of(naps), executor=executor)["table"]
    assert table["nap"].tolist() == list(range(12))
    # What was under way there was made again elsewhere.
    begun = [note["part"] for note in naps.begun()]
    assert begun.count(removed.result()) == 2
    assert len([part for part in begun if part.startswith("nap")]) == 13
    assert not ray.is_initialized()
    # The head notices only after some missed heartbeats, and would take the node for a live one.
    nodes.wait_for_nodes(timeout=120)


def test_a_node_that_joins_gets_parts(nodes, workers, naps):
    naps.processes, added = 3, []
    table = run_with(naps, workers, lambda: added.append(nodes.add_node(num_cpus=1)))
    nodes.remove_node(added[0])
    nodes.wait_for_nodes(timeout=120)
    assert table["nap"].tolist() == list(range(6))
    assert len(naps.nappers()) == 3


def test_a_part_that_kills_its_workers_is_given_up(workers, naps):
    naps = Deadly(naps.directory, naps.notes, number=2, seconds=0.0)
    workers = dataclasses.replace(workers, retries=1)
    with (
        pytest.raises(ExpectedError, match="died 2 times while making 'nap 1'") as error,
        workers.start(naps.directory) as executor,
    ):
        run_study(naps, executor=executor)
    assert len(str(error.value).splitlines()) == 1
    assert len(list(naps.notes.glob("nap1-*"))) == 2


class Deadly(Naps):
    """Its second nap ends the process."""

    def make(self, part):
        output = super().make(part)
        if part.name == "nap1":
            os._exit(1)
        return output


# Errors.


def test_an_error_of_a_part_is_raised_as_it_is_and_not_tried_again(workers, naps):
    naps.failing = 2
    with (
        pytest.raises(ValueError, match="failing") as error,
        workers.start(naps.directory) as executor,
    ):
        run_study(naps_of(naps), executor=executor)
    assert type(error.value) is ValueError
    assert str(error.value) == "failing must not be made, got 2"
    assert len(list(naps.notes.glob("nap2-*"))) == 1


def naps_of(naps: Naps) -> Naps:
    """The study with its present fields as the constructor's arguments, which travel."""
    fields = {field.name: getattr(naps, field.name) for field in dataclasses.fields(naps)}
    return Naps(**fields)


def test_resources_that_no_node_has_are_refused(nodes, tmp_path):
    workers = Workers("ray", nodes.address, num_gpus_per_task=4, patience=15.0)
    with (
        pytest.raises(ExpectedError, match=r"no node .* has 1 CPUs and 4 GPUs for a worker"),
        workers.start(tmp_path / "run"),
    ):
        raise AssertionError("it was started")
    assert not (tmp_path / "run").exists()


# The command line, with a Ray of its own.


COMMAND = (
    *("-m", "experiments", "run", "custom", "--executor", "ray", "--address", "local"),
    *("--difficulties", "1", "2", "--data-sizes", "8", "--test-hardest", "3"),
    *("--pretrain.steps", "2000000", "--pretrain.hardest", "1"),
)


def test_an_interrupt_leaves_no_process_behind(tmp_path):
    psutil = pytest.importorskip("psutil", reason="comes with Ray")
    mark = uuid.uuid4().hex
    environment = {**os.environ, "SWEETSPOT_TEST": mark, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [sys.executable, *COMMAND, "--out", str(tmp_path / "run")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def marked() -> list[Any]:
        found = []
        for each in psutil.process_iter():
            try:
                if each.environ().get("SWEETSPOT_TEST") == mark and each.pid != process.pid:
                    found.append(each)
            except psutil.Error:
                continue
        return found

    try:
        end = time.monotonic() + 120
        while not any("Maker.make" in " ".join(each.cmdline()) for each in marked()):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, text
    assert "Dashboard: http://" in text
    assert "Interrupted" in text
    assert "Traceback" not in text
    end = time.monotonic() + 60
    while marked() and time.monotonic() < end:
        time.sleep(0.5)
    assert [each.cmdline() for each in marked()] == []
