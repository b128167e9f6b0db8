"""Where eval items come from: JSON lines of items, tables, and lines of a prompt and its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final, Literal, TypeAlias

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.columns import ITEM_FORM, Where, assign, gathered, table_rows
from tunix_rt.formats.compression import Source
from tunix_rt.formats.conversations import conversation_document, json_text
from tunix_rt.formats.delimited import DELIMITERS, table_format
from tunix_rt.formats.grading import grader_for, read_grader, typed, written
from tunix_rt.formats.kinds import hint_for_items
from tunix_rt.formats.lines import keys_of, object_of, read_failures, read_lines
from tunix_rt.formats.parquet import is_parquet
from tunix_rt.formats.rows import encoded, ends_in_result

GraderName: TypeAlias = Literal["numeric", "math", "text", "auto"]
ItemFormat: TypeAlias = Literal["auto", "items", "csv", "tsv", "prompt-completion"]

# What may part answers in a cell, and may be a part of one.
_MAY_PART: Final = ("|", ";", "\n")
_THOUGHT: Final = "</think>"
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class ItemReading:
    """How a file of eval items is read.

    Args:
        format: ``items`` (JSON lines of eval items), ``csv``, ``tsv``, ``prompt-completion`` (JSON lines of a
            prompt and its accepted answer), or ``auto``: the file's name and its first line tell.
        columns: the column, or the key of prompt-completion, that holds each field.
        delimiter: for CSV and TSV what separates the cells. Left out: a comma for CSV, a tab for TSV.
        answer_separator: for CSV and TSV what parts the accepted answers in a cell; ``none`` where each cell
            is one answer, ``json`` where it is a list in JSON. Left out: a cell that may hold several is
            refused.
        grader: for items that name none. JSON lines of eval items name their own, and are refused with one.
        default_grader: as ``grader``, and where the items name their own it counts for nothing.
    """

    format: ItemFormat = "auto"
    columns: Mapping[str, str] | None = None
    delimiter: str | None = None
    answer_separator: str | None = None
    grader: GraderName | v1.Grader | None = None
    default_grader: GraderName = "auto"


class NotOfItemsError(FormatError):
    """What was given about a file is not for JSON lines of eval items."""


def item_id(prompt: str) -> str:
    """The id of an item that has none of its own: the same for the same question in every set."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def question_id(item: v1.EvalItem) -> str:
    """As ``item_id``, of an item's prompt or conversation; how a text is cut into parts does not count."""
    if not item.messages:
        return item_id(item.prompt)
    document = conversation_document(item)
    for message in document["messages"]:
        message["content"] = "".join(message.get("content", ""))
    return item_id(json_text(document))


def item_lines(source: Source, file: str, reading: ItemReading) -> Iterator[tuple[int, bytes]]:
    """Yield the number, and the JSON object, of each item.

    Raises FormatError for a file that holds something else, naming what takes it.
    """
    wanted = reading.format
    table = wanted if wanted in DELIMITERS else table_format(source) if wanted == "auto" else None
    if table is not None:
        rows = table_rows(
            source, table, reading.columns, reading.delimiter, ITEM_FORM, partial(_document, reading=reading)
        )
        for number, line, error, _ in rows:
            if error is not None:
                raise error
            yield number, line
        return
    with read_failures(file):
        parquet = is_parquet(source)
    if parquet:
        problem = (
            "is Parquet; its rows can be read as traces whose answers are the accepted ones: --format parquet"
        )
        raise FormatError(0, problem, file=file)
    lines = read_lines(source)
    first = next(lines, None)
    if first is None:
        return
    if wanted != "prompt-completion" and not _are_pairs(first, file, wanted):
        if reading.grader is not None:
            problem = "--grader is for traces and tables; an item has its grader in its own line"
            raise NotOfItemsError(0, problem, file=file)
        if reading.columns or reading.delimiter is not None or reading.answer_separator is not None:
            problem = "its lines are eval items, which have no columns; a table is read with --format csv"
            raise NotOfItemsError(0, problem, file=file)
        yield from chain((first,), lines)
        return
    for number, line in chain((first,), lines):
        yield number, _of_pair(line, number, file, reading)


def _are_pairs(first: tuple[int, bytes], file: str, wanted: ItemFormat) -> bool:
    """Whether lines hold a prompt and a completion; raises FormatError if they hold anything but items."""
    number, line = first
    keys = keys_of(line, number, file)
    if wanted == "auto" and {"prompt", "completion"} <= keys and keys.isdisjoint(_OF_ITEMS):
        return True
    hint = hint_for_items(keys)
    if hint:
        raise FormatError(number, hint, file=file)
    return False


_OF_ITEMS: Final = {"accepted_answers", "grader", "steps"}


def _of_pair(line: bytes, number: int, file: str, reading: ItemReading) -> bytes:
    row = object_of(line, number, file)
    names, values = tuple(row), list(row.values())
    assigned = assign(names, reading.columns, ITEM_FORM, Where(file, number, "key"))
    fields = {field: values[place] for place, field in assigned if values[place] is not None}
    try:
        return encoded(
            _item_of(gathered(fields, ITEM_FORM), _answers_of(fields.get("accepted_answers")), reading)
        )
    except ValueError as problem:
        raise FormatError(number, str(problem), file=file) from None


def _answers_of(value: Any) -> list[Any]:
    """The answers of a line: one, or a list of them; a whole number is a text."""
    given = value if isinstance(value, list) else [] if value is None else [value]
    return [
        str(answer)
        if isinstance(answer, int) and not isinstance(answer, bool)
        else _final(answer)
        if isinstance(answer, str)
        else answer
        for answer in given
    ]


def _document(fields: dict[str, Any], names: Sequence[str], *, reading: ItemReading) -> dict[str, Any]:
    """The object of a table's row; raises ValueError."""
    del names
    answers = _parted(fields.get("accepted_answers", ""), reading.answer_separator)
    if "tolerance" in fields:
        fields["tolerance"] = _number(fields["tolerance"])
    return _item_of(fields, answers, reading)


def _item_of(fields: dict[str, Any], answers: list[Any], reading: ItemReading) -> dict[str, Any]:
    if fields.get("prompt") in (None, ""):
        raise ValueError("prompt: is missing or empty")
    document: dict[str, Any] = {**fields, "accepted_answers": answers}
    if isinstance(fields["prompt"], str):
        document.setdefault("id", item_id(fields["prompt"]))
    grader = document.get("grader", reading.grader or reading.default_grader)
    if isinstance(grader, str):
        grader = typed(grader, "{")
    if grader == "auto":
        grader = _grader_of([answer for answer in answers if isinstance(answer, str)])
    if isinstance(grader, dict):
        # JSON is written below, which keeps fewer digits than a grader; what is wrong with it is told later.
        with suppress(ValueError):
            grader = read_grader(grader)
    document["grader"] = written(grader) if isinstance(grader, v1.Grader) else grader
    return document


def _grader_of(answers: Sequence[str]) -> GraderName:
    """The grader that all the answers are for."""
    kinds = {grader_for(answer) for answer in answers}
    return "numeric" if kinds == {"numeric"} else "math" if kinds and "text" not in kinds else "text"


def _parted(cell: str, separator: str | None) -> list[str]:
    """The accepted answers of a cell; raises ValueError where it may be one or several."""
    if not cell:
        return []
    if separator == "json":
        found = _list(cell)
        if found is None:
            raise ValueError(f"accepted_answers: {cell[:_SHOWN]!r} is no list of texts in JSON")
        return found
    if separator is None:
        final = _final(cell)
        part = next((mark for mark in _MAY_PART if mark in final), "json" if _list(final) is not None else "")
        if part:
            shown = f"--answer-separator {part!r}" if part != "\n" else r"--answer-separator $'\n'"
            raise ValueError(
                f"accepted_answers: {cell[:_SHOWN]!r} may be several answers; if it is, say what parts them "
                f"({shown}), if each cell is one answer: --answer-separator none"
            )
        return [final]
    if separator == "none":
        return [_final(cell)]
    return [answer.strip() for answer in cell.split(separator) if answer.strip()]


def _final(answer: str) -> str:
    """What an answer with its reasoning comes to, as in traces: N of `#### N`, or what follows thoughts."""
    if ends_in_result(answer):
        return answer.rpartition("####")[2].strip().replace(",", "")
    return answer.rpartition(_THOUGHT)[2].lstrip("\r\n") if _THOUGHT in answer else answer


def _list(cell: str) -> list[str] | None:
    try:
        found = json.loads(cell)
    except ValueError:
        return None
    texts = isinstance(found, list) and found and all(isinstance(entry, str) for entry in found)
    return found if texts else None


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"tolerance: is {cell[:_SHOWN]!r}, not a number") from None
