"""Parameters on a mesh: rules by name, and checkpoints of which each device reads its part."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from experiments.llm.training import lora
from experiments.storage import checkpoint
from experiments.storage.config import Devices
from experiments.storage.sharding import make_mesh, parameter_sharding, parameter_shardings
from synth.config import Lora
from synth.decoder import initialise, logits
from tests.golden import regenerate as golden

SHAPES = [(2, 1), (1, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", golden.CONFIGS)
def test_every_parameter_has_one_rule(name, shape):
    decoder = golden.CONFIGS[name]
    shapes = jax.eval_shape(lambda: initialise(decoder, jax.random.key(0)))
    shardings = parameter_shardings(shapes, make_mesh(fsdp=shape[0], tp=shape[1]))
    split = jax.tree.map(lambda leaf, sharding: sharding.shard_shape(leaf.shape), shapes, shardings)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        part = split
        for key in path:
            part = part[key.key]
        parts = leaf.size // int(np.prod(part))
        # A vocabulary of 23 does not divide by two: tp does not split the embedding and the head.
        halved = {"kernel", "bias"} if shape == (1, 2) else {"kernel", "embedding", "head"}
        assert parts == (2 if path[-1].key in halved else 1)


def test_specs_by_name():
    mesh = make_mesh(fsdp=2)
    expected = {
        ("layers/query/kernel", (3, 8, 4)): P(None, "fsdp", "tp"),
        ("layers/down/kernel", (3, 8, 4)): P(None, "tp", "fsdp"),
        ("layers/key/bias", (3, 8)): P(None, "tp"),
        ("layers/key_norm/gain", (3, 8)): P(None, None),
        ("layers/up/lora_a", (3, 8, 2)): P(None, "fsdp", None),
        ("layers/up/lora_b", (3, 2, 8)): P(None, None, "tp"),
        ("layers/output/lora_a", (3, 8, 2)): P(None, "tp", None),
        ("layers/output/lora_b", (3, 2, 8)): P(None, None, "fsdp"),
        ("embedding", (10, 8)): P("tp", "fsdp"),
        ("head", (8, 10)): P("fsdp", "tp"),
        # 7 does not divide by 2.
        ("embedding", (10, 7)): P("tp", None),
    }
    for (path, shape), spec in expected.items():
        assert parameter_sharding(path, shape, mesh).spec == spec, path


def test_a_mesh_may_leave_devices_out():
    assert jax.device_count() == 2
    assert make_mesh().devices.size == 1
    assert Devices(data=2).mesh() == make_mesh(data=2)


def test_refusals():
    with pytest.raises(ValueError, match=r"must be 1 to 2 \(.*\), got 1 × 2 × 2"):
        make_mesh(fsdp=2, tp=2)
    with pytest.raises(ValueError, match=re.escape("must know the parameter 'layers/x', got 0")):
        parameter_sharding("layers/x", (2, 2), make_mesh(fsdp=2))
    other = jax.make_mesh((2,), ("pipe",), axis_types=(AxisType.Auto,))
    with pytest.raises(ValueError, match=r"axes among .*'tp'\), got \['pipe'\]"):
        parameter_sharding("head", (2, 2), other)


@pytest.mark.parametrize("shape", SHAPES)
def test_loading_on_a_mesh_reads_slices_and_gives_the_same(shape, tmp_path, monkeypatch):
    decoder = golden.CONFIGS["qwen2"]
    parameters = golden.weights(decoder)
    checkpoint.save(tmp_path / "x", decoder, parameters, shard_bytes=4000)
    opened, sizes = checkpoint.open_tensors, []

    class Recorder:
        def __init__(self, tensor):
            self.tensor = tensor

        def __getattr__(self, name):
            return getattr(self.tensor, name)

        def __getitem__(self, index):
            numbers = self.tensor[index]
            sizes.append(numbers.size / np.prod(self.tensor.get_shape()))
            return numbers

    monkeypatch.setattr(
        checkpoint,
        "open_tensors",
        lambda *args: {name: Recorder(tensor) for name, tensor in opened(*args).items()},
    )
    mesh = make_mesh(fsdp=shape[0], tp=shape[1])
    loaded, loaded_parameters = checkpoint.load(tmp_path / "x", mesh=mesh)
    # Each device reads half of every matrix; with tp of the biases too, with fsdp of embedding and
    # head.
    halved = 7 * decoder.num_layers + (3 * decoder.num_layers if shape == (1, 2) else 2)
    assert sizes.count(0.5) == 2 * halved
    jax.tree.map(np.testing.assert_array_equal, loaded_parameters, parameters)
    shardings = parameter_shardings(loaded_parameters, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, loaded_parameters)
    assert places == shardings
    read = jax.jit(logits, static_argnums=0)
    tokens, positions = golden.inputs(decoder)
    np.testing.assert_allclose(
        read(loaded, loaded_parameters, tokens, positions),
        read(decoder, parameters, tokens, positions),
        rtol=0,
        atol=1e-5,
    )
    # Parameters on several devices are saved like those on one.
    checkpoint.save(tmp_path / "again", loaded, loaded_parameters)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load(tmp_path / "again")[1], parameters)


def test_adapters_live_beside_their_kernels():
    decoder = golden.CONFIGS["qwen2"]
    mesh = make_mesh(fsdp=1, tp=2)
    base = jax.device_put(
        golden.weights(decoder), parameter_shardings(golden.weights(decoder), mesh)
    )
    _, attached = lora.attach(decoder, base, Lora(rank=2), jax.random.key(0), mesh=mesh)
    assert attached["layers"]["up"]["lora_b"].sharding.spec == P(None, None, "tp")
    _, expected = lora.attach(
        decoder, jax.tree.map(jnp.asarray, golden.weights(decoder)), Lora(rank=2), jax.random.key(0)
    )
    jax.tree.map(np.testing.assert_array_equal, attached, expected)
