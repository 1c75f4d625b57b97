"""Where the parts of a study are made: in this process, or by workers on a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from experiments.engine.run import Executor

OF_RAY = (
    *("address", "num_workers", "num_cpus_per_task", "num_gpus_per_task", "retries", "patience"),
)
"""Fields that only the executor ``ray`` reads."""


@dataclass(frozen=True)
class Workers:
    """Where parts are made, and where finished files are copied.

    Attributes:
      executor: local makes parts one after the other in this process, ray on a Ray cluster.
      address: of the Ray cluster. auto joins the one that runs on this machine (or that RAY_ADDRESS
        names) and starts a Ray of its own on this machine if there is none; local always starts its
        own; HOST:PORT joins that one or fails. Its own Ray is stopped at the end.
      num_workers: worker processes at most; 0 for as many as fit on the cluster.
      num_cpus_per_task: CPU cores of a worker. Without a GPU, each is one JAX device.
      num_gpus_per_task: GPUs of a worker, a whole number or a share of one; 0 for none.
      retries: how often a part is made again because its worker or node died.
      patience: seconds to wait for the cluster to answer, and for a node with the resources of one
        worker to join it.
      mirror: URL of a folder (file://, s3://, gs:// …, see fsspec) that finished files are copied
        to after each part. A missing or empty run directory is first copied down from there.

    Raises:
      ValueError: if a field is out of range, or has no effect because it needs the executor ray.
    """

    executor: Literal["local", "ray"] = "local"
    address: str = "auto"
    num_workers: int = 0
    num_cpus_per_task: int = 1
    num_gpus_per_task: float = 0.0
    retries: int = 3
    patience: float = 30.0
    mirror: str | None = None

    def __post_init__(self) -> None:
        if self.executor not in ("local", "ray"):
            raise ValueError(f"executor must be local or ray, got {self.executor!r}")
        is_address = self.address in ("auto", "local") or _is_host_and_port(self.address)
        if not is_address:
            raise ValueError(
                f"address must be auto, local or HOST:PORT, got {self.address!r} "
                f"(start the command on a node of the cluster)"
            )
        for name, least in (("num_workers", 0), ("num_cpus_per_task", 1), ("retries", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        gpus = self.num_gpus_per_task
        if not (0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
            raise ValueError(
                f"num_gpus_per_task must be a whole number, or a share below 1, got {gpus}"
            )
        if not 0 < self.patience < float("inf"):
            raise ValueError(f"patience must be a positive number of seconds, got {self.patience}")
        if self.mirror is not None and "://" not in self.mirror:
            raise ValueError(
                f"mirror must be a URL such as s3://bucket/folder or file:///folder, "
                f"got {self.mirror!r}"
            )
        if self.executor == "local":
            for field in dataclasses.fields(self):
                if field.name in OF_RAY and getattr(self, field.name) != field.default:
                    raise ValueError(
                        f"{field.name} = {getattr(self, field.name)!r} needs executor = ray"
                    )

    @contextlib.contextmanager
    def start(self, directory: Path) -> Iterator[Executor]:
        """Start what makes the parts of a run, and stop it at the end.

        Args:
          directory: of the run: what is copied to the mirror, or from there if it is empty.

        Raises:
          ImportError: if Ray or fsspec is needed and missing.
          ExpectedError: if cluster or mirror cannot be used, or no node has what a worker needs.
        """
        for package, is_needed in (("ray", self.executor == "ray"), ("fsspec", bool(self.mirror))):
            if is_needed and importlib.util.find_spec(package) is None:
                raise ImportError(f"{package} is missing: pip install 'sweetspot-sft[ray]'")
        with contextlib.ExitStack() as stack:
            mirror = None
            if self.mirror is not None:
                from experiments.engine.mirror import Mirror

                mirror = Mirror(self.mirror, directory)
                mirror.copy_down()
            if self.executor == "ray":
                # First of all, so that JAX in this process takes no GPU from the workers.
                from experiments.engine.cluster import Cluster

                executor = stack.enter_context(Cluster(self))
            else:
                from experiments.engine.run import in_this_process as executor
            if mirror is None:
                yield executor
            else:
                yield mirror.after_each_part(executor)
                mirror.finish()


def _is_host_and_port(address: str) -> bool:
    matched = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", address)
    return matched is not None and 0 < int(matched[2]) < 2**16


IN_THIS_PROCESS = Workers()
