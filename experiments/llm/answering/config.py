"""Configuration of the responses to problems."""

from __future__ import annotations

from dataclasses import dataclass

from synth.arguments import check_least, check_not_negative, check_seed


@dataclass(frozen=True)
class DecodingConfig:
    """Settings of the responses to problems.

    Attributes:
      max_new_tokens: the most tokens of a response; one that reaches it counts as truncated.
      samples: responses to each prompt.
      temperature: 0 for the most probable token each time.
      batch_size: responses decoded together; with a mesh a multiple of its ``data × fsdp``.
      prompt_multiple: prompts are padded to multiples of it, in tokens.
      thinking: tell the chat template to leave room for thoughts, for a model that was trained on
        solutions with some; see `experiments.llm.text.tokenizer.render`.
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
        check_least(self, 1, "max_new_tokens", "samples", "batch_size", "prompt_multiple")
        check_not_negative(self, "temperature")
        check_seed(self, "seed")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples must be 1 at temperature 0, where all are equal; got {self.samples}"
            )


SAMPLED = DecodingConfig(samples=8, temperature=0.7)
"""Behind a pass rate. The paper tells neither number."""
