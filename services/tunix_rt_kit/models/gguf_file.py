"""The header of a GGUF file: its layout, its metadata, and the ``config.json`` of the model that it
describes.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.models.config import Rope
from tunix_rt_kit.regular_files import UnfitFile, open_regular, refuse_pointer

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING: Final = 8
_ARRAY: Final = 9
# Several times what the largest published files have.
_MOST_ENTRIES: Final = 1 << 16
_MOST_VALUES: Final = 1 << 21
_MOST_AXES: Final = 4
_MOST_WEIGHTS: Final = 1 << 40
# llama.cpp's name of an architecture to Hugging Face's, with the settings beyond its numbers.
_ARCHITECTURES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "llama": ("LlamaForCausalLM", {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}),
    "qwen2": ("Qwen2ForCausalLM", {"use_sliding_window": False}),
    "qwen3": ("Qwen3ForCausalLM", {"attention_bias": False, "use_sliding_window": False}),
}
# Of Llama 3.1, 3.2 and 3.3, without the factor.
_LLAMA3: Final = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_CLOSE: Final = 1e-3
# llama.cpp's number for a control token in ``tokenizer.ggml.token_type``.
_CONTROL: Final = 3
_SHOWN: Final = 120


def check_layout(path: Path) -> None:
    """Walk through the header of a GGUF file, whose library believes every number in it.

    Raises:
        UnfitFile: an entry lies outside the file or is of an unknown kind, or there are too many.
        OSError: the file is not there, or cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(64)
        refuse_pointer(head, path)
        if not head.startswith(_MAGIC) or os.fstat(file.fileno()).st_size < _Walk.START:
            raise UnfitFile("is not a GGUF file", path)
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            _Walk(data, path).check()


class _Walk:
    """Reads one entry after the other."""

    START: Final = 24

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = len(_MAGIC)
        self._values = 0

    def check(self) -> None:
        """Raises UnfitFile."""
        version, tensors, entries = self._number("<I"), self._number("<Q"), self._number("<Q")
        if version not in _VERSIONS:
            raise self._wrong(f"is of GGUF version {version}; understood are 2 and 3, little-endian")
        if max(tensors, entries) > _MOST_ENTRIES:
            raise self._wrong(
                f"promises {entries} entries and {tensors} tensors; at most {_MOST_ENTRIES} are read"
            )
        for _ in range(entries):
            self._skip(self._number("<Q"))
            self._value(self._number("<I"))
        for _ in range(tensors):
            self._tensor()

    def _value(self, kind: int) -> None:
        if kind == _STRING:
            self._skip(self._number("<Q"))
        elif kind == _ARRAY:
            self._array(self._number("<I"), self._number("<Q"))
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise self._wrong(f"has an entry of kind {kind}, which GGUF does not have")

    def _array(self, kind: int, count: int) -> None:
        self._values += count
        if self._values > _MOST_VALUES:
            raise self._wrong(f"has arrays of {self._values} values; at most {_MOST_VALUES} are read")
        if kind in _SIZES:
            self._skip(count * _SIZES[kind])
        elif kind == _STRING:
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            raise self._wrong(f"has an array of kind {kind}, which is not understood")

    def _tensor(self) -> None:
        self._skip(self._number("<Q"))
        axes, weights = self._number("<I"), 1
        if axes > _MOST_AXES:
            raise self._wrong(f"has a tensor of {axes} axes; at most {_MOST_AXES} are read")
        for _ in range(axes):
            weights *= self._number("<Q")
        if weights > _MOST_WEIGHTS:
            raise self._wrong(f"has a tensor of {weights} weights; at most {_MOST_WEIGHTS} are read")
        # The library checks the type and the place of a tensor.
        self._skip(struct.calcsize("<IQ"))

    def _number(self, form: str) -> int:
        begin = self._at
        self._skip(struct.calcsize(form))
        (number,) = struct.unpack_from(form, self._data, begin)
        return int(number)

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise self._wrong("is cut off, or its header is damaged: an entry lies outside the file")

    def _wrong(self, problem: str) -> UnfitFile:
        return UnfitFile(problem, self._path)


class GgufMetadata:
    """The key-value header of a GGUF file, with errors that name the key that is missing or wrong."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        self._fields = reader.fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        field = self._fields.get(key)
        try:
            return default if field is None else field.contents()
        except UnicodeDecodeError as error:
            raise refusal(f"GGUF metadata {key!r} is not UTF-8: {error}") from error

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise refusal(f"GGUF file has no metadata {key!r}")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self[key] if default is None else self.get(key, default)
        if type(value) is not int or value < 1:
            raise self._wrong(key, value, "a positive integer")
        return value

    def number(self, key: str) -> float:
        """A positive number, as its publisher wrote it: the shortest decimal form of the float32."""
        value = self[key]
        if type(value) not in (int, float) or not 0 < value < float(np.finfo(np.float32).max):
            raise self._wrong(key, value, "a positive number")
        return float(str(np.float32(value)))

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self[key] if default is None else self.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        values = self[key]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self._wrong(key, values, "a list of texts")
        return values

    def token_id(self, name: str, *, required: bool = False) -> int | None:
        """The id of a special token, or None."""
        key = f"tokenizer.ggml.{name}_token_id"
        value = self[key] if required else self.get(key)
        if value is not None and (type(value) is not int or not 0 <= value < len(self.tokens)):
            raise self._wrong(key, value, f"the id of one of {len(self.tokens)} tokens")
        return value

    @cached_property
    def tokens(self) -> list[str]:
        """The vocabulary, by id."""
        key = "tokenizer.ggml.tokens"
        tokens = self.texts(key)
        if len(set(tokens)) < len(tokens):
            raise self._wrong(key, tokens, "a list in which no token stands twice")
        return tokens

    @cached_property
    def control_ids(self) -> list[int]:
        """The ids of the tokens that are no text."""
        key = "tokenizer.ggml.token_type"
        types = self[key]
        if not isinstance(types, list) or len(types) != len(self.tokens):
            raise self._wrong(key, types, f"a list for {len(self.tokens)} tokens")
        return [index for index, kind in enumerate(types) if kind == _CONTROL]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, with which the keys of its numbers begin."""
        name = self.text("general.architecture")
        if name not in _ARCHITECTURES:
            known = ", ".join(_ARCHITECTURES)
            raise refusal(
                f"GGUF architecture is {name!r}; understood are {known}. Use the model's Hugging Face folder"
            )
        return name

    @staticmethod
    def _wrong(key: str, value: Any, wanted: str) -> InvalidArgument:
        return refusal(f"GGUF metadata {key!r} is {value!r:.{_SHOWN}}; it must be {wanted}")


def refusal(message: str) -> InvalidArgument:
    """The error for a GGUF file that is not understood."""
    return InvalidArgument(message, reason="GGUF_UNSUPPORTED")


def model_config(
    metadata: GgufMetadata, *, tied: bool, vocab_size: int, rope_factors: Sequence[float] | None
) -> dict[str, Any]:
    """The Hugging Face config of the model that a GGUF header describes.

    Args:
        metadata: the header.
        tied: whether the file has no output matrix.
        vocab_size: rows of the embedding.
        rope_factors: the tensor ``rope_freqs``, by which Llama 3.1 slows its rotary pairs, or None.

    Raises:
        InvalidArgument: GGUF_UNSUPPORTED, naming what is not understood.
    """
    prefix = metadata.architecture
    architecture, facts = _ARCHITECTURES[prefix]
    heads = metadata.count(f"{prefix}.attention.head_count")
    width = metadata.count(f"{prefix}.embedding_length")
    head_dim = metadata.count(f"{prefix}.attention.key_length", max(width // heads, 1))
    if metadata.get(f"{prefix}.rope.dimension_count", head_dim) != head_dim:
        raise refusal("GGUF file rotates only a part of each head")
    theta = metadata.number(f"{prefix}.rope.freq_base")
    config = {
        "architectures": [architecture],
        "attention_dropout": 0.0,
        "bos_token_id": metadata.token_id("bos"),
        "eos_token_id": metadata.token_id("eos", required=True),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": metadata.count(f"{prefix}.feed_forward_length"),
        "max_position_embeddings": metadata.count(f"{prefix}.context_length"),
        "model_type": prefix,
        "num_attention_heads": heads,
        "num_hidden_layers": metadata.count(f"{prefix}.block_count"),
        "num_key_value_heads": metadata.count(f"{prefix}.attention.head_count_kv", heads),
        "rms_norm_eps": metadata.number(f"{prefix}.attention.layer_norm_rms_epsilon"),
        "rope_scaling": _rope_scaling(metadata, Rope(theta), head_dim, rope_factors),
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": vocab_size,
    }
    return config | facts


def _rope_scaling(
    metadata: GgufMetadata, plain: Rope, head_dim: int, factors: Sequence[float] | None
) -> dict[str, Any] | None:
    prefix = metadata.architecture
    kind = metadata.get(f"{prefix}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise refusal(f"GGUF file uses RoPE scaling {kind!r}, which is not understood")
    if kind == "linear":
        return {"rope_type": "linear", "factor": metadata.number(f"{prefix}.rope.scaling.factor")}
    if factors is None:
        return None
    factor = float(max(factors, default=0.0))
    if not _CLOSE < factor < 1 / _CLOSE:
        raise refusal(f"GGUF file has rope_freqs of up to {factor:g}, which are not understood")
    scaled = Rope(plain.theta, "llama3", factor, 1.0, 4.0, 8192.0).inverse_frequencies(head_dim)
    expected = [a / b for a, b in zip(plain.inverse_frequencies(head_dim), scaled, strict=True)]
    if len(factors) != len(expected) or not np.allclose(factors, expected, rtol=_CLOSE):
        raise refusal(
            "GGUF file has rope_freqs other than those of Llama 3.1's rule, which are not understood"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
