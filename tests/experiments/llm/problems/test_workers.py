"""Worker processes may hang or die without harm to the caller."""

import os
import time

import pytest

from experiments.llm.problems import workers
from experiments.llm.problems.workers import Lost, map_in_workers


def respond(item):
    """Square an item, unless it asks for trouble."""
    if item == "hang":
        # Like one long operation of a library, during which Python handles no signal.
        while True:
            time.sleep(60)
    if item == "crash":
        os._exit(3)
    return item * item


def fill(item):
    """Take so many mebibytes of memory."""
    return len(bytearray(item * 2**20))


def fail():
    os._exit(4)


def wait():
    time.sleep(60)


def test_results_in_order_whatever_happens_to_some():
    items = [2, "crash", 3, "hang", 4, "word", "crash", 5]
    began = time.monotonic()
    results = map_in_workers(respond, items, timeout=1.0, processes=2)
    assert time.monotonic() - began < 20
    assert results[5].reason == "error"
    assert "TypeError" in results[5].detail
    crash, hang = Lost("crash"), Lost("timeout")
    assert results[:5] + results[6:] == [4, crash, 9, hang, 16, crash, 25]


def test_an_item_that_fills_the_memory_is_lost():
    results = map_in_workers(fill, [1, 3000, 2], timeout=30.0, processes=1)
    assert results[0] == 2**20
    assert results[1].reason == "error"
    assert "MemoryError" in results[1].detail
    assert results[2] == 2 * 2**20


def test_nothing_to_do():
    assert map_in_workers(respond, [], timeout=1.0) == []


def test_a_process_that_cannot_start_is_an_error():
    with pytest.raises(RuntimeError, match=r"could not start \(crash, exit code 4\)"):
        map_in_workers(respond, [1, 2], timeout=1.0, processes=1, prepare=fail)


def test_a_process_that_does_not_get_ready_is_an_error(monkeypatch):
    monkeypatch.setattr(workers, "START_SECONDS", 0.5)
    with pytest.raises(RuntimeError, match=r"could not start \(timeout"):
        map_in_workers(respond, [1], timeout=60.0, prepare=wait)
