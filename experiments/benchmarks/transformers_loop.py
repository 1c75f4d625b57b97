"""The baseline of real checkpoints: a model of `transformers`, run as its users run it.

Fine-tuning is an eager loop of AdamW with clipping, of all parameters or of adapters as those of
PEFT, in bfloat16 under autocast; decoding is ``generate`` with its cache, batch after batch; with a
thread for each core. The only module here that needs transformers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from experiments.devices import num_cores
from synth.config import Dtype, Lora


def random_model(sizes: Mapping[str, Any], scale: float = 0.02) -> Any:
    """A random Qwen2 with tied embeddings; `scale` is the deviation of its weights."""
    torch.manual_seed(0)
    torch.set_num_threads(num_cores())
    config = transformers.Qwen2Config(
        **sizes,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
        initializer_range=scale,
    )
    return transformers.Qwen2ForCausalLM(config)


def read_model(folder: Path) -> Any:
    """The model of a checkpoint's folder, in float32."""
    torch.set_num_threads(num_cores())
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


class Adapted(torch.nn.Module):
    """A linear layer that is not trained, beside an adapter that is (Hu et al. 2021)."""

    def __init__(self, layer: Any, lora: Lora):
        super().__init__()
        self.layer, self.scale = layer.requires_grad_(False), lora.scale
        self.narrow = torch.nn.Linear(layer.in_features, lora.rank, bias=False)
        self.wide = torch.nn.Linear(lora.rank, layer.out_features, bias=False)
        torch.nn.init.zeros_(self.wide.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.wide(self.narrow(x)) * self.scale


def add_adapters(model: Any, lora: Lora) -> None:
    """Put adapters beside all linear layers but the head; they alone are trained."""
    model.requires_grad_(False)
    found = [module for module in model.model.modules() if not isinstance(module, torch.nn.Linear)]
    for module in found:
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, Adapted(child, lora))


def training_step(
    model: Any, ids: np.ndarray, learning_rate: float, *, dtype: Dtype = "float32"
) -> Callable[[], float]:
    """A function that takes one optimiser step on token ids [row, length] and returns its loss."""
    batch = torch.tensor(ids.astype(np.int64))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, learning_rate, betas=(0.9, 0.999), weight_decay=0.0)

    def run() -> float:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        return float(loss.detach())

    return run


def decoding(
    model: Any, prompts: list[list[int]], *, batch_size: int, most_new: int, stop: tuple[int, ...]
) -> Callable[[], list[list[int]]]:
    """A function that answers all prompts greedily, without the stop tokens."""
    stops = frozenset(stop)

    def run() -> list[list[int]]:
        answers = []
        for first in range(0, len(prompts), batch_size):
            batch = torch.tensor(prompts[first : first + batch_size])
            with torch.no_grad():
                continued = model.generate(
                    batch,
                    attention_mask=torch.ones_like(batch),
                    max_new_tokens=most_new,
                    do_sample=False,
                    eos_token_id=list(stop) or None,
                    pad_token_id=0,
                )
            answers += continued[:, batch.shape[1] :].tolist()
        return [list(itertools.takewhile(lambda token: token not in stops, row)) for row in answers]

    return run


def product_speed(size: int = 2048, *, dtype: Dtype = "float32") -> Callable[[], float]:
    """A function that returns operations per second of one large product of all cores."""
    left, right = (torch.ones(size, size, dtype=getattr(torch, dtype)) for _ in range(2))

    def run() -> float:
        start = time.perf_counter()
        torch.matmul(left, right)
        return 2 * size**3 / (time.perf_counter() - start)

    return run


def reading_speed(size: int = 2**26) -> Callable[[], float]:
    """A function that returns bytes per second of all cores that read one large array."""
    array = torch.ones(size)

    def run() -> float:
        start = time.perf_counter()
        array.sum()
        return array.nbytes / (time.perf_counter() - start)

    return run
