"""One optimiser step on a real checkpoint, as a compiled program.

Gradients of summed losses are added up over micro-batches, then divided by the number of solution
tokens in all of them. So every token has the same weight, whichever micro-batch it is in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from experiments.llm.text.loader import Batch
from experiments.llm.training.config import StepConfig
from experiments.llm.training.lora import join, split
from experiments.llm.training.loss import loss_sums
from experiments.storage.sharding import parameter_sharding, spread
from synth.config import DecoderConfig, Optimiser
from synth.decoder import Parameters, initialise


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """State of the optimisation, which a step updates.

    Attributes:
      trained: the parameters that are trained, in float32: all, or the adapters alone.
      moments: state of the optimiser.
    """

    trained: Parameters
    moments: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepMetrics:
    """Metrics of a step, for the log.

    Attributes:
      loss: mean over the solution tokens of the step before its update, in nats.
      gradient_norm: global norm of the gradient before clipping.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]


Step = Callable[[Parameters, State, Batch, Float[Array, ""]], tuple[State, StepMetrics]]
"""``(frozen, state, batch, learning_rate) -> (state, metrics)``; the old state is donated."""


def _is_matrix(parameters: Parameters) -> Any:
    """Mask of the parameters with weight decay: all but gains and biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("gain", "bias"), parameters
    )


def _transformation(optimiser: Optimiser) -> optax.GradientTransformation:
    """AdamW without its learning rate, by which the step multiplies the update."""
    return optax.chain(
        optax.clip_by_global_norm(optimiser.clip),
        optax.scale_by_adam(b2=optimiser.b2),
        optax.add_decayed_weights(optimiser.weight_decay, mask=_is_matrix),
    )


def start(
    decoder: DecoderConfig, parameters: Parameters, config: StepConfig, *, mesh: Mesh | None = None
) -> tuple[Parameters, State]:
    """Frozen parameters, and the state before the first step.

    Args:
      decoder: shape of the model; if it has adapters, only these are trained.
      parameters: its weights. The state holds the trained ones themselves, not copies.
      config: of the steps.
      mesh: devices that hold the parameters.
    """
    frozen, trained = split(parameters) if decoder.lora else ({}, parameters)
    init = _transformation(config.optimiser).init
    with jax.numpy_dtype_promotion("standard"):
        shapes = jax.eval_shape(init, trained)
        moments = jax.jit(init, out_shardings=_shardings(shapes, mesh))(trained)
    return frozen, State(trained, moments)


def _shardings(tree: Any, mesh: Mesh | None) -> Any:
    """Shardings of a state, or of a part of it; scalars are on all devices."""
    if mesh is None:
        return None

    def sharding(path, leaf):
        # Moments hold the parameters' tree inside fields of optax: only the keys of dictionaries
        # are names of parameters.
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        if not names:
            return NamedSharding(mesh, PartitionSpec())
        return parameter_sharding("/".join(names), leaf.shape, mesh)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _state_shardings(decoder: DecoderConfig, config: StepConfig, mesh: Mesh) -> Any:
    def state():
        parameters = initialise(decoder, jax.random.key(0))
        trained = split(parameters)[1] if decoder.lora else parameters
        with jax.numpy_dtype_promotion("standard"):
            return State(trained, _transformation(config.optimiser).init(trained))

    return _shardings(jax.eval_shape(state), mesh)


@functools.cache
def make_step(decoder: DecoderConfig, config: StepConfig, mesh: Mesh | None = None) -> Step:
    """Program of a step, compiled once for each shape of batch.

    Args:
      decoder: shape of the model, and how it computes.
      config: of the step.
      mesh: devices that hold the parameters and share the rows of each micro-batch.
    """
    transformation = _transformation(config.optimiser)

    def sums(trained, frozen, micro):
        """Loss and number of solution tokens, summed over a micro-batch."""
        parameters = join(frozen, trained) if decoder.lora else trained
        return loss_sums(
            decoder,
            parameters,
            micro.tokens,
            micro.positions,
            micro.loss_mask,
            config.loss,
            segments=micro.segments if config.packed else None,
            chunk_tokens=config.chunk_tokens,
        )

    def gradients(trained, frozen, batch):
        """Gradient, loss and number of solution tokens, summed over the micro-batches."""

        def one(number):
            micro = jax.tree.map(lambda leaf: leaf[number], batch)
            (loss, weight), gradient = jax.value_and_grad(sums, has_aux=True)(
                trained, frozen, micro
            )
            return gradient, loss, weight

        # The first sum starts the loop: zeros would need the shapes of all gradients.
        first = one(0)
        if len(batch.tokens) == 1:
            return first
        return jax.lax.fori_loop(
            1,
            _num_used(batch),
            lambda number, total: jax.tree.map(jnp.add, total, one(number)),
            first,
        )

    # Pure data meshes only: with fsdp or tp, XLA aborts on this shard_map (jaxlib 0.10.2).
    if mesh is not None and mesh.shape.get("data", 1) == mesh.size > 1:
        gradients = _summed_over_data(gradients, mesh)

    def step(frozen, state, batch, learning_rate):
        gradient, loss, weight = gradients(state.trained, frozen, batch)
        gradient = jax.tree.map(lambda leaf: leaf / weight, gradient)
        # optax mixes scalars of several types, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            norm = optax.tree.norm(gradient)
            update, moments = transformation.update(gradient, state.moments, state.trained)
        trained = jax.tree.map(lambda old, new: old - learning_rate * new, state.trained, update)
        return State(trained, moments), StepMetrics(loss / weight, norm)

    # Fix where the new state goes: the compiler might choose other shardings than those of the old
    # state, for which the second step would be compiled again.
    places = None if mesh is None else (_state_shardings(decoder, config, mesh), None)
    return jax.jit(
        step,
        donate_argnums=1,
        out_shardings=places,
        compiler_options=compiler_options(decoder, mesh),
    )


def _num_used(batch: Batch) -> Int[Array, ""]:
    """Number of the last micro-batch with a solution token, counted from 1.

    Those behind it hold padding alone, which adds nothing. Where rows are packed, a step seldom
    fills all micro-batches.
    """
    is_used = jnp.any(batch.loss_mask, (1, 2))
    return jnp.max(jnp.where(is_used, jnp.arange(len(is_used)) + 1, 0))


def compiler_options(decoder: DecoderConfig, mesh: Mesh | None) -> dict[str, Any] | None:
    """Let the products of a lone host device use every core, whatever XLA's flags say.

    `experiments.devices` gives each core a device with a single thread, for many small models.
    """
    if mesh is not None or jax.default_backend() != "cpu":
        return None
    options: dict[str, Any] = {"xla_cpu_multi_thread_eigen": True}
    if decoder.execution is not None and decoder.execution.dtype == "bfloat16":
        # The level of the flags is enough for float32, but takes 1.4 times as long in bfloat16.
        options["xla_backend_optimization_level"] = 3
    return options


def _summed_over_data(gradients: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Sum gradients over the micro-batches of each device first, then once over all devices.

    The compiler by itself would sum every gradient over the devices in every micro-batch.
    """

    def summed(trained, frozen, batch):
        # Mark parameters as varying: the gradient with respect to replicated ones is itself a sum
        # over the devices.
        own = jax.lax.pcast((trained, frozen), "data", to="varying")
        return jax.lax.psum(gradients(*own, batch), "data")

    everywhere = PartitionSpec()
    return jax.shard_map(
        summed,
        mesh=mesh,
        in_specs=(everywhere, everywhere, PartitionSpec(None, "data")),
        out_specs=everywhere,
        axis_names={"data"},
    )


def place(batch: Batch, mesh: Mesh | None) -> Batch:
    """Put a batch of the loader on the devices, a part of its rows on each.

    Args:
      batch: the whole batch, in every process.
      mesh: the devices; None for the default device.
    """
    return jax.tree.map(lambda field: spread(field, mesh, axis=1), batch)
