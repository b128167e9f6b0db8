"""Traces as JSON lines: our own form, the rows of a dataset, and GSM8K's questions and answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from pydantic import BaseModel, ConfigDict, Field

from tunix_rt import v1
from tunix_rt.errors import FieldViolation
from tunix_rt.formats.errors import FormatError
from tunix_rt.formats.lines import Source, check_values, keys_of, name_of, parse_line, read_lines, struct_of
from tunix_rt.schema import one_line

TraceFormat: TypeAlias = Literal["auto", "native", "gsm8k", "dataset"]

TRACE_VERSION: Final = "1.0"
MAX_TRACE_BYTES: Final = 1024 * 1024
_GSM8K: Final = "gsm8k"
# A calculation beside the sentence that states it, such as <<48/2=24>>.
_CALCULATION = re.compile(r"<<[^<>]*>>")
_FINAL = "####"

_LongText = Annotated[str, Field(min_length=1, max_length=50_000)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Step(_Row):
    i: Annotated[int, Field(ge=0, le=2**31 - 1)]
    type: Annotated[str, Field(min_length=1, max_length=64)]
    content: Annotated[str, Field(min_length=1, max_length=20_000)]


_Steps = Annotated[list[_Step], Field(min_length=1, max_length=1_000)]


class _NativeRow(_Row):
    trace_version: Annotated[str, Field(min_length=1, max_length=64)]
    prompt: _LongText
    steps: _Steps
    final_answer: _LongText
    metadata: dict[str, Any] | None = None
    source: Annotated[str, Field(max_length=64)] = ""
    # What the server writes; a listing may be imported as it is.
    name: Any = None
    content_digest: Any = None
    sequence: Any = None
    create_time: Any = None


class _DatasetRow(_Row):
    id: str
    prompts: _LongText
    trace_steps: _Steps
    final_answer: _LongText
    metadata: dict[str, Any] | None = None


class _Gsm8kRow(_Row):
    question: _LongText
    answer: str


def read_traces(source: Source, format: TraceFormat = "auto") -> Iterator[v1.Trace]:
    """Yield the traces of a file of JSON lines, one at a time; blank lines are passed over.

    Args:
        source: a path, ``-`` for standard input, or an open file, text or binary.
        format: ``native`` (see ``trace_from_json``), ``gsm8k`` (``question``, and ``answer`` of reasoning
            lines and ``#### N``), ``dataset`` (rows of a dataset in the trace format), or ``auto``: the first
            line tells.

    Raises:
        FormatError: names the file, the line, and every wrong field. What came before was yielded.
    """
    file = name_of(source)
    build: _Builder | None = None if format == "auto" else _BUILDERS[format]
    for number, line in read_lines(source):
        if build is None:
            build = _detect(line, number, file)
        yield build(line, number, file)


def trace_from_json(line: str | bytes) -> v1.Trace:
    """The trace of one native JSON object: ``trace_version``, ``prompt``, ``steps`` of ``i``, ``type`` and
    ``content``, ``final_answer``, and, if wanted, ``metadata`` and ``source``.

    Fields that the server writes may be there and are left out. Raises FormatError that names each wrong
    field.
    """
    return _native(line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line, 0, "")


def trace_to_json(trace: v1.Trace) -> str:
    """The native JSON object of a trace, on one line, without the fields that the server writes."""
    document: dict[str, Any] = {
        "trace_version": trace.trace_version,
        "prompt": trace.prompt,
        "steps": [{"i": step.i, "type": step.type, "content": step.content} for step in trace.steps],
        "final_answer": trace.final_answer,
    }
    if trace.metadata.fields:
        document["metadata"] = MessageToDict(trace.metadata)
    if trace.source:
        document["source"] = trace.source
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _native(line: bytes, number: int, file: str) -> v1.Trace:
    row = parse_line(_NativeRow, line, number, file)
    trace = v1.Trace(
        trace_version=row.trace_version,
        prompt=row.prompt,
        steps=_steps(row.steps, number, file),
        final_answer=row.final_answer,
        source=row.source,
        metadata=_metadata(row.metadata, number, file),
    )
    return _checked(trace, line, number, file)


def _dataset(line: bytes, number: int, file: str) -> v1.Trace:
    row = parse_line(_DatasetRow, line, number, file)
    trace = v1.Trace(
        trace_version=TRACE_VERSION,
        prompt=row.prompts,
        steps=_steps(row.trace_steps, number, file, "trace_steps"),
        final_answer=row.final_answer,
        metadata=_metadata(row.metadata, number, file),
    )
    return _checked(trace, line, number, file)


def _gsm8k(line: bytes, number: int, file: str) -> v1.Trace:
    row = parse_line(_Gsm8kRow, line, number, file)
    reasoning, mark, final = row.answer.rpartition(_FINAL)
    final_answer = final.strip().replace(",", "")
    written = [text.strip() for text in reasoning.splitlines()]
    lines = [text for text in written if text]
    problem = ""
    if not mark or not final_answer:
        problem = f"does not end in `{_FINAL} N`"
    elif not lines:
        problem = f"has no reasoning before `{_FINAL}`"
    elif len(lines) > 1_000:
        problem = f"has {len(lines):,} reasoning lines; at most 1,000 are allowed"
    if problem:
        raise _wrong("answer", problem, number, file)
    trace = v1.Trace(
        trace_version=TRACE_VERSION,
        prompt=row.question,
        steps=[
            v1.TraceStep(
                i=index,
                type="compute" if _CALCULATION.search(text) else "reason",
                content=_CALCULATION.sub("", text) or text,
            )
            for index, text in enumerate(lines)
        ],
        final_answer=final_answer,
        source=_GSM8K,
    )
    return _checked(trace, line, number, file)


_Builder: TypeAlias = Callable[[bytes, int, str], v1.Trace]
_BUILDERS: Final[dict[str, _Builder]] = {"native": _native, "gsm8k": _gsm8k, "dataset": _dataset}
_MARKS: Final = ((_gsm8k, {"question", "answer"}), (_dataset, {"prompts", "trace_steps"}))


def _detect(line: bytes, number: int, file: str) -> _Builder:
    keys = keys_of(line, number, file)
    for builder, marks in _MARKS:
        if marks <= keys:
            return builder
    if keys & {"prompt", "steps", "final_answer"}:
        return _native
    raise FormatError(
        number,
        f"unknown format: its keys are {', '.join(sorted(keys)[:8]) or 'none'}; "
        "expected prompt, steps and final_answer (native) or question and answer (gsm8k)",
        file=file,
    )


def _steps(rows: list[_Step], number: int, file: str, field: str = "steps") -> list[v1.TraceStep]:
    seen: dict[int, int] = {}
    for index, row in enumerate(rows):
        if row.i in seen:
            raise _wrong(f"{field}[{index}].i", f"is {row.i}, as in {field}[{seen[row.i]}]", number, file)
        seen[row.i] = index
    return [v1.TraceStep(i=row.i, type=row.type, content=row.content) for row in rows]


def _metadata(metadata: dict[str, Any] | None, number: int, file: str) -> Struct | None:
    found = check_values(metadata or {}, ("metadata",))
    if found:
        raise FormatError(number, one_line([found]), file=file, field_violations=[found])
    return struct_of(metadata)


def _checked(trace: v1.Trace, line: bytes, number: int, file: str) -> v1.Trace:
    # JSON can hold NUL only as an escape, so that most lines need no second look.
    if b"\\u0000" in line:
        for path, text in _texts(trace):
            if "\0" in text:
                raise _wrong(path, "holds a NUL character", number, file)
    if trace.ByteSize() > MAX_TRACE_BYTES:
        raise FormatError(
            number, f"the trace has {trace.ByteSize():,} bytes; at most 1 MiB is allowed", file=file
        )
    return trace


def _texts(trace: v1.Trace) -> Iterator[tuple[str, str]]:
    yield from (
        (name, getattr(trace, name)) for name in ("trace_version", "prompt", "final_answer", "source")
    )
    for index, step in enumerate(trace.steps):
        yield f"steps[{index}].type", step.type
        yield f"steps[{index}].content", step.content


def _wrong(field: str, description: str, number: int, file: str) -> FormatError:
    return FormatError(
        number,
        f"{field}: {description}",
        file=file,
        field_violations=[FieldViolation(field, description)],
    )
