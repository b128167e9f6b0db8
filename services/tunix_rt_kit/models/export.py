"""What leaves training in the formats of others: an adapter as ``peft`` has it, a merged Hugging Face folder.

It needs numpy alone.

``python -m tunix_rt_kit.models.export BASE ADAPTER OUT`` merges in a process of its own. Its input is the
``ChatTemplate`` that the adapter was trained with, as JSON.
"""

from __future__ import annotations

import codecs
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import AlreadyExists, DataLoss, DomainError, InvalidArgument
from tunix_rt_kit.models import tensor_files
from tunix_rt_kit.models.config import CONFIG_FILE, unsupported
from tunix_rt_kit.models.hf_folder import (
    ADAPTER_CONFIG_FILE,
    INDEX_FILE,
    MAX_TOKENIZER_BYTES,
    TOKENIZER_FILE,
    check_weights,
    read_config,
    read_header,
    reading,
    weight_files,
)
from tunix_rt_kit.regular_files import UnfitFile, read_bytes, read_json

ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear projection of a layer, of any family, by its Hugging Face name."""

PREFIX = "base_model.model."
"""Put by ``peft`` in front of the base model's names."""

_A, _B = ".lora_A.weight", ".lora_B.weight"
_MAX_RANK = 1 << 16
_MAX_ALPHA = 1e9
# What is supported of what ``peft`` can do, by its settings.
_SUPPORTED: Final[dict[str, Any]] = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "modules_to_save": None,
}
_PARTIAL = ("rank_pattern", "alpha_pattern", "layers_to_transform", "layer_replication", "target_parameters")

_COMPANIONS: Final = (
    "LICENSE",
    "NOTICE",
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
_JSON_STYLE: Final[dict[str, Any]] = {"indent": 2, "ensure_ascii": False}


class Adapter:
    """An adapter from files: ``rank``, ``alpha``, ``target_modules``, and tensors to take by module."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self.rank: int = config["r"]
        self.alpha = float(config["lora_alpha"])
        self.target_modules: Sequence[str] = config["target_modules"]
        self._tensors = dict(tensors)

    def take(self, module: str, inputs: int, outputs: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Remove and return A [rank, inputs] and B [outputs, rank] of the base model's ``module``.

        Raises:
            InvalidArgument: ADAPTER_MISMATCH, naming the tensor that is missing or has another shape.
            DataLoss: ADAPTER_INVALID, naming the tensor that holds a number that is not finite.
        """
        shapes = {_A: (self.rank, inputs), _B: (outputs, self.rank)}
        pair = []
        for suffix, shape in shapes.items():
            name = f"{PREFIX}{module}{suffix}"
            tensor = self._tensors.pop(name, None)
            if tensor is None:
                raise mismatch(f"tensor {name!r} is missing", name)
            if tensor.shape != shape:
                raise mismatch(f"tensor {name!r} has shape {list(tensor.shape)}, not {list(shape)}", name)
            if not np.isfinite(tensor.astype(np.float32)).all():
                raise DataLoss(
                    f"adapter tensor {name!r} holds values that are no finite numbers",
                    reason="ADAPTER_INVALID",
                    metadata={"field": name},
                )
            pair.append(tensor)
        return pair[0], pair[1]

    def targets(self, module: str) -> bool:
        """Whether the configuration says that ``module`` has a pair."""
        return module.rsplit(".", 1)[-1] in self.target_modules

    def require_all_taken(self) -> None:
        """Raises InvalidArgument (ADAPTER_MISMATCH) if a tensor is left that no module took."""
        if self._tensors:
            extra = min(self._tensors)
            raise mismatch(f"tensor {extra!r} has no place in the model", extra)


def write_adapter(
    folder: Path,
    pairs: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    *,
    rank: int,
    alpha: float,
    base_model: str,
) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``; the same pairs make the same bytes.

    Args:
        folder: created if absent.
        pairs: A [rank, inputs] and B [outputs, rank] by the base model's module.
        rank: inner width of every pair.
        alpha: B A is scaled by ``alpha / rank``.
        base_model: the model that the adapter is for, as ``base_model_name_or_path``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for module, (a, b) in pairs.items():
        tensors[f"{PREFIX}{module}{_A}"] = np.ascontiguousarray(a)
        tensors[f"{PREFIX}{module}{_B}"] = np.ascontiguousarray(b)
    save_file(tensors, folder / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
    targets = {module.rsplit(".", 1)[-1] for module in pairs}
    config = _SUPPORTED | {
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "r": rank,
        "target_modules": [name for name in TARGET_MODULES if name in targets],
        "task_type": "CAUSAL_LM",
    }
    (folder / ADAPTER_CONFIG_FILE).write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def read_adapter(folder: Path) -> Adapter:
    """Read what ``write_adapter`` (or ``peft``) wrote.

    Raises:
        DataLoss: ADAPTER_INVALID, a file is missing or cannot be read.
        InvalidArgument: ADAPTER_MISMATCH, it is an adapter of a kind that is not supported.
    """
    try:
        config = read_json(folder / ADAPTER_CONFIG_FILE)
        if not isinstance(config, dict):
            raise UnfitFile("is no JSON object", folder / ADAPTER_CONFIG_FILE)
        read_header(folder / ADAPTER_WEIGHTS_FILE)
        tensors = load_file(folder / ADAPTER_WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataLoss(
            f"adapter in {folder} cannot be read: {error}",
            reason="ADAPTER_INVALID",
            metadata={"path": str(folder)},
        ) from error
    for field, value in _SUPPORTED.items():
        if config.get(field, value) != value:
            raise mismatch(f"{field} is {config[field]!r}; only {value!r} is supported", field)
    for field in _PARTIAL:
        if config.get(field):
            raise mismatch(f"{field} is {config[field]!r}; it must be absent", field)
    for field in ("r", "lora_alpha", "target_modules"):
        if config.get(field) is None:
            raise mismatch(f"{ADAPTER_CONFIG_FILE} has no {field}", field)
    _check_values(config)
    return Adapter(config, tensors)


def _check_values(config: Mapping[str, Any]) -> None:
    rank, alpha, targets = config["r"], config["lora_alpha"], config["target_modules"]
    if type(rank) is not int or not 1 <= rank <= _MAX_RANK:
        raise mismatch(f"r is {rank!r:.80}; it must be an integer from 1 to {_MAX_RANK}", "r")
    if type(alpha) not in (int, float) or not 0 < alpha < _MAX_ALPHA:
        raise mismatch(f"lora_alpha is {alpha!r:.80}; it must be a positive number", "lora_alpha")
    if isinstance(targets, str):
        raise mismatch("target_modules is a pattern; it must be a list of names", "target_modules")
    if not isinstance(targets, list) or not all(name in TARGET_MODULES for name in targets):
        known = ", ".join(TARGET_MODULES)
        raise mismatch(f"target_modules is {targets!r:.80}; it must name some of {known}", "target_modules")


def mismatch(message: str, field: str) -> InvalidArgument:
    """The error for an adapter that does not fit a model, to raise."""
    return InvalidArgument(
        f"adapter does not fit: {message}", reason="ADAPTER_MISMATCH", metadata={"field": field}
    )


@dataclass(frozen=True, slots=True)
class Conversation:
    """How a model was trained to converse: a chat template (Jinja source), the token that ends a turn, and
    the one that begins a text (empty to keep the model's)."""

    chat_template: str
    eos_token: str
    bos_token: str = ""

    @classmethod
    def by(cls, template: ChatTemplate) -> Self:
        """The one of a chat template."""
        return cls(template.jinja_source(), template.end_of_turn, template.start_of_text)


def merge_adapter(base: Path, adapter: Path, out: Path, *, conversation: Conversation | None = None) -> None:
    """Write the model in ``base`` with ``adapter`` merged into its weights to the new folder ``out``.

    Each weight W becomes W + alpha / r * B A, accumulated in float32 and rounded once to the type of W.
    Shards, types and all other tensors stay as they are. ``out`` appears whole or not at all.

    Args:
        base: a Hugging Face folder.
        adapter: in the format of ``peft``.
        out: must not exist.
        conversation: see ``write_companions``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED.
        DataLoss: ADAPTER_INVALID.
        InvalidArgument: ADAPTER_MISMATCH, naming the tensor or the setting.
        AlreadyExists: EXPORT_EXISTS.
        ResourceExhausted: STORAGE_FULL, and the other errors of a file system, naming ``out``.
    """
    config = read_config(base)
    check_weights(base, config)
    read = read_adapter(adapter)
    changes = {
        name: _merging(read, name.removesuffix(".weight"), shape)
        for name, shape in config.tensor_shapes().items()
        if name.endswith("_proj.weight") and read.targets(name.removesuffix(".weight"))
    }
    read.require_all_taken()
    with new_folder(out) as folder:
        for file in weight_files(base):
            tensor_files.rewrite(file, folder / file.name, changes)
        if (base / INDEX_FILE).is_file():
            _copy(base, INDEX_FILE, folder)
        write_companions(base, folder, conversation)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """``tensor_files.new_folder``, unless ``out`` exists: raises AlreadyExists (EXPORT_EXISTS) then."""
    if out.exists():
        raise AlreadyExists(
            f"{out} exists already; name a folder that does not",
            reason="EXPORT_EXISTS",
            metadata={"path": str(out)},
        )
    with tensor_files.new_folder(out) as folder:
        yield folder


def write_companions(base: Path, folder: Path, conversation: Conversation | None = None) -> None:
    """Copy the files of a model beside its weights: configuration, tokenizer, licence.

    A ``conversation`` replaces the chat template, and its end of turn becomes the EOS of tokenizer and
    generation. Tokens that ended a generation before still do.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, the end of turn is no token of the model.
    """
    for name in _COMPANIONS:
        if (base / name).is_file():
            _copy(base, name, folder)
    if conversation is None:
        return
    eos = conversation.eos_token
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokens = {"eos_token": eos}
    if conversation.bos_token:
        tokens["bos_token"] = conversation.bos_token
    _update(folder / "tokenizer_config.json", {"chat_template": conversation.chat_template, **tokens})
    if (folder / "special_tokens_map.json").is_file():
        _update(folder / "special_tokens_map.json", tokens)
    generation = folder / "generation_config.json"
    before = _read(generation) if generation.is_file() else {}
    known = before.get("eos_token_id", _read(folder / CONFIG_FILE).get("eos_token_id"))
    known = known if isinstance(known, list) else [known]
    ids = [_token_id(base, eos)]
    ids += [token for token in known if token is not None and token not in ids]
    _update(generation, {"eos_token_id": ids[0] if len(ids) == 1 else ids})


def _merging(
    adapter: Adapter, module: str, shape: tuple[int, ...]
) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]:
    a, b = adapter.take(module, inputs=shape[1], outputs=shape[0])
    scale = np.float32(adapter.alpha / adapter.rank)

    def merge(weight: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        merged: npt.NDArray[np.float32] = b.astype(np.float32) @ a.astype(np.float32)
        merged *= scale
        merged += weight.astype(np.float32)
        return merged

    return merge


def _token_id(base: Path, token: str) -> int:
    tokenizer = _read(base / TOKENIZER_FILE)
    for added in tokenizer.get("added_tokens", []):
        if added["content"] == token:
            return int(added["id"])
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict) and token in vocabulary:
        return int(vocabulary[token])
    raise unsupported(base, "eos_token", token, "tokenizer.json must have this token")


def _update(path: Path, changes: dict[str, Any]) -> None:
    value = (_read(path) if path.is_file() else {}) | changes
    path.write_text(json.dumps(value, **_JSON_STYLE) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    with reading(path.parent, path.name):
        value: dict[str, Any] = read_json(path, MAX_TOKENIZER_BYTES)
    return value


def _copy(base: Path, name: str, folder: Path) -> None:
    if not name.endswith((".json", ".jinja")):
        shutil.copyfile(base / name, folder / name)
        return
    with reading(base, name):
        data = read_bytes(base / name, MAX_TOKENIZER_BYTES)
    # transformers refuses a byte-order mark.
    (folder / name).write_bytes(data.removeprefix(codecs.BOM_UTF8))


def main(folders: list[str]) -> int:
    """Merge; an error is one line on standard error."""
    base, adapter, out = map(Path, folders)
    try:
        template = ChatTemplate.model_validate_json(sys.stdin.read())
        merge_adapter(base, adapter, out, conversation=Conversation.by(template))
    except (DomainError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
