r"""The tokenizer of a checkpoint, its chat template, and the marker that ends a solution.

Only fast tokenizers (``tokenizer.json``) are read, as they were saved; no code of a checkpoint
runs. A chat is rendered by the checkpoint's own template. The end marker of a solution is taken
from the template as well, because it may differ from the tokenizer's own: the base models of
Qwen2.5 end chats with ``<|im_end|>``, but texts with ``<|endoftext|>``.

`train_tokenizer` makes a small tokenizer for bases that are trained here.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from experiments.distribution import install_hint
from experiments.llm.problems.data import Message
from experiments.llm.text.config import Pieces
from experiments.llm.text.guard import Guard, TemplateRefusalError
from experiments.storage import checkpoint
from experiments.storage.checkpoint import GENERATION_CONFIG
from experiments.storage.hugging_face import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEMPLATE_SETTINGS: dict[str, Any] = {
    # Most solutions have no hidden thoughts before the answer; see `has_thoughts` for others.
    "enable_thinking": False,
    # Llama 3's own fallback. Without it the template writes today's date into every prompt.
    "date_string": "26 Jul 2024",
}
"""Settings for chat templates; a template ignores those that it does not know."""

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML as in Qwen2.5, without the default system prompt and the tools."""

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pattern for words; every digit is a piece of its own."""

PHRASES = (
    r" ?(?:The|So|How|Please|Define)(?: [a-z]{2,})*| ?[A-Z][a-z]+(?: [A-Z][a-z]+)*(?:'s)?"
    r"| ?[a-z]{2,}(?: [a-z]{2,})*| ?\d| ?[a-z]| ?[^\s\w]+|\s"
)
"""Pattern for set phrases ("The number of each") and names of several words.

It gives short sequences for small models on text of few forms, such as iGSM's."""

PIECES: dict[Pieces, str] = {"words": WORDS, "phrases": PHRASES}

PROBE: list[Message] = [
    {"role": "user", "content": "probed problem"},
    {"role": "assistant", "content": "probed solution"},
]
"""Chat that is rendered to see what a template writes after a solution."""


_GUARDS: weakref.WeakKeyDictionary[Any, Guard] = weakref.WeakKeyDictionary()
"""Process of each tokenizer that was read from a checkpoint; one that was made here has none."""


def _tokenizer_class() -> type[PreTrainedTokenizerFast]:
    # Without torch, which nothing here needs, transformers prints a warning when it is imported.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise ImportError(f"tokenizers need: {install_hint('llm')}") from error
    return PreTrainedTokenizerFast


def load_tokenizer(path_or_id: checkpoint.PathLike) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a checkpoint.

    Args:
      path_or_id: see `experiments.storage.checkpoint.folder`.

    Raises:
      FileNotFoundError: if there is no such folder, or it has no ``tokenizer.json``.
      ImportError: if `transformers` is not installed.
      ValueError: if a file cannot be read, if there is no chat template, or if the template leaves
        out solutions.
    """
    backend = _tokenizer_class()
    path = checkpoint.folder(path_or_id)
    if not (path / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"checkpoint {str(path)!r} has no tokenizer.json (only fast tokenizers are read)"
        )
    # Read it apart first: what cannot be read within limits is not read here.
    guard = Guard(path)
    try:
        # The general class takes tokenizer.json as it is; classes of model families rebuild it.
        tokenizer = backend.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    # The tokenizers library raises bare exceptions.
    except Exception as error:
        guard.close()
        raise ValueError(
            f"the tokenizer of {str(path)!r} cannot be read ({type(error).__name__}: {error})"
        ) from error
    _GUARDS[tokenizer] = guard
    weakref.finalize(tokenizer, guard.close)
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer of {str(path)!r} has no chat template; add chat_template.jinja to the "
            f"folder, from the instruction-tuned model of the same family"
        )
    # Settings for truncation and padding, saved by whoever trained it, would silently apply here.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    closing(tokenizer)
    return tokenizer


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, pieces: Pieces = "words"
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with a ChatML template.

    Any text can be encoded, and decodes to itself. A decoder needs a ``vocab_size`` of
    ``len(tokenizer)``, which counts the special tokens.

    Args:
      texts: training texts.
      vocab_size: the most token ids; there are fewer if the texts do not fill them.
      pieces: units of text whose borders no token crosses, a name in `PIECES`.

    Raises:
      ImportError: if `transformers` is not installed.
      ValueError: if `vocab_size` has no room for the bytes and the special tokens, or `pieces` is
        unknown.
    """
    backend = _tokenizer_class()
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if pieces not in PIECES:
        raise ValueError(f"pieces must be one of {tuple(PIECES)}, got {pieces!r}")
    special, alphabet = [END_OF_TEXT, TURN_START, TURN_END], pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(special) + len(alphabet):
        raise ValueError(
            f"vocab_size must be at least {len(special) + len(alphabet)} (bytes and special "
            f"tokens), got {vocab_size}"
        )
    # Text is normalised, cut into pieces, and each piece is written as bytes.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES[pieces]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Pairs are merged within pieces until the vocabulary is full.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return backend(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer into a checkpoint's folder, with generation settings that state its end."""
    tokenizer.save_pretrained(folder)
    stops = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    write_json(Path(folder) / GENERATION_CONFIG, stops)


def has_thoughts(solution: str) -> bool:
    """Return whether thoughts, ``<think>…</think>``, precede the answer, as in reasoning models."""
    return "</think>" in solution


def render(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    *,
    generation: bool,
    thinking: bool = False,
    unfinished: bool = False,
) -> str:
    """Render a chat as text.

    Unless `thinking`, Qwen3's template opens the assistant's turn with empty thoughts. A solution
    with thoughts of its own needs the opening without them.

    Args:
      tokenizer: has a chat template.
      messages: turns of the chat.
      generation: end with the opening of the assistant's turn.
      thinking: tell the template to leave room for thoughts.
      unfinished: end within the last message, so that it can be continued.

    Raises:
      ValueError: if the template refuses these messages, or exceeds a limit (see
        `experiments.llm.text.guard`).
    """
    from jinja2 import TemplateError

    settings: dict[str, Any] = {**TEMPLATE_SETTINGS, "enable_thinking": thinking}
    chat = [dict(message) for message in messages]
    guard = _GUARDS.get(tokenizer)
    try:
        if guard is not None:
            settings = {**tokenizer.special_tokens_map, **settings}
            settings |= {"add_generation_prompt": generation, "continue_final_message": unfinished}
            text = guard.render(tokenizer.get_chat_template(), chat, settings)
        else:
            text = tokenizer.apply_chat_template(
                chat,
                add_generation_prompt=generation,
                continue_final_message=unfinished,
                tokenize=False,
                **settings,
            )
    except (TemplateError, TemplateRefusalError) as error:
        roles = [message.get("role") for message in messages]
        raise ValueError(f"the chat template refuses a chat of {roles}: {error}") from error
    return str(text)


@dataclass(frozen=True)
class Closing:
    """Text that the template writes after a solution.

    Attributes:
      marker: text up to and including the first special token; or the tokenizer's end marker.
      tail: text after that, such as a newline; it is not part of a solution.
      written: true if the template writes the marker, false if it has to be added.
    """

    marker: str
    tail: str
    written: bool


def closing(tokenizer: PreTrainedTokenizerFast) -> Closing:
    """Closing of a solution, read from a rendered chat.

    Raises:
      ValueError: if the template leaves the solution out, or neither it nor the tokenizer has an
        end marker.
    """
    solution = PROBE[-1]["content"]
    _, separator, after = render(tokenizer, PROBE, generation=False).rpartition(solution)
    if not separator:
        raise ValueError("the chat template leaves out the assistant's content")
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    if tokenizer.eos_token:
        special.add(str(tokenizer.eos_token))
    ends = [after.index(token) + len(token) for token in special if token in after]
    if ends:
        return Closing(after[: min(ends)], after[min(ends) :], written=True)
    if not tokenizer.eos_token:
        raise ValueError("neither the chat template nor the tokenizer has an end marker")
    return Closing(str(tokenizer.eos_token), after, written=False)


def encode_texts(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, special: bool = False
) -> list[Int[np.ndarray, " tokens"]]:
    """Token ids of each text; special tokens in it are recognised.

    Args:
      tokenizer: see `load_tokenizer`.
      texts: the texts.
      special: add those special tokens that the tokenizer puts around a text by itself.

    Raises:
      ValueError: if the tokenizer exceeds a limit (see `experiments.llm.text.guard`).
    """
    if (guard := _GUARDS.get(tokenizer)) is not None:
        return guard.encode(texts, special=special)
    backend = tokenizer.backend_tokenizer
    encodings = backend.encode_batch_fast(list(texts), add_special_tokens=special)
    return [np.array(encoding.ids, np.int32) for encoding in encodings]


def decode_tokens(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int]) -> str:
    """Text of token ids, without special tokens."""
    if (guard := _GUARDS.get(tokenizer)) is not None:
        return guard.decode(tokens)
    text = tokenizer.decode(
        list(tokens),
        skip_special_tokens=True,
        # Llama's tokenizers ask for a clean-up, which removes the space in "2 ." and "do n't".
        clean_up_tokenization_spaces=False,
    )
    return str(text)


def prompt_tokens(
    tokenizer: PreTrainedTokenizerFast, prompt: Sequence[Message], *, thinking: bool = False
) -> list[int]:
    """Token ids of a chat up to the start of the assistant's answer, see `render`.

    Raises:
      ValueError: if the chat template refuses these messages.
    """
    asked = render(tokenizer, prompt, generation=True, thinking=thinking)
    (tokens,) = encode_texts(tokenizer, [asked])
    return tokens.tolist()


def stop_tokens(tokenizer: PreTrainedTokenizerFast, folder: checkpoint.PathLike) -> tuple[int, ...]:
    """Token ids that end a response, in increasing order.

    They are the end markers of the tokenizer, of the chat template and of
    ``generation_config.json``.

    Args:
      tokenizer: see `load_tokenizer`.
      folder: of the checkpoint.

    Raises:
      ValueError: if ``generation_config.json`` cannot be read.
    """
    ends = [closing(tokenizer).marker, tokenizer.eos_token]
    texts = [str(text) for text in ends if text]
    token_ids = {int(tokens[-1]) for tokens in encode_texts(tokenizer, texts)}
    if (Path(folder) / GENERATION_CONFIG).is_file():
        stated = read_json(Path(folder), GENERATION_CONFIG).get("eos_token_id")
        # The file states one id, a list of them, or null.
        stated = stated if isinstance(stated, list) else [] if stated is None else [stated]
        if not all(type(token) is int and 0 <= token < 2**31 for token in stated):
            raise ValueError(
                f"eos_token_id in {GENERATION_CONFIG} must hold token ids, got {str(stated)[:100]}"
            )
        token_ids.update(stated)
    return tuple(sorted(token_ids))
