"""One line as a trace: our own form, the rows of a dataset, GSM8K; and a text as its paragraphs."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel, ConfigDict, Field

from tunix_rt import v1
from tunix_rt.errors import FieldViolation, FormatError
from tunix_rt.formats.conversations import (
    Messages,
    Tools,
    is_contract_form,
    message_of,
    tools_of,
    without_empty_objects,
)
from tunix_rt.formats.lines import check_values, object_of, parse_line, struct_of
from tunix_rt.schema import one_line

TRACE_VERSION: Final = "1.0"
MAX_TRACE_BYTES: Final = 1024 * 1024
MAX_TEXT: Final = 50_000
MAX_STEP: Final = 500_000
MAX_STEPS: Final = 1_000
MAX_LABEL: Final = 64
_GSM8K: Final = "gsm8k"
# A calculation beside the sentence that states it, such as <<48/2=24>>.
_CALCULATION = re.compile(r"<<[^<>]*>>")
_FINAL = "####"
_RESULT = re.compile(r"\s*####\s*[-+]?[$\u20ac\u00a3]?\s?\.?\d[\d.,/]*\s?%?")

_WRITTEN: Final = ("trace_version", "prompt", "steps", "final_answer", "messages", "tools", "source")

_LongText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Step(_Row):
    i: Annotated[int, Field(ge=0, le=2**31 - 1)]
    type: Annotated[str, Field(min_length=1, max_length=MAX_LABEL)]
    content: Annotated[str, Field(min_length=1, max_length=MAX_STEP)]


_Steps = Annotated[list[_Step], Field(min_length=1, max_length=MAX_STEPS)]


class _NativeFacts(_Row):
    trace_version: Annotated[str, Field(min_length=1, max_length=MAX_LABEL)]
    metadata: dict[str, Any] | None = None
    source: Annotated[str, Field(max_length=MAX_LABEL)] = ""
    # What the server writes; a listing, or what `traces show` prints, may be imported as it is.
    name: Any = None
    content_digest: Any = None
    sequence: Any = None
    create_time: Any = None
    training_jobs: Any = None
    scores: Any = None
    datasets: Any = None


class _NativeRow(_NativeFacts):
    prompt: _LongText
    steps: _Steps
    final_answer: _LongText
    # `traces show` prints the fields of the other form too.
    messages: Annotated[list[Any], Field(max_length=0)] = []
    tools: Annotated[list[Any], Field(max_length=0)] = []


class _ConversationRow(_NativeFacts):
    messages: Messages
    tools: Tools = []


class _DatasetRow(_Row):
    id: str
    prompts: _LongText
    trace_steps: _Steps
    final_answer: _LongText
    metadata: dict[str, Any] | None = None


class _DatasetConversationRow(_Row):
    id: str
    messages: Messages
    tools: Tools = []
    metadata: dict[str, Any] | None = None


class _Gsm8kRow(_Row):
    question: _LongText
    answer: str


class _WorkedRow(_Gsm8kRow):
    metadata: dict[str, Any] | None = None
    source: str = ""


def native(line: bytes, number: int, file: str) -> v1.Trace:
    """One trace in our own form. Raises FormatError that names each wrong field."""
    # Most traces are no conversations, and are not parsed twice.
    if b'"messages"' in line:
        document = object_of(line, number, file)
        if document.get("messages") or ("messages" in document and "prompt" not in document):
            return _conversation(document, line, number, file)
    row = parse_line(_NativeRow, line, number, file)
    trace = v1.Trace(
        trace_version=row.trace_version,
        prompt=row.prompt,
        steps=_steps(row.steps, number, file),
        final_answer=row.final_answer,
        source=row.source,
        metadata=metadata_of(row.metadata, number, file),
    )
    return checked(trace, line, number, file)


def _conversation(document: dict[str, Any], line: bytes, number: int, file: str) -> v1.Trace:
    if is_contract_form(document["messages"]):
        return _shown(document, line, number, file)
    for name in ("prompt", "steps", "final_answer"):
        if name in document:
            raise wrong(name, "is given beside messages; a trace has one of the two", number, file)
    row = parse_line(_ConversationRow, line, number, file)
    return _conversation_of(row, line, number, file, trace_version=row.trace_version, source=row.source)


def _conversation_of(
    row: _ConversationRow | _DatasetConversationRow,
    line: bytes,
    number: int,
    file: str,
    trace_version: str = TRACE_VERSION,
    source: str = "",
) -> v1.Trace:
    trace = v1.Trace(
        trace_version=trace_version,
        messages=map(message_of, row.messages),
        tools=tools_of(row.tools),
        source=source,
        metadata=metadata_of(row.metadata, number, file),
    )
    return checked(trace, line, number, file)


def _shown(document: dict[str, Any], line: bytes, number: int, file: str) -> v1.Trace:
    """A conversation as ``--json`` shows it, in the contract's words."""
    written: dict[str, Any] = {name: document[name] for name in _WRITTEN if name in document}
    try:
        trace = ParseDict(written, v1.Trace())
    except ParseError as error:
        raise FormatError(
            number, f"is no trace as `traces show --json` prints it: {error}", file=file
        ) from None
    metadata = document.get("metadata")
    if not isinstance(metadata, dict | None):
        raise wrong("metadata", "is no JSON object", number, file)
    if metadata:
        trace.metadata.CopyFrom(metadata_of(metadata, number, file) or Struct())
    without_empty_objects(trace)
    return checked(trace, line, number, file)


def dataset(line: bytes, number: int, file: str) -> v1.Trace:
    """One row of a dataset in the trace format. Raises FormatError that names each wrong field."""
    if b'"messages"' in line and "messages" in object_of(line, number, file):
        return _conversation_of(parse_line(_DatasetConversationRow, line, number, file), line, number, file)
    row = parse_line(_DatasetRow, line, number, file)
    trace = v1.Trace(
        trace_version=TRACE_VERSION,
        prompt=row.prompts,
        steps=_steps(row.trace_steps, number, file, "trace_steps"),
        final_answer=row.final_answer,
        metadata=metadata_of(row.metadata, number, file),
    )
    return checked(trace, line, number, file)


def gsm8k(
    line: bytes, number: int, file: str, *, names: tuple[str, str] = ("question", "answer")
) -> v1.Trace:
    """One question, and its answer of reasoning lines and `#### N`. Raises FormatError for wrong fields.

    With other ``names``, those that errors have for the two, metadata and a source may stand beside them.
    """
    own = names == ("question", "answer")
    row: Any = parse_line(_Gsm8kRow if own else _WorkedRow, line, number, file)
    reasoning, final_answer = _reasoned(row.answer, names[1], number, file)
    trace = v1.Trace(
        trace_version=TRACE_VERSION,
        prompt=row.question,
        steps=[
            v1.TraceStep(
                i=index,
                type="compute" if _CALCULATION.search(text) else "reason",
                content=_CALCULATION.sub("", text) or text,
            )
            for index, text in enumerate(reasoning)
        ],
        final_answer=final_answer,
        source=_GSM8K if own else row.source[:MAX_LABEL],
        metadata=None if own else metadata_of(row.metadata, number, file),
    )
    return checked(trace, line, number, file)


def ends_in_result(text: str) -> bool:
    """Whether the last line of a text is `#### N`, where N is a number: a heading of Markdown is none."""
    reasoning, line_break, last = text.rstrip().rpartition("\n")
    return bool(line_break and reasoning.strip()) and _RESULT.fullmatch(last) is not None


def _reasoned(answer: str, field: str, number: int, file: str) -> tuple[list[str], str]:
    """The reasoning lines of an answer, and what follows `####`."""
    reasoning, mark, final = answer.rpartition(_FINAL)
    final_answer = final.strip().replace(",", "")
    # A blank before the mark parts it from the text.
    written = [text.removesuffix("\r") for text in reasoning.rstrip(" ").split("\n")]
    lines = [text for text in written if text.strip()]
    problem = ""
    if not mark or not final_answer:
        problem = f"does not end in `{_FINAL} N`; other answers are read with --format prompt-completion"
    elif not lines:
        problem = f"has no reasoning before `{_FINAL}`"
    elif len(lines) > MAX_STEPS:
        problem = f"has {len(lines):,} reasoning lines; at most 1,000 are allowed"
    if problem:
        raise wrong(field, problem, number, file)
    for text, most in ((final_answer, MAX_TEXT), *((text, MAX_STEP) for text in lines)):
        if len(text) > most:
            raise wrong(
                field,
                f"has a line of {len(text):,} characters; at most {most:,} are allowed",
                number,
                file,
            )
    return lines, final_answer


def _steps(rows: list[_Step], number: int, file: str, field: str = "steps") -> list[v1.TraceStep]:
    seen: dict[int, int] = {}
    for index, row in enumerate(rows):
        if row.i in seen:
            raise wrong(f"{field}[{index}].i", f"is {row.i}, as in {field}[{seen[row.i]}]", number, file)
        seen[row.i] = index
    return [v1.TraceStep(i=row.i, type=row.type, content=row.content) for row in rows]


def metadata_of(metadata: dict[str, Any] | None, number: int, file: str) -> Struct | None:
    """Free-form metadata as a message; raises FormatError for what could not be kept."""
    found = check_values(metadata or {}, ("metadata",))
    if found:
        raise FormatError(number, one_line([found]), file=file, field_violations=[found])
    return struct_of(metadata)


def checked(trace: v1.Trace, line: bytes, number: int, file: str) -> v1.Trace:
    """``trace``, made of ``line``; raises FormatError if it holds a NUL character or more than 1 MiB."""
    # JSON can hold NUL only as an escape, so that most lines need no second look.
    if b"\\u0000" in line:
        for path, text in _texts(trace):
            if "\0" in text:
                raise wrong(path, "holds a NUL character", number, file)
    if trace.ByteSize() > MAX_TRACE_BYTES:
        raise FormatError(
            number, f"the trace has {trace.ByteSize():,} bytes; at most 1 MiB is allowed", file=file
        )
    return trace


def _texts(trace: v1.Trace) -> Iterator[tuple[str, str]]:
    yield from (
        (name, getattr(trace, name)) for name in ("trace_version", "prompt", "final_answer", "source")
    )
    for index, message in enumerate(trace.messages):
        yield from _texts_of(message, f"messages[{index}]")
    for index, tool in enumerate(trace.tools):
        yield f"tools[{index}]", tool.definition_text
    for index, step in enumerate(trace.steps):
        yield f"steps[{index}].type", step.type
        yield f"steps[{index}].content", step.content


def _texts_of(message: v1.Message, place: str) -> Iterator[tuple[str, str]]:
    for name in ("reasoning", "tool_call_id", "name"):
        yield f"{place}.{name}", getattr(message, name)
    yield from ((f"{place}.content", part.text) for part in message.content)
    for index, call in enumerate(message.tool_calls):
        for name, text in (("id", call.id), ("name", call.name), ("arguments", call.arguments_text)):
            yield f"{place}.tool_calls[{index}].{name}", text


# Made once, as to make one takes as long as a row does.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)


def encoded(document: Mapping[str, Any]) -> bytes:
    """An object as a line; what is no text stays in it for the error that names it."""
    return _ENCODER.encode(document).encode("utf-8", "surrogateescape")


def wrong(field: str, description: str, number: int, file: str) -> FormatError:
    """The error of a line with one wrong field."""
    return FormatError(
        number,
        f"{field}: {description}",
        file=file,
        field_violations=[FieldViolation(field, description)],
    )


BETWEEN: Final = "\n\n"
_FENCE: Final = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})(.*)", re.DOTALL)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, which joined by ``BETWEEN`` are the text again, to the byte.

    A text is parted at an empty line between two lines that are not indented, and never inside a fenced block
    of code. Neighbours stay together if there are more than 1,000. An empty text has none.
    """
    if not text:
        return []
    fences = _fences(text) if "```" in text or "~~~" in text else []
    starts = [start for start, _ in fences]
    parts, begin = [], 0
    for gap in _gaps(text):
        fence = bisect_right(starts, gap) - 1
        if fence < 0 or fences[fence][1] <= gap:
            parts.append(text[begin:gap])
            begin = gap + len(BETWEEN)
    parts.append(text[begin:])
    together = -(-len(parts) // MAX_STEPS)
    return [BETWEEN.join(parts[start : start + together]) for start in range(0, len(parts), together)]


def _gaps(text: str) -> Iterator[int]:
    """Where a text may be parted. An indented line goes on with what stands before it, and a wider gap could
    not be written back."""
    place = text.find(BETWEEN, 1)
    while 0 < place < len(text) - len(BETWEEN):
        if not (text[place - 1].isspace() or text[place + len(BETWEEN)].isspace()):
            yield place
        place = text.find(BETWEEN, place + 1)


def _fences(text: str) -> list[tuple[int, int]]:
    """Where fenced blocks of code begin and end; one that is never closed is none."""
    found, opened, start, place = [], "", 0, 0
    for line in text.split("\n"):
        mark = _FENCE.fullmatch(line)
        if mark and not opened:
            opened, start = mark[1], place
        elif mark and mark[1].startswith(opened) and not mark[2].strip():
            found.append((start, place + len(line)))
            opened = ""
        place += len(line) + 1
    return found
