"""Headers of safetensors files: read as the format's own library reads them, or refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from support.malformed_models import safetensors
from tunix_rt_kit.models.hf_folder import read_header
from tunix_rt_kit.regular_files import UnfitFile

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
DTYPES = st.sampled_from(["F32", "BF16", "I64", "U8", "BOOL", "F4", "F8_E4M3", "F33", ""])
SIZES = st.integers(-1, 5)
NEARLY_RIGHT = st.fixed_dictionaries(
    {
        "dtype": DTYPES | JSON,
        "shape": st.lists(SIZES, max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 24), min_size=1, max_size=3) | JSON,
    }
)


@st.composite
def right(draw: st.DrawFn) -> dict[str, Any]:
    """A header of a few tensors that stand one after the other."""
    header: dict[str, Any] = {}
    begin = 0
    for name in draw(st.lists(st.text(max_size=3), max_size=4, unique=True)):
        dtype, size = draw(st.sampled_from([("F32", 4), ("BF16", 2), ("U8", 1)]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        end = begin + size * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    return header


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[str, Any]:
    """As ``right``, with one entry changed."""
    header: dict[str, Any] = draw(right().filter(bool))
    name = draw(st.sampled_from(sorted(header)))
    header[name] |= {draw(st.sampled_from(["dtype", "shape", "data_offsets"])): draw(JSON)}
    return header


def promised(header: Any) -> bytes:
    """As many bytes as the header of a small file promises."""
    entries = header.values() if isinstance(header, dict) else ()
    ends = [entry.get("data_offsets") for entry in entries if isinstance(entry, dict)]
    last = [end[-1] for end in ends if isinstance(end, list) and end]
    return b"\0" * max((end for end in last if type(end) is int and 0 <= end < 1_000), default=0)


@settings(max_examples=100)
@given(
    header=nearly_right() | st.dictionaries(st.text(max_size=3), NEARLY_RIGHT | JSON, max_size=3) | JSON,
    wrong=st.none() | st.tuples(st.binary(max_size=64), st.integers(0, 2**64 - 1)),
)
def test_whatever_stands_there_is_read_as_the_library_reads_it_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: Any, wrong: tuple[bytes, int] | None
) -> None:
    file = tmp_path_factory.getbasetemp() / "x.safetensors"
    data, length = wrong or (promised(header), None)
    file.write_bytes(safetensors(header, data, length=length))
    try:
        found = read_header(file)
    except UnfitFile as error:
        assert len(error.strerror) < 500
        return
    with safe_open(file, framework="numpy") as stored:
        assert set(stored.keys()) == set(found)
        for name, tensor in found.items():
            assert tuple(stored.get_slice(name).get_shape()) == tensor.shape
            assert stored.get_slice(name).get_dtype() == tensor.dtype


@settings(max_examples=30)
@given(right())
def test_what_is_right_is_read(tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]) -> None:
    file = tmp_path_factory.getbasetemp() / "x.safetensors"
    file.write_bytes(safetensors(header, promised(header)))
    with safe_open(file, framework="numpy") as stored:
        assert set(stored.keys()) == set(read_header(file)) == set(header)
