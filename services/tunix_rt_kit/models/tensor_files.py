"""Safetensors files, read and written tensor by tensor, and folders that appear whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from tunix_rt_kit.artifacts import storage_error, storage_errors, sync
from tunix_rt_kit.models.config import unsupported
from tunix_rt_kit.models.hf_folder import StoredTensor, read_header
from tunix_rt_kit.regular_files import open_regular

_DTYPES: Final[dict[str, Any]] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
}
_ALIGNMENT = 8
# By size in bytes: the unsigned integer that holds a float, and the bits of its magnitude.
_BITS: Final[dict[int, Any]] = {2: (np.uint16, 0x7FFF), 4: (np.uint32, 0x7FFFFFFF)}
_FIRST_NOT_FINITE: Final = {"bfloat16": 0x7F80, "float16": 0x7C00, "float32": 0x7F800000}
_LOOKED_AT: Final = 1 << 20
_PARTIAL = ".partial"
_OS_ERROR = re.compile(r"os error (\d+)")


def require_finite(folder: Path, name: str, value: npt.NDArray[Any]) -> None:
    """Raise FailedPrecondition (BASE_MODEL_UNSUPPORTED) unless all values of a tensor are finite.

    Args:
        folder: of the model.
        name: of the tensor.
        value: bfloat16, float16 or float32.
    """
    # Comparing bits costs a quarter of numpy's isfinite, which has to cast bfloat16.
    kind, magnitude = _BITS[value.dtype.itemsize]
    bits, least = value.reshape(-1).view(kind), _FIRST_NOT_FINITE[value.dtype.name]
    for at in range(0, bits.size, _LOOKED_AT):
        if (bits[at : at + _LOOKED_AT] & kind(magnitude)).max() >= least:
            floats = value.astype(np.float32)
            wrong = floats[~np.isfinite(floats)]
            wanted = f"each of its {value.size} values must be a finite number, {wrong.size} are not"
            raise unsupported(folder, name, float(wrong[0]), wanted)


def require_finite_file(file: Path, names: Collection[str]) -> None:
    """`require_finite` of those tensors of a file that ``names`` holds; raises as `read_header` too."""
    for name, tensor in read_header(file).items():
        if name in names and tensor.dtype in _DTYPES:
            count = (tensor.end - tensor.begin) // int(_DTYPES[tensor.dtype].itemsize)
            if count:
                value = np.memmap(file, _DTYPES[tensor.dtype], "r", tensor.begin, (count,))
                require_finite(file.parent, name, value)


def rewrite(file: Path, target: Path, changes: Mapping[str, Callable[[npt.NDArray[Any]], Any]]) -> None:
    """Copy ``file`` to ``target``, with ``changes`` applied to the tensors that it names.

    A change returns the same shape, which is rounded to the tensor's type. Raises OSError.
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


def write(
    target: Path, specs: Mapping[str, StoredTensor], tensors: Callable[[str], npt.NDArray[Any]]
) -> None:
    """Write tensors of the types and shapes of ``specs``; ``tensors`` gives each by name when it is its turn.

    The same tensors make the same bytes. Raises OSError.
    """
    # Large types first, so that each tensor begins where its type may.
    names = sorted(specs, key=lambda name: (-_DTYPES[specs[name].dtype].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name in names:
        end = begin + specs[name].end - specs[name].begin
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


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn a failure of the file system into the domain error that names ``path``."""
    try:
        with storage_errors(str(path)):
            yield
    except SafetensorError as error:
        raise storage_error(system_error(error), str(path)) from error


def system_error(error: SafetensorError) -> OSError:
    """The system's error behind one of safetensors, which names it in its text alone; raises any other."""
    number = _OS_ERROR.search(str(error))
    if number is None:
        raise error
    return OSError(int(number[1]), os.strerror(int(number[1])))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes ``path`` when the block ends well and all is on the disk.

    It replaces what was at ``path``. When the block fails, nothing of it stays.

    Raises:
        ResourceExhausted: STORAGE_FULL, and the other errors of a file system, naming ``path``.
    """
    partial = path.with_name(f"{path.name}{_PARTIAL}")
    with storing(path):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for entry in (*sorted(partial.rglob("*")), partial):
                sync(entry)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
            sync(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def is_partial(path: Path) -> bool:
    """Whether a folder was being filled when its writer was killed."""
    return path.name.endswith(_PARTIAL)
