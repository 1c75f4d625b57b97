"""A tokenizer and its chat template at work in a process of their own, with limits.

A checkpoint's template is a program, and its tokenizer may multiply a text by rules of its own:
either may run for ever or fill the memory, and native code that runs out of memory ends its
process. So templates are rendered and texts of a checkpoint are encoded and decoded here, where a
limit of time and memory holds for every request.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from experiments.storage.untrusted import MEBI, check_file

MEBIBYTES = 1280
"""Memory of the process beyond what libraries take, for the tokenizer and one request."""

SECONDS, BYTES_A_SECOND = 6.0, 50_000
"""Time of a request: so much, and a second for so many bytes of it."""

START_SECONDS = 120.0
"""Time in which the process must be ready, before the tokenizer is read."""

LEAST_CHARACTERS, GROWTH = 100_000, 20
"""Characters or tokens that an answer may have: so many, or so many times those of the request."""

FILE_MEBIBYTES = 128
"""The most mebibytes of a file of a tokenizer; the largest published have about 35."""

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)


class TemplateRefusalError(ValueError):
    """The template raised an error, as it may for chats that it does not know."""


class Guard:
    """The process of one tokenizer.

    Args:
      folder: of the checkpoint.

    Raises:
      ValueError: if the tokenizer cannot be read within the limits.
    """

    def __init__(self, folder: Path) -> None:
        for name in FILES:
            if (folder / name).exists():
                check_file(folder / name, most_mebibytes=FILE_MEBIBYTES)
        start = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from experiments.llm.text import guard; guard.serve()"
        )
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"},
        )
        # The process says that its libraries are loaded, then answers requests.
        try:
            self._receive(time.monotonic() + START_SECONDS, "its libraries")
            self._ask("load", str(folder))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # What was not sent any more cannot be flushed.
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()

    def render(self, template: Any, chat: Sequence[Any], settings: dict[str, Any]) -> str:
        """Render a chat.

        Args:
          template: the text of the template.
          chat: its turns.
          settings: variables of the template.

        Raises:
          TemplateRefusalError: if the template raises an error.
          ValueError: if it exceeds a limit.
        """
        return self._ask("render", template, list(chat), settings)

    def encode(self, texts: Sequence[str], *, special: bool = False) -> list[Any]:
        """Token ids of texts, with or without the special tokens that the tokenizer adds."""
        return self._ask("encode", list(texts), special)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, without special tokens."""
        return self._ask("decode", list(tokens))

    def _ask(self, *request: Any) -> Any:
        sent = pickle.dumps(request)
        deadline = time.monotonic() + SECONDS + len(sent) / BYTES_A_SECOND
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError):
            # If the process has ended, the next line says so.
            stdin.write(struct.pack("<Q", len(sent)) + sent)
            stdin.flush()
        kind, answer = self._receive(deadline, f"its {request[0]}")
        if kind == "answer":
            return answer
        if kind == "refusal":
            raise TemplateRefusalError(answer)
        raise ValueError(f"the tokenizer of {str(self._folder)!r} cannot be read ({answer})")

    def _receive(self, deadline: float, subject: str) -> Any:
        """Answer of the process; kills the process at the deadline."""
        stdout = self._process.stdout
        assert stdout is not None
        received, wanted = bytearray(), 8
        while len(received) < wanted:
            is_ready = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            part = os.read(stdout.fileno(), 2**20) if is_ready else b""
            if not part:
                self.close()
                how = f"ended with code {self._process.returncode}" if is_ready else "took too long"
                raise ValueError(
                    f"the tokenizer or chat template of {str(self._folder)!r} is broken or hostile "
                    f"({subject} {how}, or took more than {MEBIBYTES} MiB)"
                )
            received += part
            if wanted == 8 and len(received) >= 8:
                wanted += struct.unpack("<Q", received[:8])[0]
        return pickle.loads(bytes(received[8:]))


def serve() -> None:
    """Body of the process: say that it is ready, then answer requests until their end."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What libraries print must not mix with answers.
    os.dup2(2, 1)
    from transformers import PreTrainedTokenizerFast
    from transformers.utils.chat_template_utils import render_jinja_template

    # Beyond what is taken already; RLIMIT_DATA counts what is written, not what is only reserved.
    taken = 1024 * int(_status("VmData"))
    limit = taken + MEBIBYTES * MEBI
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer: Any = None

    def load(folder: str) -> None:
        nonlocal tokenizer
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()

    def render(template: Any, chat: list[Any], settings: dict[str, Any]) -> str:
        rendered = render_jinja_template([chat], chat_template=template, **settings)
        return _limited(str(rendered[0][0]), sum(len(str(turn)) for turn in chat))

    def encode(texts: list[str], special: bool) -> list[Any]:
        import numpy as np

        encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=special)
        ids = [np.array(encoding.ids, np.int32) for encoding in encodings]
        for text, tokens in zip(texts, ids, strict=True):
            _limited(tokens, len(text))
        return ids

    def decode(tokens: list[int]) -> str:
        text = tokenizer.decode(
            tokens,
            skip_special_tokens=True,
            # Llama's tokenizers ask for a clean-up, which removes the space in "2 ." and "do n't".
            clean_up_tokenization_spaces=False,
        )
        return _limited(text, 100 * len(tokens))

    functions = {"load": load, "render": render, "encode": encode, "decode": decode}
    _send(answers, None)
    while len(header := requests.read(8)) == 8:
        name, *arguments = pickle.loads(requests.read(struct.unpack("<Q", header)[0]))
        try:
            answer = "answer", functions[name](*arguments)
        # The tokenizers library also raises bare exceptions, and panics that are no `Exception`.
        except BaseException as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            is_refusal = name == "render" and not isinstance(error, _TooLongError)
            answer = "refusal" if is_refusal else "error", text.removeprefix("TemplateError: ")
        _send(answers, answer)


class _TooLongError(ValueError):
    """An answer is longer than any honest one."""


def _limited(answer: Any, size: int) -> Any:
    """Refuse an answer that is much longer than its request."""
    most = max(LEAST_CHARACTERS, GROWTH * size)
    if len(answer) > most:
        raise _TooLongError(f"{size} characters become {len(answer)}, accepted are {most}")
    return answer


def _send(answers: BinaryIO, answer: Any) -> None:
    sent = pickle.dumps(answer)
    answers.write(struct.pack("<Q", len(sent)) + sent)
    answers.flush()


def _status(name: str) -> str:
    """Number in a line of the system's account of this process; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return line.split()[1]
    return "0"
