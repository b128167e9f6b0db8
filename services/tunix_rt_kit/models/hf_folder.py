"""Reads and checks a Hugging Face model folder, without loading its weights and without a tensor library.

The format of its weights is safetensors (https://huggingface.co/docs/safetensors): 8 bytes of little-endian
length, a JSON header of that length, then the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.config import CONFIG_FILE, Fields, ModelConfig, unfit, unsupported
from tunix_rt_kit.models.families import family_of
from tunix_rt_kit.regular_files import (
    SMALL,
    UnfitFile,
    check,
    open_regular,
    read_json,
    read_text,
    refuse_pointer,
)

ADAPTER_CONFIG_FILE: Final = "adapter_config.json"
INDEX_FILE: Final = "model.safetensors.index.json"
WEIGHTS_FILE: Final = "model.safetensors"
TOKENIZER_FILE: Final = "tokenizer.json"
HEAD: Final = "lm_head.weight"
EMBEDDING: Final = "model.embed_tokens.weight"
MOST_STOPS: Final = 8
"""Most tokens that may end an answer, by ``generation_config.json`` or ``config.json``."""
MAX_TOKENIZER_BYTES: Final = 128 << 20
"""Largest ``tokenizer.json``; published ones have a third of it at most."""

_GENERATION_FILE: Final = "generation_config.json"
_TOKENS_FILE: Final = "tokenizer_config.json"
_TEMPLATE_FILE: Final = "chat_template.jinja"
_DTYPES: Final = frozenset({"BF16", "F16", "F32"})
# Many times what published models have.
_MAX_INDEX_BYTES: Final = 4 << 20
_MAX_TOKENS_BYTES: Final = 8 << 20
# More than can be rendered: the model can be used with another template.
MAX_TEMPLATE_BYTES: Final = 256 << 10
_MAX_TOKEN_BYTES: Final = 1 << 10
PREFIX_BYTES: Final = 8
MAX_HEADER_BYTES: Final = 8 << 20
_MAX_AXES: Final = 16
_MAX_AXIS: Final = 1 << 48
_SHOWN: Final = 80
_BLOCK: Final = 1 << 20
# Bits of a value of each type.
_BITS: Final = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8},
    **{"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
}


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens and the chat template (Jinja source) that ``tokenizer_config.json`` declares."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    chat_template: str | None


def read_config(folder: Path) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the field that is missing, wrong or not supported.
    """
    config = _json_object(folder, CONFIG_FILE)
    family, fields = family_of(folder, config.get("architectures")), Fields(folder, config)
    fields.require("model_type", family.model_type)
    return family.read(fields)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the weights, sorted by name: the one file, or the shards that the index names.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, there is none, one is missing, or there are two sets.
    """
    if not _is_there(folder / INDEX_FILE):
        if not _is_there(folder / WEIGHTS_FILE):
            raise _missing(folder, WEIGHTS_FILE)
        return [folder / WEIGHTS_FILE]
    names = sorted(set(_weight_map(folder).values()))
    if WEIGHTS_FILE not in names and _is_there(folder / WEIGHTS_FILE):
        raise unfit(
            folder, WEIGHTS_FILE, f"stands beside the shards that {INDEX_FILE} names; remove one of them"
        )
    return [folder / name for name in names]


def stored_dtype(folder: Path) -> str:
    """The narrower of ``bfloat16`` and ``float32`` that holds every weight as it is stored.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, a weight file is missing or damaged.
    """
    types = {tensor.dtype for _, tensor in _stored_tensors(folder).values()}
    return "bfloat16" if types == {"BF16"} else "float32"


def check_weights(folder: Path, config: ModelConfig) -> None:
    """Compare the headers of the weight files with what ``config`` asks for.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the first tensor that is missing or has a wrong
            shape or type, another head than the tied one, or an adapter beside the weights.
    """
    if _is_there(folder / ADAPTER_CONFIG_FILE):
        raise unfit(
            folder, ADAPTER_CONFIG_FILE, "is there, but an adapter is not applied; merge it into the weights"
        )
    found = _stored_tensors(folder)
    for name, shape in config.tensor_shapes().items():
        if name not in found:
            raise _missing(folder, f"tensor {name}")
        _, tensor = found[name]
        if tensor.shape != shape:
            raise unsupported(
                folder, f"{name} shape", list(tensor.shape), f"config.json asks for {list(shape)}"
            )
        if tensor.dtype not in _DTYPES:
            raise unsupported(folder, f"{name} dtype", tensor.dtype, f"it must be one of {sorted(_DTYPES)}")
    head = found.get(HEAD) if config.tied else None
    if head is not None and not same_tensor(head, found[EMBEDDING]):
        raise unsupported(
            folder,
            "tie_word_embeddings",
            True,
            f"but {head[0].name} holds a {HEAD} that is not {EMBEDDING}; make it false to use that head, or "
            "remove that tensor",
            file=CONFIG_FILE,
        )


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Read the special tokens and the chat template.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, a tokenizer file is missing or cannot be read, or a field
            is no text.
    """
    with reading(folder, TOKENIZER_FILE):
        check(folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    config = _json_object(folder, _TOKENS_FILE, _MAX_TOKENS_BYTES)

    def token(name: str) -> str | None:
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        return _text(folder, f"{_TOKENS_FILE}: {name}", value, _MAX_TOKEN_BYTES)

    return SpecialTokens(
        bos_token=token("bos_token"),
        eos_token=token("eos_token"),
        pad_token=token("pad_token"),
        unk_token=token("unk_token"),
        chat_template=_chat_template(folder, config.get("chat_template")),
    )


def read_stop_ids(folder: Path, vocab_size: int) -> tuple[int, ...]:
    """The tokens that end an answer: ``eos_token_id`` of ``generation_config.json``, or else ``config.json``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, the field is no token id below ``vocab_size`` or list of
            such.
    """
    file = _GENERATION_FILE if _is_there(folder / _GENERATION_FILE) else CONFIG_FILE
    value = _json_object(folder, file).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if len(ids) > MOST_STOPS or not all(type(one) is int and 0 <= one < vocab_size for one in ids):
        wanted = f"it must be a token id from 0 to {vocab_size - 1}, or a list of at most {MOST_STOPS}"
        raise unsupported(folder, f"{file}: eos_token_id", value, wanted)
    return tuple(ids)


@contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Turn what goes wrong while the file ``name`` of a folder is read into a refusal that names it."""
    try:
        yield
    except FileNotFoundError:
        raise _missing(folder, name) from None
    except OSError as error:
        problem = error.strerror or str(error)
        unread = problem if isinstance(error, UnfitFile) else f"cannot be read: {problem}"
        raise unfit(folder, name, unread) from error


def _json_object(folder: Path, name: str, most: int = SMALL) -> dict[str, Any]:
    with reading(folder, name):
        value = read_json(folder / name, most)
    if not isinstance(value, dict):
        raise unsupported(folder, name, type(value).__name__, "it must be a JSON object")
    return value


def _weight_map(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the index of the shards."""
    weight_map = _json_object(folder, INDEX_FILE, _MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        field = f"{INDEX_FILE}: weight_map"
        raise unsupported(folder, field, weight_map, "it must name the file of each tensor")
    for tensor, name in sorted(weight_map.items()):
        plain = isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
        if not plain or not _is_there(folder / name):
            raise _missing(folder, f"{name!s:.200}, where {INDEX_FILE} says that tensor {tensor:.200} is")
    return weight_map


def _stored_tensors(folder: Path) -> dict[str, TensorPlace]:
    """Every tensor of the weight files, and its file."""
    found: dict[str, TensorPlace] = {}
    for file in weight_files(folder):
        with reading(folder, file.name):
            tensors = read_header(file)
        for name in found.keys() & tensors.keys():
            raise unfit(folder, file.name, f"holds tensor {name:.200}, as {found[name][0].name} does")
        found |= {name: (file, tensor) for name, tensor in tensors.items()}
    if _is_there(folder / INDEX_FILE):
        for name, shard in _weight_map(folder).items():
            if name not in found or found[name][0].name != shard:
                raise unfit(folder, shard, f"has no tensor {name:.200}, where {INDEX_FILE} says that it is")
    return found


def _chat_template(folder: Path, declared: Any) -> str | None:
    """The template in a file of its own, or else the one that ``tokenizer_config.json`` declares."""
    field = f"{_TOKENS_FILE}: chat_template"
    if _is_there(folder / _TEMPLATE_FILE):
        field = _TEMPLATE_FILE
        with reading(folder, _TEMPLATE_FILE):
            declared = read_text(folder / _TEMPLATE_FILE, MAX_TEMPLATE_BYTES)
    elif isinstance(declared, list):
        try:
            declared = {str(entry["name"]): entry["template"] for entry in declared}.get("default")
        except (TypeError, KeyError):
            raise unsupported(folder, field, declared, "each entry must have a name and a template") from None
    template = _text(folder, field, declared, MAX_TEMPLATE_BYTES)
    if template and not template.strip():
        raise unsupported(folder, field, template, "it must be Jinja source")
    return template


def _text(folder: Path, field: str, value: Any, most: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise unsupported(folder, field, value, "it must be a text")
    data = value.encode("utf-8", "surrogatepass")
    if len(data) > most:
        raise unfit(folder, field, f"has {len(data):,} bytes; at most {most:,} are read")
    if "\0" in value or data.decode("utf-8", "replace") != value:
        raise unsupported(folder, field, value, "it must be a text without NUL and halves of characters")
    return value


def _is_there(path: Path) -> bool:
    """Whether something has this name, readable or not."""
    return os.path.lexists(path)


def _missing(folder: Path, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{folder} is not a complete Hugging Face model folder: it has no {what}",
        reason="BASE_MODEL_UNSUPPORTED",
        metadata={"path": str(folder), "field": what},
    )


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Type (``BF16``, ``F32``...) and shape of a tensor, and its place in the file, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


TensorPlace = tuple[Path, StoredTensor]
"""A tensor and the file that holds it."""


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, in their order in the file.

    They fill the file: each is as long as type and shape say, without overlaps and gaps.

    Raises:
        UnfitFile: it is no such file; says what is wrong.
        OSError: it is not there, or cannot be read.
    """
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(_SHOWN)
        refuse_pointer(head, file)
        if size < PREFIX_BYTES:
            raise UnfitFile(f"is no safetensors file: it has {size} bytes", file)
        (length,) = struct.unpack("<Q", head[:PREFIX_BYTES])
        if not 0 < length <= min(size - PREFIX_BYTES, MAX_HEADER_BYTES):
            raise UnfitFile(
                f"is no safetensors file: it has {size} bytes and promises a header of {length}, of which at "
                f"most {MAX_HEADER_BYTES} are read",
                file,
            )
        stream.seek(PREFIX_BYTES)
        encoded = stream.read(length)
    tensors = {name: _tensor(name, value, file) for name, value in _entries(encoded, file).items()}
    return _placed(tensors, PREFIX_BYTES + length, size, file)


def same_tensor(one: TensorPlace, other: TensorPlace) -> bool:
    """Whether two tensors are equal to the bit; remembered while their files stay. Raises OSError."""
    (file, tensor), (other_file, other_tensor) = one, other
    if (tensor.dtype, tensor.shape) != (other_tensor.dtype, other_tensor.shape):
        return False
    return _same_bytes(tensor.end - tensor.begin, *_place(file, tensor), *_place(other_file, other_tensor))


def _place(file: Path, tensor: StoredTensor) -> tuple[Path, int, tuple[int, ...]]:
    status = file.stat()
    return file, tensor.begin, (status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _same_bytes(
    length: int,
    file: Path,
    begin: int,
    _: tuple[int, ...],
    other: Path,
    other_begin: int,
    __: tuple[int, ...],
) -> bool:
    with open_regular(file) as stream, open_regular(other) as other_stream:
        stream.seek(begin)
        other_stream.seek(other_begin)
        return all(
            stream.read(min(_BLOCK, length - at)) == other_stream.read(min(_BLOCK, length - at))
            for at in range(0, length, _BLOCK)
        )


def _entries(encoded: bytes, file: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an entry stands twice")
        return found

    try:
        header = json.loads(encoded.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UnfitFile(f"is no safetensors file: its header is not JSON: {error}", file) from None
    if not isinstance(header, dict) or not encoded.startswith(b"{"):
        raise UnfitFile("is no safetensors file: its header is no JSON object", file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise UnfitFile("is no safetensors file: its __metadata__ is no object of texts", file)
    return header


def _tensor(name: str, value: Any, file: Path) -> StoredTensor:
    """The entry of a tensor; ``begin`` and ``end`` count from the first tensor."""
    entry = value if isinstance(value, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _wrong(file, name, "dtype", dtype, "no type of safetensors")
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_AXES
        or not all(type(axis) is int and 0 <= axis < _MAX_AXIS for axis in shape)
    ):
        raise _wrong(file, name, "shape", shape, "no list of sizes")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(at) is int for at in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise _wrong(file, name, "data_offsets", offsets, "no begin and end")
    bits, held = math.prod(shape) * _BITS[dtype], (offsets[1] - offsets[0]) * 8
    if bits != held:
        raise _wrong(file, name, "data_offsets", offsets, f"not the {-(-bits // 8)} bytes of {dtype} {shape}")
    return StoredTensor(dtype, tuple(shape), *offsets)


def _placed(tensors: dict[str, StoredTensor], start: int, size: int, file: Path) -> dict[str, StoredTensor]:
    """The tensors, with places in the file; the first tensor is at ``start``."""
    placed, position = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda entry: (entry[1].begin, entry[1].end)):
        if tensor.begin != position:
            where = [tensor.begin, tensor.end]
            raise _wrong(file, name, "data_offsets", where, f"but the bytes before it end at {position}")
        position = tensor.end
        placed[name] = StoredTensor(tensor.dtype, tensor.shape, start + tensor.begin, start + tensor.end)
    if start + position != size:
        raise UnfitFile(f"is {size} bytes long; its header asks for {start + position}", file)
    return placed


def _wrong(file: Path, name: str, field: str, found: Any, problem: str) -> UnfitFile:
    return UnfitFile(f"says of tensor {name[:_SHOWN]!r}: {field} is {found!r:.{_SHOWN}}, {problem}", file)
