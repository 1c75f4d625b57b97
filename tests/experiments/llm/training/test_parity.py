"""The decoder against `transformers`, live, on checkpoints that `transformers` wrote."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.llm.training import lora
from experiments.storage import checkpoint
from synth.config import Lora
from synth.decoder import logits
from tests.experiments.llm.agree import check_gradient, check_greedy
from tests.experiments.llm.folders import CASES
from tests.golden import regenerate as golden

pytestmark = pytest.mark.slow

LENGTH = 150
batch_logits = jax.jit(jax.vmap(logits, (None, None, 0, 0)), static_argnums=0)


def reference_logits(torch, folder, tokens):
    with torch.no_grad():
        return golden.transformers_model(folder)(torch.tensor(tokens)).logits.numpy()


def our_logits(decoder, parameters, tokens):
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(batch_logits(decoder, parameters, tokens, positions))


@pytest.fixture
def tokens():
    return np.random.RandomState(0).randint(3, 97, (3, LENGTH))


@pytest.mark.parametrize("name", CASES)
def test_logits_and_round_trip(name, torch, reference_folder, tokens, tmp_path, record_property):
    folder = reference_folder(name)
    shards = len(list(folder.glob("*.safetensors")))
    assert (shards > 2) == ("shard" in CASES[name])
    decoder, parameters = checkpoint.load(folder)
    theirs = reference_logits(torch, folder, tokens)
    ours = our_logits(decoder, parameters, tokens)
    assert theirs.std() > 0.5
    difference = float(np.abs(ours - theirs).max())
    record_property("max_abs_difference", difference)
    print(f"{name}: {difference:.1e}")
    assert difference < 1e-4
    # transformers reads the shards that we write like its own.
    checkpoint.save(tmp_path / "saved", decoder, parameters, shard_bytes=20_000)
    assert (tmp_path / "saved" / "model.safetensors.index.json").exists()
    np.testing.assert_allclose(
        reference_logits(torch, tmp_path / "saved", tokens), theirs, rtol=0, atol=1e-5
    )
    again_decoder, again = checkpoint.load(tmp_path / "saved")
    assert again_decoder == decoder
    jax.tree.map(np.testing.assert_array_equal, again, parameters)


def test_bfloat16_round_trip_by_value(torch, reference_folder, tmp_path):
    folder = reference_folder("qwen2")
    golden.transformers_model(folder).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    theirs = golden.transformers_model(tmp_path / "half").state_dict()
    for dtype in (None, jnp.float32):
        decoder, parameters = checkpoint.load(tmp_path / "half", dtype=dtype)
        checkpoint.save(tmp_path / str(dtype), decoder, parameters, dtype=jnp.bfloat16)
        written = json.loads((tmp_path / str(dtype) / "config.json").read_text())
        assert written["dtype"] == "bfloat16"
        for name, tensor in load_file(tmp_path / str(dtype) / "model.safetensors").items():
            assert tensor.dtype == jnp.bfloat16
            np.testing.assert_array_equal(tensor.astype(np.float32), theirs[name].float().numpy())


PROMPT_LENGTHS = [1 + (7 * row) % 41 for row in range(20)]


@pytest.mark.parametrize("name", ["qwen2-tied", "qwen3", "llama3-rope"])
def test_greedy_decoding_of_20_prompts_in_one_batch(name, torch, reference_folder):
    folder = reference_folder(name)
    random = np.random.RandomState(1)
    prompts = [random.randint(3, 97, length).tolist() for length in PROMPT_LENGTHS]
    assert len(set(PROMPT_LENGTHS)) == 20
    stop = (2, 5, 17)
    expected = golden.transformers_greedy(folder, prompts, stop, 24)
    check_greedy(*checkpoint.load(folder), prompts, expected, stop)


def test_gradient_of_the_sft_loss(torch, reference_folder, tokens, tmp_path):
    folder = reference_folder("qwen2")
    loss_mask = np.random.RandomState(2).rand(*tokens.shape) < 0.3
    expected = golden.transformers_gradient(folder, tokens, loss_mask)
    check_gradient(
        *checkpoint.load(folder),
        tokens,
        loss_mask,
        expected,
        tmp_path / "gradient",
        chunk_tokens=64,
    )


def test_merged_adapters_decode_as_live_ones_and_as_transformers(
    torch, reference_folder, tokens, tmp_path
):
    decoder, parameters = checkpoint.load(reference_folder("llama"))
    live, adapted = lora.attach(decoder, parameters, Lora(rank=4, alpha=8.0), jax.random.key(0))
    frozen, adapters = lora.split(adapted)
    leaves, structure = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [
        0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    adapted = lora.join(frozen, jax.tree.map(jnp.add, adapters, structure.unflatten(noise)))
    expected = our_logits(live, adapted, tokens)
    assert np.abs(expected - our_logits(decoder, parameters, tokens)).max() > 0.1
    checkpoint.save(tmp_path / "merged", *lora.merge(live, adapted))
    np.testing.assert_allclose(
        reference_logits(torch, tmp_path / "merged", tokens), expected, rtol=0, atol=1e-4
    )
