"""Turns a Llama GGUF file into a Hugging Face folder: the same bytes from the same file on every machine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.models.gguf_tokenizer import tokenizer_config, tokenizer_json

_PLAIN_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_LAYER_TENSOR = re.compile(r"blk\.(\d+)\.([a-z_]+)\.weight")


class GgufMetadata:
    """The key-value header of a GGUF file, with errors that name the missing key."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        self._fields = reader.fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        field = self._fields.get(key)
        return default if field is None else field.contents()

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise InvalidArgument(f"GGUF file has no metadata {key!r}", reason="GGUF_UNSUPPORTED")
        return value


def convert_gguf(gguf_path: Path, folder: Path, progress: Callable[[int, int], None]) -> None:
    """Write config.json, generation_config.json, the tokenizer and the weights into ``folder``.

    The dequantised float32 weights are rounded to bfloat16, the type in which these models are published: the
    relative error (0.14%) is far below that of 4-bit quantisation, and float32 and bfloat16 runs then
    start from the very same weights.

    Args:
        gguf_path: a GGUF file of the ``llama`` architecture.
        folder: an existing folder.
        progress: called with (tensors done, tensors in all).

    Raises:
        InvalidArgument: GGUF_UNSUPPORTED, naming what is not understood.
        OSError: the folder cannot be written.
    """
    reader = gguf.GGUFReader(str(gguf_path))
    metadata = GgufMetadata(reader)
    if metadata["general.architecture"] != "llama":
        raise InvalidArgument(
            f"GGUF architecture is {metadata['general.architecture']!r}; only 'llama' is understood",
            reason="GGUF_UNSUPPORTED",
        )
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    _write_json(folder / "config.json", llama_config(metadata, tied=tied))
    _write_json(folder / "generation_config.json", _generation_config(metadata))
    _write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
    (folder / "tokenizer.json").write_text(tokenizer_json(metadata), encoding="utf-8")
    weights: dict[str, npt.NDArray[Any]] = {}
    for done, (name, tensor) in enumerate(_tensors(reader, metadata), start=1):
        weights[name] = tensor.astype(ml_dtypes.bfloat16)
        progress(done, len(reader.tensors))
    _save_weights(weights, folder / "model.safetensors")


def llama_config(metadata: GgufMetadata, *, tied: bool) -> dict[str, Any]:
    """The Hugging Face config of the model that a GGUF header describes."""
    if metadata.get("llama.rope.scaling.type", "none") != "none":
        raise InvalidArgument(
            "GGUF file uses RoPE scaling, which is not understood", reason="GGUF_UNSUPPORTED"
        )
    heads = metadata["llama.attention.head_count"]
    width = metadata["llama.embedding_length"]
    head_dim = metadata.get("llama.attention.key_length", width // heads)
    if metadata["llama.rope.dimension_count"] != head_dim:
        raise InvalidArgument("GGUF file rotates only a part of each head", reason="GGUF_UNSUPPORTED")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "pretraining_tp": 1,
        # The header holds float32; its shortest decimal form is what the publisher wrote.
        "rms_norm_eps": float(str(np.float32(metadata["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_scaling": None,
        "rope_theta": float(str(np.float32(metadata["llama.rope.freq_base"]))),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": metadata["llama.vocab_size"],
    }


def unpermute_rotary(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo llama.cpp's reordering of a Q or K projection.

    llama.cpp stores the rows of each head so that the two members of a rotary pair are neighbours; Hugging
    Face (and Tunix) keep all first members, then all second members.

    Args:
        weight: [heads * head_dim, width].
        heads: query heads for Q, key-value heads for K.
    """
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _tensors(
    reader: gguf.GGUFReader, metadata: GgufMetadata
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    query_heads = metadata["llama.attention.head_count"]
    key_heads = metadata["llama.attention.head_count_kv"]
    for tensor in reader.tensors:
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in _PLAIN_NAMES:
            yield _PLAIN_NAMES[tensor.name], weight
            continue
        match = _LAYER_TENSOR.fullmatch(tensor.name)
        if match is None or match[2] not in _LAYER_NAMES:
            raise InvalidArgument(f"GGUF tensor {tensor.name!r} is not understood", reason="GGUF_UNSUPPORTED")
        layer, kind = match.groups()
        if kind == "attn_q":
            weight = unpermute_rotary(weight, query_heads)
        elif kind == "attn_k":
            weight = unpermute_rotary(weight, key_heads)
        yield f"model.layers.{layer}.{_LAYER_NAMES[kind]}.weight", weight


def _generation_config(metadata: GgufMetadata) -> dict[str, Any]:
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def _save_weights(weights: dict[str, npt.NDArray[Any]], path: Path) -> None:
    try:
        save_file(weights, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # safetensors reports a full disk only in its message.
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
