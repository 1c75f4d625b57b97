"""A checkpoint as a model of lm-evaluation-harness, for numbers comparable with published ones.

The harness gives tasks, prompts and metrics; tokens, logits and decoding are ours. As in the
harness's own adapter for `transformers`, prompts that are too long lose their beginning, and texts
get the special tokens that the tokenizer adds by itself. As everywhere, texts are encoded and chats
rendered within the limits of `experiments.llm.text.guard`.

Needs the extra ``harness``.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from experiments.distribution import install_hint
from experiments.llm.answering.batches import padded_batches
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations
from experiments.llm.answering.evaluate import text_of
from experiments.llm.answering.model import Model
from experiments.llm.problems.data import Message
from experiments.llm.text.tokenizer import encode_texts, render
from experiments.llm.training.loss import label_log_probability
from experiments.storage.sharding import spread
from synth.config import DecoderConfig
from synth.decoder import Parameters, hidden_states, project

try:
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    from lm_eval.utils import (  # pyright: ignore[reportMissingImports]
        get_rolling_token_windows,
        make_disjoint_window,
    )
except ImportError as error:
    raise ImportError(f"lm-evaluation-harness needs: {install_hint('harness')}") from error

LOGIT_TOKENS = 128
"""Tokens of each sequence whose logits are in memory at once."""

LIMIT_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of tasks for the most tokens of a response."""

NARROWING = ("top_p", "top_k", "min_p")
"""Settings that restrict the tokens to sample from, which our decoding does not have."""


@dataclasses.dataclass(frozen=True)
class Generation:
    """Settings of a task for its responses.

    Attributes:
      max_new_tokens: the most tokens of a response.
      temperature: 0 for the most probable token each time.
      until: texts that end a response and are not part of it.
    """

    max_new_tokens: int
    temperature: float
    until: tuple[str, ...]

    @classmethod
    def read(cls, settings: Mapping[str, Any], default: DecodingConfig) -> Generation:
        """Read a task's ``generation_kwargs``.

        Args:
          settings: the settings as the task states them.
          default: states the number of tokens if the task does not.

        Raises:
          ValueError: if a setting is unknown or not supported.
        """
        # Take the settings that we know out of a copy; none may be left in the end.
        left = dict(settings)
        until = left.pop("until", None) or ()
        limits = [left.pop(name) for name in LIMIT_NAMES if left.get(name) is not None]
        temperature, is_sampled = left.pop("temperature", None), left.pop("do_sample", None)
        if is_sampled is None:
            is_sampled = bool(temperature)
        narrowing = {name: left.pop(name) for name in NARROWING if name in left}
        if is_sampled and any(value not in (None, 0, 1) for value in narrowing.values()):
            raise ValueError(f"samples are drawn from all tokens, got {narrowing}")
        if left:
            raise ValueError(
                f"generation_kwargs must be among until, do_sample, temperature, {LIMIT_NAMES} "
                f"and {NARROWING}, got {left}"
            )
        return cls(
            int(limits[0] if limits else default.max_new_tokens),
            float(1.0 if temperature is None else temperature) if is_sampled else 0.0,
            (until,) if isinstance(until, str) else tuple(until),
        )


class HarnessModel(TemplateLM):
    """Answers requests of the harness.

    Args:
      model: the model that answers.
      decoding: batch size, padding and seed; also the tokens of a response if a task states none.
    """

    backend = "causal"

    def __init__(self, model: Model, decoding: DecodingConfig | None = None):
        super().__init__()
        self.model = model
        self.decoding = decoding or DecodingConfig()
        self.tokenizer = model.tokenizer

    @property
    def max_length(self) -> int:
        """Context in tokens."""
        return self.model.decoder.max_positions

    @property
    def eot_token_id(self) -> int:
        """The tokenizer's end marker."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Token that precedes a text without a context."""
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else start

    @property
    def tokenizer_name(self) -> str:
        """Name under which the harness stores requests."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids of a text; by default with the usual start marker, unless it is in the text."""
        if add_special_tokens is None:
            start = self.tokenizer.bos_token
            add_special_tokens = not (start and string.startswith(start))
        (tokens,) = encode_texts(self.tokenizer, [string], special=add_special_tokens)
        return tokens.tolist()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render a chat, up to the start of the assistant's turn or to the end of a begun one."""
        return render(
            self.tokenizer,
            cast("list[Message]", chat_history),
            generation=add_generation_prompt,
            unfinished=not add_generation_prompt,
        )

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Responses to requests (prompt, settings), cut before the first text that ends them.

        Raises:
          ValueError: if a setting is not supported, or leaves no room for a prompt.
        """
        # Requests with the same settings are decoded together.
        groups: dict[Generation, list[int]] = {}
        for row, request in enumerate(requests):
            groups.setdefault(Generation.read(request.args[1], self.decoding), []).append(row)
        responses: dict[int, str] = {}
        for generation, rows in groups.items():
            texts = self._generate([requests[row].args[0] for row in rows], generation)
            responses |= dict(zip(rows, texts, strict=True))
        for row, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, responses[row])
        return [responses[row] for row in range(len(requests))]

    def _generate(self, prompts: Sequence[str], generation: Generation) -> list[str]:
        room = self.max_length - generation.max_new_tokens
        if room < 1:
            raise ValueError(
                f"a response of {generation.max_new_tokens} tokens leaves no room for a prompt in "
                f"a context of {self.max_length}"
            )
        encoded = [self.tok_encode(prompt) for prompt in prompts]
        if long := sum(len(tokens) > room for tokens in encoded):
            warnings.warn(f"{long} prompts lost their beginning to fit {room} tokens", stacklevel=3)
        # Decoded text has no special tokens: those in `until` must stop the decoding itself.
        added = self.tokenizer.get_added_vocab()
        ends = {added[text] for text in generation.until if text in added}
        model = dataclasses.replace(self.model, stop=tuple(sorted({*self.model.stop, *ends})))
        config = dataclasses.replace(
            self.decoding,
            max_new_tokens=generation.max_new_tokens,
            temperature=generation.temperature,
            samples=1,
        )
        texts = [
            text_of(model, one)
            for (one,) in continuations(model, [tokens[-room:] for tokens in encoded], config)
        ]
        # Other ends are found in the text.
        for end in filter(None, generation.until):
            texts = [text.split(end)[0] for text in texts]
        return texts

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """Log-probability of continuations in nats, and whether greedy decoding would give them.

        Args:
          requests: key of the harness's cache, tokens of the context, and of the continuation.

        Raises:
          ValueError: if a continuation by itself does not fit into the model's context.
        """
        sequences: list[list[int]] = []
        starts: list[int] = []
        for _, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise ValueError(
                    f"a continuation of {len(continuation)} tokens does not fit into a context of "
                    f"{self.max_length}"
                )
            # One token more than the context fits: the last is predicted, but never read.
            sequences.append((context + continuation)[-(self.max_length + 1) :])
            starts.append(len(sequences[-1]) - len(continuation))
        scores = score(self.model, sequences, starts, self.decoding)
        for request, result in zip(requests, scores, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], result)
        return scores

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of whole texts in nats, in windows as long as the context."""
        # Cut each text into windows, and remember which text a window belongs to.
        windows, owners = [], []
        for row, request in enumerate(requests):
            (text,) = request.args
            for context, continuation in map(
                make_disjoint_window,
                get_rolling_token_windows(
                    self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
                ),
            ):
                windows.append((None, context, continuation))
                owners.append(row)
        # Score all windows, and add up those of each text.
        totals = np.zeros(len(requests))
        for row, (total, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[row] += total
        for request, total in zip(requests, totals.tolist(), strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals.tolist()


def score(
    model: Model,
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    config: DecodingConfig,
) -> list[tuple[float, bool]]:
    """Score the ends of sequences.

    Args:
      model: the model that predicts them.
      sequences: token ids of each.
      starts: place of the first token that counts in each, at least 1.
      config: batch size and padding.

    Returns:
      For each sequence the log-probability, in nats, of the tokens from its start on given those
      before, and whether each of them is the most probable token.
    """
    firsts = np.asarray(starts, np.int32)
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    widths = -(-lengths // config.prompt_multiple) * config.prompt_multiple
    totals, greedy = np.empty(len(lengths)), np.empty(len(lengths), bool)
    for batch in padded_batches(sequences, widths, lambda *_: config.batch_size):
        arrays = (batch.tokens, firsts[batch.filled], lengths[batch.filled])
        results = _program(
            model.decoder,
            model.parameters,
            *(spread(array, model.mesh) for array in arrays),
            mesh=model.mesh,
        )
        for target, values in zip((totals, greedy), results, strict=True):
            target[batch.rows] = np.asarray(values)[: len(batch.rows)]
    return list(zip(totals.tolist(), greedy.tolist(), strict=True))


def _scores(
    decoder: DecoderConfig,
    parameters: Parameters,
    tokens: Int[Array, "batch length"],
    starts: Int[Array, " batch"],
    lengths: Int[Array, " batch"],
    *,
    mesh: Mesh | None,
) -> tuple[Float[Array, " batch"], Bool[Array, " batch"]]:
    """`score` of one batch, padded at the end. Every device gets all results."""
    length = tokens.shape[1]
    missing = -(length - 1) % LOGIT_TOKENS

    def one(tokens, start, end):
        # The hidden state at a token predicts the next one: cut these pairs into chunks.
        places = jnp.arange(length)
        hidden = hidden_states(decoder, parameters, tokens, places)[:-1]
        counts = (places[1:] >= start) & (places[1:] < end)
        chunks = jax.tree.map(
            lambda leaf: jnp.pad(leaf, ((0, missing), *[(0, 0)] * (leaf.ndim - 1))).reshape(
                -1, LOGIT_TOKENS, *leaf.shape[1:]
            ),
            (hidden, tokens[1:], counts),
        )

        def of_chunk(chunk):
            hidden, labels, counts = chunk
            # Compute the logits of one chunk, and keep only its sum and whether all are best.
            scores = project(decoder, parameters, hidden)
            nats = label_log_probability(scores, labels)
            is_best = scores.argmax(axis=1).astype(labels.dtype) == labels
            return (nats * counts.astype(jnp.float32)).sum(), (is_best | ~counts).all()

        totals, greedy = jax.lax.map(of_chunk, chunks)
        return totals.sum(), greedy.all()

    results = jax.vmap(one)(tokens, starts, lengths)
    if mesh is not None:
        results = jax.lax.with_sharding_constraint(results, NamedSharding(mesh, PartitionSpec()))
    return results


_program = jax.jit(_scores, static_argnums=0, static_argnames="mesh")


def run_tasks(
    model: Model,
    tasks: Sequence[str],
    *,
    decoding: DecodingConfig | None = None,
    include: Path | None = None,
    chat: bool = False,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """Evaluate a model on tasks of the harness.

    Args:
      model: the model that answers.
      tasks: names of tasks, or of groups of tasks.
      decoding: see `HarnessModel`.
      include: a folder of further tasks, as YAML files.
      chat: ask by the chat template; otherwise prompts are plain text, as for base models.
      num_fewshot: examples in each prompt; None for the number that the task states.
      limit: the most problems of each task; None for all.

    Returns:
      Columns task, metric, filter (the rule that takes the answer from a response), value,
      standard_error (missing if the harness gives none) and num_examples.

    Raises:
      ValueError: if a task needs a setting that is not supported, or none is named.
    """
    results = simple_evaluate(
        HarnessModel(model, decoding),
        tasks=list(tasks),
        task_manager=TaskManager(include_path=None if include is None else str(include)),
        apply_chat_template=chat,
        num_fewshot=num_fewshot,
        limit=limit,
        log_samples=False,
        bootstrap_iters=1000,
    )
    # The results are None only in further processes that the harness itself starts.
    tables = cast("Mapping[str, Any]", results)
    rows = []
    for task, metrics in tables["results"].items():
        size = tables.get("n-samples", {}).get(task, {}).get("effective")
        # Keys are "metric,filter", and "metric_stderr,filter" for its standard error.
        for key, value in metrics.items():
            metric, comma, name = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            error = metrics.get(f"{metric}_stderr,{name}")
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": name,
                    "value": float(value),
                    "standard_error": error if isinstance(error, float) else np.nan,
                    "num_examples": size,
                }
            )
    return pd.DataFrame(rows)
