"""Decoder checkpoints as Hugging Face folders, the toy's and the real ones alike.

A checkpoint is a folder with ``config.json`` and safetensors (Hugging Face names, matrices
[outputs, inputs]), in one file or in shards with an index, so that `transformers` loads a toy and
this module loads a published Qwen2, Qwen3 or Llama. Nothing is ever unpickled, and no code of a
checkpoint runs.

With randomised positions, give `transformers` an ``attention_mask`` of ones beside the
``position_ids``: without one it takes a gap for the start of another sequence in the same row.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from experiments.storage.hugging_face import (
    CONFIG,
    NAMES,
    family_of,
    from_hugging_face,
    is_buffer,
    to_hugging_face,
)
from experiments.storage.sharding import parameter_sharding
from synth.config import DecoderConfig
from synth.decoder import Parameters, initialise

GENERATION_CONFIG = "generation_config.json"
TENSORS = "model.safetensors"
INDEX = f"{TENSORS}.index.json"
SHARD = "model-{:05d}-of-{:05d}.safetensors"
SHARD_BYTES = 5_000_000_000
"""Above this a file is split; also what `save` holds in memory beside the parameters."""

BLOCK_BYTES = 16_000_000
"""Tensors are read in pieces of at most this size, so that none is held twice."""

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
"""What a folder holds beside its weights for text to go in and out."""

STORED_TYPES = {"F32": jnp.float32, "F16": jnp.float16, "BF16": jnp.bfloat16}

PathLike = str | os.PathLike[str]


def folder(path_or_id: PathLike) -> Path:
    """The local folder of a checkpoint: the path itself, or the copy of a hub repository.

    Args:
      path_or_id: a folder, or ``OWNER/NAME`` on the Hugging Face hub. The hub is asked only where
        there is no such folder; with ``HF_HUB_OFFLINE=1`` its local cache is.

    Raises:
      FileNotFoundError: if it is neither, or the hub cannot be reached.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return path
    if not (isinstance(path_or_id, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path_or_id)):
        raise FileNotFoundError(f"checkpoint must be a folder, got {str(path)!r}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FileNotFoundError(
            f"checkpoint {path_or_id!r} is no folder here, and the Hugging Face hub needs: "
            f"pip install 'sweetspot[llm]'"
        ) from error
    wanted = [CONFIG, "model*.safetensors", INDEX, *TOKENIZER_FILES]
    try:
        return Path(snapshot_download(path_or_id, allow_patterns=wanted))
    # What it raises depends on the version of the hub's client and of its network library.
    except Exception as error:
        raise FileNotFoundError(
            f"checkpoint {path_or_id!r} is no folder here, and the Hugging Face hub did not give "
            f"it ({type(error).__name__}: {error})"
        ) from error


def read_config(path_or_id: PathLike) -> DecoderConfig:
    """Shape and switches of a checkpoint, without its parameters.

    Raises:
      FileNotFoundError, ValueError: as `load`, of ``config.json``.
    """
    return from_hugging_face(_read_json(folder(path_or_id), CONFIG))


def digest(path_or_id: PathLike) -> str:
    """Fingerprint of a checkpoint's configuration and weights.

    Args:
      path_or_id: see `folder`.
    """
    place = folder(path_or_id)
    total = hashlib.sha256((place / CONFIG).read_bytes())
    for path in sorted(place.glob("*.safetensors")):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def stored_dtype(path_or_id: PathLike) -> np.dtype:
    """Floating-point type that holds every tensor of a checkpoint as it is stored.

    That is the tensors' own, whatever ``config.json`` says; of several, the one that holds all.

    Args:
      path_or_id: what `load` accepts.
    """
    with contextlib.ExitStack() as stack:
        return _common_type(_open(folder(path_or_id), stack).values())


def load(
    path_or_id: PathLike, *, mesh: Mesh | None = None, dtype: DTypeLike | None = jnp.float32
) -> tuple[DecoderConfig, Parameters]:
    """Read a checkpoint, saved by `save` or published on the Hugging Face hub.

    Beside the parameters themselves, no more is held in memory than one of them (stacked over
    layers); with a mesh, no more than a process's own slices of it.

    Args:
      path_or_id: see `folder`; with ``config.json``, and ``model.safetensors`` or shards.
      mesh: devices to spread the parameters over by the rules of `experiments.storage.sharding`;
        None puts them on the default device.
      dtype: type of the parameters in memory; None keeps the stored one of each (layers that
        differ share the one that holds both).

    Raises:
      FileNotFoundError: if there is no such folder, or it lacks a file.
      ValueError: if the model type, rotary type, sliding window, or another switch is not
        supported, if a config key is missing or unknown to the study, or if a tensor is missing,
        unexpected or of the wrong shape or type.
    """
    path = folder(path_or_id)
    config = from_hugging_face(_read_json(path, CONFIG))
    with contextlib.ExitStack() as stack:
        stored = _open(path, stack)
        try:
            _check(config, stored)
            parameters: Parameters = {}
            for leaf_path in parameter_shapes(config):
                *folders, last = leaf_path.split("/")
                place = parameters
                for name in folders:
                    place = place.setdefault(name, {})
                place[last] = _read_leaf(config, leaf_path, stored, mesh, dtype)
        except SafetensorError as error:
            raise ValueError(f"{TENSORS} in {str(path)!r} cannot be read ({error})") from error
    return config, parameters


def save(
    path: PathLike,
    config: DecoderConfig,
    parameters: Parameters,
    *,
    dtype: DTypeLike | None = None,
    like: PathLike | None = None,
    stop: Sequence[int] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a decoder as a new Hugging Face folder that `transformers` can load.

    The folder appears complete or not at all.

    Args:
      path: the folder to create.
      config: shape and switches of the decoder; `execution` is not saved.
      parameters: its parameters, as `synth.decoder.initialise` lays them out.
      dtype: floating-point type to store; None keeps the parameters' own, which must be one.
      like: a checkpoint folder whose tokenizer, generation settings and special tokens are copied.
      stop: token ids that end a text, in place of those that the generation settings state.
      shard_bytes: the most bytes of tensors in a file, but for a larger tensor alone.

    Raises:
      FileExistsError: if `path` exists.
      FileNotFoundError: if `like` is no checkpoint.
      ValueError: if no Hugging Face family has these switches, if there are adapters, or if the
        parameters do not fit `config`, or have several types where `dtype` is not given.
    """
    path = Path(path)
    family_of(config)
    if config.lora is not None:
        raise ValueError(
            "lora must be merged into the kernels first: experiments.llm.training.lora.merge"
        )
    leaves = _leaves(parameters)
    _refuse(
        "parameters", {name: leaf.shape for name, leaf in leaves.items()}, parameter_shapes(config)
    )
    kind = _stored_type(leaves, dtype)
    written = to_hugging_face(config, str(kind))
    if like is not None:
        theirs = _read_json(Path(like), CONFIG)
        written |= {
            key: theirs[key] for key in written if key.endswith("_token_id") and key in theirs
        }
    if path.exists():
        raise FileExistsError(f"path must be a new folder, but {str(path)!r} exists")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and on the same file system: the rename at the end is atomic.
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _write_tensors(partial, config, leaves, kind, shard_bytes)
        _write_json(partial / CONFIG, written)
        if like is not None:
            _copy_tokenizer(Path(like), partial)
        if stop is not None:
            _state_stop(partial, stop)
        for file in partial.iterdir():
            with file.open("rb") as unsynced:
                os.fsync(unsynced.fileno())
        # mkdtemp makes a folder for its owner alone.
        partial.chmod(0o755)
        try:
            partial.rename(path)
        except OSError as error:
            if not path.exists():
                raise
            raise FileExistsError(
                f"path must be a new folder, but {str(path)!r} appeared meanwhile"
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_tokenizer(source: Path, target: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _state_stop(path: Path, stop: Sequence[int]) -> None:
    """Make these the end markers in a folder's generation settings; the others are kept."""
    if (path / GENERATION_CONFIG).is_file():
        stated = _read_json(path, GENERATION_CONFIG)
    else:
        # Without the file, transformers would have taken them from there.
        written = _read_json(path, CONFIG)
        stated = {name: written[name] for name in ("bos_token_id", "pad_token_id")}
    _write_json(path / GENERATION_CONFIG, stated | {"eos_token_id": [*stop]})


def _read_json(path: Path, name: str) -> dict[str, Any]:
    """Contents of a JSON file of a checkpoint."""
    if not (path / name).is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} has no {name}")
    try:
        found = json.loads((path / name).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path / name)!r} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{str(path / name)!r} must hold an object, got {type(found).__name__}")
    return found


def _write_json(path: Path, contents: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


@functools.cache
def parameter_shapes(config: DecoderConfig) -> Mapping[str, tuple[int, ...]]:
    """Shape of every parameter of a decoder, by path."""
    shapes = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in _leaves(shapes).items()}


def _leaves(parameters: Parameters) -> dict[str, Any]:
    """Leaves of a parameter tree by path."""
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf
        for keys, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    }


def _is_stacked(path: str) -> bool:
    """Whether a parameter has a leading axis of layers, which Hugging Face stores one by one."""
    return "{}" in NAMES[path]


def _is_transposed(path: str) -> bool:
    """Whether ours is [inputs, outputs] where Hugging Face has [outputs, inputs]."""
    return path == "head" or path.endswith("/kernel")


def _names(path: str, num_layers: int) -> list[str]:
    """Hugging Face names of a parameter: one, or one for each layer."""
    name = NAMES[path]
    return [name.format(layer) for layer in range(num_layers)] if _is_stacked(path) else [name]


def stored_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a checkpoint, by its Hugging Face name."""
    expected = {}
    for path, shape in parameter_shapes(config).items():
        shape = shape[1:] if _is_stacked(path) else shape
        shape = shape[::-1] if _is_transposed(path) else shape
        expected |= dict.fromkeys(_names(path, config.num_layers), shape)
    return expected


def _refuse(
    where: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise ValueError that names what is missing, unexpected or of the wrong shape."""
    problems = []
    if missing := sorted(set(expected) - set(found)):
        problems.append(f"missing {missing}")
    if unexpected := sorted(set(found) - set(expected)):
        problems.append(f"unexpected {unexpected}")
    problems += [
        f"{name} has shape {found[name]}, expected {expected[name]}"
        for name in sorted(set(found) & set(expected))
        if found[name] != expected[name]
    ]
    if problems:
        raise ValueError(f"{where} do not fit the config: {'; '.join(problems)}")


# Reading.

Stored = Mapping[str, Any]
"""Hugging Face name to a tensor of an open file: shape and type at once, numbers by slices."""


def _open(path: Path, stack: contextlib.ExitStack) -> Stored:
    """The tensors of a folder, one file or many, without rotary buffers."""
    if (path / TENSORS).is_file() or not (path / INDEX).is_file():
        file = _open_file(path, TENSORS, stack)
        kept = [name for name in file.keys() if not is_buffer(name)]  # noqa: SIM118 (no mapping)
        return {name: file.get_slice(name) for name in kept}
    place = _read_json(path, INDEX).get("weight_map")
    if not isinstance(place, dict) or not all(
        isinstance(shard, str) and Path(shard).name == shard for shard in place.values()
    ):
        raise ValueError(f"{INDEX} in {str(path)!r} has no weight_map from tensors to files")
    place = {name: shard for name, shard in place.items() if not is_buffer(name)}
    files = {shard: _open_file(path, shard, stack) for shard in sorted(set(place.values()))}
    names = {shard: set(file.keys()) for shard, file in files.items()}
    if lost := sorted(name for name, shard in place.items() if name not in names[shard]):
        raise ValueError(f"{INDEX} in {str(path)!r} names tensors that their shards lack: {lost}")
    return {name: files[shard].get_slice(name) for name, shard in place.items()}


def _open_file(path: Path, name: str, stack: contextlib.ExitStack) -> Any:
    if not (path / name).is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} has no {name}")
    try:
        return stack.enter_context(safe_open(path / name, framework="numpy"))
    except SafetensorError as error:
        raise ValueError(f"{str(path / name)!r} cannot be read ({error})") from error


def _check(config: DecoderConfig, stored: Stored) -> None:
    """Refuse tensors that do not fit the config, before any is read."""
    shapes = {name: tuple(tensor.get_shape()) for name, tensor in stored.items()}
    head, embedding = NAMES["head"], NAMES["embedding"]
    if config.tied_head and head in shapes and shapes[head] == shapes.get(embedding):
        pairs = zip(_blocks(stored[head]), _blocks(stored[embedding]), strict=True)
        if not all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in pairs):
            raise ValueError(f"{head} differs from {embedding}, but tie_word_embeddings is true")
        del shapes[head]
    _refuse(TENSORS, shapes, stored_shapes(config))
    kinds = {name: stored[name].get_dtype() for name in shapes}
    if others := {name: kind for name, kind in kinds.items() if kind not in STORED_TYPES}:
        raise ValueError(f"tensors must have types among {sorted(STORED_TYPES)}, got {others}")


def _common_type(tensors: Iterable[Any]) -> np.dtype:
    """Type that holds each of these stored tensors."""
    kinds = {STORED_TYPES[tensor.get_dtype()] for tensor in tensors}
    return jnp.dtype(kinds.pop() if len(kinds) == 1 else jnp.float32)


def _blocks(
    tensor: Any, index: Sequence[slice] = ()
) -> Iterator[tuple[slice, Float[np.ndarray, ...]]]:
    """Pieces of a slice of a stored tensor along its first axis, each with its place there."""
    rows, *rest = [*index, *[slice(None)] * (len(tensor.get_shape()) - len(index))]
    start, stop, _ = rows.indices(tensor.get_shape()[0])
    row_bytes = 4 * int(np.prod(tensor.get_shape()[1:]))
    step = max(1, BLOCK_BYTES // row_bytes)
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        yield slice(begin - start, end - start), tensor[(slice(begin, end), *rest)]


def _read_leaf(
    config: DecoderConfig, path: str, stored: Stored, mesh: Mesh | None, dtype: DTypeLike | None
) -> jax.Array:
    """One parameter, of all layers."""
    tensors = [stored[name] for name in _names(path, config.num_layers)]
    shape = parameter_shapes(config)[path]
    kind = _common_type(tensors) if dtype is None else dtype

    def read(index: Any) -> Float[np.ndarray, ...]:
        """Only what `index` asks for, straight into its place."""
        layers, inner = (index[0], index[1:]) if _is_stacked(path) else (slice(None), index)
        chosen = tensors[layers]
        sizes = [len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True)]
        leaf = np.empty(sizes, kind)
        for tensor, target in zip(chosen, leaf if _is_stacked(path) else [leaf], strict=True):
            target = target.T if _is_transposed(path) else target
            for rows, block in _blocks(tensor, inner[::-1] if _is_transposed(path) else inner):
                target[rows] = block
        return leaf

    if mesh is None:
        # Not committed to a device, so that a program may choose its own.
        return jax.device_put(read([slice(None)] * len(shape))).block_until_ready()
    sharding = parameter_sharding(path, shape, mesh)
    return jax.make_array_from_callback(shape, sharding, read, dtype=kind)


# Writing.


def _stored_type(leaves: Mapping[str, Any], dtype: DTypeLike | None) -> np.dtype:
    """Type that parameters are stored in."""
    types = {str(leaf.dtype) for leaf in leaves.values()}
    if dtype is None and len(types) > 1:
        raise ValueError(f"parameters must share one dtype where dtype is None, got {types}")
    kind = jnp.dtype(next(iter(types)) if dtype is None else dtype)
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"dtype must be a floating-point type, got {kind}")
    return kind


def _write_tensors(
    path: Path,
    config: DecoderConfig,
    leaves: Mapping[str, Any],
    kind: np.dtype,
    shard_bytes: int,
) -> None:
    """One file, or shards and their index."""
    sizes = {
        name: int(np.prod(shape)) * kind.itemsize for name, shape in stored_shapes(config).items()
    }
    shards = _grouped(sizes, shard_bytes)
    files = [SHARD.format(number + 1, len(shards)) for number in range(len(shards))]
    files = [TENSORS] if len(shards) == 1 else files
    tensors = _tensors(config, leaves, kind)
    for file, names in zip(files, shards, strict=True):
        save_file({name: next(tensors)[1] for name in names}, path / file, {"format": "pt"})
    if len(shards) > 1:
        place = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total = {"total_size": sum(sizes.values())}
        _write_json(path / INDEX, {"metadata": total, "weight_map": place})


def _grouped(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names in order, in groups whose sizes add up to at most `most`, one name at least in each."""
    groups: list[list[str]] = [[]]
    total = 0
    for name, size in sizes.items():
        if groups[-1] and total + size > most:
            groups.append([])
            total = 0
        groups[-1].append(name)
        total += size
    return groups


def _tensors(
    config: DecoderConfig, leaves: Mapping[str, Any], kind: np.dtype
) -> Iterator[tuple[str, Float[np.ndarray, ...]]]:
    """Parameters under their Hugging Face names, in the order of `stored_shapes`."""
    for path in parameter_shapes(config):
        leaf = np.asarray(leaves[path])
        names = _names(path, config.num_layers)
        for name, tensor in zip(names, leaf if _is_stacked(path) else [leaf], strict=True):
            tensor = tensor.T if _is_transposed(path) else tensor
            yield name, np.ascontiguousarray(tensor, kind)
