"""Model folders with one thing wrong each, and what the refusal must say."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from support.tiny_model import make_tiny_model

Change = Callable[[Path], None]

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def edit(path: Path, **changes: Any) -> None:
    """Set entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file of a header, which may be bytes already, and of any promised length."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def malformed(root: Path) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    """For each of many faults its name, a folder that has it, and the words that its refusal must hold."""
    for number, (name, change, words) in enumerate(_faults()):
        folder = make_tiny_model(root / f"fault-{number}")
        change(folder)
        yield name, folder, words


def _faults() -> Iterator[tuple[str, Change, tuple[str, ...]]]:
    for file in FILES:
        for kind, put in _NOT_REGULAR.items():
            yield f"{file} is {kind}", _replaced(file, put), (file, kind)
        yield f"{file} is a pointer", _written(file, POINTER.encode()), (file, "Git LFS pointer")
    for file in FILES[2:]:
        # Weights have a length of their own.
        yield f"{file} is too large", _replaced(file, _enormous), (file, "larger than")
    for file in ("config.json", "tokenizer_config.json", "generation_config.json"):
        for what, data, word in _NOT_JSON:
            yield f"{file} {what}", _written(file, data), (file, word)
    for what, data, word in _NOT_TEXT:
        yield f"template {what}", _written("chat_template.jinja", data), ("chat_template.jinja", word)
    for changes, word in _CONFIGS:
        yield f"config {changes}"[:60], _edited("config.json", **changes), (word,)
    for what, data, word in _weights():
        yield f"weights {what}", _written(WEIGHTS, data), (WEIGHTS, word)
    for what, data in _TOKENIZERS:
        yield f"tokenizer {what}", _written("tokenizer.json", data), ("tokenizer.json",)
    for field, value, word in _TOKENS:
        yield f"{field} {value!r}"[:60], _edited("tokenizer_config.json", **{field: value}), (field, word)
    for value in ("2", 2.0, True, -1, ["<|im_end|>"], 259, [2, 259], list(range(9)), {"id": 2}):
        written = json.dumps({"eos_token_id": value}).encode()
        yield f"stops {value!r}", _written("generation_config.json", written), ("eos_token_id", repr(value))
    yield "an adapter beside", _written("adapter_config.json", b"{}"), ("adapter_config.json",)
    yield "another head", _other_head, ("tie_word_embeddings", "lm_head.weight")
    yield from _shards()


def _replaced(file: str, put: Change) -> Change:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        put(folder / file)

    return change


def _written(file: str, data: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(data) and None


def _edited(file: str, **changes: Any) -> Change:
    return lambda folder: edit(folder / file, **changes)


def _socket(path: Path) -> None:
    # The path of a socket is short.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _enormous(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


_NOT_REGULAR: dict[str, Change] = {
    "a named pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": _socket,
    "symbolic links": lambda path: path.symlink_to(path.name),
}

_NOT_TEXT = [
    ("is Latin-1", "café".encode("latin-1"), "UTF-8"),
    ("is UTF-16", "{}".encode("utf-16"), "UTF-16"),
]
_NOT_JSON = [
    *_NOT_TEXT,
    ("is empty", b"", "JSON"),
    ("is cut", b'{"a": ', "JSON"),
    ("is a list", b"[1, 2]", "object"),
    ("nests", b"[" * 100_000, "deep"),
]

_SCALED = {"rope_type": "linear", "factor": 2.0}
_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"num_hidden_layers": 1_000}, "model.layers.2."),
    ({"hidden_size": 10**12}, "hidden_size"),
    ({"intermediate_size": 10**300}, "intermediate_size"),
    ({"vocab_size": 10**18}, "vocab_size"),
    ({"num_attention_heads": 10**9}, "num_attention_heads"),
    ({"num_key_value_heads": -4}, "num_key_value_heads"),
    ({"head_dim": 10**6}, "head_dim"),
    ({"max_position_embeddings": 10**30}, "max_position_embeddings"),
    ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
    ({"rope_theta": 1e-300}, "rope_theta"),
    ({"model_type": "mistral"}, "model_type"),
    ({"architectures": {"a": 1}}, "architectures"),
    ({"architectures": ["x" * 500_000]}, "architectures"),
    ({"rope_scaling": {"factor": 2.0}}, "rope_type"),
    ({"rope_scaling": {"rope_type": ["linear"]}}, "rope_type"),
    ({"rope_scaling": _SCALED, "rope_parameters": {"rope_theta": 5.0}}, "contradicts rope_scaling"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
    ({"hidden_act": ["silu"]}, "hidden_act"),
    (
        {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "layer_types": [["x"], {}]},
        "layer_types",
    ),
]

_TOKENIZERS = [
    ("is empty", b""),
    ("is no JSON", b"\xff\xfe\x00"),
    ("is a list", b"[]"),
    ("has no model", b"{}"),
    ("has ids that are texts", b'{"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": []}}'),
    ("has merges of nothing", b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}}'),
    ("nests", b'{"model":' * 50_000),
    (
        "makes the library panic",
        b'{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "added_tokens": [],'
        b'"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}',
    ),
    ("knows no word", b'{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}}'),
]

_TOKENS: list[tuple[str, Any, str]] = [
    ("eos_token", 2, "text"),
    ("eos_token", ["<|im_end|>"], "text"),
    ("bos_token", {"content": 1}, "text"),
    ("pad_token", "\ud800", "halves"),
    ("unk_token", "a\0b", "NUL"),
    ("eos_token", "x" * 5_000, "bytes"),
    ("chat_template", 7, "text"),
    ("chat_template", {"default": "x"}, "text"),
    ("chat_template", ["x"], "name and a template"),
    ("chat_template", [{"name": "default"}], "name and a template"),
    ("chat_template", [{"name": "default", "template": 7}], "text"),
    ("chat_template", "\ud83d", "halves"),
    ("chat_template", " \n", "Jinja"),
    ("chat_template", "x" * 300_000, "bytes"),
]


def _weights() -> Iterator[tuple[str, bytes, str]]:
    right = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    eight = b"\0" * 8
    for what, entry in {
        "entry that is a list": [],
        "entry of null": None,
        "no dtype": {"shape": [2], "data_offsets": [0, 8]},
        "a wild dtype": right | {"dtype": "F33"},
        "a dtype that is a list": right | {"dtype": ["F32"]},
        "a shape of null": right | {"shape": None},
        "a negative shape": right | {"shape": [-2]},
        "a fractional shape": right | {"shape": [2.0]},
        "a shape of flags": right | {"shape": [True, 2]},
        "a wild shape": right | {"shape": [1 << 62, 1 << 62]},
        "a shape of many axes": right | {"shape": [1] * 1_000},
        "offsets of null": right | {"data_offsets": None},
        "offsets in them of null": right | {"data_offsets": [None, None]},
        "one offset": right | {"data_offsets": [0]},
        "texts for offsets": right | {"data_offsets": ["0", "8"]},
        "negative offsets": right | {"data_offsets": [-8, 0]},
        "offsets that go back": right | {"data_offsets": [8, 0]},
        "offsets beyond the file": right | {"data_offsets": [1 << 60, (1 << 60) + 8]},
        "offsets of another length": right | {"data_offsets": [0, 4]},
    }.items():
        yield what, safetensors({"x": entry}, eight), "'x'"
    yield "overlap", safetensors({"x": right, "y": right}, eight), "'y'"
    hole = right | {"data_offsets": [16, 24]}
    yield "a hole", safetensors({"x": right, "y": hole}, eight * 3), "'y'"
    yield "a tail", safetensors({"x": right}, eight * 2), "bytes long"
    yield "cut off", safetensors({"x": right}, eight[:4]), "bytes long"
    yield "a header that is a list", safetensors([right], eight), "object"
    yield "a header of null", safetensors(None, eight), "object"
    yield "a header that nests", safetensors(b"[" * 100_000), "JSON"
    yield "a header in UTF-16", safetensors(json.dumps({"x": right}).encode("utf-16"), eight), "JSON"
    yield "a tensor twice", safetensors(b'{"x": {}, "x": {}}'), "twice"
    yield "metadata that is a list", safetensors({"__metadata__": [], "x": right}, eight), "__metadata__"
    yield "a length beyond the file", safetensors({"x": right}, eight, length=1_000), "promises"
    yield "a length beyond reason", safetensors({"x": right}, eight, length=1 << 63), "promises"
    yield "nothing", b"", "0 bytes"
    yield "three bytes", b"abc", "3 bytes"


def _other_head(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] * 2}, folder / WEIGHTS)


def _shards() -> Iterator[tuple[str, Change, tuple[str, ...]]]:
    def sharded(change: Change) -> Change:
        def made(folder: Path) -> None:
            (folder / WEIGHTS).unlink()
            change(make_tiny_model(folder, shards=2))

        return made

    def twice(folder: Path) -> None:
        first, second = sorted(folder.glob("*.safetensors"))
        tensors = load_file(first)
        save_file(load_file(second) | {min(tensors): tensors[min(tensors)]}, second)

    def elsewhere(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        first, second = sorted(set(index["weight_map"].values()))
        name = next(name for name, file in index["weight_map"].items() if file == first)
        index["weight_map"][name] = second
        (folder / INDEX).write_text(json.dumps(index))

    def pointer(folder: Path) -> None:
        next(folder.glob("*.safetensors")).write_text(POINTER)

    def both(folder: Path) -> None:
        save_file({"x": np.zeros(1, np.float32)}, folder / WEIGHTS)

    yield "a tensor in two shards", sharded(twice), ("model-00002", "model-00001")
    yield "a tensor in another shard", sharded(elsewhere), (INDEX, "model-00002")
    yield "a shard that is a pointer", sharded(pointer), ("Git LFS pointer",)
    yield "shards and one file", sharded(both), (WEIGHTS, INDEX)
    for name in (
        "../other.safetensors",
        "/dev/zero",
        "..",
        "a/b.safetensors",
        "tokenizer.json",
        7,
        None,
        ["x"],
    ):
        change = _edited(INDEX, weight_map={"model.norm.weight": name})
        yield f"an index that names {name!r}", sharded(change), (INDEX, "model.norm.weight")
    for value in ([], {}, "x", None):
        change = _edited(INDEX, weight_map=value)
        yield f"an index of {value!r}", sharded(change), (INDEX, "weight_map")
    for kind, put in _NOT_REGULAR.items():
        yield f"an index that is {kind}", sharded(_replaced(INDEX, put)), (INDEX, kind)
