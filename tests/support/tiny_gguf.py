"""A tiny model as a GGUF file, and in a wheel, as a catalogued base model is, in a few hundred kilobytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

from support.tiny_model import CHAT_TEMPLATE
from tunix_rt_kit.models import CatalogEntry
from tunix_rt_kit.models.config import ModelConfig
from tunix_rt_kit.models.hf_folder import read_config

PACKAGE, VERSION = "tiny-llama-weights", "1.0"
_MEMBER = "tiny_llama_weights/tiny.gguf"
_NAMES = {
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleave_rotary(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Order the rows of each head as llama.cpp does: row i of its first half, then row i of its second."""
    rows, width = weight.shape
    size = rows // heads
    ordered = np.empty_like(weight)
    for head in range(heads):
        for i in range(size // 2):
            ordered[head * size + 2 * i] = weight[head * size + i]
            ordered[head * size + 2 * i + 1] = weight[head * size + size // 2 + i]
    return ordered.reshape(rows, width)


def write_gguf(model: Path, path: Path, **metadata: Any) -> Path:
    """Write the tiny model in the Hugging Face folder ``model`` as GGUF, unquantised.

    ``metadata`` replaces header entries: ``pre`` (pre-tokenizer), ``architecture``, ``rope_scaling``; and
    ``rope_factors``, which are the tensor of that name.
    """
    config = read_config(model)
    writer = gguf.GGUFWriter(path, metadata.get("architecture", config.family))
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if "rope_scaling" in metadata:
        writer.add_rope_scaling_type(gguf.RopeScalingType(metadata["rope_scaling"]))
        writer.add_rope_scaling_factor(4.0)
    if "rope_factors" in metadata:
        writer.add_tensor("rope_freqs.weight", np.asarray(metadata["rope_factors"], np.float32))
    vocabulary = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    # Two bytes that no test writes give their places to what the merges make.
    tokens[-2:] = ["ab", "bc"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(metadata.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b", "b c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    _add_tensors(writer, model, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make_wheel(model: Path, folder: Path) -> tuple[Path, CatalogEntry]:
    """Write a wheel that pip can download; return it and its catalogue entry, which pins no result."""
    folder.mkdir(parents=True, exist_ok=True)
    content = write_gguf(model, folder / "tiny.gguf").read_bytes()
    info = f"{PACKAGE.replace('-', '_')}-{VERSION}.dist-info"
    files = {
        _MEMBER: content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        csv.writer(record).writerow([name, f"sha256={digest}", len(data)])
    csv.writer(record).writerow([f"{info}/RECORD", "", ""])
    wheel = folder / f"{PACKAGE.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", record.getvalue())
    config = read_config(model)
    entry = CatalogEntry(
        id="tiny",
        package=PACKAGE,
        version=VERSION,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        gguf_member=_MEMBER,
        license="apache-2.0",
        parameter_count=config.parameter_count(),
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        folder_bytes=1_000_000,
        file_digests={},
    )
    return wheel, entry


def _add_tensors(writer: gguf.GGUFWriter, model: Path, config: ModelConfig) -> None:
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    top["lm_head.weight"] = "output.weight"
    for name, tensor in load_file(model / "model.safetensors").items():
        if name in top:
            writer.add_tensor(top[name], tensor)
            continue
        inner, what = name.rsplit(".", 1)
        _, _, layer, kind = inner.split(".", 3)
        value = tensor
        if config.family == "llama" and kind.endswith("q_proj"):
            value = interleave_rotary(tensor, config.num_heads)
        elif config.family == "llama" and kind.endswith("k_proj"):
            value = interleave_rotary(tensor, config.num_kv_heads)
        writer.add_tensor(f"blk.{layer}.{_NAMES[kind]}.{what}", value)
