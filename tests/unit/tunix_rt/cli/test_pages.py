"""Pages of HTML show texts as they are, run nothing of them, and need no colours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tunix_rt import v1
from tunix_rt.cli.dataset_preview import examples
from tunix_rt.cli.training_page import write_training_page

TEXTS = (
    "\n\n</script>",
    "<img src=x onerror=alert(1)>",
    "</pre><h2>",
    "&lt;\"'",
    "\u202eright\r\x00",
    "\u2066",
)
LEARNED = (2, 3, 4)


class Browser(HTMLParser):
    """What a browser makes of a page: its tags with their attributes, and the text of each ``pre``."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "pre":
            self._is_inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_inside = self._is_inside and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            # A line break right behind the tag is left out.
            is_first = self.tags[-1] == "pre" and not self.texts[-1]
            self.texts[-1] += data.removeprefix("\n") if is_first else data


def page_of(part: v1.PreviewRowsResponse, folder: Path) -> str:
    job = v1.TrainingJob(name="trainingJobs/j", display_name=f"{TEXTS[0]}{TEXTS[1]}\u2066")
    part.split, part.row_id, part.example_number = "train", "ab" * 32, 1
    write_training_page(folder / "page.html", job, {1: 2.0, 2: 1.0}, examples([part]))
    return (folder / "page.html").read_bytes().decode()


@pytest.mark.parametrize("as_tokens", [False, True])
def test_hostile_texts_are_shown_as_they_are(tmp_path: Path, as_tokens: bool) -> None:
    part = v1.PreviewRowsResponse()
    for number, text in enumerate(TEXTS):
        if as_tokens:
            part.tokens.append(v1.PreviewToken(id=number, text=text, learned=number in LEARNED))
        else:
            part.segments.append(v1.PreviewSegment(text=text, learned=number in LEARNED))
    page = page_of(part, tmp_path)
    browser = Browser()
    browser.feed(page)
    assert browser.texts == ["".join([*TEXTS[:4], r"\u202eright\x0d\x00", r"\u2066"])]
    assert not {"script", "img", "link"} & set(browser.tags)
    assert not {"src", "href", "onerror"} & browser.attributes
    assert browser.tags.count("h2") == 2
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\r]", page)


def test_what_is_learned_is_marked_without_colours_too(tmp_path: Path) -> None:
    page = page_of(v1.PreviewRowsResponse(segments=[v1.PreviewSegment(text="5", learned=True)]), tmp_path)
    (rule,) = re.findall(r"mark, \.learned \{[^}]*\}", page)
    assert "text-decoration: underline" in rule
    assert "<mark>5</mark>" in page
