"""Whether the header of a GGUF file can be read: its library believes every number in it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final

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


def check_layout(path: Path) -> None:
    """Walk through the header of a GGUF file, in time and memory that its length bounds.

    Raises:
        UnfitFile: an entry lies outside the file or is of no known kind, or there are more than a model has.
        OSError: it is not there, or cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(64)
        refuse_pointer(head, path)
        if not head.startswith(_MAGIC) or os.fstat(file.fileno()).st_size < _Walk.START:
            raise UnfitFile("is not a GGUF file", path)
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            _Walk(data, path).check()


class _Walk:
    """Reads on from entry to entry."""

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
        # What the library does with the type and the place of a tensor needs no help.
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
