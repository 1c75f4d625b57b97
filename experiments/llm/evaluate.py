"""Ask a model, grade what it answers, and say how often it is right on each slice.

A response is decoded from the chat template's opening of the assistant's turn up to a stop token.
Prompts go in batches of similar length, for each of which one program is compiled.

A sampled response depends on the seed, its prompt and its number alone, not on which other problems
are asked: a subset of the problems gets the same responses (up to rounding; a prompt that occurs
again gets others).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from experiments import checkpoint
from experiments.llm.grade import GraderConfig, grade, references
from experiments.llm.pass_rates import summarise
from experiments.llm.sharding import row_split, spread
from experiments.llm.tokenizer import Message, load_tokenizer, prompt_tokens, stop_tokens
from synth.decoder import DecoderConfig, Parameters
from synth.generate import generate_batch, prompt_batches

if TYPE_CHECKING:
    from experiments.llm.data import Problems


@dataclass(frozen=True, eq=False)
class Model:
    """A checkpoint that can be asked.

    Attributes:
      decoder, parameters: the network.
      tokenizer: with a chat template.
      stop: token ids that end a response.
      mesh: where the parameters are; None for the default device.
    """

    decoder: DecoderConfig
    parameters: Parameters
    tokenizer: Any
    stop: tuple[int, ...]
    mesh: Mesh | None = None

    @classmethod
    def load(
        cls,
        path_or_id: checkpoint.PathLike,
        *,
        mesh: Mesh | None = None,
        dtype: DTypeLike | None = jnp.float32,
    ) -> Model:
        """Read a checkpoint with its tokenizer.

        Args:
          path_or_id: see `experiments.checkpoint.folder`.
          mesh, dtype: see `experiments.checkpoint.load`.

        Raises:
          FileNotFoundError, ImportError, ValueError: if a file is missing or cannot be used.
        """
        folder = checkpoint.folder(path_or_id)
        # Read first, because it is quick, and wrong more often.
        tokenizer = load_tokenizer(folder)
        stop = stop_tokens(tokenizer, folder)
        decoder, parameters = checkpoint.load(folder, mesh=mesh, dtype=dtype)
        return cls(decoder, parameters, tokenizer, stop, mesh)


@dataclass(frozen=True)
class DecodingConfig:
    """How responses are made.

    Attributes:
      max_new_tokens: the most tokens of a response; one that reaches it counts as truncated.
      samples: responses to each prompt.
      temperature: 0 for the most probable token each time.
      batch_size: responses decoded together; with a mesh a multiple of its ``data × fsdp``.
      prompt_multiple: prompts are padded to multiples of it, in tokens.
      thinking: tell the chat template to leave room for thoughts, for a model that was trained on
        solutions with some; see `experiments.llm.tokenizer.render`.
      seed: of the draws.

    Raises:
      ValueError: if a field is out of range.
    """

    max_new_tokens: int = 512
    samples: int = 1
    temperature: float = 0.0
    batch_size: int = 32
    prompt_multiple: int = 64
    thinking: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "samples", "batch_size", "prompt_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("temperature", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples must be 1 at temperature 0, where all are equal; got {self.samples}"
            )


@dataclass(frozen=True)
class Continuation:
    """New tokens after a prompt.

    Attributes:
      tokens: their ids, without the stop token.
      truncated: whether there was no stop token.
    """

    tokens: Int[np.ndarray, " tokens"]
    truncated: bool


def _ignore(count: int) -> None:
    """Progress that nobody watches."""


def continuations(
    model: Model,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig,
    *,
    advance: Callable[[int], object] = _ignore,
) -> list[list[Continuation]]:
    """Continue prompts that are given as tokens.

    Args:
      model: what continues them.
      prompts: token ids of each.
      config: how.
      advance: called with the number of continuations that are done since the last call.

    Returns:
      For each prompt its samples.

    Raises:
      ValueError: before any decoding, if a prompt is empty or has a token that the model does not
        know, if prompt and new tokens do not fit into the context, or if the batch size does not
        divide over the mesh.
    """
    check_prompts(model.decoder, prompts, config, mesh=model.mesh)
    identities = _identities(prompts, config.samples)
    every = [prompt for prompt in prompts for _ in range(config.samples)]
    found: dict[int, Continuation] = {}
    # What exceeds the context after `check_prompts` is padding, and is cut off.
    widest = model.decoder.max_positions - config.max_new_tokens
    place = functools.partial(spread, mesh=model.mesh)
    for batch in prompt_batches(
        every, batch_size=config.batch_size, multiple=config.prompt_multiple
    ):
        filled = np.pad(batch.rows, (0, len(batch.prompts) - len(batch.rows)), mode="edge")
        tokens, lengths = _program(
            model.decoder,
            model.parameters,
            place(batch.prompts[:, -widest:]),
            place(batch.lengths),
            place(identities[filled]),
            jax.random.key(config.seed),
            max_new_tokens=config.max_new_tokens,
            stop=model.stop,
            temperature=config.temperature,
            mesh=model.mesh,
        )
        for row, new, length in zip(
            batch.rows.tolist(), np.asarray(tokens), np.asarray(lengths).tolist(), strict=False
        ):
            is_ended = int(new[length - 1]) in model.stop
            found[row] = Continuation(new[: length - is_ended], not is_ended)
        advance(len(batch.rows))
    return [
        [found[row * config.samples + sample] for sample in range(config.samples)]
        for row in range(len(prompts))
    ]


def check_prompts(
    decoder: DecoderConfig,
    prompts: Sequence[Sequence[int]],
    config: DecodingConfig,
    *,
    mesh: Mesh | None = None,
) -> None:
    """Refuse what cannot be decoded, before any work.

    Args:
      decoder: what is to continue the prompts.
      prompts: token ids of each.
      config: how.
      mesh: where the decoder's parameters will be.

    Raises:
      ValueError: see `continuations`.
    """
    context = decoder.max_positions
    lengths = np.array([len(prompt) for prompt in prompts], int)
    if (long := lengths + config.max_new_tokens > context).any():
        raise ValueError(
            f"prompt and max_new_tokens must fit into the context of the checkpoint, {context} "
            f"tokens, but {long.sum()} of {len(lengths)} prompts are too long, the longest "
            f"{lengths.max()} + {config.max_new_tokens}; the first is row {long.argmax()}"
        )
    size = decoder.vocab_size
    unknown = [row for row, prompt in enumerate(prompts) if max(prompt, default=0) >= size]
    if unknown:
        raise ValueError(
            f"prompts have tokens beyond the {size} of the checkpoint, the first in row "
            f"{unknown[0]}: does the tokenizer belong to it?"
        )
    if config.batch_size % (split := row_split(mesh)):
        raise ValueError(
            f"batch_size must be a multiple of the mesh's data × fsdp, {split}; "
            f"got {config.batch_size}"
        )


def _identities(
    prompts: Sequence[Sequence[int]], samples: int
) -> UInt32[np.ndarray, "continuations words"]:
    """What is random about each continuation: its prompt, how often that came before, its number.

    The prompt stands for itself by a digest of 64 bits, not by its place.
    """
    times: Counter[bytes] = Counter()
    found = np.empty((len(prompts), samples, 4), np.uint32)
    for words, prompt in zip(found, prompts, strict=True):
        digest = blake2b(np.asarray(prompt, np.int32).tobytes(), digest_size=8).digest()
        words[:, :2] = np.frombuffer(digest, "<u4")
        words[:, 2] = times[digest]
        words[:, 3] = np.arange(samples)
        times[digest] += 1
    return found.reshape(-1, 4)


def _continue(
    decoder: DecoderConfig,
    parameters: Parameters,
    prompts: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    identities: UInt32[Array, "batch words"],
    key: PRNGKeyArray,
    *,
    max_new_tokens: int,
    stop: tuple[int, ...],
    temperature: float,
    mesh: Mesh | None,
) -> tuple[Int[Array, "batch new"], Int[Array, " batch"]]:
    """One batch; see `synth.generate.generate_batch`. Every device gets all results."""
    found = generate_batch(
        decoder,
        parameters,
        prompts,
        lengths,
        max_new_tokens=max_new_tokens,
        stop=stop,
        temperature=temperature,
        keys=jax.vmap(lambda words: functools.reduce(jax.random.fold_in, words, key))(identities),
    )
    if mesh is not None:
        found = jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))
    return found


_program = jax.jit(
    _continue, static_argnums=0, static_argnames=("max_new_tokens", "stop", "temperature", "mesh")
)


@dataclass(frozen=True)
class Responses:
    """What a model answers.

    Attributes:
      texts: for each problem its samples, without special tokens.
      num_tokens: their lengths; a stop token does not count.
      truncated: which did not end within `DecodingConfig.max_new_tokens`.
    """

    texts: list[list[str]]
    num_tokens: Int[np.ndarray, "problems samples"]
    truncated: Bool[np.ndarray, "problems samples"]


def decode(
    model: Model,
    prompts: Sequence[Sequence[Message]],
    config: DecodingConfig,
    *,
    advance: Callable[[int], object] = _ignore,
) -> Responses:
    """Let a model answer chats.

    Args:
      model: who answers.
      prompts: chats that end with a user's turn.
      config: how.
      advance: called with the number of responses that are done since the last call.

    Raises:
      ValueError: before any decoding; see `continuations` and `prompt_tokens`.
    """
    tokens = [
        prompt_tokens(model.tokenizer, prompt, thinking=config.thinking) for prompt in prompts
    ]
    found = continuations(model, tokens, config, advance=advance)
    shape = (len(found), config.samples)
    every = [part for samples in found for part in samples]
    return Responses(
        [[text_of(model, part) for part in samples] for samples in found],
        np.array([len(part.tokens) for part in every], int).reshape(shape),
        np.array([part.truncated for part in every], bool).reshape(shape),
    )


def text_of(model: Model, continuation: Continuation) -> str:
    """A continuation as text, without special tokens."""
    return model.tokenizer.decode(
        continuation.tokens.tolist(),
        skip_special_tokens=True,
        # Llama's tokenizers ask for it, and would take the space out of "2 ." and "do n't".
        clean_up_tokenization_spaces=False,
    )


@dataclass(frozen=True)
class Evaluation:
    """How a model did.

    Attributes:
      table: one row a slice, see `experiments.llm.pass_rates.summarise`.
      responses: one row a response: row (of the problem, from 0), slice, sample, response, correct,
        truncated, num_tokens.
    """

    table: pd.DataFrame
    responses: pd.DataFrame


def evaluate(
    model: Model,
    problems: Problems,
    *,
    decoding: DecodingConfig = DecodingConfig(),
    grader: GraderConfig = GraderConfig(),  # noqa: B008 (frozen)
    slices: Sequence[int] | Int[np.ndarray, " problems"] | None = None,
    advance: Callable[[int], object] = _ignore,
) -> Evaluation:
    """Ask every problem and grade the responses.

    Args:
      model: who answers.
      problems: with what the grader needs.
      decoding: how responses are made.
      grader: how they are graded.
      slices: difficulty of each problem; None for one slice of all, whose number is missing.
      advance: called with the number of responses that are done since the last call.

    Raises:
      ImportError, ValueError: before any decoding, if there are no problems, if slices do not fit
        them, if one lacks what the grader needs (see `experiments.llm.grade.references`), or if it
        cannot be decoded (see `continuations`).
    """
    if not len(problems):
        raise ValueError(f"problems must have at least one row, got none in {problems.name!r}")
    if slices is not None and len(slices) != len(problems):
        raise ValueError(
            f"slices must be one for each of {len(problems)} problems, got {len(slices)}"
        )
    references(problems, grader)
    answers = decode(model, problems.prompts, decoding, advance=advance)
    correct = grade(problems, answers.texts, grader)
    rows, samples = np.indices(correct.shape)
    levels = pd.array([pd.NA] * len(problems) if slices is None else list(slices), dtype="Int64")
    responses = pd.DataFrame(
        {
            "row": rows.ravel(),
            "slice": levels.take(rows.ravel()),
            "sample": samples.ravel(),
            "response": [text for texts in answers.texts for text in texts],
            "correct": correct.ravel(),
            "truncated": answers.truncated.ravel(),
            "num_tokens": answers.num_tokens.ravel(),
        }
    )
    return Evaluation(summarise(responses), responses)
