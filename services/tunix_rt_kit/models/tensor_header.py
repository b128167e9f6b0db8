"""The header of a safetensors file, checked: what tensors there are, and where in the file each stands.

The format: 8 bytes of little-endian length, a JSON header of that length, then the tensors' bytes:
https://huggingface.co/docs/safetensors. Read here, so that looking at a folder needs no tensor library.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.regular_files import UnfitFile, open_regular, refuse_pointer

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
