"""Workers without a cluster: their configuration, what they do in a process, files on their way."""

from __future__ import annotations

import importlib.util
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import devices
from experiments.engine.maker import SCRATCH, Maker
from experiments.engine.parcel import Folder, Parcel
from experiments.engine.study import Output, Part
from experiments.engine.workers import Workers
from tests.experiments.engine.naps import Naps

# The configuration.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"executor": "dask"}, "executor must be local or ray, got 'dask'"),
        ({"address": "nowhere"}, "address must be auto, local or HOST:PORT, got 'nowhere'"),
        ({"address": "ray://head:10001"}, "start the command on a node of the cluster"),
        ({"address": "head:99999"}, "address must be auto, local or HOST:PORT"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"num_cpus_per_task": 0}, "num_cpus_per_task must be at least 1, got 0"),
        ({"num_gpus_per_task": 1.5}, "num_gpus_per_task must be a whole number, or a share below"),
        ({"num_gpus_per_task": -1}, "num_gpus_per_task must be a whole number"),
        ({"num_gpus_per_task": float("nan")}, "num_gpus_per_task must be a whole number"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
        ({"patience": 0}, "patience must be a positive number of seconds, got 0"),
        ({"patience": float("inf")}, "patience must be a positive number of seconds, got inf"),
        ({"mirror": "folder"}, "mirror must be a URL such as s3://bucket/folder"),
    ],
)
def test_fields_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match="must be") as error:
        Workers(**{"executor": "ray"} | changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [{"address": "local"}, {"num_workers": 2}, {"num_gpus_per_task": 1.0}, {"retries": 0}],
)
def test_fields_without_effect_are_refused(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=rf"{name} = .* needs executor = ray"):
        Workers(**changes)


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.1:6379", "head-node.x:1", "[::1]:9"])
def test_addresses_that_are_accepted(address):
    assert Workers("ray", address).address == address


@pytest.mark.parametrize(
    ("changes", "package"), [({"executor": "ray"}, "ray"), ({"mirror": "file:///x"}, "fsspec")]
)
def test_a_missing_package_says_how_to_install_it(changes, package, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with (
        pytest.raises(ImportError, match=rf"{package} is missing: pip install 'sweetspot"),
        Workers(**changes).start(tmp_path),
    ):
        raise AssertionError("it was started")


def test_the_configuration_and_help_load_neither_ray_nor_jax():
    source = """
import sys
import experiments.engine.workers, experiments.cli.main
assert experiments.engine.workers.Workers("ray").executor == "ray"
loaded = set(sys.modules) & {"ray", "jax", "pandas", "fsspec"}
assert not loaded, loaded
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", source], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_cluster_that_nobody_serves_is_refused_with_one_line(tmp_path, sweetspot):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        flags = ("--preset", "smoke", "--executor", "ray", "--address", address)
        code, text = sweetspot("run", "tradeoff", "--out", tmp_path / "run", *flags)
    assert code == 2
    assert "error: no Ray cluster can be reached at 127.0.0.1:" in text
    assert len(text.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_server_that_is_no_cluster_is_given_up(tmp_path, sweetspot):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        flags = ("--executor", "ray", "--address", address, "--patience", "2")
        out = ("--preset", "smoke", "--out", tmp_path / "run")
        code, text = sweetspot("run", "tradeoff", *out, *flags)
    assert code == 2
    assert "did not answer as a Ray cluster within patience = 2 seconds" in text


# The environment of a worker.


def test_a_worker_has_as_many_devices_as_cores_and_the_drivers_other_flags(monkeypatch):
    monkeypatch.setenv(
        "XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_dump_to=/x --xla_cpu_use=true"
    )
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    environment = devices.worker_environment(num_devices=1, has_gpu=False)
    flags = environment["XLA_FLAGS"].split()
    assert "--xla_force_host_platform_device_count=1" in flags
    assert {"--xla_dump_to=/x", "--xla_cpu_multi_thread_eigen=false"} <= set(flags)
    assert sum("device_count" in flag for flag in flags) == 1
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["NPROC"] == "1"
    assert devices.worker_environment(num_devices=1, has_gpu=True)["JAX_PLATFORMS"] == "cuda"


def test_the_driver_leaves_accelerators_before_jax_starts():
    source = """
import os
from experiments import devices
os.environ["JAX_PLATFORMS"] = "nonsense"
import jax
devices.leave_accelerators()
assert jax.default_backend() == "cpu", jax.default_backend()
os.environ["JAX_PLATFORMS"] = "cuda"
devices.leave_accelerators()
assert os.environ["JAX_PLATFORMS"] == "cuda"
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", source], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Files on their way.


def test_a_file_arrives_as_it_was(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    parcel = pickle.loads(pickle.dumps(Parcel.of(tmp_path / "a.bin")))
    (tmp_path / "b.bin").write_text("replaced")
    parcel.write(tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == bytes(range(256))


def test_a_folder_arrives_whole_and_replaces_nothing(tmp_path):
    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "a" / "inner" / "x.txt").write_text("x")
    (tmp_path / "a" / "empty").write_text("")
    parcel = Parcel.of(tmp_path / "a")
    parcel.write(tmp_path / "b")
    assert (tmp_path / "b" / "inner" / "x.txt").read_text() == "x"
    assert (tmp_path / "b" / "empty").read_text() == ""
    (tmp_path / "b" / "empty").write_text("an earlier session's")
    parcel.write(tmp_path / "b")
    assert (tmp_path / "b" / "empty").read_text() == "an earlier session's"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    # A name that no file may have.
    parcel = Parcel({"ok": np.zeros(3, np.uint8), "x" * 300: np.zeros(3, np.uint8)})
    with pytest.raises(OSError, match="name"):
        parcel.write(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_told_from_another_of_its_path(tmp_path):
    (tmp_path / "x.txt").write_text("one")
    folder = Folder.of(tmp_path)
    assert folder.is_here()
    (tmp_path / "x.txt").write_text("longer")
    assert not folder.is_here()
    assert not Folder(tmp_path / "nowhere", folder.files).is_here()


# A worker, in this process.


@pytest.fixture
def study(tmp_path) -> Naps:
    (tmp_path / "run").mkdir()
    (tmp_path / "notes").mkdir()
    return Naps(tmp_path / "run", tmp_path / "notes", seconds=0.0, failing=3)


@pytest.fixture
def maker(monkeypatch, tmp_path):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    maker = Maker({})
    yield maker
    maker.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def sent(study: Naps) -> Naps:
    """The study as a worker gets it."""
    return pickle.loads(pickle.dumps(study))


def test_a_worker_away_makes_parts_without_the_directory(study, maker, tmp_path):
    """It gets copies of folders, and what it leaves comes back, also what `make` left itself."""
    maker.prepare(sent(study), {}, tmp_path / "no marker")
    made = maker.make(study.stages()[1][0])
    assert made.error is None
    assert set(made.output.files) == {"bed", "pillow.txt"}
    assert list(study.directory.iterdir()) == []
    for path, write in pickle.loads(pickle.dumps(made.output.files)).items():
        write(study.directory / path)
    assert (study.directory / "bed" / "sheet.txt").read_text() == "white"
    assert (study.directory / "pillow.txt").read_text() == "soft"
    # The next stage: the folder is not where the driver says.
    folder = Folder.of(study.directory / "bed")
    hidden = Folder(tmp_path / "nowhere", folder.files)
    assert maker.prepare(None, {"bed": hidden}, tmp_path / "no marker") == ("bed",)
    maker.receive(["bed"], folder.parcel())
    made = maker.make(study.stages()[2][0])
    assert made.output.tables["table"]["sheet"].tolist() == ["white"]
    assert made.fields["naps"] == 1
    assert [note["away"] for note in study.begun()] == [True, True]


def test_a_worker_that_sees_the_directory_works_there(study, maker, tmp_path):
    marker = study.directory / ".marker"
    marker.touch()
    maker.prepare(sent(study), {}, marker)
    made = maker.make(study.stages()[1][0])
    assert set(made.output.files) == {"pillow.txt"}
    assert (study.directory / "bed" / "sheet.txt").exists()
    folder = Folder.of(study.directory / "bed")
    assert maker.prepare(None, {"bed": folder}, marker) == ()
    assert maker.make(study.stages()[2][1]).error is None


def test_an_error_comes_back_as_itself(study, maker, tmp_path):
    maker.prepare(sent(study), {"bed": tmp_path}, tmp_path / "no marker")
    made = maker.make(study.stages()[2][3])
    assert made.output is None
    assert isinstance(made.error, ValueError)
    assert str(made.error) == "failing must not be made, got 3"
    assert "in make" in made.error.__notes__[0]


class TwoArgumentsError(Exception):
    """An exception that is pickled, but not read back."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def test_an_error_that_cannot_be_sent_is_told(study, maker, tmp_path, monkeypatch):
    def make(*_):
        raise TwoArgumentsError("this", "that")

    monkeypatch.setattr(Naps, "make", make)
    maker.prepare(study, {}, tmp_path / "no marker")
    made = pickle.loads(pickle.dumps(maker.make(Part("nap0"))))
    assert type(made.error) is RuntimeError
    assert str(made.error) == "TwoArgumentsError: this and that"


def test_jax_arrays_come_back_as_files(study, maker, tmp_path, monkeypatch):
    array = jnp.arange(3.0)
    save = {"x.bin": lambda path: path.write_bytes(np.asarray(array).tobytes())}
    monkeypatch.setattr(Naps, "make", lambda *_: Output({"table": pd.DataFrame()}, save))
    maker.prepare(study, {}, tmp_path / "no marker")
    made = pickle.loads(pickle.dumps(maker.make(Part("nap0", tables=("table",)))))
    made.output.files["x.bin"](tmp_path / "x.bin")
    assert np.fromfile(tmp_path / "x.bin", np.float32).tolist() == [0.0, 1.0, 2.0]


def test_scratch_of_a_killed_worker_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (tmp_path / f"{SCRATCH}{done.pid}-abc").mkdir()
    (tmp_path / f"{SCRATCH}{os.getppid()}-abc").mkdir()
    Maker({}).close()
    assert [path.name for path in tmp_path.iterdir()] == [f"{SCRATCH}{os.getppid()}-abc"]
