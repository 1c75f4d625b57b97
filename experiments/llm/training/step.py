"""One optimiser step on a real checkpoint, as a compiled program.

Micro-batches add up: gradients of summed losses over the sum of the weights, so that a token counts
the same in whichever micro-batch it is, however long the solutions beside it are.
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
from jaxtyping import Array, Float

from experiments.llm.text.loader import Batch
from experiments.llm.training.config import StepConfig
from experiments.llm.training.lora import join, split
from experiments.llm.training.loss import loss_sums
from experiments.storage.sharding import parameter_shardings, spread
from synth.config import DecoderConfig, Optimiser
from synth.decoder import Parameters, initialise


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a step changes.

    Attributes:
      trained: the parameters that are trained, in float32: all, or the adapters alone.
      moments: state of the optimiser.
    """

    trained: Parameters
    moments: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measured:
    """What a step tells.

    Attributes:
      loss: mean over the solution tokens of the step, in nats; before the update.
      gradient_norm: global norm, before it is clipped.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]


Step = Callable[[Parameters, State, Batch, Float[Array, ""]], tuple[State, Measured]]
"""``(frozen, state, batch, learning_rate) -> (state, measured)``; the state is given away."""


def _is_matrix(parameters: Parameters) -> Any:
    """True where weight decay applies: not on gains and biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("gain", "bias"), parameters
    )


def _transformation(optimiser: Optimiser) -> optax.GradientTransformation:
    """AdamW but for the learning rate, which the step multiplies by."""
    return optax.chain(
        optax.clip_by_global_norm(optimiser.clip),
        optax.scale_by_adam(b2=optimiser.b2),
        optax.add_decayed_weights(optimiser.weight_decay, mask=_is_matrix),
    )


def start(
    decoder: DecoderConfig, parameters: Parameters, config: StepConfig, *, mesh: Mesh | None = None
) -> tuple[Parameters, State]:
    """What stays frozen, and the state before the first step.

    Args:
      decoder: with adapters, these alone are trained.
      parameters: its weights; those that are trained are taken over, not copied.
      config: of the steps.
      mesh: where the parameters are.
    """
    frozen, trained = split(parameters) if decoder.lora else ({}, parameters)
    init = _transformation(config.optimiser).init
    with jax.numpy_dtype_promotion("standard"):
        shapes = jax.eval_shape(init, trained)
        moments = jax.jit(init, out_shardings=_shardings(shapes, mesh))(trained)
    return frozen, State(trained, moments)


def _shardings(tree: Any, mesh: Mesh | None) -> Any:
    """Where parameters and what has their names and shapes live; scalars are everywhere."""
    if mesh is None:
        return None
    everywhere = NamedSharding(mesh, PartitionSpec())
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    places = []
    for path, leaf in leaves:
        # Moments repeat the parameters' tree below fields of their own.
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        named = functools.reduce(lambda inner, name: {name: inner}, reversed(names), leaf)
        place = jax.tree.leaves(parameter_shardings(named, mesh)) if names else [everywhere]
        places += place
    return jax.tree.unflatten(structure, places)


def _state_shardings(decoder: DecoderConfig, config: StepConfig, mesh: Mesh) -> Any:
    def state():
        parameters = initialise(decoder, jax.random.key(0))
        trained = split(parameters)[1] if decoder.lora else parameters
        with jax.numpy_dtype_promotion("standard"):
            return State(trained, _transformation(config.optimiser).init(trained))

    return _shardings(jax.eval_shape(state), mesh)


@functools.cache
def make_step(decoder: DecoderConfig, config: StepConfig, mesh: Mesh | None = None) -> Step:
    """The program of a step, compiled for each shape of batch.

    Args:
      decoder: shape of the model, and how it computes.
      config: of the step.
      mesh: where the parameters are; the rows of a micro-batch are spread over it too.
    """
    transformation = _transformation(config.optimiser)

    def sums(trained, frozen, micro):
        parameters = join(frozen, trained) if decoder.lora else trained
        losses, weights = loss_sums(
            decoder,
            parameters,
            micro.tokens,
            micro.positions,
            micro.loss_mask,
            config.loss,
            segments=micro.segments if config.packed else None,
            chunk_tokens=config.chunk_tokens,
        )
        return losses.sum(), weights.sum()

    def gradients(trained, frozen, tokens):
        """Sums over micro-batches of gradients, losses and weights."""

        def one(micro):
            (loss, weight), gradient = jax.value_and_grad(sums, has_aux=True)(
                trained, frozen, micro
            )
            return gradient, loss, weight

        first = one(jax.tree.map(lambda leaf: leaf[0], tokens))
        if len(tokens.tokens) == 1:
            return first

        def add(total, micro):
            return jax.tree.map(jnp.add, total, one(micro)), None

        rest = jax.tree.map(lambda leaf: leaf[1:], tokens)
        return jax.lax.scan(add, first, rest)[0]

    # Beside split matrices XLA aborts on it (jaxlib 0.10.2, eight host devices).
    if mesh is not None and mesh.shape.get("data", 1) == mesh.size > 1:
        gradients = _summed_over_data(gradients, mesh)

    def step(frozen, state, tokens, learning_rate):
        gradient, loss, weight = gradients(state.trained, frozen, tokens)
        gradient = jax.tree.map(lambda leaf: leaf / weight, gradient)
        # optax mixes Python and array scalars of other types.
        with jax.numpy_dtype_promotion("standard"):
            norm = optax.tree.norm(gradient)
            update, moments = transformation.update(gradient, state.moments, state.trained)
        trained = jax.tree.map(lambda old, new: old - learning_rate * new, state.trained, update)
        return State(trained, moments), Measured(loss / weight, norm)

    # Fixed, or the second step would find its state elsewhere and compile anew.
    places = None if mesh is None else (_state_shardings(decoder, config, mesh), None)
    return jax.jit(step, donate_argnums=1, out_shardings=places)


def _summed_over_data(gradients: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Each place of the axis ``data`` adds up its own micro-batches; then all add up, once.

    Left to the compiler, every gradient would go over the devices in every micro-batch.
    """

    def of_one_place(trained, frozen, tokens):
        # Else differentiating by what all places share would sum over them.
        own = jax.lax.pcast((trained, frozen), "data", to="varying")
        return jax.lax.psum(gradients(*own, tokens), "data")

    everywhere = PartitionSpec()
    return jax.shard_map(
        of_one_place,
        mesh=mesh,
        in_specs=(everywhere, everywhere, PartitionSpec(None, "data")),
        out_specs=everywhere,
        axis_names={"data"},
    )


def place(batch: Batch, mesh: Mesh | None) -> Batch:
    """A batch of the loader on the devices: each reads its own rows of it.

    Args:
      batch: whole in every process.
      mesh: where they are; None for the default device.
    """
    return jax.tree.map(lambda field: spread(field, mesh, axis=1), batch)
