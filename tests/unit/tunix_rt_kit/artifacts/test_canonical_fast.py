"""Canonical JSON is RFC 8785 whichever way it was written."""

from __future__ import annotations

import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from tunix_rt_kit.canonical import ListDigest, canonical_json, digest_json

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@given(values)
@example({"\U0001f600": 1, "\ufb33": 2})
@example('\x00\x1f\x7f\x80\u2028\u2029\\"/\b\f\n\r\t')
@example({"b": [1.0, -0.0, 1e21], "a": (True, None)})
def test_every_value_has_the_form_of_the_reference(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@given(st.lists(values, max_size=5))
def test_a_list_that_comes_entry_by_entry_has_the_digest_of_the_whole(entries: list[object]) -> None:
    digest = ListDigest()
    for entry in entries:
        digest.add(entry)
    assert digest.value == digest_json(entries)
