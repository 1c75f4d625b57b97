"""Where parameters live on a mesh ``fsdp × tp``, by their names.

``fsdp`` splits every matrix for memory, and the batch; ``tp`` splits heads and the SwiGLU's width,
so that the pair of matrices around each needs one sum over devices (Shoeybi et al. 2019, arXiv
1909.08053).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from synth.decoder import Parameters

AXES = ("fsdp", "tp")

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


def make_mesh(*, fsdp: int, tp: int = 1) -> Mesh:
    """A mesh of all devices, of all processes, whose shardings the compiler propagates.

    Raises:
      ValueError: if the product is not the number of devices.
    """
    if fsdp < 1 or tp < 1 or fsdp * tp != jax.device_count():
        raise ValueError(
            f"fsdp × tp must be the number of devices, {jax.device_count()}; got {fsdp} × {tp}"
        )
    return jax.make_mesh((fsdp, tp), AXES, axis_types=(AxisType.Auto,) * 2)


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
