"""How rows of a dataset are shown as a model learns them: on a terminal, and as a page of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

from rich.console import Console
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import text
from tunix_rt.escapes import visible
from tunix_rt.files import atomic_file

_LEARNED: Final = "bold green"
_MARKS: Final = ("«", "»")
_FAULTS: Final = {
    "target_lost": "its tokens do not say the text that is to be learned",
    "special_token": "one of its texts holds a special token of the tokenizer",
}


@dataclass(slots=True)
class Example:
    """A training example: its ``segments`` are the rendered text from left to right."""

    split: str
    row_id: str
    number: int
    fault: str
    segments: list[v1.PreviewSegment] = field(default_factory=list)
    tokens: list[v1.PreviewToken] = field(default_factory=list)


class SegmentDocument(TypedDict):
    """A part of a rendered text."""

    text: Annotated[str, "The text."]
    learned: Annotated[bool, "Whether it is learned."]


class TokenDocument(TypedDict):
    """A token."""

    id: Annotated[int, "Its id in the tokenizer of the base model."]
    text: Annotated[str, "What it alone is decoded to."]
    learned: Annotated[bool, "Whether the loss mask has 1 for it."]


class ExampleDocument(TypedDict):
    """A training example of a dataset."""

    split: Annotated[str, "The split that its row is in."]
    row_id: Annotated[str, "The row's id."]
    example_number: Annotated[int, "Which of the row's examples it is, from 1."]
    fault: Annotated[str, "Why training refuses it: `target_lost` or `special_token`; empty if it does not."]
    segments: Annotated[list[SegmentDocument], "The rendered text from left to right."]
    tokens: Annotated[list[TokenDocument], "Its tokens; empty without a base model."]


def examples(parts: Iterable[v1.PreviewRowsResponse]) -> list[Example]:
    """The training examples that parts are of."""
    found: list[Example] = []
    for part in parts:
        place = (part.split, part.row_id, part.example_number)
        if not found or place != (found[-1].split, found[-1].row_id, found[-1].number):
            found.append(Example(*place, part.fault))
        # Long segments come in several.
        for segment in part.segments:
            last = found[-1].segments[-1] if found[-1].segments else None
            if last is not None and last.learned == segment.learned:
                last.text += segment.text
            else:
                found[-1].segments.append(segment)
        found[-1].tokens += part.tokens
    return found


def as_documents(found: Iterable[Example]) -> list[dict[str, Any]]:
    """The same for `--json`."""
    return [
        {
            "split": one.split,
            "row_id": one.row_id,
            "example_number": one.number,
            "fault": one.fault,
            "segments": [{"text": part.text, "learned": part.learned} for part in one.segments],
            "tokens": [{"id": each.id, "text": each.text, "learned": each.learned} for each in one.tokens],
        }
        for one in found
    ]


def print_examples(console: Console, found: Sequence[Example], *, tokens: bool) -> None:
    """Print examples, what is learned in colour, or between marks where there is none."""
    coloured = console.color_system is not None and not console.no_color
    how = "in green and bold" if coloured else f"between {' and '.join(_MARKS)}"
    console.print(f"what is learned stands {how}", style="dim", highlight=False)
    for one in found:
        console.print()
        console.print(_title(one, found), style="bold", highlight=False)
        if one.fault:
            console.print(f"training refuses it: {_FAULTS.get(one.fault, one.fault)}", style="red")
        for line in _token_lines(one, coloured) if tokens else [_coloured(one, coloured)]:
            console.print(line, soft_wrap=True, highlight=False)


def _title(one: Example, found: Sequence[Example]) -> str:
    count = sum(1 for other in found if other.row_id == one.row_id)
    several = f", example {one.number} of {count}" if count > 1 else ""
    return f"row {one.row_id[:12]} of {one.split}{several}{_counted(one)}"


def _counted(one: Example) -> str:
    if not one.tokens:
        return ""
    learned = sum(token.learned for token in one.tokens)
    return f": {text.counted(len(one.tokens), 'token')}, {text.count(learned)} learned"


def _coloured(one: Example, coloured: bool) -> Text:
    shown = Text()
    for part in one.segments:
        if coloured or not part.learned:
            shown.append(visible(part.text), _LEARNED if part.learned else "")
        else:
            shown.append(visible(part.text).join(_MARKS))
    return shown


def _token_lines(one: Example, coloured: bool) -> Iterable[Text]:
    """A line for each token: its place, its id, whether it is learned, and its text with escapes."""
    width, digits = len(str(len(one.tokens))), max((len(str(token.id)) for token in one.tokens), default=1)
    for place, token in enumerate(one.tokens):
        mark = "learned" if token.learned else "-"
        line = f"{place:>{width}}  {token.id:>{digits}}  {mark:<7}  {token.text!r}"
        yield Text(visible(line), _LEARNED if token.learned and coloured else "")


def write_page(path: Path, title: str, found: Sequence[Example], before: str = "") -> None:
    """Write examples as a page that needs nothing beside it, whole or not at all; raises OSError.

    ``before`` is HTML that stands between the title and the examples.
    """
    body = "\n".join(_section(one, found) for one in found)
    page = _PAGE.format(title=escape(visible(title)), before=before, body=body)
    with atomic_file(path) as file:
        file.write(page.encode())


def _section(one: Example, found: Sequence[Example]) -> str:
    fault = ""
    if one.fault:
        fault = f'<p class="fault">Training refuses it: {escape(_FAULTS.get(one.fault, one.fault))}.</p>'
    if one.tokens:
        pieces = "".join(
            f'<span class="{"learned " if token.learned else ""}token" title="id {token.id}">'
            f"{escape(visible(token.text))}</span>"
            for token in one.tokens
        )
    else:
        pieces = "".join(
            f"<mark>{escape(visible(part.text))}</mark>" if part.learned else escape(visible(part.text))
            for part in one.segments
        )
    # A line break right behind <pre> is not shown.
    start = "\n" if pieces.startswith("\n") else ""
    return f"<section>\n<h2>{escape(_title(one, found))}</h2>\n{fault}<pre>{start}{pieces}</pre>\n</section>"


_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1rem; margin-top: 2rem; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #8888; padding: 1rem; }}
mark, .learned {{ background: light-dark(#b9f0c0, #1d5a2a); color: inherit;
  text-decoration: underline 2px; text-decoration-skip-ink: none; text-underline-offset: 3px; }}
.token {{ outline: 1px solid #8884; }}
th {{ text-align: left; vertical-align: top; padding-right: 1rem; white-space: nowrap; }}
td {{ overflow-wrap: anywhere; }}
figure {{ margin: 1.5rem 0; }}
.fault {{ color: light-dark(#a00, #f88); }}
</style>
</head>
<body>
<h1>{title}</h1>
{before}
<p><mark>What is marked so</mark> is learned; the rest is what the model sees before it.</p>
{body}
</body>
</html>
"""
