"""Placement of parameters and batches on a device mesh ``data × fsdp × tp``.

``data`` splits the rows of a batch and keeps a copy of all parameters in each of its parts, which
is fastest if they fit into memory. ``fsdp`` splits the rows too, and every matrix, to save memory.
``tp`` splits the attention heads and the SwiGLU's width, so that each pair of matrices around them
needs one sum over devices (Shoeybi et al. 2019, arXiv 1909.08053).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from synth.decoder import Parameters

ROW_AXES = ("data", "fsdp")
"""Mesh axes that split the rows of a batch."""

AXES = (*ROW_AXES, "tp")

RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(query|key|value|gate|up)/kernel", ("fsdp", "tp")),
    (r"(query|key|value|gate|up)/lora_a", ("fsdp", None)),
    (r"(query|key|value|gate|up)/lora_b", (None, "tp")),
    (r"(query|key|value)/bias", ("tp",)),
    (r"(output|down)/kernel", ("tp", "fsdp")),
    (r"(output|down)/lora_a", ("tp", None)),
    (r"(output|down)/lora_b", (None, "fsdp")),
    (r"embedding", ("tp", "fsdp")),
    (r"head", ("fsdp", "tp")),
    (r"\w*norm/gain", ()),
)
"""Pattern for the end of a parameter's path, and the mesh axis of each of its last dimensions."""


def make_mesh(*, data: int = 1, fsdp: int = 1, tp: int = 1) -> Mesh:
    """Mesh of the first devices, over which the compiler chooses the shardings of intermediates.

    Raises:
      ValueError: if there are fewer devices, or if there are several processes and the mesh would
        leave devices out.
    """
    sizes, num_devices = (data, fsdp, tp), jax.device_count()
    size = math.prod(sizes)
    if min(sizes) < 1 or size > num_devices or (jax.process_count() > 1 and size < num_devices):
        most = "the number of devices," if jax.process_count() > 1 else "1 to"
        raise ValueError(
            f"data × fsdp × tp must be {most} {num_devices} (a CPU has one device a core), "
            f"got {data} × {fsdp} × {tp}"
        )
    devices = jax.devices()[:size]
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def row_split(mesh: Mesh | None) -> int:
    """Number of parts that the rows of a batch are split into."""
    if mesh is None:
        return 1
    return math.prod(mesh.shape[axis] for axis in ROW_AXES if axis in mesh.axis_names)


def spread(array: np.ndarray, mesh: Mesh | None, *, axis: int = 0) -> jax.Array:
    """Put an array on the devices, a part of its rows on each.

    Args:
      array: the whole array, in every process.
      mesh: the devices; None for the default device.
      axis: axis of the rows; `row_split` must divide its size.
    """
    if mesh is None:
        return jnp.asarray(array)
    names = tuple(name for name in ROW_AXES if name in mesh.axis_names)
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, names or None))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def parameter_sharding(path: str, shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """Sharding of one parameter by `RULES`; a dimension that does not divide evenly is not split.

    Args:
      path: names from the root of `Parameters`, joined by slashes.
      shape: its shape, with the leading axis of layers; layers are never split.
      mesh: has the axes `AXES`, or some of them.

    Raises:
      ValueError: if the mesh has another axis, or no rule matches the path.
    """
    if unknown := sorted(set(mesh.axis_names) - set(AXES)):
        raise ValueError(f"mesh must have axes among {AXES}, got {unknown}")
    known = [axes for pattern, axes in RULES if re.search(rf"(^|/){pattern}$", path)]
    if len(known) != 1:
        raise ValueError(f"one sharding rule must know the parameter {path!r}, got {len(known)}")
    axes = known[0]
    sizes = shape[len(shape) - len(axes) :]
    split = [
        axis if axis in mesh.axis_names and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(axes, sizes, strict=True)
    ]
    return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - len(axes)), *split))


def parameter_shardings(parameters: Parameters, mesh: Mesh) -> Parameters:
    """`parameter_sharding` of every leaf: an array, or anything else that has a shape."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: parameter_sharding(
            jax.tree_util.keystr(keys, simple=True, separator="/"), leaf.shape, mesh
        ),
        parameters,
    )
