"""The baseline of real checkpoints: a random Qwen2 of `transformers`, run as its users run it.

Fine-tuning is an eager loop of AdamW with clipping; decoding is ``generate`` with its cache, batch
after batch; with a thread for each core. The only module here that needs transformers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers

from experiments.devices import num_cores


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


def training_step(model: Any, ids: np.ndarray, learning_rate: float) -> Callable[[], float]:
    """A function that takes one optimiser step on token ids [row, length] and returns its loss."""
    batch = torch.tensor(ids.astype(np.int64))
    optimiser = torch.optim.AdamW(
        model.parameters(), learning_rate, betas=(0.9, 0.999), weight_decay=0.0
    )

    def run() -> float:
        optimiser.zero_grad()
        loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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


def product_speed(size: int = 2048) -> Callable[[], float]:
    """A function that returns operations per second of one large product of all cores."""
    left, right = torch.ones(size, size), torch.ones(size, size)

    def run() -> float:
        start = time.perf_counter()
        torch.matmul(left, right)
        return 2 * size**3 / (time.perf_counter() - start)

    return run
