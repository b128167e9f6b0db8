"""Merges an adapter into its base model, with numpy alone, and writes the result as a Hugging Face folder.

``python -m tunix_rt_kit.models.export BASE ADAPTER OUT`` does it in a process of its own. Its input is the
``ChatTemplate`` that the adapter was trained with, as JSON.
"""

from __future__ import annotations

import codecs
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import AlreadyExists, DomainError
from tunix_rt_kit.models import durable, tensor_files
from tunix_rt_kit.models.adapter import Adapter, read_adapter
from tunix_rt_kit.models.config import CONFIG_FILE, unsupported
from tunix_rt_kit.models.hf_folder import (
    INDEX_FILE,
    MAX_TOKENIZER_BYTES,
    TOKENIZER_FILE,
    check_weights,
    read_config,
    reading,
    weight_files,
)
from tunix_rt_kit.regular_files import read_bytes, read_json

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


def merge_adapter(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    conversation: Conversation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the model in ``base`` with ``adapter`` merged into its weights to the new folder ``out``.

    Each weight W becomes W + alpha / r * B A, accumulated in float32 and rounded once to the type of W.
    Shards, types and all other tensors stay as they are. ``out`` appears whole or not at all.

    Args:
        base: a Hugging Face folder.
        adapter: in the format of ``peft``.
        out: must not exist.
        conversation: see ``write_companions``.
        progress: called with (weights merged, weights in all).

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
        f"{module}.weight": _merging(read, module, shape)
        for module, shape in _modules(config.tensor_shapes())
        if read.targets(module)
    }
    read.require_all_taken()
    done = 0

    def counted(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def change_and_count(weight: Any) -> Any:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(changes))
            return change(weight)

        return change_and_count

    with new_folder(out) as folder:
        for file in weight_files(base):
            tensor_files.rewrite(
                file, folder / file.name, {name: counted(change) for name, change in changes.items()}
            )
        if (base / INDEX_FILE).is_file():
            _copy(base, INDEX_FILE, folder)
        write_companions(base, folder, conversation)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """``durable.new_folder``, unless ``out`` exists: raises AlreadyExists (EXPORT_EXISTS) then."""
    if out.exists():
        raise AlreadyExists(
            f"{out} exists already; name a folder that does not",
            reason="EXPORT_EXISTS",
            metadata={"path": str(out)},
        )
    with durable.new_folder(out) as folder:
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


def _modules(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in shapes.items():
        if name.endswith("_proj.weight"):
            yield name.removesuffix(".weight"), shape


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
