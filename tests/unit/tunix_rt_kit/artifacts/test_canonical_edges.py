"""Canonical JSON and digests at their edges: what is just right, just wrong, and what is said of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tunix_rt_kit import canonical
from tunix_rt_kit.canonical import (
    ListDigest,
    canonical_json,
    canonical_line,
    check_digest,
    digest_bytes,
    digest_file,
    digest_json,
)
from tunix_rt_kit.errors import InvalidArgument

LARGEST = 2**53 - 1
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a\u00e9", b'"a\xc3\xa9"'),
        ({"b": [True, None, False], "a": ("x", {})}, b'{"a":["x",{}],"b":[true,null,false]}'),
        ([LARGEST, -LARGEST], b"[9007199254740991,-9007199254740991]"),
    ],
)
def test_plain_values_are_written_the_fast_way(
    monkeypatch: pytest.MonkeyPatch, value: Any, written: bytes
) -> None:
    def slow(_: Any) -> bytes:
        raise AssertionError("this is the slow way")

    monkeypatch.setattr(canonical.rfc8785, "dumps", slow)
    assert canonical_json(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ([1.0], b"[1]"),
        ({"a": {"\U0001f600": 1, "\ufb33": 2}}, '{"a":{"\U0001f600":1,"\ufb33":2}}'.encode()),
        ([{"\u00e9": 1.5}], '[{"\u00e9":1.5}]'.encode()),
    ],
)
def test_other_values_are_written_as_rfc_8785_says(value: Any, written: bytes) -> None:
    assert canonical_json(value) == written


@pytest.mark.parametrize("value", [2**53, [-(2**53)], {"a": float("nan")}, "\ud800", {"a": {1: 2}}])
def test_what_has_no_canonical_form_is_told_why(value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        canonical_json(value)
    assert caught.value.reason == "JSON_NOT_CANONICAL"
    why = str(caught.value.__cause__)
    assert why and caught.value.message == f"value has no canonical JSON form: {why}"


def test_what_a_line_cannot_hold_is_told() -> None:
    with pytest.raises(InvalidArgument) as caught:
        canonical_line({"a": "\ud800"})
    assert caught.value.message == (
        "value has no canonical JSON form: str is not valid UTF-8: surrogates not allowed"
    )


def test_values_may_nest_deep_and_not_without_end() -> None:
    deep: list[Any] = []
    for _ in range(299):
        deep = [deep]
    allowed = sys.getrecursionlimit()
    # Room for what debuggers and mutation testing put between two calls.
    sys.setrecursionlimit(10 * allowed)
    try:
        assert canonical_json(deep) == b"[" * 300 + b"]" * 300
    finally:
        sys.setrecursionlimit(allowed)
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidArgument, match="value has no canonical JSON form: ") as caught:
        canonical_json(deep)
    assert caught.value.reason == "JSON_NOT_CANONICAL"


def test_digests_are_those_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert digest_bytes(b"") == digest_file(tmp_path / "empty") == EMPTY
    brackets = "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
    assert digest_json([]) == digest_bytes(b"[]") == ListDigest().value == brackets
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "none")


def test_the_digest_of_a_list_is_known_after_each_entry() -> None:
    entries = [{"b": 1, "a": 2}, "x", 3]
    digest = ListDigest()
    for count, entry in enumerate(entries, start=1):
        digest.add(entry)
        assert digest.value == digest_json(entries[:count]) == digest.value


def test_what_is_no_digest_is_shown_with_what_is_expected() -> None:
    assert check_digest(EMPTY) == EMPTY[7:]
    with pytest.raises(InvalidArgument) as caught:
        check_digest(EMPTY + "\n", "files[2].digest")
    assert caught.value.reason == "DIGEST_INVALID"
    assert caught.value.metadata == {"field": "files[2].digest"}
    right = "is not a digest; expected sha256: and 64 lower-case hex digits"
    assert caught.value.message == f"files[2].digest: {EMPTY + chr(10)!r} {right}"
    with pytest.raises(InvalidArgument, match=r"^digest: 'x' is not a digest") as caught:
        check_digest("x")
    assert caught.value.metadata == {"field": "digest"}
