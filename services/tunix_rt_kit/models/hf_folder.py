"""Reads and checks a Hugging Face model folder without loading its weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.families import Fields, ModelConfig, family_of, unsupported

INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
MOST_STOPS = 8
"""Tokens that may end an answer by ``generation_config.json``."""

_GENERATION_FILE = "generation_config.json"
_DTYPES = frozenset({"BF16", "F16", "F32"})
_MAX_HEADER_BYTES = 100 << 20
_PREFIX_BYTES = 8


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens and the chat template (Jinja source) that ``tokenizer_config.json`` declares."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None


def _missing(folder: Path, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{folder} is not a complete Hugging Face model folder: it has no {what}",
        reason="BASE_MODEL_UNSUPPORTED",
        metadata={"path": str(folder), "field": what},
    )


def read_config(folder: Path) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the field that is missing, wrong or not supported.
    """
    config = _read_json(folder, "config.json")
    return family_of(folder, config.get("architectures")).read(Fields(folder, config))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the weights, sorted by name: the one file, or the shards that the index names.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, there is none or one is missing.
    """
    if not (folder / INDEX_FILE).is_file():
        if not (folder / WEIGHTS_FILE).is_file():
            raise _missing(folder, WEIGHTS_FILE)
        return [folder / WEIGHTS_FILE]
    weight_map = _read_json(folder, INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        field = f"{INDEX_FILE}: weight_map"
        raise unsupported(folder, field, weight_map, "it must name the file of each tensor")
    for tensor, name in sorted(weight_map.items()):
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise _missing(folder, f"{name}, where {INDEX_FILE} says that tensor {tensor} is")
    return [folder / name for name in sorted(set(weight_map.values()))]


def stored_dtype(folder: Path) -> str:
    """The narrower of ``bfloat16`` and ``float32`` that holds every weight as it is stored.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, a weight file is missing or damaged.
    """
    headers = (_safetensors_header(folder, file) for file in weight_files(folder))
    types = {tensor["dtype"] for header in headers for tensor in header.values()}
    return "bfloat16" if types == {"BF16"} else "float32"


def check_weights(folder: Path, config: ModelConfig) -> None:
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


def read_stop_ids(folder: Path) -> tuple[int, ...]:
    """The tokens that end an answer by ``eos_token_id`` of ``generation_config.json``; none without the file.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, the field is no token id or list of such.
    """
    if not (folder / _GENERATION_FILE).is_file():
        return ()
    value = _read_json(folder, _GENERATION_FILE).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if len(ids) > MOST_STOPS or not all(type(one) is int and one >= 0 for one in ids):
        wanted = f"it must be a token id, or a list of at most {MOST_STOPS}"
        raise unsupported(folder, f"{_GENERATION_FILE}: eos_token_id", value, wanted)
    return tuple(ids)


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
