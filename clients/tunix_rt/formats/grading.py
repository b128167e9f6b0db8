"""Graders and marks of reasoning as people write them: a name, or an object with settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from tunix_rt import v1
from tunix_rt.files import open_regular
from tunix_rt.formats.expected_calls import exact_json, expected_calls
from tunix_rt.formats.lines import plain_of
from tunix_rt.schema import nearest
from tunix_rt.v1.eval_set_pb2 import needs_no_accepted_answer

_KINDS: Final[Mapping[str, Any]] = v1.Grader.DESCRIPTOR.fields_by_name
MARKS_FIELDS: Final = ("name", "start", "end", "opened")
GRADER_KINDS: Final = tuple(_KINDS)
"""The names of all kinds of graders."""

NEED_NO_ANSWER: Final = frozenset(
    name
    for name, field in _KINDS.items()
    if field.message_type.GetOptions().Extensions[needs_no_accepted_answer]
)
"""The kinds that can do without an accepted answer."""
MAX_SOURCE_BYTES: Final = 64 << 10
"""Most bytes of a grader's source code."""
_SHOWN: Final = 60

_DOLLARS: Final = re.compile(r"^\$(.*[^\\])\$$", re.DOTALL)
_VULGAR: Final = "\u00bc-\u00be\u2150-\u215e"
_NUMBER: Final = re.compile(
    r"[-+\u2212]?(?:\\?\$|[\u20ac\u00a3])?"
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:[ \u00a0\u202f]\d{3})+|\d+(?:\.\d+)?|\.\d+)"
    rf"(?:[eE][-+]?\d{{1,2}})?(?:\s*/\s*[1-9]\d*|[{_VULGAR}])?\s*(?:\\?%|[\u20ac\u00b0])?\.?|[{_VULGAR}]"
)
# A command or an escaped brace; a power or an index; a relation; an operator between operands; a factor; a
# bracket around several values; a list of numbers; a factorial, a derivative, a sign before a letter; signs
# that mean nothing else.
_MATHEMATICS: Final = re.compile(
    r"\\[A-Za-z{}]|\w\s*\^|\w_\{?\w|[=<>\u2260\u2264\u2265]"
    r"|[\w)]\s*[-+*/\u2212\u00d7\u00f7\u00b7]\s*[\w(]|(?<![^\W_])\d+(?:\.\d+)?\s?[a-jln-z](?![^\W_])"
    r"|^[(\[{][^()]*,.*[)\]}]$|^-?[\d./]+(?:,\s*-?[\d./]+)+$|\d!|^[a-z]'+$|^[-+\u2212][a-z]$"
    r"|\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt)\s*(?:\(|\d|[a-z](?![^\W_]))|^-?pi$|^\|[^|]+\|$"
    r"|[\u221a\u03c0\u221e\u00b1\u222a\u2229\u2208\u2205\u00b2\u00b3]"
)
_COMMAND: Final = re.compile(r"\\(?:begin|end)\s*\{[A-Za-z]+\*?\}|\\[A-Za-z]+")
_MATHS_WORD: Final = re.compile(
    r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|max|min|mod|gcd|lcm|and|or|inf)\b"
)
_WORD: Final = re.compile(r"[^\W\d_]{3,}|(?<![^\W\d_])[A-Z]{2,}|[^\W\d_]+\d|\+\+")
# Dates, times, versions, scores, telephone numbers and names such as A-B.
_NO_MATHEMATICS: Final = re.compile(
    r"\d+(?:\s*[-:/.\u2013]\s*\d+)+|[^\W\d_]{2,}\s*[-/]\s*[^\W\d_]{2,}|[A-Z]+\s*[-/]\s*[A-Z]+"
)


def read_grader(written: object) -> v1.Grader:
    """A grader out of ``"numeric"``, or out of ``{"kind": "numeric", "tolerance": 0.1}``.

    The settings are the fields of the kind's message in ``eval_set.proto``; an enum's value may have a short
    name, such as "answer-only". A call of ``tool_call`` has its ``arguments`` as an object or as the text of
    one. Raises ValueError that names what is wrong.
    """
    settings = {"kind": written} if isinstance(written, str) else written
    if not isinstance(settings, Mapping):
        found = _shown(written)
        raise ValueError(f"is {found}; the name of a kind, or an object with a kind, would be right")  # noqa: TRY004
    if "kind" not in settings:
        raise ValueError(f"kind is missing; one of {', '.join(GRADER_KINDS)} would be right")
    kind = settings["kind"]
    if kind not in GRADER_KINDS:
        raise ValueError(f"kind is {_shown(kind)}, which is no grader; {nearest(str(kind), GRADER_KINDS)}")
    grader = v1.Grader()
    message = getattr(grader, kind)
    message.SetInParent()
    known = message.DESCRIPTOR.fields_by_name
    for name, value in settings.items():
        if name == "kind":
            continue
        if name not in known:
            raise ValueError(f"{name} is no setting of the {kind} grader; {_settings(name, known)}")
        try:
            ParseDict({name: _named(known[name], value)}, message)
        except ParseError as error:
            raise ValueError(f"{name} is {_shown(value)}: {str(error).rpartition(': ')[2]}") from None
    return grader


def written(grader: v1.Grader) -> dict[str, Any]:
    """A grader as ``read_grader`` takes it."""
    kind = grader.WhichOneof("kind") or ""
    message = getattr(grader, kind)
    return {"kind": kind, **_plain(message)}


def _plain(message: Message) -> dict[str, Any]:
    shown = MessageToDict(message, preserving_proto_field_name=True)
    for field, value in message.ListFields():
        if field.message_type is Struct.DESCRIPTOR:
            # In the order of its keys, for a Struct has none.
            shown[field.name] = plain_of(value)
        elif field.message_type is not None and field.is_repeated:
            shown[field.name] = [_plain(entry) for entry in value]
    return shown


def grader_for(answer: str) -> Literal["numeric", "math", "text"]:
    """The kind of grader for an accepted answer: ``numeric`` where it is a number as everybody writes one,
    ``math`` where it is mathematics otherwise, else ``text``."""
    bare = _DOLLARS.sub(r"\1", answer.strip())
    if _NUMBER.fullmatch(bare):
        return "numeric"
    return "math" if _is_mathematics(bare) else "text"


def _is_mathematics(text: str) -> bool:
    symbols = _COMMAND.sub(" ", text)
    return (
        _MATHEMATICS.search(text) is not None
        and _WORD.search(_MATHS_WORD.sub(" ", symbols)) is None
        and _NO_MATHEMATICS.fullmatch(text) is None
    )


def read_grader_text(text: str) -> v1.Grader:
    """A grader as it is typed: the name of a kind, or JSON as ``read_grader`` takes it; raises ValueError."""
    return read_grader(typed(text, "{["))


def read_grader_file(given: str) -> v1.Grader:
    """A grader out of a file with a Python function: ``my.py:grade``, or ``my.py`` for a function ``grade``.

    What is wrong with the source code, the evaluator says. Raises ValueError that names what is wrong with
    the file.
    """
    path, function = grader_file_parts(given)
    try:
        with open_regular(path) as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MAX_SOURCE_BYTES:
        raise ValueError(
            f"{path}: has more than {MAX_SOURCE_BYTES:,} bytes; a grader's source has at most those"
        )
    try:
        source = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 at byte {error.start + 1}") from None
    if "\0" in source:
        raise ValueError(f"{path}: holds a NUL character; Python source code would be right")
    if not source.strip():
        raise ValueError(f"{path}: is empty; a Python module with a function {function} would be right")
    return v1.Grader(python=v1.PythonGrader(source=source, function=function))


def give_grader(eval_set: v1.EvalSet, grader: v1.Grader) -> None:
    """Give every item of an eval set ``grader``; the source code of one in Python stands in the set once,
    and no other."""
    shared = v1.Grader()
    shared.CopyFrom(grader)
    del eval_set.python_sources[:]
    if grader.python.source:
        digest = hashlib.sha256(grader.python.source.encode()).hexdigest()
        shared.python.source, shared.python.source_digest = "", f"sha256:{digest}"
        eval_set.python_sources.append(grader.python.source)
    for item in eval_set.items:
        item.grader.CopyFrom(shared)


def grader_file_parts(given: str) -> tuple[str, str]:
    """The file and the function that ``my.py:grade`` names; raises ValueError."""
    path, colon, function = given.rpartition(":")
    if not colon or Path(given).exists():
        return given, "grade"
    if not function.isidentifier():
        raise ValueError(f"{function!r} is no name of a Python function; {path}:grade would be right")
    return path, function


def _settings(name: str, known: Mapping[str, Any]) -> str:
    return nearest(name, known) if known else "it has none"


def _named(field: FieldDescriptor, value: Any) -> Any:
    """The value of an enum by its short name, such as "answer-only"; calls as the contract has them."""
    if field.message_type is v1.ExpectedToolCall.DESCRIPTOR:
        return expected_calls(value)
    if field.enum_type is None or not isinstance(value, str):
        return value
    full = field.enum_type.values[0].name.removesuffix("UNSPECIFIED") + value.upper().replace("-", "_")
    return full if full in field.enum_type.values_by_name else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def read_marks(written: object) -> v1.ReasoningMarks:
    """Marks out of ``"think"``, or out of ``{"start": "<a>", "end": "</a>", "opened": true}``.

    Which names and marks are right, the evaluator says. Raises ValueError that names what is no setting.
    """
    settings = {"name": written} if isinstance(written, str) else written
    if not isinstance(settings, Mapping):
        found = f"is {written!r}"
        raise ValueError(f"{found}; a name, or an object with start and end, would be right")  # noqa: TRY004
    for field, value in settings.items():
        if field not in MARKS_FIELDS:
            raise ValueError(f"{field} is no setting of reasoning marks; {nearest(str(field), MARKS_FIELDS)}")
        wanted, known = (bool, "true or false") if field == "opened" else (str, "a text")
        if not isinstance(value, wanted):
            raise ValueError(f"{field} is {value!r}; {known} would be right")  # noqa: TRY004
    return v1.ReasoningMarks(**settings)


def read_marks_text(text: str) -> v1.ReasoningMarks:
    """Marks as they are typed: a name, or JSON as ``read_marks`` takes it; raises ValueError."""
    return read_marks(typed(text, "{"))


def typed(text: str, opening: str) -> Any:
    """The text, or what it is as JSON if it begins with one of the ``opening`` brackets."""
    if not text.lstrip().startswith(tuple(opening)):
        return text
    try:
        return exact_json(text)
    except RecursionError:
        raise ValueError("is no JSON that can be read: it is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None
