"""Safetensors files, read and written tensor by tensor, so that only one of them is in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tunix_rt_kit.models.tensor_header import read_header
from tunix_rt_kit.regular_files import open_regular

_DTYPES: Final[dict[str, Any]] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
}
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Type (``BF16``, ``F16`` or ``F32``) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all its values."""
        return int(np.prod(self.shape, dtype=np.int64)) * int(_DTYPES[self.dtype].itemsize)


def read_specs(file: Path) -> dict[str, TensorSpec]:
    """The tensors of a file by name; raises as ``read_header``."""
    return {
        name: TensorSpec(tensor.dtype, tensor.shape)
        for name, tensor in read_header(file).items()
        if tensor.dtype in _DTYPES
    }


def rewrite(file: Path, target: Path, changes: Mapping[str, Callable[[npt.NDArray[Any]], Any]]) -> None:
    """Copy ``file`` to ``target``, with the tensors that ``changes`` names put through its function.

    What a function returns, of the same shape, is rounded to the type that the tensor had.

    Raises:
        OSError: ``file`` cannot be read (see ``read_header``), or ``target`` cannot be written.
    """
    tensors = read_header(file)
    with open_regular(file) as source, target.open("wb") as sink:
        sink.write(source.read(min((tensor.begin for tensor in tensors.values()), default=-1)))
        for name, tensor in tensors.items():
            data = source.read(tensor.end - tensor.begin)
            if name in changes:
                dtype = _DTYPES[tensor.dtype]
                value = np.frombuffer(data, dtype).reshape(tensor.shape)
                data = np.ascontiguousarray(changes[name](value)).astype(dtype).tobytes()
            sink.write(data)


def write(target: Path, specs: Mapping[str, TensorSpec], tensors: Callable[[str], npt.NDArray[Any]]) -> None:
    """Write the tensors of ``specs``, each asked for by name when it is its turn.

    The same tensors make the same bytes.

    Raises:
        OSError: ``target`` cannot be written.
    """
    # Wide types first, so that each tensor begins where its type may.
    names = sorted(specs, key=lambda name: (-_DTYPES[specs[name].dtype].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name in names:
        end = begin + specs[name].size_bytes
        header[name] = {
            "dtype": specs[name].dtype,
            "shape": list(specs[name].shape),
            "data_offsets": [begin, end],
        }
        begin = end
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    with target.open("wb") as sink:
        sink.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in names:
            value = tensors(name).astype(_DTYPES[specs[name].dtype])
            assert value.shape == specs[name].shape, name
            sink.write(np.ascontiguousarray(value).tobytes())
