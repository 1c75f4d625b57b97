"""The baseline of the grid: `synth`'s decoder and fine-tuning as a plain PyTorch loop.

The same architecture, loss, optimiser, schedule and rule for positions, written as one would write
it in PyTorch: a batched module, `scaled_dot_product_attention`, `rms_norm`, AdamW (its fused
kernel, the fastest on a CPU), `clip_grad_norm_`. `parity` shows that it is the same model. Imported
only where the PyTorch rows are measured, since it needs torch.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own idiom)
from jaxtyping import PRNGKeyArray
from torch import Tensor, nn

from synth.config import DecoderConfig, FinetuneConfig
from synth.decoder import Parameters
from synth.finetune import TrainingData, batch_positions, loss_and_gradient


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the halves of each head's channels: rotary positions."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Layer(nn.Module):
    """Attention and SwiGLU, each behind a norm and added to the residual stream."""

    def __init__(self, decoder: DecoderConfig):
        super().__init__()
        width, size, eps = decoder.hidden_size, decoder.head_size, decoder.rms_norm_eps
        queries, keys = decoder.num_heads * size, decoder.num_kv_heads * size
        self.attention_norm = nn.RMSNorm(width, eps=eps)
        self.query = nn.Linear(width, queries, bias=decoder.qkv_bias)
        self.key = nn.Linear(width, keys, bias=decoder.qkv_bias)
        self.value = nn.Linear(width, keys, bias=decoder.qkv_bias)
        self.output = nn.Linear(queries, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=eps)
        self.gate = nn.Linear(width, decoder.intermediate_size, bias=False)
        self.up = nn.Linear(width, decoder.intermediate_size, bias=False)
        self.down = nn.Linear(decoder.intermediate_size, width, bias=False)
        self.decoder = decoder

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, length, _ = x.shape
        h = self.attention_norm(x)
        query, key, value = (
            project(h).view(batch, length, -1, self.decoder.head_size).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(
            _rotate(query, cosine, sine),
            _rotate(key, cosine, sine),
            value,
            is_causal=True,
            enable_gqa=self.decoder.num_heads != self.decoder.num_kv_heads,
        )
        x = x + self.output(attended.transpose(1, 2).reshape(batch, length, -1))
        h = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    """Embedding, layers, final norm and head, for a batch of sequences.

    Raises:
      ValueError: if `decoder` asks for a tied head or norms on queries and keys.
    """

    frequency: Tensor

    def __init__(self, decoder: DecoderConfig):
        if decoder.tied_head or decoder.qk_norm:
            raise ValueError("decoder must have tied_head and qk_norm off for the PyTorch loop")
        super().__init__()
        self.embedding = nn.Embedding(decoder.vocab_size, decoder.hidden_size)
        self.layers = nn.ModuleList(Layer(decoder) for _ in range(decoder.num_layers))
        self.norm = nn.RMSNorm(decoder.hidden_size, eps=decoder.rms_norm_eps)
        self.head = nn.Linear(decoder.hidden_size, decoder.vocab_size, bias=False)
        half = decoder.head_size // 2
        self.register_buffer(
            "frequency", decoder.rope_theta ** (-torch.arange(half) / half), persistent=False
        )

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        angle = positions[:, None, :, None] * self.frequency
        cosine, sine = angle.cos(), angle.sin()
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, cosine, sine)
        return self.head(self.norm(x))


def state(parameters: Parameters) -> dict[str, Tensor]:
    """Parameters, or gradients, of `synth.decoder` under the names and layouts of `Decoder`."""
    leaves_by_name: dict[str, np.ndarray] = {
        "embedding.weight": np.asarray(parameters["embedding"]),
        "norm.weight": np.asarray(parameters["norm"]["gain"]),
        "head.weight": np.asarray(parameters["head"]).T,
    }
    for part, leaves in parameters["layers"].items():
        for kind, stacked in leaves.items():
            name = "bias" if kind == "bias" else "weight"
            for index, leaf in enumerate(np.asarray(stacked)):
                full_name = f"layers.{index}.{part}.{name}"
                leaves_by_name[full_name] = leaf.T if kind == "kernel" else leaf
    return {name: torch.from_numpy(np.array(leaf)) for name, leaf in leaves_by_name.items()}


def load(decoder: DecoderConfig, parameters: Parameters) -> Decoder:
    """A PyTorch decoder with a copy of the given weights."""
    model = Decoder(decoder)
    model.load_state_dict(state(parameters))
    return model


def loss(
    model: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, loss_mask: Tensor, positions: Tensor
) -> Tensor:
    """Mean cross-entropy in nats over the solution tokens of a batch."""
    logits = model(tokens[:, :-1], positions[:, :-1])
    losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    weights = loss_mask[:, 1:].flatten().to(losses.dtype)
    return (losses * weights).sum() / weights.sum()


def draw_positions(decoder: DecoderConfig, batch: int, length: int) -> Tensor:
    """Positions [batch, length] by the rule of `synth.decoder.draw_positions`."""
    if decoder.positions == "sequential":
        return torch.arange(length).expand(batch, length)
    uniform = torch.rand(batch, length + 1)
    start = (uniform[:, :1] * decoder.position_start).floor()
    spread = 1 + (uniform[:, 1:2] * decoder.position_gap).floor()
    gaps = 1 + (uniform[:, 2:] * spread).floor()
    return torch.cat([start, gaps], dim=1).cumsum(dim=1)


def optimiser(
    parameters: Iterable[Tensor], config: FinetuneConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, and its learning rate by the step."""
    settings = config.optimiser
    warmup = math.ceil(settings.warmup * config.steps)
    rest = max(1, config.steps - warmup)

    def rate(step: int) -> float:
        progress = min(1.0, max(0.0, (step - warmup) / rest))
        is_cosine = settings.schedule == "cosine"
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if is_cosine else 1.0
        return min(1.0, (step + 1) / (warmup + 1)) * fall

    adamw = torch.optim.AdamW(
        parameters,
        lr=float(config.learning_rate),
        betas=(0.9, settings.b2),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return adamw, torch.optim.lr_scheduler.LambdaLR(adamw, rate)


@dataclass
class Trainer:
    """A model with its optimiser and schedule: one `step` for each batch.

    Attributes:
      model: is trained in place.
      config: how to train.
      loss: `loss`, or the same compiled.
    """

    model: Decoder
    config: FinetuneConfig
    loss: Callable[..., Tensor]

    def __post_init__(self) -> None:
        self.optimiser, self.schedule = optimiser(self.model.parameters(), self.config)

    def step(self, tokens: Tensor, loss_mask: Tensor, positions: Tensor) -> Tensor:
        """One optimiser step; returns the loss in nats before it."""
        self.optimiser.zero_grad()
        value = self.loss(self.model, tokens, loss_mask, positions)
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimiser.clip)
        self.optimiser.step()
        self.schedule.step()
        return value.detach()


def batches(num_examples: int, batch_size: int) -> Iterator[Tensor]:
    """Indices of the examples of each batch; shuffled epochs follow each other without end."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(num_examples)])
        yield left[:batch_size]
        left = left[batch_size:]


@functools.cache
def compiled_loss() -> Callable[..., Tensor]:
    """`loss`, compiled once for all members."""
    return torch.compile(loss)


def finetune(
    decoder: DecoderConfig,
    base: Parameters,
    data: TrainingData,
    config: FinetuneConfig,
    *,
    is_compiled: bool = False,
) -> tuple[Decoder, Tensor]:
    """Fine-tune one member: the loop that `synth.finetune.finetune` is compared with.

    Args:
      decoder: shape of the model.
      base: parameters to start from; left untouched.
      data: the training examples.
      config: how to train; the loss must be ``sft``.
      is_compiled: whether `torch.compile` compiles loss and gradient.

    Returns:
      The fine-tuned model, and the loss in nats per solution token before each step.

    Raises:
      ValueError: if the loss is not ``sft``.
    """
    if config.loss != "sft":
        raise ValueError(f"loss must be 'sft' in the PyTorch loop, got {config.loss!r}")
    tokens, loss_mask = tensors(data.tokens, data.loss_mask)
    model, size = load(decoder, base), config.optimiser.batch_size
    trainer = Trainer(model, config, compiled_loss() if is_compiled else loss)
    losses = []
    for chosen in itertools.islice(batches(int(data.num_examples), size), config.steps):
        positions = draw_positions(decoder, size, tokens.shape[1])
        losses.append(trainer.step(tokens[chosen], loss_mask[chosen], positions))
    return model, torch.stack(losses)


def tensors(tokens: Any, loss_mask: Any) -> tuple[Tensor, Tensor]:
    """Tokens and loss mask of a pool or a batch, copied from any array."""
    return (
        torch.from_numpy(np.array(tokens, np.int64)),
        torch.from_numpy(np.array(loss_mask, bool)),
    )


def positions_of(decoder: DecoderConfig, key: PRNGKeyArray, batch: int, length: int) -> Tensor:
    """The positions [batch, length] that `synth.finetune.loss_and_gradient` draws from a key."""
    keys = jax.random.split(key, batch)
    return torch.from_numpy(np.array(batch_positions(decoder, keys, length)))


def parity(
    decoder: DecoderConfig, parameters: Parameters, data: TrainingData, key: PRNGKeyArray
) -> Mapping[str, float]:
    """Differences of the PyTorch model from ours, on one batch with copied weights.

    Args:
      decoder: shape of the model.
      parameters: weights of both.
      data: the batch; all rows are used.
      key: a JAX key, for the positions.

    Returns:
      ``loss``: absolute difference in nats; ``gradient``: the largest over parameters of the
      norm of the difference divided by the norm of ours.
    """
    our_loss, our_gradient = jax.jit(loss_and_gradient, static_argnums=(0, 4))(
        decoder, parameters, [(data.tokens, data.loss_mask)], key, "sft"
    )
    model = load(decoder, parameters)
    positions = positions_of(decoder, key, *data.tokens.shape)
    value = loss(model, *tensors(data.tokens, data.loss_mask), positions)
    gradient = torch.autograd.grad(value, list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    expected = state(our_gradient)
    return {
        "loss": abs(float(value.detach()) - float(our_loss)),
        "gradient": max(
            float((leaf - expected[name]).norm() / expected[name].norm())
            for name, leaf in zip(names, gradient, strict=True)
        ),
    }
