"""Where parameters and batches live on a mesh ``data × fsdp × tp``.

``fsdp`` splits every matrix, for memory, and the rows of a batch; ``tp`` splits heads and the
SwiGLU's width, so that the pair of matrices around each needs one sum over devices (Shoeybi et al.
2019, arXiv 1909.08053). ``data`` splits the rows alone: each of its places holds all parameters,
which is fastest where they fit.
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
"""End of a parameter's path, and the mesh axis of each of its last dimensions."""


def make_mesh(*, data: int = 1, fsdp: int = 1, tp: int = 1) -> Mesh:
    """A mesh whose shardings the compiler propagates: of the first devices, where some are left.

    Raises:
      ValueError: if there are not so many devices, or several processes would leave some out.
    """
    sizes, there = (data, fsdp, tp), jax.device_count()
    size = math.prod(sizes)
    if min(sizes) < 1 or size > there or (jax.process_count() > 1 and size < there):
        most = "the number of devices," if jax.process_count() > 1 else "1 to"
        raise ValueError(
            f"data × fsdp × tp must be {most} {there} (a CPU has one device a core), "
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
    """An array on the devices, each with its own rows.

    Args:
      array: whole in every process.
      mesh: None for the default device.
      axis: of the rows, whose number `row_split` divides.
    """
    if mesh is None:
        return jnp.asarray(array)
    names = tuple(name for name in ROW_AXES if name in mesh.axis_names)
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, names or None))
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def parameter_sharding(path: str, shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """Where one parameter lives; a dimension that does not divide evenly is not split.

    Args:
      path: names from the root of `Parameters`, with slashes.
      shape: its shape, a leading axis ``layers`` included; layers are never split.
      mesh: axes `AXES`, or some of them.

    Raises:
      ValueError: if the mesh has another axis, or no rule knows the path.
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
    """`parameter_sharding` of every leaf; anything with a shape is a leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: parameter_sharding(
            jax.tree_util.keystr(keys, simple=True, separator="/"), leaf.shape, mesh
        ),
        parameters,
    )
