"""The clock of a session: phases inside phases, and compilation told apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from experiments.engine.phases import Phases


class Clock:
    """Tells the time that it was set to, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_goes_to_the_innermost_phase(clock):
    phases = Phases(clock)
    clock.now = 1.0
    with phases("train"):
        clock.now = 3.0
        with phases("stack"):
            clock.now = 7.0
        clock.now = 15.0
    clock.now = 31.0
    with phases("train"):
        clock.now = 63.0
    assert phases.told() == {"rest": 17.0, "train": 42.0, "stack": 4.0}


def test_a_phase_ends_with_an_exception(clock):
    phases = Phases(clock)

    def fail() -> None:
        with phases("train"):
            clock.now = 1.0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    clock.now = 3.0
    assert phases.told() == {"train": 1.0, "rest": 2.0}


def test_time_up_to_now_is_told_inside_a_phase(clock):
    phases = Phases(clock)
    with phases("train"):
        clock.now = 2.0
        assert phases.told()["train"] == 2.0


def test_compilation_is_taken_out_of_its_phase_once(clock):
    phases = Phases(clock)
    with phases("train"):
        clock.now = 10.0
        phases.compiled(2.0)
        # From 13 to 20 s, with another program inside it from 15 to 16 s.
        clock.now = 16.0
        phases.compiled(1.0)
        clock.now = 20.0
        phases.compiled(7.0)
        clock.now = 21.0
    assert phases.told() == {"rest": 0.0, "train": 12.0, "compile": 9.0}


def test_time_before_it_runs_is_not_counted(clock):
    phases = Phases(clock)
    clock.now = 100.0
    with phases.running():
        clock.now = 101.0
    clock.now = 200.0
    with phases.running():
        clock.now = 202.0
    assert phases.told()["rest"] == 3.0


def test_what_jax_compiles_is_counted_while_the_clock_runs():
    def fresh():
        return jax.jit(lambda x: jnp.sin(x) + 1.0)

    x = jnp.ones(3)
    phases = Phases()
    fresh()(x)
    assert "compile" not in phases.told()
    with phases.running(), phases("train"):
        fresh()(x).block_until_ready()
    compiled = phases.told()["compile"]
    assert compiled > 0
    fresh()(x)
    assert phases.told()["compile"] == compiled


def test_the_first_time_of_each_phase_is_kept():
    phases = Phases()
    with phases("train"):
        pass
    began = dict(phases.began)
    with phases("train"), phases("write"):
        pass
    assert phases.began["train"] == began["train"] <= phases.began["write"]
