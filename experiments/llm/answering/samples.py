"""Greedy answers to a few prompts while a checkpoint is fine-tuned, in a file and for a tracker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from experiments.engine.workload import Program, Speed, Work
from experiments.llm.answering.config import DecodingConfig
from experiments.llm.answering.decoding import continuations
from experiments.llm.answering.model import Model
from experiments.llm.answering.work import Asking
from experiments.llm.text.encoding import Encoded
from experiments.llm.text.tokenizer import decode_tokens, load_tokenizer, stop_tokens
from experiments.llm.training.config import Watch
from experiments.llm.training.distributed import is_first
from experiments.storage import checkpoint
from experiments.storage.sharding import row_split
from experiments.storage.writing import write_atomically
from synth.config import DecoderConfig, Dtype
from synth.decoder import Parameters


@dataclass(frozen=True)
class SamplesAnswering:
    """The work of answering all prompts once; see `experiments.llm.training.workload.Answering`.

    Attributes:
      asking: the questions.
      lengths: tokens of the reference solutions.
    """

    asking: Asking
    lengths: Sequence[int]

    def work(self) -> Sequence[Work]:
        """Reading the prompts, and as many new tokens as the solutions have."""
        return self.asking.work(list(map(len, self.asking.prompts)), self.lengths)

    def measure(self, program: Program) -> Speed:
        """Time a batch of the prompts."""
        return self.asking.measure(program)


class Samples:
    """Answers the same prompts again and again; see `experiments.llm.training.watch.Sampler`.

    The file has a line for each answer: number of steps done, row of the problem, prompt, response,
    whether it was cut off, and the solution.

    Args:
      base: folder or hub id of the checkpoint that is trained, for its tokenizer.
      encoded: examples, of which the first are asked.
      watch: how many, and how long the answers may be.
      path: the file.
      mesh: devices that hold the parameters.

    Raises:
      FileNotFoundError, ImportError, ValueError: if the tokenizer cannot be used.
      ValueError: if prompt and answer may not fit into the checkpoint's context.
    """

    def __init__(
        self,
        base: checkpoint.PathLike,
        encoded: Encoded,
        watch: Watch,
        path: Path,
        *,
        mesh: Mesh | None = None,
    ):
        self._folder = folder = checkpoint.folder(base)
        self._path, self._mesh = path, mesh
        self._tokenizer = load_tokenizer(folder)
        self._stop = stop_tokens(self._tokenizer, folder)
        self._encoded = encoded.take(range(min(watch.sample_responses, len(encoded))))
        pairs = zip(self._encoded.tokens, self._encoded.prompt_lengths.tolist(), strict=True)
        parts = [(tokens[:length], tokens[length:]) for tokens, length in pairs]
        self._prompts = [prompt.tolist() for prompt, _ in parts]
        # Prompt and solution as texts, which every line of the file repeats.
        self._texts = [
            tuple(decode_tokens(self._tokenizer, part.tolist()) for part in pair) for pair in parts
        ]
        room = checkpoint.read_config(folder).max_positions - max(map(len, self._prompts))
        if room < watch.sample_tokens:
            raise ValueError(
                f"sample_tokens must be at most {room}, what the context leaves after the longest "
                f"prompt, got {watch.sample_tokens}"
            )
        split = row_split(mesh)
        rows = -(-len(self._prompts) // split) * split
        self._decoding = DecodingConfig(max_new_tokens=watch.sample_tokens, batch_size=rows)

    def answering(self, dtype: Dtype) -> SamplesAnswering:
        """The work of answering once, for a plan, which times the base's answers."""
        base = Model.load(self._folder, mesh=self._mesh, dtype=dtype)
        asking = Asking(base.decoder, self._decoding, None, self._mesh, base, None, self._prompts)
        return SamplesAnswering(asking, self._encoded.solution_lengths.tolist())

    def begin(self, steps_done: int) -> None:
        """Drop the lines of later steps, which will be written again."""
        if not is_first() or not self._path.exists():
            return
        lines = self._path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["step"] <= steps_done]
        write_atomically(self._path, lambda path: path.write_text("".join(kept)))

    def answer(
        self, decoder: DecoderConfig, parameters: Parameters, steps_done: int
    ) -> Mapping[str, str]:
        """Answer all prompts, write the answers down, and return them for a tracker."""
        model = Model(decoder, parameters, self._tokenizer, self._stop, self._mesh)
        answers = continuations(model, self._prompts, self._decoding)
        lines: list[dict[str, Any]] = []
        rows = self._encoded.rows.tolist()
        for row, (prompt, solution), (one,) in zip(rows, self._texts, answers, strict=True):
            response = decode_tokens(self._tokenizer, one.tokens.tolist())
            about = {"step": steps_done, "row": row, "prompt": prompt, "response": response}
            lines.append(about | {"truncated": one.truncated, "solution": solution})
        if is_first():
            with self._path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        return {f"response {line['row']}": f"{line['prompt']}{line['response']}" for line in lines}
