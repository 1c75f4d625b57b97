"""The connection to a Ray cluster: join one, or start one on this machine; what its nodes have."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import ray

from experiments.devices import num_cores
from experiments.engine.workers import Workers
from experiments.errors import ExpectedError

PROBE = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
"""
"""Joins a cluster in a process of its own: `ray.init` waits for minutes where no Ray answers."""


@contextlib.contextmanager
def connect(config: Workers) -> Iterator[tuple[bool, str]]:
    """Join a cluster, or start one on this machine that ends with the context.

    Yields:
      Whether the cluster is one's own, and the address of its dashboard, "" if it has none.

    Raises:
      ExpectedError: if the cluster does not answer within the patience.
    """
    if ray.is_initialized():
        raise ExpectedError("this process is connected to a Ray cluster already: ray.shutdown()")
    # Nothing is reported to Ray's makers, and a worker without GPUs keeps its environment.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = config.address
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        if address not in ("auto", "local"):
            _probe(address, config.patience)
        try:
            context, is_own = _start(address), address == "local"
        except ConnectionError:
            # `auto`, and no Ray runs on this machine.
            context, is_own = _start("local"), True
        yield is_own, context.dashboard_url or ""
    finally:
        ray.shutdown()


def _start(address: str) -> Any:
    """Call `ray.init`, and leave this process's handling of signals as it was."""
    own = {"num_cpus": num_cores(), "include_dashboard": True} if address == "local" else {}
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if is_main else None
    with warnings.catch_warnings():
        # JAX warns when a process is started after it: Ray's processes are new programs.
        warnings.simplefilter("ignore")
        context = ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True, **own)
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)
    return context


def _probe(address: str, patience: float) -> None:
    """Check that a cluster answers at an address.

    Raises:
      ExpectedError: if it does not within `patience` seconds.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=patience).close()
    except (OSError, ValueError) as error:
        raise ExpectedError(f"no Ray cluster can be reached at {address}: {error}") from error
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, address],
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExpectedError(
            f"what listens at {address} did not answer as a Ray cluster within patience = "
            f"{patience:g} seconds"
        ) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ExpectedError(f"the Ray cluster at {address} cannot be joined: {lines[-1]}")


def nodes() -> list[dict[str, Any]]:
    """Resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def workers_that_fit(config: Workers) -> int:
    """How many workers all nodes hold together."""
    return sum(_fit(node, config) for node in nodes())


def _fit(node: dict[str, Any], config: Workers) -> int:
    number = math.floor(node.get("CPU", 0) / config.num_cpus_per_task)
    gpus = config.num_gpus_per_task
    if not gpus:
        return number
    # Workers that need a share of a GPU stay within one.
    on_gpus = node.get("GPU", 0) / gpus if gpus >= 1 else node.get("GPU", 0) * math.floor(1 / gpus)
    return min(number, math.floor(on_gpus))


def request_node(config: Workers) -> None:
    """Ask the cluster's autoscaler, if it has one, for a node that holds a worker."""
    from ray.autoscaler.sdk import request_resources

    needs = {"CPU": config.num_cpus_per_task, "GPU": config.num_gpus_per_task}
    request_resources(bundles=[{name: number for name, number in needs.items() if number}])


def describe_nodes() -> str:
    """Words for the cluster: the number of its nodes, CPUs and GPUs."""
    found = nodes()
    cpus, gpus = (sum(node.get(name, 0) for node in found) for name in ("CPU", "GPU"))
    return f"{len(found)} node(s), {cpus:g} CPUs, {gpus:g} GPUs"


def describe_largest() -> str:
    """Words for the most that any one node has."""
    cpus, gpus = (max((node.get(n, 0) for node in nodes()), default=0) for n in ("CPU", "GPU"))
    return f"a node has at most {cpus:g} CPUs and {gpus:g} GPUs"
