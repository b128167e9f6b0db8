"""Splits outputs into reasoning and answer, by the rule in docs/adr/0029, in linear time."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from tunix_rt_evaluator.grading.reasoning.marks import (
    NAMED,
    NONE,
    Pair,
    pattern_of,
    same_mark,
)
from tunix_rt_evaluator.grading.reasoning.model import Answer, ReasoningMarks, Span, Split

_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}
_BEFORE_QUOTE: Final = frozenset("([{<=:,;-\u2013\u2014")
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_TICKS: Final = re.compile(r"`+|\n")


class _Piece(NamedTuple):
    """A text outside reasoning, and where the marks begin and end that stand before and behind it."""

    begin: int
    end: int
    before: int
    behind: int


def split(output: str, marks: ReasoningMarks) -> Split | None:
    """Where reasoning and answer stand in an output; None if it holds no reasoning.

    Args:
        output: what a model wrote.
        marks: resolved ones, see ``reasoning.marks``.
    """
    if marks.name == NONE:
        return None
    inside, lead, pieces = _Scan(output, marks).pieces()
    whole = len(output)
    if inside:
        return Split(reasoning=_spans(output, (lead, whole)), answer=(whole, whole), closed=False)
    if len(pieces) == 1 and pieces[0].begin == 0:
        return None
    piece = next((one for one in reversed(pieces) if output[one.begin : one.end].strip()), pieces[-1])
    last = pieces[-1].before
    return Split(
        reasoning=_spans(output, (min(lead, piece.before), piece.before), (piece.behind, last)),
        answer=_trimmed(output, piece, NAMED.get(marks.name, Pair(marks.start, marks.end))),
    )


def answer_alone(text: str) -> str | None:
    """The answer in an output whose marks are not known: what follows the reasoning of any named pair.

    None if the output ends within reasoning.
    """
    for name, pair in NAMED.items():
        found = split(text, ReasoningMarks(name=name, start=pair.start, end=pair.end, opened=False))
        if found is not None:
            if not found.closed:
                return None
            text = text[slice(*found.answer)]
    return text


class Splitter:
    """Splits the answers of one model.

    Args:
        marks: resolved ones, see ``reasoning.marks``.
        count: counts a text's tokens; None if the model's tokenizer is not known.
    """

    def __init__(self, marks: ReasoningMarks, count: Callable[[str], int | None]) -> None:
        self.marks = marks
        self._count = count
        # Where an endpoint gives reasoning apart, the rest does not begin within it.
        self._of_rest = marks.model_copy(update={"opened": False})

    def split(self, answer: Answer) -> Split | None:
        """Where reasoning and answer stand in the output; None if there is no reasoning."""
        output = answer.output
        apart = bool(answer.reasoning or answer.reasoning_tokens)
        found = split(output, self._of_rest if apart else self.marks)
        if found is None and apart:
            found = Split(reasoning=(), answer=(0, len(output)), closed=bool(output.strip()))
        return found and found.model_copy(update={"tokens": self._tokens(answer, found)})

    def _tokens(self, answer: Answer, found: Split) -> int | None:
        if answer.reasoning_tokens is not None:
            return min(answer.reasoning_tokens, answer.output_tokens or answer.reasoning_tokens)
        begin, end = found.answer
        if not answer.output[begin:end].strip():
            return answer.output_tokens or None
        outside = answer.reasoning, answer.output[:begin], answer.output[end:]
        counted = [self._count(text) for text in outside if text]
        known = [count for count in counted if count is not None]
        return min(sum(known), answer.output_tokens) if len(known) == len(counted) else None


class _Scan:
    """Goes through the marks of an output, in order."""

    def __init__(self, output: str, marks: ReasoningMarks) -> None:
        self._output = output
        self._start = marks.start
        self._inside = bool(marks.opened)
        self._found = pattern_of(marks.start, marks.end).finditer(output)

    def pieces(self) -> tuple[bool, int, list[_Piece]]:
        """Whether the output ends within reasoning, where leading reasoning begins, and the texts outside."""
        inside, begin, before, closed = self._inside, 0, 0, False
        since = 0
        lead = _leading(self._start, self._output)
        pieces: list[_Piece] = []
        for mark in self._found:
            opens = mark.end() - mark.start() == len(self._start) and same_mark(mark[0], self._start)
            if inside:
                if opens or self._quoted_within(mark, since):
                    continue
            elif _quoted(self._output, mark) or (closed and self._in_code(mark)):
                continue
            if not opens:
                if not inside:
                    # What came before was reasoning too, and its opening mark was never written.
                    pieces.clear()
                begin, before, closed = mark.end(), mark.start(), True
            elif mark.end() != lead:
                pieces.append(_Piece(begin, mark.start(), before, mark.end()))
            inside, since = opens, mark.end()
        if not inside:
            pieces.append(_Piece(begin, len(self._output), before, len(self._output)))
        return inside, lead, pieces

    def _quoted_within(self, mark: re.Match[str], since: int) -> bool:
        """Whether a mark in reasoning that began at ``since`` is only quoted, or stands in code."""
        if _quoted(self._output, mark):
            return True
        block = self._code[0].around(mark.start())
        return block is not None and block[0] >= since

    def _in_code(self, mark: re.Match[str]) -> bool:
        """Whether a mark behind reasoning stands in code."""
        return any(places.around(mark.start()) is not None for places in self._code)

    @cached_property
    def _code(self) -> tuple[_Places, _Places]:
        """Blocks of code that are fenced and closed, and code within a line."""
        return _Places(list(_fenced(self._output))), _Places(list(_spans_of_code(self._output)))


class _Places:
    """Spans of a text that do not overlap, in order."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._begins = [begin for begin, _ in spans]

    def around(self, place: int) -> Span | None:
        """The span that a place is in."""
        found = bisect_right(self._begins, place) - 1
        return self._spans[found] if found >= 0 and place < self._spans[found][1] else None


def _leading(start: str, output: str) -> int:
    """Where the mark ends that an output begins with; 0 if it begins with none."""
    blank = len(output) - len(output.lstrip())
    return blank + len(start) if same_mark(output[blank : blank + len(start)], start) else 0


def _quoted(output: str, mark: re.Match[str]) -> bool:
    """Whether quotation marks or backticks stand right around a mark.

    A quotation mark that closes what stands before, as in ``"Paris"</think>"Paris"``, does not count.
    """
    begin, end = mark.span()
    if not begin > 0 or end >= len(output) or _QUOTES.get(output[begin - 1]) != output[end]:
        return False
    before, behind = output[begin - 2 : begin - 1], output[end + 1 : end + 2]
    opening = not before or before.isspace() or before in _BEFORE_QUOTE
    return opening and not behind.isalnum()


def _fenced(output: str) -> Iterator[Span]:
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(output):
        if opened is None:
            # A line of code such as ```x``` opens no block.
            opened = None if "`" in fence[2] and fence[1][0] == "`" else fence
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            yield opened.end(), fence.start()
            opened = None


def _spans_of_code(output: str) -> Iterator[Span]:
    opened: re.Match[str] | None = None
    for ticks in _TICKS.finditer(output):
        if ticks.group() == "\n":
            opened = None
        elif opened is None:
            opened = ticks
        elif len(ticks.group()) == len(opened.group()):
            yield opened.end(), ticks.start()
            opened = None


def _trimmed(output: str, piece: _Piece, pair: Pair) -> Span:
    """The answer in a piece, without blank lines next to marks and without the marks of the answer itself."""
    begin, end = piece.begin, piece.end
    if begin:
        begin = _text_begins(output, begin, end)
    if pair.answer_start and output.startswith(pair.answer_start, begin, end):
        begin = _text_begins(output, begin + len(pair.answer_start), end)
    stripped = begin + len(output[begin:end].rstrip())
    if pair.answer_end and output.endswith(pair.answer_end, begin, stripped):
        stripped -= len(pair.answer_end)
        return begin, begin + len(output[begin:stripped].rstrip())
    return begin, end if end == len(output) else stripped


def _text_begins(output: str, begin: int, end: int) -> int:
    """Where the first line with text begins, with its indentation; in a mark's line, where its text does."""
    text = output[begin:end]
    blank = len(text) - len(text.lstrip())
    return begin + (text.rfind("\n", 0, blank) + 1 or blank)


def _spans(output: str, *spans: Span) -> tuple[Span, ...]:
    return tuple((begin, end) for begin, end in spans if output[begin:end].strip())
