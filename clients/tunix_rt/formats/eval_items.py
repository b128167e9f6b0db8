"""Eval items as JSON lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from tunix_rt import v1
from tunix_rt.errors import FieldViolation, FormatError, InvalidArgumentError
from tunix_rt.formats.compression import Source, name_of
from tunix_rt.formats.conversations import conversation_document, json_text
from tunix_rt.formats.expected_calls import exact_json
from tunix_rt.formats.grading import NEED_NO_ANSWER, read_grader, written
from tunix_rt.formats.item_rows import ItemReading, item_lines, question_id
from tunix_rt.formats.lines import check_values, parse_line, plain_of, struct_of
from tunix_rt.formats.rows import wrong
from tunix_rt.formats.talks import history
from tunix_rt.schema import one_line

BUILTIN: Final = "eval_v1"
MAX_ITEMS: Final = 10_000
"""Items of the largest eval set."""
MAX_EVAL_SET_BYTES: Final = 15 << 18
"""Bytes of the largest eval set."""
_ITEM: Final = re.compile(r"(?:eval_set\.)?items\[(\d+)\]\.?(.*)", re.DOTALL)
_SHOWN: Final = 20
_LABELS: Final = ("category", "difficulty", "cluster")

_LongText = Annotated[str, Field(min_length=1, max_length=50_000)]
_Label = Annotated[str, Field(max_length=64)]


class _ItemRow(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: Annotated[str, Field(min_length=1, max_length=128)]
    prompt: _LongText | None = None
    messages: Any = None
    tools: Any = None
    accepted_answers: Annotated[list[_LongText], Field(max_length=256)] = Field(default_factory=list)
    grader: Any
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    category: _Label = ""
    difficulty: _Label = ""
    cluster: Annotated[str, Field(max_length=128)] = ""
    metadata: dict[str, Any] | None = None


def read_eval_items(
    source: Source, reading: ItemReading | None = None, limit: int | None = None
) -> list[v1.EvalItem]:
    """The items of a file of JSON lines, CSV or TSV, or of the built-in set ``eval_v1``.

    A line of eval items holds ``id``, ``prompt``, ``accepted_answers`` (unless the grader can do without),
    ``grader`` (see ``read_grader``), and, if wanted, ``tolerance`` (numeric), ``category``, ``difficulty``,
    ``cluster`` and ``metadata``. In place of ``prompt`` it may hold ``messages``, the conversation before the
    turn that is asked for, and ``tools``, both as chat APIs write them. A table has columns of these names,
    but for the conversation; ``prompt`` alone must be there, and its other columns become metadata. A row
    without an id has one made from its prompt.

    Args:
        source: where the items come from.
        reading: how they are read.
        limit: take the first items, at most so many. Of a file with more than an eval set holds, the rest is
            not read then.

    Raises:
        FormatError: names the file, the line and every wrong field; an id or a question stands twice; there
            is no item at all, or there are more than an eval set holds.
    """
    return [item for _, item in numbered_eval_items(source, reading, limit)]


def numbered_eval_items(
    source: Source, reading: ItemReading | None = None, limit: int | None = None
) -> list[tuple[int, v1.EvalItem]]:
    """As ``read_eval_items``, each item with the number of its line, from 1."""
    if source == BUILTIN:
        with resources.files("tunix_rt").joinpath("data/eval_v1.jsonl").open("rb") as file:
            return _read(file, BUILTIN, ItemReading("items"), limit)
    return _read(source, name_of(source), reading or ItemReading(), limit)


def error_of_lines(error: InvalidArgumentError, file: str, lines: Sequence[int]) -> InvalidArgumentError:
    """An error of a server about an eval set, as one of the lines that its items were read from.

    Args:
        error: what the server said.
        file: the name of what was read.
        lines: the line of each item, in order.

    Returns:
        A FormatError that names the line and the field of each wrong item; the error as it is where it is
        about something else.
    """
    found = [(lines[at], wrong) for at, wrong in wrong_items(error) if at < len(lines)]
    if not found:
        return error
    (first, wrong), *others = sorted(found, key=lambda entry: entry[0])
    more = f" (and {len(others):,} more)" if others else ""
    return FormatError(
        first,
        f"{wrong.field}: {wrong.description}{more}",
        file=file,
        field_violations=[
            FieldViolation(f"line {line}: {entry.field}", entry.description)
            for line, entry in [(first, wrong), *others][:_SHOWN]
        ],
    )


def wrong_items(error: InvalidArgumentError) -> list[tuple[int, FieldViolation]]:
    """What an error of a server about an eval set says of its items: the place of each, and what is wrong."""
    return [
        (int(match[1]), FieldViolation(match[2] or "item", violation.description))
        for violation in error.field_violations
        if (match := _ITEM.fullmatch(violation.field))
    ]


def eval_item_to_json(item: v1.EvalItem) -> str:
    """An item on one line, as ``read_eval_items`` takes it."""
    document: dict[str, Any] = {"id": item.id}
    if item.messages:
        document |= conversation_document(item)
        # What is given as an object may be wrapped when it is read.
        given = zip(document.get("tools", []), item.tools, strict=False)
        tools = [shown if "function" in shown else tool.definition_text for shown, tool in given]
        document |= {"tools": tools} if tools else {}
    else:
        document["prompt"] = item.prompt
    if item.accepted_answers:
        document["accepted_answers"] = list(item.accepted_answers)
    document["grader"] = written(item.grader)
    document |= {name: value for name in _LABELS if (value := getattr(item, name))}
    if item.metadata.fields:
        document["metadata"] = plain_of(item.metadata)
    return json_text(document)


def _read(
    source: Source, file: str, reading: ItemReading, limit: int | None
) -> list[tuple[int, v1.EvalItem]]:
    items: list[tuple[int, v1.EvalItem]] = []
    seen: dict[tuple[str, str], int] = {}
    size = 0
    most = MAX_ITEMS + 1 if limit is None else limit
    for count, (number, line) in enumerate(item_lines(source, file, reading), start=1):
        if count > MAX_ITEMS and len(items) < most:
            raise too_many(number, file)
        if count > MAX_ITEMS:
            break
        item = _item(parse_line(_ItemRow, line, number, file), line, number, file)
        field = "messages" if item.messages else "prompt"
        for name, value in ((field, question_id(item)), ("id", item.id)):
            first = seen.setdefault((name, value), number)
            if first != number:
                raise FormatError(number, f"{name}: is the same as on line {first}", file=file)
        if len(items) < most:
            items.append((number, item))
            size += item.ByteSize()
        if size > MAX_EVAL_SET_BYTES:
            problem = f"up to here, its items are more than the {MAX_EVAL_SET_BYTES:,} bytes that an eval set"
            raise FormatError(number, f"{problem} may have; take a part: --limit 100", file=file)
    if not items:
        raise FormatError(0, "holds no eval items", file=file)
    return items


def too_many(number: int, file: str) -> FormatError:
    """The error for more items than an eval set holds."""
    problem = (
        f"holds more than {MAX_ITEMS:,} items, which is the most of an eval set; take a part with a limit"
    )
    return FormatError(number, problem, file=file)


def _item(row: _ItemRow, line: bytes, number: int, file: str) -> v1.EvalItem:
    # With all digits of its numbers.
    document = exact_json(line)
    try:
        grader = read_grader(document["grader"])
    except ValueError as error:
        raise FormatError(number, f"grader: {error}", file=file) from None
    kind = grader.WhichOneof("kind") or ""
    if row.tolerance is not None and kind != "numeric":
        raise FormatError(number, f"tolerance: is only for the numeric grader, not {kind}", file=file)
    if not row.accepted_answers and kind not in NEED_NO_ANSWER:
        raise FormatError(
            number, f"accepted_answers: needs at least 1; the {kind} grader compares with them", file=file
        )
    found = check_values(row.metadata or {}, ("metadata",))
    if found:
        raise FormatError(number, one_line([found]), file=file, field_violations=[found])
    messages, tools = _asked(row, document, number, file)
    item = v1.EvalItem(
        id=row.id,
        prompt=row.prompt or "",
        messages=messages,
        tools=tools,
        accepted_answers=row.accepted_answers,
        grader=grader,
        category=row.category,
        difficulty=row.difficulty,
        cluster=row.cluster,
        metadata=struct_of(row.metadata),
    )
    if row.tolerance is not None:
        item.grader.numeric.tolerance = row.tolerance
    return item


def _asked(
    row: _ItemRow, document: Mapping[str, Any], number: int, file: str
) -> tuple[list[v1.Message], list[v1.Tool]]:
    """The conversation of an item that has one; raises FormatError unless it has that or a prompt."""
    if row.messages is None:
        if row.tools:
            raise wrong("tools", "are given without messages; only a conversation has tools", number, file)
        if row.prompt is None:
            raise wrong("prompt", "is missing; a prompt, or messages, would be right", number, file)
        return [], []
    if row.prompt is not None:
        raise wrong("prompt", "is given beside messages; an item has one of the two", number, file)
    return history({name: document.get(name) for name in ("messages", "tools")}, number, file)
