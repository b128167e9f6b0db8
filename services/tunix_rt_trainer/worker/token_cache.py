"""Tokenised splits on disk, by what they were made from, so that none is tokenised twice."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tunix_rt_kit.artifacts import digest_json
from tunix_rt_kit.models.durable import storing
from tunix_rt_kit.supervision import TokenExample

Arrays = Mapping[str, np.ndarray[Any, Any]]


class TokenCache:
    """Splits as tokens under one folder, which may be shared by jobs at the same time and emptied at any.

    A file's name is a digest of the split's file (whose texts the chat template has already rendered), of the
    tokenizer and of the version of ``tokenizers``. Length is no part of it, for nothing is cut off. Only
    examples without a fault are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, file_digest: str, tokenizer_digest: str) -> Path:
        """Where the tokens of a split's file lie or would lie."""
        made_from = {
            "format": 2,
            "file": file_digest,
            "tokenizer": tokenizer_digest,
            "tokenizers": metadata.version("tokenizers"),
        }
        return self._folder / f"{digest_json(made_from).removeprefix('sha256:')}.safetensors"

    def read(self, path: Path) -> list[TokenExample] | None:
        """The examples at ``path``; None if there are none, or if the file is damaged."""
        try:
            with safe_open(path, framework="numpy") as file:  # type: ignore[no-untyped-call]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                told = file.metadata() or {}
        except (OSError, SafetensorError):
            return None
        if told.get("content") != _digest(arrays):
            return None
        ids = json.loads(arrays["ids"].tobytes())
        tokens, ends, prompts = (arrays[name].tolist() for name in ("tokens", "ends", "prompts"))
        starts = [0, *ends][:-1]
        return [
            TokenExample(name, tuple(tokens[start:end]), prompt)
            for name, start, end, prompt in zip(ids, starts, ends, prompts, strict=True)
        ]

    def write(self, path: Path, examples: Sequence[TokenExample]) -> None:
        """Keep the examples at ``path``; raises ResourceExhausted(STORAGE_FULL) and the like."""
        ids = json.dumps([row.id for row in examples]).encode()
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "ids": np.frombuffer(ids, np.uint8),
            "tokens": np.fromiter((token for row in examples for token in row.ids), np.int32),
            "ends": np.cumsum([len(row.ids) for row in examples], dtype=np.int64),
            "prompts": np.array([row.prompt_length for row in examples], np.int64),
        }
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with storing(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                save_file(arrays, partial, metadata={"content": _digest(arrays)})
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].tobytes())
    return digest.hexdigest()
