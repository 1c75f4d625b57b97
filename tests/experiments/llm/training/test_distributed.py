"""Settings of processes, and one process alone; `test_processes` runs several."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.llm.training.config import Processes
from experiments.llm.training.distributed import first_decides, gathered, is_first


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_processes": 0}, "num_processes must be at least 1, got 0"),
        ({"num_processes": 2}, "coordinator must be host:port, got None"),
        (
            {"num_processes": 2, "coordinator": "host", "process_id": 0},
            "coordinator must be host:port, got 'host'",
        ),
        (
            {"num_processes": 2, "coordinator": "host:1"},
            "process_id must be between 0 and 1, got None",
        ),
        (
            {"num_processes": 2, "coordinator": "host:1", "process_id": 2},
            "process_id must be between 0 and 1, got 2",
        ),
    ],
)
def test_a_wrong_field_is_told(fields, message):
    with pytest.raises(ValueError, match=message):
        Processes(**fields)


def test_one_process_is_the_first_and_waits_for_nobody():
    Processes().join()
    assert is_first()
    assert first_decides(lambda: True)
    assert not first_decides(lambda: False)
    with pytest.raises(ZeroDivisionError):
        first_decides(lambda: 1 / 0 > 0)


def test_gathered_parameters_are_on_the_host():
    parameters = gathered({"a": {"b": jnp.arange(3, dtype=jnp.bfloat16)}})
    assert isinstance(parameters["a"]["b"], np.ndarray)
    np.testing.assert_array_equal(parameters["a"]["b"], jnp.arange(3, dtype=jnp.bfloat16))
