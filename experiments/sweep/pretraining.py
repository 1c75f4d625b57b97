"""The training of a sweep's bases, in batches of examples of nearly equal length.

A base's mixture may have many short examples and a few that are several times as long. Padded to
one length, most of a batch would be padding. So a batch is cut at quantiles of the mixture into
strata, each padded to the longest example that it can hold. A batch then has the same share of each
stratum, and its expected loss is that of the mixture.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from synth.config import FinetuneConfig
from synth.decoder import Parameters
from synth.finetune import Stratum, pretrain
from synth.task import ArrayTask, Mixture, draw, pool

if TYPE_CHECKING:
    from experiments.sweep.programs import Sweep

MOST_STRATA = 4
LEAST_GAIN = 0.05
"""Share of a batch's padded tokens that a further stratum must save, as it must be compiled."""


def strata(mixture: Mixture, length: Callable[[int], int], size: int) -> list[tuple[int, Mixture]]:
    """Cut a batch at quantiles of its mixture; return number of examples and mixture of each part.

    Args:
      mixture: of the batch.
      length: padded length of a level in tokens, not falling.
      size: examples of the batch.
    """

    def parts(cuts: tuple[int, ...]) -> list[tuple[int, Mixture]]:
        ends = [0, *cuts, size]
        return [
            (end - start, mixture.between(start / size, end / size))
            for start, end in itertools.pairwise(ends)
        ]

    def padded(cuts: tuple[int, ...]) -> int:
        return sum(count * length(part.hardest) for count, part in parts(cuts))

    # Add the best cut to those that are there, as long as it saves enough.
    cuts: tuple[int, ...] = ()
    while len(cuts) < min(MOST_STRATA, size) - 1:
        further = [tuple(sorted({*cuts, cut})) for cut in range(1, size) if cut not in cuts]
        best = min(further, key=padded)
        if padded(cuts) - padded(best) < LEAST_GAIN * padded(()):
            break
        cuts = best
    return parts(cuts)


def base_strata(sweep: Sweep) -> list[tuple[int, Mixture]]:
    """The strata of a batch of a sweep's bases."""
    pretraining, task = sweep.config.pretrain, sweep.task
    return strata(pretraining.mixture, task.max_length, pretraining.optimiser.batch_size)


def base_program(sweep: Sweep, steps: int) -> tuple[Callable[..., Parameters], tuple[Any, ...]]:
    """Return a function that trains one base, and arrays that all bases share.

    The function takes the data of the base's key, and these arrays.

    Args:
      sweep: whose bases they are.
      steps: of the training.
    """
    pretraining = sweep.config.pretrain
    config = FinetuneConfig(
        steps=steps,
        learning_rate=pretraining.learning_rate,
        optimiser=pretraining.optimiser,
    )
    parts = base_strata(sweep)
    draws = [_draws(sweep, index, *part) for index, part in enumerate(parts)]

    def base(key, *shared):
        samples = [
            Stratum(count, functools.partial(sample, arrays))
            for (count, _), (sample, _), arrays in zip(parts, draws, shared, strict=True)
        ]
        return pretrain(sweep.decoder, samples, config, jax.random.wrap_key_data(key))[0]

    return base, tuple(arrays for _, arrays in draws)


def _draws(
    sweep: Sweep, index: int, count: int, mixture: Mixture
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return a function that draws one example of a stratum, and arrays that all bases share.

    The function takes these arrays, and a key.

    Args:
      sweep: whose bases are trained.
      index: of the stratum.
      count: its examples in a batch.
      mixture: its levels.
    """
    task, pretraining = sweep.task, sweep.config.pretrain
    length = task.max_length(mixture.hardest)
    if isinstance(task, ArrayTask):
        log_probabilities = mixture.log_probabilities(task.hardest)

        def fresh(_, key):
            example, _ = draw(task, key, log_probabilities)
            return example.tokens[:length], example.loss_mask[:length]

        return fresh, ()
    # Text is drawn on the host: a large pool stands in for fresh draws. Bases have keys 0 to
    # base_seeds - 1; the pools have the next ones, even if only some bases are missing.
    size = pretraining.optimiser.batch_size
    rows = max(1, min(pretraining.text_examples, pretraining.steps * size) * count // size)
    key_pool = jax.random.fold_in(sweep.draws.key("bases"), sweep.config.base_seeds + index)
    drawn = pool(task, key_pool, mixture, rows, length=length)

    def row(arrays, key):
        tokens, loss_mask = arrays
        index = jax.random.randint(key, (), 0, rows)
        return tokens[index], loss_mask[index]

    return row, (drawn.tokens, drawn.loss_mask)
