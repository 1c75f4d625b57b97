"""Checkpoints: bit-for-bit round trips, clear refusals, the same logits as `transformers`."""

import dataclasses
import json
import re
import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.storage import checkpoint, hugging_face, tensors
from synth.config import DecoderConfig, Execution, Llama3Rope
from synth.decoder import draw_positions, initialise, logits
from tests.golden import regenerate as golden

TOY = DecoderConfig(
    23,
    16,
    24,
    position_start=9,
    position_gap=3,
    max_positions=40,
    rms_norm_eps=1e-5,
    rope_theta=12_345.6,
)
ROUND_TRIPS = {**golden.CONFIGS, "toy": TOY, "toy-rolled": dataclasses.replace(TOY, unroll=False)}


def assert_same(parameters, expected):
    assert jax.tree.structure(parameters) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(parameters), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder and parameters of `TOY`; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "toy"
    parameters = golden.weights(TOY)
    checkpoint.save(folder, TOY, parameters)
    return folder, parameters


@pytest.fixture
def rewrite(saved, tmp_path):
    """Builder of copies of the toy's folder with changed config keys (None removes) and tensors."""

    def build(keys=None, tensors=None):
        folder = tmp_path / "changed"
        folder.mkdir()
        written = json.loads((saved[0] / "config.json").read_text())
        written |= keys or {}
        written = {key: value for key, value in written.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(written))
        stored = load_file(saved[0] / "model.safetensors") | (tensors or {})
        stored = {name: value for name, value in stored.items() if value is not None}
        save_file(stored, folder / "model.safetensors")
        return folder

    return build


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_round_trip_is_bit_for_bit(name, tmp_path):
    decoder, parameters = ROUND_TRIPS[name], golden.weights(ROUND_TRIPS[name])
    checkpoint.save(tmp_path / "new" / name, decoder, parameters)
    loaded, loaded_parameters = checkpoint.load(tmp_path / "new" / name)
    assert loaded == decoder
    assert_same(loaded_parameters, parameters)


def test_initialised_parameters_round_trip(tmp_path):
    parameters = initialise(TOY, jax.random.key(3))
    checkpoint.save(tmp_path / "toy", TOY, parameters)
    assert_same(checkpoint.load(tmp_path / "toy")[1], parameters)


def test_folder_holds_names_and_layouts_of_hugging_face(saved):
    folder, parameters = saved
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    stored = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(stored["lm_head.weight"], parameters["head"].T)
    np.testing.assert_array_equal(
        stored["model.layers.1.mlp.down_proj.weight"],
        parameters["layers"]["down"]["kernel"][1].T,
    )
    assert stored["model.layers.0.mlp.down_proj.weight"].shape == (16, 24)
    assert len(stored) == 3 + 12 * TOY.num_layers
    written = json.loads((folder / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("qwen2", ["Qwen2ForCausalLM"])
    assert written["max_position_embeddings"] == 40
    assert written["sweetspot"] == {
        "positions": "randomised",
        "position_start": 9,
        "position_gap": 3,
        "unroll": True,
    }


def test_tied_checkpoint_has_no_head(tmp_path):
    decoder = golden.CONFIGS["qwen2-tied"]
    checkpoint.save(tmp_path / "tied", decoder, golden.weights(decoder))
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    assert "head" not in checkpoint.load(tmp_path / "tied")[1]


def test_dtypes_of_file_and_memory(tmp_path, saved):
    parameters = saved[1]
    checkpoint.save(tmp_path / "half", TOY, parameters, dtype=jnp.bfloat16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), parameters)
    assert_same(checkpoint.load(tmp_path / "half", dtype=None)[1], rounded)
    widened = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)
    assert_same(checkpoint.load(tmp_path / "half")[1], widened)


def test_explicit_head_dim_comes_back_as_none(tmp_path, saved):
    explicit = dataclasses.replace(TOY, head_dim=TOY.head_size)
    checkpoint.save(tmp_path / "explicit", explicit, saved[1])
    assert checkpoint.load(tmp_path / "explicit")[0] == TOY


@pytest.mark.parametrize("name", golden.CONFIGS)
def test_logits_equal_stored_logits_of_transformers(name, tmp_path):
    decoder = golden.CONFIGS[name]
    checkpoint.save(tmp_path / name, decoder, golden.weights(decoder))
    loaded, parameters = checkpoint.load(tmp_path / name)
    ours = jax.jit(logits, static_argnums=0)(loaded, parameters, *golden.inputs(decoder))
    with np.load(golden.FILE) as stored:
        np.testing.assert_allclose(ours, stored[name], rtol=0, atol=1e-4)


def test_save_refuses_an_existing_folder_and_leaves_it_alone(tmp_path, saved):
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError, match=r"must be a new folder, but .*taken' exists"):
        checkpoint.save(tmp_path / "taken", TOY, saved[1])
    assert list(tmp_path.rglob("*")) == [tmp_path / "taken"]


def test_failed_save_leaves_nothing(tmp_path, saved, monkeypatch):
    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(tensors, "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(tmp_path / "toy", TOY, saved[1])
    assert list(tmp_path.iterdir()) == []


def test_folder_that_appears_while_saving_is_kept(tmp_path, saved, monkeypatch):
    def race(tensors, path, metadata):
        (tmp_path / "toy").mkdir()
        (tmp_path / "toy" / "theirs").touch()
        save_file(tensors, path, metadata)

    monkeypatch.setattr(tensors, "save_file", race)
    with pytest.raises(FileExistsError, match="appeared meanwhile"):
        checkpoint.save(tmp_path / "toy", TOY, saved[1])
    assert [file.name for file in tmp_path.rglob("*")] == ["toy", "theirs"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qk_norm": True}, "qkv_bias and qk_norm are both on"),
        (
            {"qkv_bias": False, "hidden_size": 18, "head_dim": 4},
            "multiple of num_heads for Hugging Face's llama, got 18 and 4",
        ),
    ],
)
def test_save_refuses_switches_of_no_family(changes, message, tmp_path):
    decoder = dataclasses.replace(TOY, **changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoint.save(tmp_path / "new", decoder, golden.weights(decoder))
    assert not (tmp_path / "new").exists()


def test_save_refuses_parameters_that_do_not_fit(tmp_path, saved):
    parameters = saved[1]
    wrong = {**parameters, "norm": {"gain": np.ones(5, np.float32)}, "extra": np.ones(2)}
    del wrong["head"]
    message = (
        "parameters do not fit the config: missing ['head']; unexpected ['extra']; "
        "norm/gain has shape (5,), expected (16,)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoint.save(tmp_path / "new", TOY, wrong)
    mixed = {**parameters, "head": parameters["head"].astype(jnp.bfloat16)}
    with pytest.raises(ValueError, match="must share one dtype where dtype is None"):
        checkpoint.save(tmp_path / "new", TOY, mixed)
    with pytest.raises(ValueError, match="dtype must be a floating-point type, got int32"):
        checkpoint.save(tmp_path / "new", TOY, parameters, dtype=jnp.int32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"model_type": "mistral"},
            "model_type must be one of ['llama', 'qwen2', 'qwen3'], got 'mistral'",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "got 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "got 'linear'"),
        ({"rope_theta": 5.0}, "rope_theta is stated twice and differs: [5.0, 12345.6]"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1, got 0.5"),
        ({"use_sliding_window": True}, "sliding windows are not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding windows are not"),
        ({"attention_bias": True}, "attention_bias is not supported, got True"),
        ({"mlp_bias": True}, "mlp_bias is not supported, got True"),
        ({"use_sliding_window": True, "max_window_layers": 1}, "sliding windows are not"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 12_345.6, "factor": 8.0}},
            "rope type 'llama3' must state ['low_freq_factor', 'high_freq_factor', 'original_max_",
        ),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ({"vocab_size": None}, "config.json must state ['vocab_size']"),
        ({"model_type": "qwen3", "head_dim": None}, "must state ['head_dim']"),
        ({"sweetspot": {"positionz": 1}}, "'sweetspot' in config.json has unknown ['positionz']"),
        (
            {"num_attention_heads": 0},
            "num_attention_heads in config.json must be a whole number from 1",
        ),
    ],
)
def test_load_refuses_configs_by_name(keys, message, rewrite):
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoint.load(rewrite(keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 8},
        {"use_sliding_window": True, "layer_types": ["full_attention"] * 2},
        {"use_sliding_window": False, "max_window_layers": 1, "sliding_window": 8},
    ],
)
def test_sliding_windows_that_no_layer_uses_are_no_reason_to_refuse(keys, rewrite):
    assert checkpoint.load(rewrite(keys))[0] == TOY


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lm_head.weight": None}, "missing ['lm_head.weight']"),
        (
            {"model.layers.1.mlp.up_proj.weight": None},
            "missing ['model.layers.1.mlp.up_proj.weight']",
        ),
        (
            {"model.layers.2.mlp.up_proj.weight": np.ones((24, 16), np.float32)},
            "unexpected ['model.layers.2.mlp.up_proj.weight']",
        ),
        (
            {"model.layers.0.mlp.up_proj.weight": np.ones((16, 24), np.float32)},
            "model.layers.0.mlp.up_proj.weight has shape (16, 24), expected (24, 16)",
        ),
        (
            {"model.layers.0.self_attn.o_proj.bias": np.ones(16, np.float32)},
            "unexpected ['model.layers.0.self_attn.o_proj.bias']",
        ),
        (
            {"model.norm.weight": np.ones(16, np.int8)},
            "types among ['BF16', 'F16', 'F32'], got {'model.norm.weight': 'I8'}",
        ),
    ],
)
def test_load_names_tensors_that_do_not_fit(tensors, message, rewrite):
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoint.load(rewrite(tensors=tensors))


def test_load_says_what_is_not_there(tmp_path, rewrite):
    with pytest.raises(FileNotFoundError, match=r"must be a folder, got '.*nowhere'"):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=re.escape("has no config.json")):
        checkpoint.load(tmp_path / "empty")
    folder = rewrite()
    (folder / "model.safetensors").write_bytes(b"truncated")
    with pytest.raises(ValueError, match=re.escape("model.safetensors' cannot be read")):
        checkpoint.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape("has no model.safetensors")):
        checkpoint.load(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="has no weight_map from tensors to files"):
        checkpoint.load(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=re.escape("config.json' is not JSON")):
        checkpoint.load(folder)


# Shards.


@pytest.fixture
def sharded(saved, tmp_path):
    """The toy in several files, ready to be damaged: folder, and its index."""
    checkpoint.save(tmp_path / "sharded", TOY, saved[1], shard_bytes=5000)
    index = tmp_path / "sharded" / "model.safetensors.index.json"
    return tmp_path / "sharded", json.loads(index.read_text())


def test_shards_hold_at_most_what_is_asked_and_load_the_same(sharded, saved):
    folder, index = sharded
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    assert files == [
        f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(len(files))
    ]
    assert len(files) > 3
    stored = {file: load_file(folder / file) for file in files}
    assert index["weight_map"] == {
        name: file for file, tensors in stored.items() for name in tensors
    }
    sizes = [sum(leaf.nbytes for leaf in tensors.values()) for tensors in stored.values()]
    assert max(sizes) <= 5000
    assert index["metadata"]["total_size"] == sum(sizes)
    loaded, loaded_parameters = checkpoint.load(folder)
    assert loaded == TOY
    assert_same(loaded_parameters, saved[1])


def test_a_tensor_larger_than_a_shard_is_alone_in_it(saved, tmp_path):
    checkpoint.save(tmp_path / "ones", TOY, saved[1], shard_bytes=1)
    files = list((tmp_path / "ones").glob("*.safetensors"))
    assert len(files) == 3 + 12 * TOY.num_layers
    assert_same(checkpoint.load(tmp_path / "ones")[1], saved[1])


def test_missing_shard_is_named(sharded):
    (sharded[0] / next(iter(sharded[1]["weight_map"].values()))).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model-00001-of-0000\d\.safetensors"):
        checkpoint.load(sharded[0])


def test_index_that_does_not_fit_its_shards_is_refused(sharded):
    folder, index = sharded
    path = folder / "model.safetensors.index.json"

    def write(**weight_map):
        path.write_text(json.dumps({"weight_map": index["weight_map"] | weight_map}))

    write(extra=index["weight_map"]["model.norm.weight"])
    with pytest.raises(
        ValueError, match=re.escape("names tensors that their shards lack: ['extra")
    ):
        checkpoint.load(folder)
    for elsewhere in ("../other.safetensors", 3):
        write(extra=elsewhere)
        with pytest.raises(ValueError, match="has no weight_map from tensors to files"):
            checkpoint.load(folder)
    del index["weight_map"]["model.norm.weight"]
    write()
    with pytest.raises(ValueError, match=re.escape("missing ['model.norm.weight']")):
        checkpoint.load(folder)
    path.write_text("[]")
    with pytest.raises(ValueError, match="must hold an object, got list"):
        checkpoint.load(folder)


ROTARY = "model.layers.1.self_attn.rotary_emb.inv_freq"


def test_rotary_frequencies_of_old_checkpoints_are_ignored(rewrite, sharded, saved):
    buffer = np.ones(2, np.float16)
    single = rewrite(tensors={ROTARY: buffer})
    assert_same(checkpoint.load(single)[1], saved[1])
    assert checkpoint.stored_dtype(single) == jnp.float32
    folder, index = sharded
    save_file({ROTARY: buffer}, folder / "extra.safetensors")
    index["weight_map"][ROTARY] = "extra.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(checkpoint.load(folder)[1], saved[1])


@pytest.mark.parametrize(
    "name", [f"{ROTARY}.weight", ROTARY.replace("1", "x"), ROTARY.replace("inv_freq", "cos")]
)
def test_what_only_looks_like_rotary_frequencies_is_refused(name, rewrite):
    with pytest.raises(ValueError, match=re.escape(f"unexpected ['{name}']")):
        checkpoint.load(rewrite(tensors={name: np.ones(2, np.float32)}))


def test_stored_type_is_that_of_the_tensors(rewrite, saved, tmp_path):
    # Published files may state a type that their tensors do not have.
    assert checkpoint.stored_dtype(rewrite({"dtype": "bfloat16"})) == jnp.float32
    checkpoint.save(tmp_path / "half", TOY, saved[1], dtype=jnp.float16)
    assert checkpoint.stored_dtype(tmp_path / "half") == jnp.float16


def test_layers_of_two_types_share_the_one_that_holds_both(rewrite, saved):
    gain = saved[1]["layers"]["mlp_norm"]["gain"]
    name = "model.layers.1.post_attention_layernorm.weight"
    folder = rewrite(tensors={name: np.asarray(gain[1], np.float16)})
    assert checkpoint.stored_dtype(folder) == jnp.float32
    loaded_gain = checkpoint.load(folder, dtype=None)[1]["layers"]["mlp_norm"]["gain"]
    assert loaded_gain.dtype == jnp.float32
    np.testing.assert_array_equal(loaded_gain, [gain[0], np.asarray(gain[1], np.float16)])


def test_reading_in_small_pieces_gives_the_same(saved, monkeypatch):
    monkeypatch.setattr(tensors, "BLOCK_BYTES", 100)
    assert_same(checkpoint.load(saved[0])[1], saved[1])


# Other folders.


def test_execution_is_not_saved(saved, tmp_path):
    decoder = dataclasses.replace(TOY, execution=Execution(remat=True))
    checkpoint.save(tmp_path / "toy", decoder, saved[1])
    assert checkpoint.load(tmp_path / "toy")[0] == TOY


def test_tokenizer_and_special_tokens_of_another_folder_are_kept(rewrite, saved, tmp_path):
    base = rewrite({"eos_token_id": [5, 7], "bos_token_id": 3})
    (base / "tokenizer.json").write_text("{}")
    (base / "generation_config.json").write_text('{"temperature": 0.7}')
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    checkpoint.save(tmp_path / "tuned", TOY, saved[1], like=base)
    assert {file.name for file in (tmp_path / "tuned").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
    }
    written = json.loads((tmp_path / "tuned" / "config.json").read_text())
    token_ids = [written[f"{marker}_token_id"] for marker in ("bos", "eos", "pad")]
    assert token_ids == [3, [5, 7], None]
    with pytest.raises(FileNotFoundError, match="has no config"):
        checkpoint.save(tmp_path / "other", TOY, saved[1], like=tmp_path)
    assert not (tmp_path / "other").exists()


def test_stop_tokens_are_stated_beside_the_other_generation_settings(rewrite, saved, tmp_path):
    def stated(name):
        checkpoint.save(tmp_path / name, TOY, saved[1], like=base, stop=(5, 7))
        return json.loads((tmp_path / name / "generation_config.json").read_text())

    base = rewrite({"bos_token_id": 3, "eos_token_id": 5})
    assert stated("without") == {"bos_token_id": 3, "pad_token_id": None, "eos_token_id": [5, 7]}
    settings = {"temperature": 0.7, "eos_token_id": 5, "pad_token_id": 9}
    (base / "generation_config.json").write_text(json.dumps(settings))
    assert stated("with") == settings | {"eos_token_id": [5, 7]}


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub's client that gives the folder it is told to, or raises."""
    client, asked = ModuleType("huggingface_hub"), []

    def give(answer):
        def snapshot_download(repository, allow_patterns):
            asked.append((repository, allow_patterns))
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        vars(client)["snapshot_download"] = snapshot_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", client)
        return asked

    return give


def test_hub_is_asked_where_there_is_no_folder(hub, saved, tmp_path, monkeypatch):
    asked = hub(saved[0])
    assert_same(checkpoint.load("someone/model-1.5B")[1], saved[1])
    ((repository, patterns),) = asked
    assert repository == "someone/model-1.5B"
    # Neither pickles nor code are asked for.
    assert {"config.json", "model*.safetensors", "tokenizer.json"} <= set(patterns)
    assert not [pattern for pattern in patterns if pattern.endswith((".bin", ".pt", ".py", "*"))]
    monkeypatch.chdir(tmp_path)
    checkpoint.save("someone/model-1.5B", TOY, saved[1])
    checkpoint.load("someone/model-1.5B")
    assert len(asked) == 1


def test_hub_that_does_not_answer_is_one_error(hub, monkeypatch):
    hub(ConnectionError("no network"))
    message = r"'someone/model' is no folder here, .* \(ConnectionError: no network\)"
    with pytest.raises(FileNotFoundError, match=message):
        checkpoint.load("someone/model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=re.escape("pip install 'sweetspot-sft[llm]'")):
        checkpoint.load("someone/model")


@pytest.mark.parametrize("path", ["nowhere", "/a/b", "../a/b", "a/b/c", "./a"])
def test_what_cannot_be_on_the_hub_is_not_asked_for(path, hub):
    asked = hub(OSError())
    with pytest.raises(FileNotFoundError, match="checkpoint must be a folder, got"):
        checkpoint.load(path)
    assert asked == []


PUBLISHED = {
    "sweetspot": None,
    "rope_parameters": None,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "dtype": None,
    "torch_dtype": "bfloat16",
    "head_dim": None,
    "sliding_window": 32768,
    "max_window_layers": 21,
}


@pytest.mark.parametrize(
    ("keys", "theta"),
    [
        (PUBLISHED, 1e6),
        ({**PUBLISHED, "rope_theta": None}, 1e4),
        (
            {**PUBLISHED, "rope_theta": None, "rope_parameters": {"rope_theta": 5e5}},
            5e5,
        ),
    ],
    ids=["old", "old-without-theta", "new"],
)
def test_both_published_config_formats_are_read(keys, theta, rewrite, saved):
    decoder, parameters = checkpoint.load(rewrite(keys))
    defaults = DecoderConfig(1)
    assert decoder == dataclasses.replace(
        TOY,
        rope_theta=theta,
        positions="sequential",
        position_start=defaults.position_start,
        position_gap=defaults.position_gap,
        unroll=True,
    )
    assert_same(parameters, saved[1])


def test_few_layers_of_a_foreign_checkpoint_are_unrolled():
    for num_layers, unroll in ((8, True), (9, False)):
        decoder = dataclasses.replace(TOY, num_layers=num_layers)
        written = hugging_face.to_hugging_face(decoder, "float32")
        del written["sweetspot"]
        assert hugging_face.from_hugging_face(written).unroll is unroll


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}, "rope_theta": None},
        {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": LLAMA3},
    ],
    ids=["new", "old"],
)
def test_llama3_rope_of_both_config_formats_is_read(keys, rewrite):
    decoder, _ = checkpoint.load(rewrite(keys))
    assert decoder.rope_theta == 5e5
    assert decoder.rope_scaling == Llama3Rope(
        factor=8.0,
        low_frequency_factor=1.0,
        high_frequency_factor=4.0,
        original_max_positions=8192,
    )


def test_missing_key_value_heads_mean_one_for_each_query_head(rewrite):
    assert checkpoint.load(rewrite({"num_key_value_heads": None}))[0].num_kv_heads == 4


def test_tied_file_may_repeat_its_head_but_not_contradict_it(tmp_path, rewrite, saved):
    embedding = np.asarray(saved[1]["embedding"])
    repeated = rewrite({"tie_word_embeddings": True}, {"lm_head.weight": embedding})
    decoder, parameters = checkpoint.load(repeated)
    assert decoder.tied_head
    assert "head" not in parameters
    (repeated / "model.safetensors").write_bytes((saved[0] / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=re.escape("but tie_word_embeddings is true")):
        checkpoint.load(repeated)


@pytest.fixture(scope="module")
def torch():
    """The reference implementation, in one thread."""
    reason = "torch and transformers are the reference here: pip install 'sweetspot-sft[llm]' torch"
    pytest.importorskip("transformers", reason=reason)
    module = pytest.importorskip("torch", reason=reason)
    module.set_num_threads(1)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", [*golden.CONFIGS, "toy"])
def test_transformers_loads_the_folder_and_agrees(name, torch, tmp_path):
    decoder = ROUND_TRIPS[name]
    parameters = golden.weights(decoder, seed=5)
    checkpoint.save(tmp_path / name, decoder, parameters)
    tokens, positions = golden.inputs(decoder, seed=5)
    if name == "toy":
        positions = np.asarray(draw_positions(decoder, jax.random.key(1), len(tokens)))
    theirs = golden.transformers_logits(tmp_path / name, tokens, positions)
    ours = jax.jit(logits, static_argnums=0)(decoder, parameters, tokens, positions)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_folder_saved_by_transformers_is_loaded_and_agrees(family, torch, tmp_path):
    import transformers

    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(
        family,
        vocab_size=31,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        tie_word_embeddings=family == "qwen3",
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
    )
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path)
    decoder, parameters = checkpoint.load(tmp_path)
    assert (decoder.rope_theta, decoder.head_size, decoder.positions) == (50_000.0, 8, "sequential")
    tokens = np.arange(3, 20, dtype=np.int32)
    positions = np.arange(17, dtype=np.int32)
    theirs = golden.transformers_logits(tmp_path, tokens, positions)
    ours = jax.jit(logits, static_argnums=0)(decoder, parameters, tokens, positions)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.CONFIGS)
def test_stored_logits_are_what_transformers_computes_today(name, torch, tmp_path):
    decoder = golden.CONFIGS[name]
    checkpoint.save(tmp_path / name, decoder, golden.weights(decoder))
    theirs = golden.transformers_logits(tmp_path / name, *golden.inputs(decoder))
    with np.load(golden.FILE) as stored:
        np.testing.assert_allclose(theirs, stored[name], rtol=0, atol=1e-5)
