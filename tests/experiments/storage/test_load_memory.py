"""Peak anonymous memory of loading a checkpoint of half a billion parameters.

It is measured from another process. Memory of mapped files does not count, because the system can
take it back at any time.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.storage import hugging_face, layout, tensors
from synth.config import DecoderConfig

SHAPE = DecoderConfig(151_936, 896, 4864, 24, 14, 2, tied_head=True, unroll=False)

CHILD = """
import sys
import jax
from experiments.storage import checkpoint
from experiments.storage.sharding import make_mesh
mesh = make_mesh(fsdp=jax.device_count()) if sys.argv[2] == "mesh" else None
jax.block_until_ready(jax.numpy.zeros(3) + 1)
print("ready", flush=True)
sys.stdin.readline()
loaded = jax.block_until_ready(checkpoint.load(sys.argv[1], mesh=mesh))
print("loaded", flush=True)
sys.stdin.readline()
"""


def write_zeros(path: Path, decoder: DecoderConfig) -> None:
    """A bfloat16 checkpoint of zeros, as a sparse file that takes no room."""
    header, end = {}, 0
    for name, shape in layout.tensor_shapes(decoder).items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.mkdir()
    with (path / tensors.TENSORS).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    written = hugging_face.to_hugging_face(decoder, "bfloat16")
    (path / hugging_face.CONFIG).write_text(json.dumps(written))


def anonymous_bytes(process: int) -> int:
    """Memory of a process that is not backed by a file."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"process {process} states no RssAnon")


def peak_of_load(path: Path, place: str) -> int:
    """Peak of anonymous memory while a checkpoint is loaded, above the level before, in bytes."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), place],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        output = child.stdout
        assert output is not None
        assert output.readline() == "ready\n"
        before = peak = anonymous_bytes(child.pid)
        print("go", file=child.stdin, flush=True)
        lines: list[str] = []
        waiting = threading.Thread(target=lambda: lines.append(output.readline()))
        waiting.start()
        while waiting.is_alive():
            peak = max(peak, anonymous_bytes(child.pid))
            time.sleep(0.002)
        assert lines == ["loaded\n"]
        print("done", file=child.stdin, flush=True)
    return peak - before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("place", ["device", "mesh"])
def test_peak_memory_of_loading(place, tmp_path, record_property):
    write_zeros(tmp_path / "x", SHAPE)
    sizes = [4 * int(np.prod(shape)) for shape in layout.parameter_shapes(SHAPE).values()]
    peak = peak_of_load(tmp_path / "x", place)
    over = (peak - sum(sizes)) / max(sizes)
    record_property("peak_over_weights_in_largest_parameters", over)
    print(f"{place}: weights {sum(sizes) / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB, over {over:.2f}")
    # Something was measured, and no parameter was held twice.
    assert -0.1 < over < 1.3
