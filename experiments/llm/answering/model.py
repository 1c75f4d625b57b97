"""A checkpoint with its tokenizer, which can be asked questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from experiments.llm.text.tokenizer import load_tokenizer, stop_tokens
from experiments.storage import checkpoint
from synth.config import DecoderConfig
from synth.decoder import Parameters


@dataclass(frozen=True, eq=False)
class Model:
    """A checkpoint that can be asked questions.

    Attributes:
      decoder, parameters: the network.
      tokenizer: has a chat template.
      stop: token ids that end a response.
      mesh: devices that hold the parameters; None for the default device.
      folder: folder that it was read from; None if it was made in this process.
    """

    decoder: DecoderConfig
    parameters: Parameters
    tokenizer: Any
    stop: tuple[int, ...]
    mesh: Mesh | None = None
    folder: Path | None = None

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
          path_or_id: see `experiments.storage.checkpoint.folder`.
          mesh, dtype: see `experiments.storage.checkpoint.load`.

        Raises:
          FileNotFoundError, ImportError, ValueError: if a file is missing or cannot be used.
        """
        folder = checkpoint.folder(path_or_id)
        # Read the tokenizer first: it is quick, and more often faulty than the weights.
        tokenizer = load_tokenizer(folder)
        stop = stop_tokens(tokenizer, folder)
        decoder, parameters = checkpoint.load(folder, mesh=mesh, dtype=dtype)
        return cls(decoder, parameters, tokenizer, stop, mesh, folder)
