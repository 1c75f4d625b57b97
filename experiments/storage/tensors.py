"""Tensors of a checkpoint folder: one safetensors file, or shards with an index.

Files are mapped into memory, and a parameter is read in blocks straight into its place, so that no
parameter is held twice; with a mesh, a process reads its own slices alone.
"""

from __future__ import annotations

import contextlib
import math
import os
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

from experiments.storage.hugging_face import read_json, write_json
from experiments.storage.layout import (
    NAMES,
    check_shapes,
    is_buffer,
    is_stacked,
    is_transposed,
    parameter_shapes,
    tensor_names,
    tensor_shapes,
)
from experiments.storage.sharding import parameter_sharding
from synth.config import DecoderConfig

TENSORS = "model.safetensors"
INDEX = f"{TENSORS}.index.json"
SHARD = "model-{:05d}-of-{:05d}.safetensors"
SHARD_BYTES = 5_000_000_000
"""The most bytes of a file by default. A file is put together in memory before it is written."""

BLOCK_BYTES = 16_000_000
"""The most bytes of a tensor that are read at once."""

MOST_SHARDS = 10_000
"""The most files of tensors that are opened at once."""

STORED_TYPES = {"F32": jnp.float32, "F16": jnp.float16, "BF16": jnp.bfloat16}

Stored = Mapping[str, Any]
"""Tensors of open files by Hugging Face name: shape and type are known, slicing reads numbers."""


def open_tensors(path: Path, stack: contextlib.ExitStack) -> Stored:
    """Open the tensors of a folder, without rotary buffers.

    Args:
      path: the folder.
      stack: closes the files.

    Raises:
      FileNotFoundError: if the folder lacks a file.
      ValueError: if a file cannot be read, or the index does not fit the shards.
    """
    if (path / TENSORS).is_file() or not (path / INDEX).is_file():
        file = _open_file(path, TENSORS, stack)
        names = [name for name in file.keys() if not is_buffer(name)]  # noqa: SIM118 (no mapping)
        return {name: file.get_slice(name) for name in names}
    # The index says which shard holds each tensor. Shards must lie in the folder itself.
    shard_of = read_json(path, INDEX).get("weight_map")
    if not isinstance(shard_of, dict) or not all(
        isinstance(shard, str) and Path(shard).name == shard for shard in shard_of.values()
    ):
        raise ValueError(f"{INDEX} in {str(path)!r} has no weight_map from tensors to files")
    shard_of = {name: shard for name, shard in shard_of.items() if not is_buffer(name)}
    if not shard_of or len(set(shard_of.values())) > MOST_SHARDS:
        raise ValueError(
            f"{INDEX} in {str(path)!r} must name tensors in at most {MOST_SHARDS} files, "
            f"got {len(shard_of)} in {len(set(shard_of.values()))}"
        )
    files = {shard: _open_file(path, shard, stack) for shard in sorted(set(shard_of.values()))}
    names_in = {shard: set(file.keys()) for shard, file in files.items()}
    if lost := sorted(name for name, shard in shard_of.items() if name not in names_in[shard]):
        raise ValueError(f"{INDEX} in {str(path)!r} names tensors that their shards lack: {lost}")
    return {name: files[shard].get_slice(name) for name, shard in shard_of.items()}


def _open_file(path: Path, name: str, stack: contextlib.ExitStack) -> Any:
    if not (path / name).is_file():
        raise FileNotFoundError(f"checkpoint {str(path)!r} has no {name}")
    try:
        return stack.enter_context(safe_open(path / name, framework="numpy"))
    except SafetensorError as error:
        raise ValueError(f"{str(path / name)!r} cannot be read ({error!s:.300})") from error


def check_tensors(decoder: DecoderConfig, stored: Stored) -> None:
    """Refuse tensors that do not fit the decoder, before any parameter is read.

    Raises:
      ValueError: if a tensor is missing, unexpected or of the wrong shape or type, or a head that
        is said to be tied differs from the embedding.
    """
    shapes = {name: tuple(tensor.get_shape()) for name, tensor in stored.items()}
    # Compare the numbers first: names and shapes of a billion layers would fill the memory.
    if decoder.num_layers > len(shapes):
        raise ValueError(
            f"{TENSORS} do not fit the config: {len(shapes)} tensors for "
            f"{decoder.num_layers} layers"
        )
    _check_memory(decoder)
    # A file may repeat a tied head, which must then be the embedding.
    head, embedding = NAMES["head"], NAMES["embedding"]
    expected = tensor_shapes(decoder)
    if decoder.tied_head and shapes.get(head) == shapes.get(embedding) == expected[embedding]:
        pairs = zip(_blocks(stored[head]), _blocks(stored[embedding]), strict=True)
        if not all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in pairs):
            raise ValueError(f"{head} differs from {embedding}, but tie_word_embeddings is true")
        del shapes[head]
    check_shapes(TENSORS, shapes, expected)
    types = {name: stored[name].get_dtype() for name in shapes}
    if others := {name: kind for name, kind in types.items() if kind not in STORED_TYPES}:
        raise ValueError(f"tensors must have types among {sorted(STORED_TYPES)}, got {others}")


def _check_memory(decoder: DecoderConfig) -> None:
    """Refuse a model that is larger than the memory of this machine, whatever its type.

    The devices of a mesh may hold parts of it; but the files of the model are on this machine, and
    may be sparse, so that their size says little.
    """
    sizes = (math.prod(shape) for shape in parameter_shapes(decoder).values())
    needed = 2 * sum(sizes)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if jax.default_backend() == "cpu" and jax.process_count() == 1 and needed > memory:
        raise ValueError(
            f"the model of the config needs at least {needed / 2**30:,.0f} GiB, and this machine "
            f"has {memory / 2**30:,.0f} GiB of memory"
        )


def common_type(tensors: Iterable[Any]) -> np.dtype:
    """Floating-point type that holds each of these stored tensors."""
    types = {STORED_TYPES[tensor.get_dtype()] for tensor in tensors}
    return jnp.dtype(types.pop() if len(types) == 1 else jnp.float32)


def _blocks(
    tensor: Any, index: Sequence[slice] = ()
) -> Iterator[tuple[slice, Float[np.ndarray, ...]]]:
    """Read a slice of a stored tensor in blocks along its first axis, each with its place there."""
    rows, *rest = [*index, *[slice(None)] * (len(tensor.get_shape()) - len(index))]
    start, stop, _ = rows.indices(tensor.get_shape()[0])
    row_bytes = 4 * math.prod(tensor.get_shape()[1:])
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        yield slice(begin - start, end - start), tensor[(slice(begin, end), *rest)]


def read_parameter(
    decoder: DecoderConfig, path: str, stored: Stored, mesh: Mesh | None, dtype: DTypeLike | None
) -> jax.Array:
    """Read one parameter, of all layers.

    Args:
      decoder: shape of the model.
      path: of the parameter.
      stored: tensors that `check_tensors` accepts.
      mesh: devices to spread it over; None for the default device.
      dtype: type in memory; None for the stored one.

    Raises:
      ValueError: if a number is not finite; it names the tensor.
    """
    names = tensor_names(path, decoder.num_layers)
    tensors = [stored[name] for name in names]
    shape = parameter_shapes(decoder)[path]
    kind = common_type(tensors) if dtype is None else dtype

    def read(index: Any) -> Float[np.ndarray, ...]:
        """Read the part of the parameter at an index of slices, one for each axis."""
        sizes = [len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True)]
        leaf = np.empty(sizes, kind)
        if is_stacked(path):
            layers, targets, inner = range(len(tensors))[index[0]], leaf, index[1:]
        else:
            layers, targets, inner = range(1), [leaf], index
        # A transposed view of the target lets every block go where it belongs, without a copy.
        for layer, target in zip(layers, targets, strict=True):
            target = target.T if is_transposed(path) else target
            inner_stored = inner[::-1] if is_transposed(path) else inner
            for rows, block in _blocks(tensors[layer], inner_stored):
                if not _is_finite(block):
                    raise ValueError(
                        f"tensor {names[layer]!r} of the checkpoint holds numbers that are not "
                        f"finite (NaN or infinite): its training diverged, or the file is broken"
                    )
                target[rows] = block
        return leaf

    if mesh is None:
        # Not committed to a device: a program may then choose its own.
        return jax.device_put(read([slice(None)] * len(shape))).block_until_ready()
    sharding = parameter_sharding(path, shape, mesh)
    return jax.make_array_from_callback(shape, sharding, read, dtype=kind)


def _is_finite(block: Float[np.ndarray, ...]) -> bool:
    """Return whether all numbers are finite, from their exponents: NumPy is slow on bfloat16."""
    if block.dtype != jnp.bfloat16:
        return bool(np.isfinite(block).all())
    exponents = np.ascontiguousarray(block).view(np.uint16) & 0x7F80
    return not (exponents == 0x7F80).any()


def write_tensors(
    path: Path,
    decoder: DecoderConfig,
    leaves: Mapping[str, Any],
    kind: np.dtype,
    shard_bytes: int,
) -> None:
    """Write parameters as one file, or as shards with their index.

    Args:
      path: an existing folder.
      decoder: shape of the model.
      leaves: its parameters by path.
      kind: floating-point type to store.
      shard_bytes: the most bytes of tensors in a file; a larger tensor gets a file of its own.

    Raises:
      OSError: if the disk is full, or the folder cannot be written.
    """
    sizes = {
        name: int(np.prod(shape)) * kind.itemsize for name, shape in tensor_shapes(decoder).items()
    }
    shards = _grouped(sizes, shard_bytes)
    files = [SHARD.format(number + 1, len(shards)) for number in range(len(shards))]
    files = [TENSORS] if len(shards) == 1 else files
    # Tensors come in the order of `sizes`: each file takes the next few.
    tensors = _tensors(decoder, leaves, kind)
    for file, names in zip(files, shards, strict=True):
        contents = {name: next(tensors) for name in names}
        try:
            save_file(contents, path / file, {"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{path.parent} cannot take the weights: {error}") from error
    if len(shards) > 1:
        shard_of = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total = {"total_size": sum(sizes.values())}
        write_json(path / INDEX, {"metadata": total, "weight_map": shard_of})


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
    decoder: DecoderConfig, leaves: Mapping[str, Any], kind: np.dtype
) -> Iterator[Float[np.ndarray, ...]]:
    """Parameters as tensors to store, in the order of `tensor_shapes`."""
    for path in parameter_shapes(decoder):
        leaf = np.asarray(leaves[path])
        for tensor in leaf if is_stacked(path) else [leaf]:
            tensor = tensor.T if is_transposed(path) else tensor
            yield np.ascontiguousarray(tensor, kind)
