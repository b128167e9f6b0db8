"""Canonical JSON and digests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tunix_rt_kit.canonical import (
    CanonicalPart,
    canonical_json,
    canonical_line,
    check_digest,
    digest_bytes,
    digest_file,
    digest_json,
)
from tunix_rt_kit.errors import InvalidArgument


def test_the_example_of_rfc_8785() -> None:
    # Section 3.2.2 and 3.2.3 of the RFC.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical_json(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_the_order_of_keys_changes_nothing() -> None:
    assert digest_json({"a": 1, "b": {"c": 2, "d": 3}}) == digest_json({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_json([1, 2]) != digest_json([2, 1])


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, "\ud800", {1: 2}, {"x": b"y"}, {"\ud800": 1}]
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        canonical_json({"value": [value]})
    assert caught.value.reason == "JSON_NOT_CANONICAL"


def test_a_line_is_the_canonical_json_of_its_fields() -> None:
    fields = {"b": [{"y": 2, "x": '\x7f\u2028\n"'}], "a": -(2**31), "\x7f": "\u20ac/"}
    part = canonical_json({"z": 1.50, "\ufb33": 1e21})
    assert canonical_line(fields) == canonical_json(fields) + b"\n"
    assert canonical_line({"b": CanonicalPart(part), "a": "x"}) == b'{"a":"x","b":%b}\n' % part
    with pytest.raises(InvalidArgument) as caught:
        canonical_line({"a": ["\ud800"]})
    assert caught.value.reason == "JSON_NOT_CANONICAL"


def test_the_digest_of_bytes_and_files_is_their_sha256(tmp_path: Path) -> None:
    data = b"abc" * 1_000_000
    (tmp_path / "file").write_bytes(data)
    expected = "sha256:" + hashlib.sha256(data).hexdigest()
    assert digest_bytes(data) == digest_file(tmp_path / "file") == expected
    assert check_digest(expected) == expected.removeprefix("sha256:")


@pytest.mark.parametrize(
    "bad", ["", "sha256:", "md5:" + "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 63]
)
def test_what_is_no_digest_is_named(bad: str) -> None:
    with pytest.raises(InvalidArgument, match="dataset_digest: "):
        check_digest(bad, "dataset_digest")
