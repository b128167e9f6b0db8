"""Eval items as JSON lines, and out of traces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from tunix_rt import v1
from tunix_rt.errors import FieldViolation, FormatError, InvalidArgumentError
from tunix_rt.formats.compression import Source, name_of
from tunix_rt.formats.grading import NEED_NO_ANSWER, grader_for, read_grader
from tunix_rt.formats.item_rows import GraderName, ItemReading, item_id, item_lines
from tunix_rt.formats.lines import check_values, parse_line, struct_of
from tunix_rt.schema import one_line

BUILTIN: Final = "eval_v1"
MAX_ITEMS: Final = 10_000
"""Items of the largest eval set."""
MAX_EVAL_SET_BYTES: Final = 15 << 18
"""Bytes of the largest eval set."""
_ITEM: Final = re.compile(r"(?:eval_set\.)?items\[(\d+)\]\.?(.*)", re.DOTALL)
_SHOWN: Final = 20

_LongText = Annotated[str, Field(min_length=1, max_length=50_000)]
_Label = Annotated[str, Field(max_length=64)]


class _ItemRow(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: Annotated[str, Field(min_length=1, max_length=128)]
    prompt: _LongText
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
    ``cluster`` and ``metadata``. A table has columns of these names, of which ``prompt`` alone must be there;
    its other columns become metadata. An item without an id has one made from its prompt.

    Args:
        source: where the items come from.
        reading: how they are read.
        limit: take the first items, at most so many. Of a file with more than an eval set holds, the rest is
            not read then.

    Raises:
        FormatError: names the file, the line and every wrong field; an id or a prompt stands twice; there is
            no item at all, or there are more than an eval set holds.
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


def eval_items_from_traces(
    traces: Iterable[v1.Trace], limit: int | None = None, grader: GraderName | v1.Grader = "numeric"
) -> list[v1.EvalItem]:
    """Questions out of traces: each prompt, with the final answer as the accepted one.

    An item's id is made from its prompt, so that the same question has the same id in every set. Of traces
    with the same prompt the first counts. Conversations are passed over. Category, difficulty and cluster
    come from the metadata (``category`` or ``family``, ``difficulty``, ``cluster``).

    Args:
        traces: where they come from; read no further than ``limit`` needs.
        limit: most items; None for all.
        grader: how answers are graded, by name or with settings; ``auto`` grades an answer that is a number
            as one, mathematics as ``math``, others as text (see ``grader_for``).
    """
    items: dict[str, v1.EvalItem] = {}
    for trace in traces:
        if trace.messages:
            continue
        key = item_id(trace.prompt)
        if key not in items:
            items[key] = v1.EvalItem(
                id=key,
                prompt=trace.prompt,
                accepted_answers=[trace.final_answer],
                grader=_grader(grader, trace.final_answer),
                category=_fact(trace, "category") or _fact(trace, "family"),
                difficulty=_fact(trace, "difficulty"),
                cluster=_fact(trace, "cluster", 128),
            )
        if limit is not None and len(items) >= limit:
            break
    return list(items.values())


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
        row = parse_line(_ItemRow, line, number, file)
        for field, value in (("prompt", row.prompt), ("id", row.id)):
            first = seen.setdefault((field, value), number)
            if first != number:
                raise FormatError(number, f"{field}: is the same as on line {first}", file=file)
        item = _item(row, number, file)
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


def _item(row: _ItemRow, number: int, file: str) -> v1.EvalItem:
    try:
        grader = read_grader(row.grader)
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
    item = v1.EvalItem(
        id=row.id,
        prompt=row.prompt,
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


def _grader(name: GraderName | v1.Grader, answer: str) -> v1.Grader:
    if isinstance(name, v1.Grader):
        return name
    return read_grader(grader_for(answer) if name == "auto" else name)


def _fact(trace: v1.Trace, key: str, most: int = 64) -> str:
    value = trace.metadata.fields.get(key)
    return value.string_value[:most] if value is not None else ""
