"""Reads and checks a Hugging Face model folder, without loading its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.config import CONFIG_FILE, Fields, ModelConfig, unfit, unsupported
from tunix_rt_kit.models.families import family_of
from tunix_rt_kit.models.tensor_header import TensorPlace, read_header, same_tensor
from tunix_rt_kit.regular_files import SMALL, UnfitFile, check, read_json, read_text

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
_ADAPTER_FILE: Final = "adapter_config.json"
_DTYPES: Final = frozenset({"BF16", "F16", "F32"})
# Many times what published models have.
_MAX_INDEX_BYTES: Final = 4 << 20
_MAX_TOKENS_BYTES: Final = 8 << 20
# More than can be rendered: the model can be used with another template.
MAX_TEMPLATE_BYTES: Final = 256 << 10
_MAX_TOKEN_BYTES: Final = 1 << 10


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
    if _is_there(folder / _ADAPTER_FILE):
        raise unfit(
            folder, _ADAPTER_FILE, "is there, but an adapter is not applied; merge it into the weights"
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
