"""Reads and checks a Hugging Face model folder without loading its weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunix_rt_kit.errors import FailedPrecondition

ARCHITECTURE = "LlamaForCausalLM"
INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
_DTYPES = frozenset({"BF16", "F16", "F32"})
_MAX_HEADER_BYTES = 100 << 20
_PREFIX_BYTES = 8


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """What ``config.json`` says of a Llama model, checked.

    ``hidden_size`` is the width of the residual stream, ``rope_theta`` the base of the rotary frequencies.
    """

    num_layers: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    context_length: int
    tied: bool

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor that the model needs, as Hugging Face names them."""
        width, inner = self.hidden_size, self.intermediate_size
        query, key = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, width),
            "model.norm.weight": (width,),
        }
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab_size, width)
        for layer in range(self.num_layers):
            prefix = f"model.layers.{layer}."
            shapes |= {
                f"{prefix}input_layernorm.weight": (width,),
                f"{prefix}post_attention_layernorm.weight": (width,),
                f"{prefix}self_attn.q_proj.weight": (query, width),
                f"{prefix}self_attn.k_proj.weight": (key, width),
                f"{prefix}self_attn.v_proj.weight": (key, width),
                f"{prefix}self_attn.o_proj.weight": (width, query),
                f"{prefix}mlp.gate_proj.weight": (inner, width),
                f"{prefix}mlp.up_proj.weight": (inner, width),
                f"{prefix}mlp.down_proj.weight": (width, inner),
            }
        return shapes

    def parameter_count(self) -> int:
        """Number of weights; a tied head counts once."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens and the chat template (Jinja source) that ``tokenizer_config.json`` declares."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None


def unsupported(folder: Path, field: str, found: Any, wanted: str) -> FailedPrecondition:
    """The error for a folder whose ``field`` is not what is supported."""
    return FailedPrecondition(
        f"{folder}: {field} is {found!r}; {wanted}",
        reason="BASE_MODEL_UNSUPPORTED",
        metadata={"path": str(folder), "field": field},
    )


def _missing(folder: Path, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{folder} is not a complete Hugging Face model folder: it has no {what}",
        reason="BASE_MODEL_UNSUPPORTED",
        metadata={"path": str(folder), "field": what},
    )


def read_config(folder: Path) -> LlamaConfig:
    """Read ``config.json``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the field that is missing, wrong or not supported.
    """
    config = _read_json(folder, "config.json")
    _refuse(folder, config)
    rope = config.get("rope_parameters") or {}
    heads = _count(folder, config, "num_attention_heads")
    width = _count(folder, config, "hidden_size")
    defaults = {
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "rope_theta": rope.get("rope_theta", 10_000.0),
        "tie_word_embeddings": False,
    }
    values = defaults | {name: value for name, value in config.items() if value is not None}
    kv_heads = _count(folder, values, "num_key_value_heads")
    if heads % kv_heads:
        raise unsupported(
            folder, "num_key_value_heads", kv_heads, f"it must divide num_attention_heads ({heads})"
        )
    return LlamaConfig(
        num_layers=_count(folder, values, "num_hidden_layers"),
        vocab_size=_count(folder, values, "vocab_size"),
        hidden_size=width,
        intermediate_size=_count(folder, values, "intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_count(folder, values, "head_dim"),
        rope_theta=_number(folder, values, "rope_theta"),
        rms_norm_eps=_number(folder, values, "rms_norm_eps"),
        context_length=_count(folder, values, "max_position_embeddings"),
        tied=bool(values["tie_word_embeddings"]),
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the weights, sorted by name: the one file, or the shards that the index names.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, there is none or one is missing.
    """
    if (folder / INDEX_FILE).is_file():
        names = sorted(set(_read_json(folder, INDEX_FILE).get("weight_map", {}).values()))
    else:
        names = [WEIGHTS_FILE]
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file() or file.parent != folder:
            raise _missing(folder, file.name)
    if not files:
        raise unsupported(folder, f"{INDEX_FILE}: weight_map", {}, "it must name the files of the weights")
    return files


def check_weights(folder: Path, config: LlamaConfig) -> None:
    """Compare the headers of the weight files with what ``config`` asks for.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the first missing tensor, wrong shape or type.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for file in weight_files(folder):
        found |= _safetensors_header(folder, file)
    for name, shape in config.tensor_shapes().items():
        tensor = found.get(name)
        if tensor is None:
            raise _missing(folder, f"tensor {name}")
        if tuple(tensor["shape"]) != shape:
            raise unsupported(folder, f"{name} shape", tensor["shape"], f"config.json asks for {list(shape)}")
        if tensor["dtype"] not in _DTYPES:
            raise unsupported(
                folder, f"{name} dtype", tensor["dtype"], f"it must be one of {sorted(_DTYPES)}"
            )


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Read the special tokens and the chat template.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, a tokenizer file is missing or is not JSON.
    """
    if not (folder / "tokenizer.json").is_file():
        raise _missing(folder, "tokenizer.json")
    config = _read_json(folder, "tokenizer_config.json")

    def token(name: str) -> str | None:
        value = config.get(name)
        return value.get("content") if isinstance(value, dict) else value

    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return SpecialTokens(
        bos_token=token("bos_token"),
        eos_token=token("eos_token"),
        pad_token=token("pad_token"),
        unk_token=token("unk_token"),
        chat_template=template,
    )


def _refuse(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("architectures") != [ARCHITECTURE]:
        raise unsupported(
            folder, "architectures", config.get("architectures"), f"it must be [{ARCHITECTURE!r}]"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise unsupported(folder, "hidden_act", config["hidden_act"], "it must be 'silu'")
    for field in ("attention_bias", "mlp_bias", "quantization_config", "rope_scaling"):
        value = config.get(field)
        # "default" is how newer files spell "not scaled".
        kind = value.get("rope_type", value.get("type")) if isinstance(value, dict) else None
        if value and kind != "default":
            raise unsupported(folder, field, value, "it is not supported; it must be absent")
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise unsupported(
            folder, "rope_parameters", rope, "RoPE scaling is not supported; rope_type must be 'default'"
        )


def _number(folder: Path, values: Mapping[str, Any], field: str) -> float:
    value = values.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise unsupported(folder, field, value, "it must be a positive number")
    return float(value)


def _count(folder: Path, values: Mapping[str, Any], field: str) -> int:
    value = values.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise unsupported(folder, field, value, "it must be a positive integer")
    return value


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(folder, name) from None
    except ValueError as error:
        raise unsupported(folder, name, str(error), "it must be JSON") from None
    if not isinstance(value, dict):
        raise unsupported(folder, name, type(value).__name__, "it must be a JSON object")
    return value


def _safetensors_header(folder: Path, file: Path) -> dict[str, Mapping[str, Any]]:
    # The format: 8 bytes of little-endian length, then a JSON header. Read here so that a look at a
    # folder needs no tensor library: https://huggingface.co/docs/safetensors
    with file.open("rb") as stream:
        prefix = stream.read(_PREFIX_BYTES)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == _PREFIX_BYTES else -1
        if not 0 < length <= _MAX_HEADER_BYTES:
            raise unsupported(folder, file.name, f"header of {length} bytes", "it must be a safetensors file")
        try:
            header: dict[str, Mapping[str, Any]] = json.loads(stream.read(length))
        except ValueError as error:
            raise unsupported(folder, file.name, str(error), "it must be a safetensors file") from None
    header.pop("__metadata__", None)
    end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    size, wanted = file.stat().st_size, _PREFIX_BYTES + length + end
    if size != wanted:
        raise unsupported(folder, file.name, f"{size} bytes", f"its header asks for {wanted} bytes")
    return header
