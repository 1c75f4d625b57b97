"""Decoder checkpoints as Hugging Face folders: small models of this study and published ones alike.

A checkpoint is a folder with ``config.json`` and safetensors under Hugging Face's names, so that
`transformers` loads a model of ours, and this module loads a published Qwen2, Qwen3 or Llama.
Nothing is ever unpickled, and no code of a checkpoint runs.

With randomised positions, give `transformers` an ``attention_mask`` of ones beside the
``position_ids``. Without a mask it takes a gap for the start of another sequence in the same row.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from safetensors import SafetensorError

from experiments.distribution import install_hint
from experiments.storage.hugging_face import (
    CONFIG,
    family_of,
    from_hugging_face,
    read_json,
    to_hugging_face,
    write_json,
)
from experiments.storage.layout import check_shapes, leaves_by_path, nested, parameter_shapes
from experiments.storage.tensors import (
    INDEX,
    SHARD_BYTES,
    TENSORS,
    check_tensors,
    common_type,
    open_tensors,
    read_parameter,
    write_tensors,
)
from experiments.storage.untrusted import JSON_MEBIBYTES, check_file
from experiments.storage.writing import write_folder_atomically
from synth.config import DecoderConfig
from synth.decoder import Parameters

GENERATION_CONFIG = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    GENERATION_CONFIG,
)
"""Files of a folder that turn text into tokens and back, copied beside new weights."""

PathLike = str | os.PathLike[str]


def is_hub_id(path_or_id: PathLike) -> TypeGuard[str]:
    """Return whether this may be OWNER/NAME on the Hugging Face hub.

    With a folder OWNER here it is a path that is wrong, such as ``runs/demo``: the hub is not asked
    for what was meant to be on this machine.
    """
    is_id = isinstance(path_or_id, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path_or_id)
    return bool(is_id) and not Path(path_or_id).parent.exists()


def folder(path_or_id: PathLike) -> Path:
    """Local folder of a checkpoint: the path itself, or the copy of a hub repository.

    Args:
      path_or_id: a folder, or ``OWNER/NAME`` on the Hugging Face hub. The hub is asked only if
        there is neither such a folder nor a folder OWNER; with ``HF_HUB_OFFLINE=1`` only its local
        cache is searched.

    Raises:
      FileNotFoundError: if it is neither, or the hub cannot be reached.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return path
    if not is_hub_id(path_or_id):
        raise FileNotFoundError(f"checkpoint must be a folder, got {str(path)!r}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FileNotFoundError(
            f"checkpoint {path_or_id!r} is no folder here, and the Hugging Face hub needs: "
            f"{install_hint('llm')}"
        ) from error
    wanted = [CONFIG, "model*.safetensors", INDEX, *TOKENIZER_FILES]
    try:
        return Path(snapshot_download(path_or_id, allow_patterns=wanted))
    # The errors depend on the versions of the hub's client and of its network library.
    except Exception as error:
        raise FileNotFoundError(
            f"checkpoint {path_or_id!r} is no folder here, and the Hugging Face hub did not give "
            f"it ({type(error).__name__}: {error})"
        ) from error


def read_config(path_or_id: PathLike) -> DecoderConfig:
    """Shape and switches of a checkpoint, without its parameters.

    Raises:
      FileNotFoundError, ValueError: see `load`.
    """
    return from_hugging_face(read_json(folder(path_or_id), CONFIG))


def digest(path_or_id: PathLike) -> str:
    """Fingerprint of a checkpoint's configuration and weights.

    Args:
      path_or_id: see `folder`.

    Raises:
      FileNotFoundError, ValueError: if there is no ``config.json``, or it is too large.
    """
    place = folder(path_or_id)
    paths = [place / CONFIG, *filter(Path.is_file, sorted(place.glob("*.safetensors")))]
    if not paths[0].is_file():
        raise FileNotFoundError(f"checkpoint {str(place)!r} has no {CONFIG}")
    return _digest(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths))


@functools.lru_cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash files, each with its time and size, so that unchanged weights are hashed once."""
    (config, *_), *weights = files
    check_file(config, most_mebibytes=JSON_MEBIBYTES)
    total = hashlib.sha256(config.read_bytes())
    for path, *_ in weights:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def stored_dtype(path_or_id: PathLike) -> np.dtype:
    """Floating-point type that holds every tensor of a checkpoint as it is stored.

    It is read from the tensors, because ``config.json`` may state another one.

    Args:
      path_or_id: what `load` accepts.
    """
    with contextlib.ExitStack() as stack:
        return common_type(open_tensors(folder(path_or_id), stack).values())


def load(
    path_or_id: PathLike, *, mesh: Mesh | None = None, dtype: DTypeLike | None = jnp.float32
) -> tuple[DecoderConfig, Parameters]:
    """Read a checkpoint, saved by `save` or published on the Hugging Face hub.

    At most one parameter (stacked over layers) is held in memory besides those already read; with a
    mesh, a process holds its own slices only.

    Args:
      path_or_id: see `folder`; with ``config.json``, and ``model.safetensors`` or shards.
      mesh: devices to spread the parameters over by the rules of `experiments.storage.sharding`;
        None for the default device.
      dtype: type of the parameters in memory; None keeps the stored type of each, or a type that
        holds all layers where their types differ.

    Raises:
      FileNotFoundError: if there is no such folder, or it lacks a file.
      ValueError: if the model type, rotary type, sliding window, or another switch is not
        supported, if a config key is missing or unknown to the study, if a tensor is missing,
        unexpected or of the wrong shape or type, or holds a number that is not finite, or if the
        model is larger than the memory.
    """
    place = folder(path_or_id)
    decoder = from_hugging_face(read_json(place, CONFIG))
    with contextlib.ExitStack() as stack:
        stored = open_tensors(place, stack)
        try:
            check_tensors(decoder, stored)
            leaves = {
                path: read_parameter(decoder, path, stored, mesh, dtype)
                for path in parameter_shapes(decoder)
            }
        except SafetensorError as error:
            raise ValueError(
                f"{TENSORS} in {str(place)!r} cannot be read ({error!s:.300})"
            ) from error
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            raise ValueError(f"{str(place)!r} does not fit into memory ({error})") from error
        except ValueError as error:
            raise ValueError(f"checkpoint {str(place)!r}: {error!s:.3000}") from error
    return decoder, nested(leaves)


def check_storable(decoder: DecoderConfig) -> None:
    """Raise ValueError if a decoder with these switches has no form as a Hugging Face folder."""
    family_of(decoder)
    if decoder.lora is not None:
        raise ValueError(
            "lora must be merged into the kernels first: experiments.llm.training.lora.merge"
        )


def save(
    path: PathLike,
    decoder: DecoderConfig,
    parameters: Parameters,
    *,
    dtype: DTypeLike | None = None,
    like: PathLike | None = None,
    stop: Sequence[int] | None = None,
    add_files: Callable[[Path], object] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a decoder as a new Hugging Face folder that `transformers` can load.

    The folder appears complete or not at all.

    Args:
      path: the folder to create.
      decoder: shape and switches of the model; `execution` is not saved.
      parameters: its parameters, as `synth.decoder.initialise` lays them out.
      dtype: floating-point type to store; None keeps the parameters' own, which must be one.
        float64, which parameters have under ``JAX_ENABLE_X64``, is stored as float32.
      like: a checkpoint folder whose tokenizer, generation settings and special tokens are copied.
      stop: token ids that end a text, in place of those that the generation settings state.
      add_files: writes further files into the folder, before it appears.
      shard_bytes: the most bytes of tensors in a file; a larger tensor gets a file of its own.

    Raises:
      FileExistsError: if `path` exists.
      FileNotFoundError: if `like` is no checkpoint.
      ValueError: if no Hugging Face family has these switches, if there are adapters, or if the
        parameters do not fit `decoder`, or have several types where `dtype` is not given.
      OSError: if the disk is full.
    """
    path = Path(path)
    check_storable(decoder)
    leaves = leaves_by_path(parameters)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    check_shapes("parameters", shapes, parameter_shapes(decoder))
    kind = _stored_type(leaves, dtype)
    written = to_hugging_face(decoder, str(kind))
    if like is not None:
        theirs = read_json(Path(like), CONFIG)
        written |= {
            key: theirs[key] for key in written if key.endswith("_token_id") and key in theirs
        }

    def write(partial: Path) -> None:
        write_tensors(partial, decoder, leaves, kind, shard_bytes)
        write_json(partial / CONFIG, written)
        if like is not None:
            _copy_tokenizer(Path(like), partial)
        if stop is not None:
            _state_stop(partial, stop)
        if add_files is not None:
            add_files(partial)

    write_folder_atomically(path, write)


def _stored_type(leaves: Mapping[str, Any], dtype: DTypeLike | None) -> np.dtype:
    """Type to store parameters in: `dtype`, or the one type that they all have."""
    types = {str(leaf.dtype) for leaf in leaves.values()}
    if dtype is None and len(types) > 1:
        raise ValueError(f"parameters must share one dtype where dtype is None, got {types}")
    kind = jnp.dtype(next(iter(types)) if dtype is None else dtype)
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"dtype must be a floating-point type, got {kind}")
    return jnp.dtype(jnp.float32) if kind == jnp.float64 else kind


def _copy_tokenizer(source: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _state_stop(folder: Path, stop: Sequence[int]) -> None:
    """Write end markers into a folder's generation settings; the other settings are kept."""
    if (folder / GENERATION_CONFIG).is_file():
        stated = read_json(folder, GENERATION_CONFIG)
    else:
        # Without this file transformers reads these two from config.json; with it, only from here.
        written = read_json(folder, CONFIG)
        stated = {name: written[name] for name in ("bos_token_id", "pad_token_id")}
    write_json(folder / GENERATION_CONFIG, stated | {"eos_token_id": [*stop]})
