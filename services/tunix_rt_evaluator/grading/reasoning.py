"""Tells reasoning from answers: which marks count, and where they split an output (docs/adr/0029).

Marks are pairs with a name, a caller's own, or those found in a chat template. Splitting takes linear time.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

from tunix_rt_evaluator.grading.model import Answer, CallForm, ReasoningMarks, Span, Split
from tunix_rt_kit.chat import ChatTemplate, Message
from tunix_rt_kit.serving.requests import Violations
from tunix_rt_kit.values import ChatTemplateFields

REVISION: Final = 1
"""Raised whenever an output could be split in another way; part of an evaluation's identity."""
NONE: Final = "none"
"""The name that stands for no marks: the whole output is the answer."""
DEFAULT: Final = "think"
MAX_MARK: Final = 100


_TAG: Final = re.compile(r"</?[a-zA-Z:_]+>")


class Pair(NamedTuple):
    """What opens and closes reasoning, and what may stand around the answer behind it."""

    start: str
    end: str
    answer_start: str = ""
    answer_end: str = ""


NAMED: Final[Mapping[str, Pair]] = {
    # DeepSeek R1, Qwen3, GLM, MiniMax, Phi 4, OLMo 3 and most others.
    DEFAULT: Pair("<think>", "</think>"),
    "thinking": Pair("<thinking>", "</thinking>"),
    # EXAONE Deep.
    "thought": Pair("<thought>", "</thought>"),
    "reasoning": Pair("<reasoning>", "</reasoning>"),
    # OpenThinker, Sky-T1.
    "begin_of_thought": Pair(
        "<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"
    ),
    # Magistral.
    "THINK": Pair("[THINK]", "[/THINK]"),
    # Seed OSS.
    "seed_think": Pair("<seed:think>", "</seed:think>"),
    # Command A Reasoning.
    "START_THINKING": Pair(
        "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"
    ),
    # gpt-oss. Whatever comes before the final channel is reasoning, also further messages of analysis.
    "harmony": Pair("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "", "<|return|>"),
    # Granite 3.2.
    "granite": Pair("Here is my thought process:", "Here is my response:"),
    # Kimi.
    "kimi": Pair("◁think▷", "◁/think▷"),
    # Apertus.
    "inner_prefix": Pair("<|inner_prefix|>", "<|inner_suffix|>"),
    # Gemma 4.
    "gemma4": Pair("<|channel>thought", "<channel|>"),
}
"""Every pair that has a name."""


def checked_marks(fields: Mapping[str, Any] | None, wrong: Violations, field: str) -> ReasoningMarks | None:
    """The marks that a caller asks for; what is wrong with them is noted in ``wrong``, below ``field``.

    A named pair may come with its own marks, so that an evaluation's marks can be sent again as they are.
    """
    if fields is None:
        return None
    asked = ReasoningMarks.model_validate({**fields, "revision": 0})
    if "name" in fields:
        _check_named(asked, wrong, field)
    elif "start" in fields or "end" in fields:
        _check_own(asked, wrong, field)
    return asked


def resolved_marks(asked: ReasoningMarks | None, template: ChatTemplateFields | None) -> ReasoningMarks:
    """The marks by which outputs are split, with every field decided.

    Args:
        asked: what the evaluation asks for. None: the pair whose marks both stand in the template or its
            system instruction, else that of `DEFAULT`.
        template: the chat template that prompts were rendered with; None if it is not known, as for an
            endpoint's model.
    """
    asked = asked or ReasoningMarks()
    if asked.name == NONE:
        return ReasoningMarks(name=NONE, opened=False, revision=REVISION)
    name = asked.name or ("" if asked.start else _name_in(template))
    pair = NAMED[name] if name else Pair(asked.start, asked.end)
    opened = asked.opened
    if opened is None:
        opened = template is not None and _opens(template, pair)
    return ReasoningMarks(name=name, start=pair.start, end=pair.end, opened=opened, revision=REVISION)


@lru_cache(maxsize=64)
def pattern_of(*marks: str) -> re.Pattern[str]:
    """A pattern that finds any of the marks; tags such as ``<think>`` in capitals too."""
    longest_first = sorted(marks, key=len, reverse=True)
    parts = [f"(?i:{re.escape(mark)})" if _TAG.fullmatch(mark) else re.escape(mark) for mark in longest_first]
    return re.compile("|".join(parts), re.ASCII)


def same_mark(written: str, mark: str) -> bool:
    """Whether a text from an output is this mark."""
    return pattern_of(mark).fullmatch(written) is not None


def is_current(marks: ReasoningMarks | None) -> bool:
    """Whether these are resolved marks of the present revision."""
    return marks is not None and marks.revision == REVISION


def described(marks: ReasoningMarks | None) -> str:
    """Marks in words, for people; None is an evaluation from before there were marks."""
    if marks is None or marks.name == NONE:
        return "none: whole outputs were graded"
    opened = ", opened by the prompt" if marks.opened else ""
    return f"{marks.start} to {marks.end}{opened}, revision {marks.revision}"


def _check_named(asked: ReasoningMarks, wrong: Violations, field: str) -> None:
    known = (*NAMED, NONE)
    if not wrong.check(
        asked.name in known,
        f"{field}.name",
        f"is {asked.name[:MAX_MARK]!r}; one of {', '.join(known)} would be right",
    ):
        return
    own = NAMED.get(asked.name, Pair("", ""))
    for side, given, mark in (("start", asked.start, own.start), ("end", asked.end, own.end)):
        wrong.check(
            given in ("", mark),
            f"{field}.{side}",
            f"is {given[:MAX_MARK]!r} as the {side} mark, but {asked.name!r} names another pair; leave "
            "one of both out",
        )
    wrong.check(
        asked.name != NONE or not asked.opened,
        f"{field}.opened",
        f"is true, but with {NONE!r} nothing is reasoning; leave it out",
    )


def _check_own(asked: ReasoningMarks, wrong: Violations, field: str) -> None:
    sides = {"start": asked.start, "end": asked.end}
    for side, mark in sides.items():
        wrong.check(
            0 < len(mark) <= MAX_MARK and mark.isprintable() and mark == mark.strip(),
            f"{field}.{side}",
            f"is {mark[:MAX_MARK]!r}{'...' if len(mark) > MAX_MARK else ''} as the {side} mark; 1 to "
            f"{MAX_MARK} printable characters without white space around them would be right",
        )
    if not all(sides.values()):
        return
    for side, other in (("start", "end"), ("end", "start")):
        if pattern_of(sides[side]).search(sides[other]):
            what = "equals" if len(asked.start) == len(asked.end) else "is a part of"
            wrong.add(
                f"{field}.{side}",
                f"is {sides[side][:MAX_MARK]!r} as the {side} mark, which {what} the {other} mark; two "
                "marks of which neither holds the other would be right",
            )
            return


def _name_in(template: ChatTemplateFields | None) -> str:
    text = "" if template is None else f"{template.jinja or ''}\n{template.system_instruction}"
    for name, pair in NAMED.items():
        if pattern_of(pair.start).search(text) and pattern_of(pair.end).search(text):
            return name
    return DEFAULT


def _opens(template: ChatTemplateFields, pair: Pair) -> bool:
    """Whether the template ends a prompt with opened reasoning."""
    asked = "\ue000"
    prompt = ChatTemplate.of(template).render(
        [Message(role="user", content=asked)], add_generation_prompt=True
    )
    behind = prompt.rpartition(asked)[2]
    last = max(pattern_of(pair.start, pair.end).finditer(behind), key=re.Match.end, default=None)
    return last is not None and same_mark(last[0], pair.start)


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
        marks: resolved ones, see ``resolved_marks``.
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
        marks: resolved ones, see ``resolved_marks``.
        count: counts a text's tokens; None if the model's tokenizer is not known.
        call_form: how the model writes calls of tools; raises FailedPrecondition where that cannot be read.
            Left out: in a form that each output shows.
    """

    def __init__(
        self,
        marks: ReasoningMarks,
        count: Callable[[str], int | None],
        call_form: Callable[[], CallForm | None] = lambda: None,
    ) -> None:
        self.marks = marks
        self.call_form = call_form
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
