"""Map a function of one member over many: sharded over the devices, then mapped on each.

On a CPU `jax.lax.map` runs the members of a device one after the other, so that results do not
depend on the number of devices. Elsewhere `jax.vmap` runs them together.

All chunks of a group have one shape, so that they share a compiled program. The places that a
smaller chunk leaves empty hold copies of its first member. `jax.lax.map` skips them; `jax.vmap`
computes them for nothing, so that a group has no more places there than its largest chunk needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from experiments.engine.phases import Phases
from experiments.sweep.grid import MemberMapping
from experiments.sweep.together import Together

MEMBERS = PartitionSpec("members")


def equal_parts(count: int, most: int) -> int:
    """Size of the fewest equal parts of at most `most` that hold `count` members."""
    return math.ceil(count / math.ceil(count / most))


class Stacked(NamedTuple):
    """Trees of several members, stacked along a leading axis of places.

    Attributes:
      tree: each leaf [places, …], on the devices.
      is_used: false at places that hold a copy [places].
    """

    tree: Any
    is_used: Bool[Array, " places"] | Bool[np.ndarray, " places"]


class MemberMap:
    """Stacks members over the devices, maps functions over them, and takes results apart again.

    Attributes:
      mesh: the devices.
      mapping: ``map`` or ``vmap``.
      together: how many members run at once.
    """

    def __init__(
        self,
        mapping: MemberMapping,
        *,
        devices: Sequence[Any] | None = None,
        phases: Phases | None = None,
    ):
        """Make the mesh.

        Args:
          mapping: how members run inside a device; ``auto`` chooses by the platform.
          devices: default all of this process.
          phases: the clock that stacking is counted by.
        """
        devices, self._phases = devices or jax.local_devices(), phases or Phases()
        self.mesh = jax.make_mesh(
            (len(devices),), ("members",), axis_types=(AxisType.Auto,), devices=devices
        )
        if mapping == "auto":
            mapping = "map" if devices[0].platform == "cpu" else "vmap"
        self.mapping = mapping
        self.together = Together(devices)

    def _places(self, count: int, places: int) -> Int[np.ndarray, " members"]:
        """Place of each member: devices take turns, so that all have equally much to do."""
        members = np.arange(count)
        return members % self.mesh.size * (places // self.mesh.size) + members // self.mesh.size

    def stack(self, trees: list[Any], *, places: int = 0) -> Stacked:
        """Stack the trees of members.

        Args:
          trees: one for each member.
          places: at least so many; rounded up to a multiple of the devices.
        """
        with self._phases("stack"):
            return self._stacked(trees, places)

    def _stacked(self, trees: list[Any], places: int) -> Stacked:
        places = math.ceil(max(places, len(trees)) / self.mesh.size) * self.mesh.size
        own = self._places(len(trees), places)
        filled = [trees[0]] * places
        for place, tree in zip(own, trees, strict=True):
            filled[place] = tree
        # Stacked on the host: stacking on the device would compile a program for each shape.
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(filled))
        is_used = np.isin(np.arange(places), own)
        return jax.device_put(Stacked(stacked, is_used), NamedSharding(self.mesh, MEMBERS))

    def shapes(self, tree: Any, *, places: int) -> Stacked:
        """Shapes of so many trees like this one when they are stacked.

        Args:
          tree: of one member.
          places: a multiple of the devices.
        """
        sharding = NamedSharding(self.mesh, MEMBERS)

        def shape(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((places, *leaf.shape), leaf.dtype, sharding=sharding)

        return Stacked(jax.tree.map(shape, tree), shape(np.bool_(True)))  # type: ignore[arg-type]

    def unstack(self, stacked: Any, count: int) -> list[Any]:
        """Take the trees of the first `count` members apart, on the host."""
        host = jax.device_get(stacked)
        places = len(jax.tree.leaves(host)[0])
        return [
            jax.tree.map(lambda leaf, place=place: leaf[place], host)
            for place in self._places(count, places)
        ]

    def map(self, function: Callable[..., Any], trees: list[Any], *, at_once: int) -> list[Any]:
        """Map a function over the trees of members, in equal parts of at most `at_once`.

        Raises:
          OutOfMemoryError: see `Together.run`.
        """
        program = jax.jit(self.over(function))

        def run(part: Sequence[Any], places: int) -> list[Any]:
            return self.unstack(program(self.stack([*part], places=places)), len(part))

        most = equal_parts(len(trees), at_once)
        return self.together.run("map", trees, run, most=most)

    def over(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Map a function of one member's tree, and of arguments that members share.

        Args:
          function: the code for one member.

        Returns:
          A function of `Stacked` and the shared arguments; its results have the leading axis of
          places. Every device holds the shared arguments whole.
        """

        def on_a_device(stacked: Stacked, shared: tuple[Any, ...]) -> Any:
            # Jitted, so that `eval_shape` and the call in `if_used` share one trace.
            member = jax.jit(lambda tree: function(tree, *shared))

            def if_used(place):
                tree, is_used = place
                shapes = jax.eval_shape(member, tree)
                nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
                return jax.lax.cond(is_used, member, lambda _: nothing, tree)

            if self.mapping == "vmap":
                return jax.vmap(member)(stacked.tree)
            return jax.lax.map(if_used, tuple(stacked))

        sharded = jax.shard_map(
            on_a_device,
            mesh=self.mesh,
            in_specs=(MEMBERS, PartitionSpec()),
            out_specs=MEMBERS,
            check_vma=False,
        )
        return lambda stacked, *shared: sharded(stacked, shared)
