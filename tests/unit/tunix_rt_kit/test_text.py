"""Texts compared and shown as people read them."""

from __future__ import annotations

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from tunix_rt_kit.canonical import normalised

ASCII = st.text(st.characters(max_codepoint=127)) | st.text("aA \t\n\x0b\x1c\x1f\0.")


@given(ASCII | st.text())
@example("".join(map(chr, range(128))))
@example(" \x1cA  b\x1f\n")
def test_a_text_of_ascii_is_treated_as_any_other(text: str) -> None:
    assert normalised(text) == " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def test_forms_of_one_text_are_equal() -> None:
    assert normalised(" Stra\u00dfe\u3000\uff11\n") == normalised("STRASSE 1") == "strasse 1"
