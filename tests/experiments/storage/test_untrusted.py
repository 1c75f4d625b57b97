"""Checkpoint folders that somebody else made: refused with one line, whatever they hold."""

import json
import os
import stat
import struct

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.storage import checkpoint, layout, tensors
from experiments.storage.untrusted import parse_json, read_json_file
from synth.config import DecoderConfig
from tests.golden import regenerate as golden

TOY = DecoderConfig(23, 16, 24, position_start=9, position_gap=3, max_positions=40)


@pytest.fixture
def folder(tmp_path):
    """Folder of a toy, which a test changes."""
    checkpoint.save(tmp_path / "toy", TOY, golden.weights(TOY))
    return tmp_path / "toy"


def state(folder, **keys):
    """Change keys of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "", "{", b"\xff\xfe\x00"]
)
def test_json_that_cannot_be_read_is_one_line(text, tmp_path):
    with pytest.raises(ValueError, match=r"x.json' is (not JSON|nested too deeply)") as caught:
        parse_json(text, "'x.json'")
    assert "\n" not in str(caught.value)


def test_pipes_devices_and_large_files_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**40)
    for name in ("pipe", "zero"):
        with pytest.raises(ValueError, match="must be a file"):
            read_json_file(tmp_path / name)
    with pytest.raises(ValueError, match=r"must have at most 64 MiB, got 1,048,576 MiB"):
        read_json_file(tmp_path / "large")
    with pytest.raises(FileNotFoundError, match="cannot be opened"):
        read_json_file(tmp_path / "missing")


def test_a_deep_config_is_refused(folder):
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("num_hidden_layers", value) for value in (10**9, "2", 2.0, True, [2], {}, -1, 10**100)),
        *(("vocab_size", value) for value in (10**12, "23", float("nan"))),
        ("model_type", ["qwen2"]),
        ("rms_norm_eps", "small"),
        ("rms_norm_eps", float("nan")),
        ("head_dim", "4"),
        ("num_key_value_heads", [4]),
        ("rope_parameters", [1, 2]),
        ("rope_parameters", {"rope_type": {}}),
        ("rope_theta", "ten thousand"),
        ("rope_theta", float("inf")),
        ("sweetspot", ["positions"]),
        ("positions", ["randomised"]),
        ("position_gap", "wide"),
        ("layer_types", [{}]),
        ("layer_types", 7),
    ],
)
def test_a_config_of_wrong_types_or_sizes_is_refused_by_name(key, value, folder):
    in_study = key.startswith("position")
    state(folder, **({"sweetspot": {key: value}} if in_study else {key: value}))
    with pytest.raises(ValueError, match=key.removesuffix("_parameters")) as caught:
        checkpoint.load(folder)
    assert len(str(caught.value)) < 600


def test_more_layers_than_tensors_are_refused_before_they_are_named(folder):
    state(folder, num_hidden_layers=10_000)
    with pytest.raises(ValueError, match="27 tensors for 10000 layers"):
        checkpoint.load(folder)


def test_a_model_beyond_the_memory_is_refused(folder):
    state(folder, vocab_size=10_000_000, hidden_size=10_000_000)
    with pytest.raises(ValueError, match=r"needs at least [\d,]+ GiB, and this machine has"):
        checkpoint.load(folder)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_numbers_that_are_not_finite_are_refused_with_their_tensor(number, kind, tmp_path):
    parameters = golden.weights(TOY)
    parameters["layers"]["up"]["kernel"] = np.array(parameters["layers"]["up"]["kernel"])
    parameters["layers"]["up"]["kernel"][1, 2, 3] = number
    checkpoint.save(tmp_path / "toy", TOY, parameters, dtype=kind)
    with pytest.raises(ValueError, match=r"'model.layers.1.mlp.up_proj.weight' .* not finite"):
        checkpoint.load(tmp_path / "toy")


@pytest.mark.parametrize("shape", [(), (0, 16), (23, 0)])
def test_a_tied_head_of_another_shape_is_refused(shape, folder):
    state(folder, tie_word_embeddings=True)
    stored = load_file(folder / "model.safetensors")
    odd = np.zeros(shape, np.float32)
    stored |= {layout.NAMES["head"]: odd, layout.NAMES["embedding"]: odd}
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"has shape .*, expected"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"{" * 5_000,
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,99]}}',
        b'{"a":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,16]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}',
        b'{"a":{"dtype":"F32","shape":"' + b"a" * 100_000 + b'","data_offsets":[0,16]}}',
        b'{"a":{"dtype":"PICKLE","shape":[4],"data_offsets":[0,16]}}',
    ],
)
def test_a_lying_header_is_refused(header, folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(ValueError, match=r"model.safetensors' cannot be read") as caught:
        checkpoint.load(folder)
    assert len(str(caught.value)) < 1000
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + header)
    with pytest.raises(ValueError, match=r"model.safetensors' cannot be read"):
        checkpoint.load(folder)


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "a/b", "..", 5, None])
def test_an_index_that_leads_out_of_the_folder_is_refused(shard, folder):
    (folder / tensors.TENSORS).unlink()
    (folder / tensors.INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises((ValueError, FileNotFoundError), match=r"has no (weight_map|\.\.)"):
        checkpoint.load(folder)


def test_a_missing_folder_whose_parent_is_here_is_not_looked_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/model", "./model", str(tmp_path / "model")):
        with pytest.raises(FileNotFoundError, match="must be a folder, got"):
            checkpoint.load(name)


def test_files_of_a_checkpoint_may_be_read_by_others(folder):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o644}, modes


def test_double_precision_is_saved_so_that_it_can_be_loaded(tmp_path):
    parameters = golden.weights(TOY)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)
        checkpoint.save(tmp_path / "toy", TOY, double)
    for ours, theirs in zip(
        jax.tree.leaves(checkpoint.load(tmp_path / "toy")[1]),
        jax.tree.leaves(parameters),
        strict=True,
    ):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
