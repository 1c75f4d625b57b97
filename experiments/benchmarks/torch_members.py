"""PyTorch at its best: members trained together, by `torch.func.vmap` under `torch.compile`.

The model, loss and batches are those of `experiments.benchmarks.torch_loop`. Parameters of all
members are stacked, so that one AdamW updates them; each member's gradient is clipped by its norm.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from experiments.benchmarks import torch_loop
from synth.config import DecoderConfig, FinetuneConfig
from synth.decoder import Parameters
from synth.finetune import TrainingData

Stacked = dict[str, Tensor]


@functools.cache
def _gradients(decoder: DecoderConfig) -> Callable[..., tuple[Stacked, Tensor]]:
    """Compiled function from stacked parameters and batches to gradients and losses."""
    model = torch_loop.Decoder(decoder)

    def loss(parameters: Stacked, tokens: Tensor, loss_mask: Tensor, positions: Tensor) -> Tensor:
        def run(tokens: Tensor, positions: Tensor) -> Tensor:
            return functional_call(model, parameters, (tokens, positions))

        return torch_loop.loss(run, tokens, loss_mask, positions)

    return torch.compile(vmap(grad_and_value(loss)))


def finetune(
    decoder: DecoderConfig,
    bases: Sequence[Parameters],
    data: Sequence[TrainingData],
    config: FinetuneConfig,
) -> tuple[Stacked, Tensor]:
    """Fine-tune members together.

    Args:
      decoder: shape of the model.
      bases: parameters that each member starts from; left untouched.
      data: each member's training examples, all in one shape.
      config: how to train; the loss must be ``sft``.

    Returns:
      The fine-tuned parameters, stacked, and the losses [steps, members] before each step.
    """
    states = [torch_loop.state(base) for base in bases]
    parameters = {name: torch.stack([each[name] for each in states]) for name in states[0]}
    optimiser, schedule = torch_loop.optimiser(parameters.values(), config)
    pools = [torch_loop.tensors(own.tokens, own.loss_mask) for own in data]
    tokens, loss_mask = (torch.stack(each) for each in zip(*pools, strict=True))
    size, members = config.optimiser.batch_size, torch.arange(len(bases))[:, None]
    batches = [torch_loop.batches(int(own.num_examples), size) for own in data]
    gradients, losses = _gradients(decoder), []
    for _ in range(config.steps):
        rows = torch.stack([next(own) for own in batches])
        positions = torch.stack(
            [torch_loop.draw_positions(decoder, size, tokens.shape[-1]) for _ in bases]
        )
        with warnings.catch_warnings():
            # PyTorch warns that its attention has no rule for vmap, and loops over the members.
            warnings.simplefilter("ignore")
            slopes, values = gradients(
                parameters, tokens[members, rows], loss_mask[members, rows], positions
            )
        _clip(slopes, config.optimiser.clip)
        for name, parameter in parameters.items():
            parameter.grad = slopes[name]
        optimiser.step()
        schedule.step()
        losses.append(values)
    return parameters, torch.stack(losses)


def _clip(gradients: Stacked, most: float) -> None:
    """Scale each member's gradient down to a norm of at most `most`, in place."""
    squares = torch.stack([leaf.square().flatten(1).sum(1) for leaf in gradients.values()])
    factor = (most / squares.sum(0).sqrt()).clamp(max=1.0)
    for leaf in gradients.values():
        leaf.mul_(factor.view(-1, *[1] * (leaf.dim() - 1)))
