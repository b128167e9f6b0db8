"""What comes in parts is redacted as it would have been as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt import v1
from tunix_rt.redaction import Redactor
from tunix_rt.redaction.parts import PartsRedactor, tags_in
from tunix_rt.redaction.redactor import Edit

TRACE, OTHER = b"1" * 16, b"2" * 16
PIECES = (
    "ann.lee@example.com",
    "Ann.Lee@Example.com",
    "+49 30 901820",
    "+4930901820",
    "4111 1111 1111 1111",
    "zebra-crossing-41",
    "authorization: bearer zebra-crossing-41",
    "https://me:open-sesame@example.com/",
    "me:open-sesame",
    "10.1.2.3",
    "<EMAIL_1>",
    "42",
    "hello",
)
TEXTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=4).map(" and ".join), min_size=1, max_size=5)


def edited(texts: list[str], edit: Edit) -> list[str]:
    return [edit.text(text, "") for text in texts]


def conversation(texts: Sequence[str]) -> v1.Trace:
    return v1.Trace(messages=[v1.Message(content=[v1.ContentPart(text=text)]) for text in texts])


def in_parts(redactor: PartsRedactor, texts: Sequence[str]) -> list[str]:
    parts = [part for text in texts for part in redactor.part(TRACE, [text], edited)]
    return redactor.joined(TRACE, parts, edited, tags_in(part.encode() for part in parts))


@given(TEXTS)
def test_parts_become_the_trace_that_the_whole_becomes(texts: list[str]) -> None:
    whole = Redactor()
    expected = whole.trace(conversation(texts))
    made, counts = PartsRedactor(Redactor(), b"key").trace(
        TRACE, conversation(in_parts(PartsRedactor(Redactor(), b"key"), texts))
    )
    assert made == expected
    assert counts == whole.counts


@given(TEXTS)
def test_equal_texts_have_equal_tags_whatever_came_before(texts: list[str]) -> None:
    redactor = PartsRedactor(Redactor(), b"key")
    assert in_parts(redactor, texts) == in_parts(redactor, texts[::-1])[::-1]


def test_tags_differ_from_trace_to_trace_and_from_key_to_key() -> None:
    redacted = {
        PartsRedactor(Redactor(), key).part(trace, ["ann@example.com"], edited)[0]
        for key in (b"key", b"other")
        for trace in (TRACE, OTHER)
    }
    assert len(redacted) == 4
    assert all(text.startswith("<EMAIL_") for text in redacted)


@pytest.mark.parametrize("redactor", [None, Redactor()])
def test_tags_become_numbers_also_where_nothing_is_redacted_any_more(redactor: Redactor | None) -> None:
    parts = in_parts(
        PartsRedactor(Redactor(), b"key"), ["ann@example.com and bob@example.com", "bob@example.com"]
    )
    made, counts = PartsRedactor(redactor, b"key").trace(TRACE, conversation(parts))
    assert [message.content[0].text for message in made.messages] == ["<EMAIL_1> and <EMAIL_2>", "<EMAIL_2>"]
    assert counts == {"EMAIL": 3}
