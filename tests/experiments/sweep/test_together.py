"""Members run as many at once as memory holds, and give the same results however many these are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.storage.memory import OutOfMemoryError
from experiments.sweep.draws import POOLS, Draws
from experiments.sweep.mapping import MemberMap, equal_parts
from experiments.sweep.plan import plan
from experiments.sweep.programs import Sweep
from experiments.sweep.study import SweepStudy
from experiments.sweep.together import Together
from synth.tasks import make_task
from tests.experiments.tiny import tiny
from tests.xla_flags import XLA_FLAGS

ROOT = Path(__file__).parents[3]
DEVICE = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 100 * 2**30})
RAN_OUT = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


def python(script: str, *arguments: str, devices: int) -> str:
    """Output of a process with so many host devices."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=os.environ
        | {
            "XLA_FLAGS": f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}",
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Holding:
    """Work whose memory holds a number of members; notes how many it was asked to run at once."""

    def __init__(self, most: int, error: Exception = RAN_OUT):
        self.most, self.error, self.asked = most, error, []

    def __call__(self, members, places):
        self.asked.append((len(members), places))
        if places > self.most:
            raise self.error
        return [member * 10 for member in members]


@pytest.mark.parametrize("error", [RAN_OUT, MemoryError()])
def test_half_as_many_members_run_when_memory_runs_out(error, capsys):
    together, work = Together([DEVICE]), Holding(2, error)
    assert together.run("kind", range(7), work, most=8) == [0, 10, 20, 30, 40, 50, 60]
    assert work.asked == [(7, 8), (4, 4), (2, 2), (2, 2), (2, 2), (1, 2)]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "4 members run at once from here: memory ran out with 8 members at once.",
        "2 members run at once from here: memory ran out with 4 members at once.",
    ]
    # The size stays, for this kind of work alone.
    again, other = Holding(2), Holding(8)
    together.run("kind", range(4), again, most=8)
    together.run("other", range(4), other, most=8)
    assert again.asked == [(2, 2), (2, 2)]
    assert other.asked == [(4, 8)]
    assert together.fewest == 2


def test_each_device_keeps_a_member():
    together, work = Together([DEVICE] * 4), Holding(4)
    assert together.run("kind", range(6), work, most=6) == [0, 10, 20, 30, 40, 50]
    assert work.asked == [(6, 8), (4, 4), (2, 4)]
    with pytest.raises(OutOfMemoryError, match=r"ran out with 4 member\(s\) at once.*batch_size"):
        together.run("kind", range(6), Holding(3), most=6)


def test_other_errors_pass():
    together = Together([DEVICE])
    with pytest.raises(RuntimeError, match="INTERNAL"):
        together.run("kind", range(4), Holding(2, RuntimeError("INTERNAL: broken")), most=4)
    with pytest.raises(OutOfMemoryError, match="told already"):
        together.run("kind", range(4), Holding(2, OutOfMemoryError("told already")), most=4)
    assert together.fewest is None


def test_the_first_size_comes_from_measured_memory(capsys):
    """Nothing is run in a size that the compiler says will not fit."""
    together, work, asked = Together([DEVICE]), Holding(16), []

    def memory(places):
        asked.append(places)
        return places * 20 * 2**30

    together.run("kind", range(9), work, most=16, memory=memory)
    together.run("kind", range(2), work, most=16, memory=memory)
    assert work.asked == [(4, 4), (4, 4), (1, 4), (2, 4)]
    assert asked == [16, 8, 4]  # once for each size
    assert capsys.readouterr().out.replace("\n", " ").replace("  ", " ") == (
        "8 members run at once from here: 16 would need 320.0 GiB on each device, which has "
        "100.0 GiB. "
        "4 members run at once from here: 8 would need 160.0 GiB on each device, which has "
        "100.0 GiB. "
    )
    # Where nothing is known, nothing is refused.
    Together([DEVICE]).run("kind", range(16), work, most=16, memory=lambda _: None)
    assert work.asked[-1] == (16, 16)


def test_the_compiler_is_not_asked_for_a_size_that_cannot_be_halved():
    def memory(places):
        raise AssertionError(f"asked for {places} places")

    assert Together([DEVICE]).run("kind", [1], Holding(1), most=1, memory=memory) == [10]


def test_mapped_functions_are_halved_too(monkeypatch):
    over, sizes = MemberMap("map"), []
    stack = over.stack

    def limited(trees, *, places):
        sizes.append(places)
        if places > 4:
            raise RAN_OUT
        return stack(trees, places=places)

    monkeypatch.setattr(over, "stack", limited)
    results = over.map(lambda tree: tree * 2, [np.float32(n) for n in range(8)], at_once=8)
    assert [float(result) for result in results] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert sizes == [8, 4, 4]


@pytest.mark.parametrize(
    ("count", "most", "size"),
    [(5, 3, 3), (6, 8, 6), (20, 16, 10), (17, 8, 6), (16, 8, 8), (1, 4, 1)],
)
def test_equal_parts(count, most, size):
    assert equal_parts(count, most) == size


# A sweep.


def halving(sweep: Sweep, monkeypatch, most: int) -> list[int]:
    """Let the memory of a sweep hold so many members; returns the sizes that were tried."""
    stack, sizes = sweep.members.stack, []

    def limited(trees, *, places):
        sizes.append(places)
        if places > most:
            raise RAN_OUT
        return stack(trees, places=places)

    monkeypatch.setattr(sweep.members, "stack", limited)
    return sizes


def leaves_of(outcomes) -> list[np.ndarray]:
    return [
        np.asarray(leaf)
        for each in outcomes
        for leaf in jax.tree.leaves(
            (each.train, each.in_distribution, each.final_loss, each.test, each.parameters)
        )
    ]


@pytest.mark.slow
def test_a_sweep_halves_and_its_results_stay_the_same_bit_for_bit(monkeypatch, capsys):
    config = tiny(difficulties=(2,), seeds=4, chunk_members=8)
    bases = Sweep(config).pretrain_bases([0])
    whole, halved = Sweep(config), Sweep(config)
    sizes = halving(halved, monkeypatch, 4)
    (chunk,) = plan(whole.draws)
    for ours, theirs in zip(
        *(leaves_of(sweep.finetune_chunk(chunk, bases)) for sweep in (whole, halved)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert sizes[:2] == [8, 4]
    assert set(sizes[2:]) == {4}
    assert "4 members run at once from here" in capsys.readouterr().out
    # The manifest's session says so.
    study = SweepStudy(config, Path("unused"), recipe="tiny", preset="test")
    assert study.session_fields() == {"traces": 0, "programs_traced": 0}
    study.sweep = halved
    assert study.session_fields()["members_at_once"] == 4


def test_a_group_under_vmap_has_no_more_places_than_it_needs():
    """Six members in chunks of eight: two copies were trained for nothing."""
    config = tiny(difficulties=(2,), seeds=3, chunk_members=8, mapping="vmap")
    sweep = Sweep(config)
    (chunk,) = plan(sweep.draws)
    assert (len(chunk.members), chunk.largest) == (6, 6)
    assert sweep._most_places(chunk.largest) == 6
    # `map` skips empty places, and all groups share the evaluation.
    assert Sweep(tiny(chunk_members=8))._most_places(6) == 8
    # Later chunks of a group have the places of its first.
    chunks = plan(Draws(tiny(difficulties=(2,), seeds=5, chunk_members=8), sweep.task))
    assert [(len(chunk.members), chunk.largest) for chunk in chunks] == [(8, 8), (2, 8)]


MEMBERS_ON_DEVICES = """
import sys
import jax, numpy as np
from experiments.sweep.plan import plan
from experiments.sweep.programs import Sweep
from synth.decoder import initialise
from tests.experiments.sweep.test_together import leaves_of
from tests.experiments.tiny import tiny

assert jax.local_device_count() == int(sys.argv[1])
config = tiny(difficulties=(2,), seeds=4, chunk_members=8, compute=60.0, mapping=sys.argv[2])
sweep = Sweep(config)
(chunk,) = plan(sweep.draws)
base = initialise(sweep.decoder, jax.random.key(0))
np.savez(sys.argv[3], *leaves_of(sweep.finetune_chunk(chunk, [base])))
"""


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    """Function of mapping and number of devices that gives the results of eight members."""
    folder = tmp_path_factory.mktemp("devices")

    def run(mapping: str, devices: int) -> list[np.ndarray]:
        path = folder / f"{mapping}-{devices}.npz"
        python(MEMBERS_ON_DEVICES, str(devices), mapping, str(path), devices=devices)
        with np.load(path) as file:
            return [file[name] for name in file.files]

    return run


@pytest.mark.slow
def test_eight_devices_give_the_results_of_one_bit_for_bit(on_devices):
    one, eight = on_devices("map", 1), on_devices("map", 8)
    assert len(one) > 8
    for ours, theirs in zip(eight, one, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_under_vmap_eight_devices_agree_with_one_up_to_rounding(on_devices):
    """Sixty steps multiply rounding; right answers change in near ties alone, here nowhere."""
    one, eight = on_devices("vmap", 1), on_devices("vmap", 8)
    for ours, theirs in zip(eight, one, strict=True):
        if theirs.dtype == bool:
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


# Memory.


def test_test_draws_of_earlier_seeds_are_dropped():
    config = tiny(seeds=2 * POOLS, test_examples=1, test_hardest=3, difficulties=(1,))
    draws = Draws(config, make_task(config.task, config.task_options, hardest=3))
    first = draws.slice_pools("test", 0, 0)
    assert draws.slice_pools("test", 0, 0) is first
    draws._bucket = lambda *_: object()  # type: ignore[method-assign,assignment]
    for seed in range(1, 2 * POOLS):
        draws.slice_pools("test", 0, seed)
    assert draws.slice_pools("test", 0, 0) is not first


PEAK = """
import dataclasses, sys
from pathlib import Path
from experiments.storage.memory import peak_memory
from experiments.sweep.study import run_sweep
from tests.experiments.tiny import tiny

config = tiny(
    difficulties=(1,), data_sizes=(64,), compute=1.0, seeds=int(sys.argv[1]), test_examples=512,
    risk_examples=256, chunk_members=4, save_members=False, save_predictions=False,
)
config = dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, steps=1))
run_sweep(config, Path(sys.argv[2]), recipe="tiny", preset="test")
print("peak", peak_memory())
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_grid(tmp_path):
    peaks = []
    for seeds in (8, 80):
        output = python(PEAK, str(seeds), str(tmp_path / str(seeds)), devices=2)
        peaks.append(int(output.split()[-1]))
    assert peaks[1] < 1.12 * peaks[0], peaks


GENUINE = """
import resource
import jax, jax.numpy as jnp, numpy as np
from experiments.sweep.together import Together

program = jax.jit(lambda xs: jnp.repeat(xs[:, None], 2**24, axis=1))  # 64 MiB for each

def work(members, places):
    xs = np.zeros(places, np.float32)
    xs[: len(members)] = members
    return program(xs)[: len(members), 0].tolist()

work([1.0], 1)
lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
used = int(lines["VmSize"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
together = Together(jax.devices())
assert together.run("kind", range(32), work, most=32) == list(range(32))
print(together.fewest)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space by /proc")
def test_genuine_lack_of_memory_halves_too():
    """Thirty-two members that take at least 64 MiB each, in 1 GiB."""
    output = python(GENUINE, devices=1)
    assert "members run at once from here: memory ran out with 32 members at once." in output
    assert 1 <= int(output.split()[-1]) < 32
