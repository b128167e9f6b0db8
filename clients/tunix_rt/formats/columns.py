"""Which column, or key, holds which field: as the caller says, or by a name that leaves no doubt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tunix_rt.errors import FormatError
from tunix_rt.formats.compression import Source, name_of
from tunix_rt.formats.delimited import DELIMITERS, Row, read_table
from tunix_rt.formats.learned import says_not_learned
from tunix_rt.formats.rows import MAX_LABEL, TRACE_VERSION, encoded, ends_in_result, paragraphs
from tunix_rt.schema import nearest

METADATA: Final = "metadata"
_PREFIX: Final = f"{METADATA}."
_CHATS: Final = ("messages", "conversations")
_PROMPTS: Final = ("prompt", "question", "query", "problem", "instruction", "input")
_ANSWERS: Final = (
    "completion", "answer", "final_answer", "output", "response", "reference", "target",
)  # fmt: skip
_STEPS: Final = (
    "steps", "reasoning", "reasoning_content", "rationale", "thinking", "cot", "chain_of_thought",
)  # fmt: skip
# What a question may not be whole without, when nobody has said what the prompt is.
_PART_OF_PROMPT: Final = re.compile(
    r"context|passage|document|article|history|system|choices?|options?|[a-e]|(?:choice|option)_?[a-e0-9]"
)
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that columns are looked for.

    Args:
        roles: for each field the names that a column of it may have; the first that is missing is asked for.
        optional: those of the roles that may be missing.
        exact: fields whose columns have their names.
        others: further names that ``--column`` takes for a role.
        traces: whether its rows are traces: then a column may hold a whole chat, and what says that an answer
            is not to be learned is refused.
    """

    roles: Mapping[str, Sequence[str]]
    optional: frozenset[str]
    exact: tuple[str, ...]
    others: Mapping[str, str]
    traces: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields by name."""
        chats = _CHATS if self.traces else ()
        return (*self.roles, *self.exact, *self.others, *chats)


TRACE_FORM: Final = Form(
    {"prompt": _PROMPTS, "completion": _ANSWERS, "steps": _STEPS},
    frozenset({"steps"}),
    ("source", "trace_version", METADATA),
    {"final_answer": "completion", "answer": "completion", "question": "prompt"},
    traces=True,
)
ITEM_FORM: Final = Form(
    {"prompt": _PROMPTS, "accepted_answers": ("accepted_answers", "accepted_answer", "answers", *_ANSWERS)},
    frozenset({"accepted_answers"}),
    ("id", "grader", "tolerance", "category", "difficulty", "cluster", METADATA),
    {"answer": "accepted_answers", "completion": "accepted_answers", "question": "prompt"},
)


class Assigned(NamedTuple):
    """A column's place, and its field."""

    place: int
    field: str


def assign(names: Sequence[str], given: Mapping[str, str] | None, form: Form, where: Where) -> list[Assigned]:
    """The field of each column; what is no field of the form goes into the metadata, under its own name.

    Raises FormatError for a column that is not there, a field that is none, one that two columns may be, and
    one that no column is.
    """
    assigned = [_given(field, column, names, form, where) for field, column in (given or {}).items()]
    _check_given(assigned, names, form, where)
    fields = {entry.field for entry in assigned}
    taken = {entry.place for entry in assigned}
    free = [(place, _plain(name)) for place, name in enumerate(names) if place not in taken]
    chats = [Assigned(place, name) for place, name in free if form.traces and name in _CHATS]
    if not fields and chats:
        assigned += chats[:1]
    elif fields.isdisjoint(_CHATS):
        _check_found(
            [role for role in form.roles if role not in {*fields, *form.optional}], free, names, form, where
        )
        for role, known in form.roles.items():
            if role not in fields:
                assigned += _found(role, known, free, names, where)
        if "prompt" not in fields:
            _check_prompt(free, names, where)
    assigned += [Assigned(place, name) for place, name in free if name in form.exact and name not in fields]
    return [*assigned, *_rest(assigned, names, where)]


class Where(NamedTuple):
    """What errors name: the file, the line of its header, and what its columns are called there."""

    file: str
    number: int
    what: str = "column"

    def wrong(self, problem: str) -> FormatError:
        return FormatError(self.number, problem, file=self.file)


def _given(field: str, column: str, names: Sequence[str], form: Form, where: Where) -> Assigned:
    known = form.others.get(field, field)
    inner = field.startswith(_PREFIX) and len(field) > len(_PREFIX)
    if not inner and field not in form.fields:
        raise FormatError(
            0,
            f"column {column!r}: {field!r} is no field; one of {', '.join(form.fields)} or metadata.KEY",
            file=where.file,
        )
    if column not in names:
        raise where.wrong(f"has no {where.what} {column!r} for {field}; {nearest(column, names)}")
    return Assigned(names.index(column), known)


def _check_given(assigned: Sequence[Assigned], names: Sequence[str], form: Form, where: Where) -> None:
    """A question is not its own answer, and a chat has its questions and answers in it."""
    prompts = {place for place, field in assigned if field == "prompt"}
    chats = [field for _, field in assigned if field in _CHATS]
    for place, field in assigned:
        if place in prompts and field in form.roles and field != "prompt":
            raise where.wrong(f"{where.what} {names[place]!r} is given for both prompt and {field}")
        if chats and (field in form.roles or field in chats[1:]):
            raise where.wrong(f"{chats[0]} holds whole chats, so that it is given without {field}")


def _found(
    role: str,
    known: Sequence[str],
    free: Sequence[tuple[int, str]],
    names: Sequence[str],
    where: Where,
) -> Iterator[Assigned]:
    found = [place for place, name in free if name in known]
    if len(found) > 1:
        which = " and ".join(repr(names[place]) for place in found[:4])
        raise where.wrong(
            f"its {where.what}s {which} may each be the {role}; say which one is: "
            f"--column {role}={_typed(names[found[0]])} (the others become metadata, which no model is "
            "shown; join them first where they belong together)"
        )
    if found:
        yield Assigned(found[0], role)


def _check_found(
    roles: Sequence[str],
    free: Sequence[tuple[int, str]],
    names: Sequence[str],
    form: Form,
    where: Where,
) -> None:
    """Name at once all the fields that no column is."""
    missing = [role for role in roles if not any(name in form.roles[role] for _, name in free)]
    if missing:
        meant = " or the ".join(missing)
        asked = " ".join(f"--column {role}={where.what.upper()}" for role in missing)
        raise where.wrong(
            f"none of its {where.what}s ({listed(names)}) has a name that means the {meant}; "
            f"say which {'is' if len(missing) == 1 else 'are'}: {asked}"
        )


def _check_prompt(free: Sequence[tuple[int, str]], names: Sequence[str], where: Where) -> None:
    for place, name in free:
        if _PART_OF_PROMPT.fullmatch(name):
            raise where.wrong(
                f"its {where.what} {names[place]!r} may be a part of the question; if not, say what the "
                f"prompt is (--column prompt={where.what.upper()}), and the rest becomes metadata, which no "
                "model is shown"
            )


def _rest(assigned: Sequence[Assigned], names: Sequence[str], where: Where) -> list[Assigned]:
    places = {entry.place for entry in assigned}
    rest = [
        Assigned(place, name if name.startswith(_PREFIX) else f"{_PREFIX}{name}")
        for place, name in enumerate(names)
        if place not in places
    ]
    seen: set[str] = set()
    for place, field in (*assigned, *rest):
        if field in seen:
            raise where.wrong(f"{where.what} {names[place]!r} and another are both {field}")
        seen.add(field)
    return rest


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip()).casefold()


def _typed(name: str) -> str:
    """A name as a shell takes it."""
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown or "none"


class TableRow(NamedTuple):
    """One row: the line where it begins, its fields as a JSON object, why it can be no record, and its
    fields' names."""

    number: int
    line: bytes
    error: FormatError | None = None
    keys: Collection[str] = ()


def table_rows(
    source: Source,
    format: str,
    columns: Mapping[str, str] | None,
    delimiter: str | None,
    form: Form,
    document: Callable[[dict[str, Any], Sequence[str]], dict[str, Any]],
    told: dict[str, str] | None = None,
) -> Iterator[TableRow]:
    """The rows of CSV or TSV as lines of JSON, made by ``document`` of each row's fields and the header.

    ``document`` raises ValueError for what is wrong with a row. Empty cells are left out. ``told`` takes the
    column of each field. Raises FormatError for what is wrong with the file as a whole.
    """
    name = name_of(source)
    rows = read_table(source, delimiter or DELIMITERS[format])
    header = next(rows)
    assigned = assign(header.cells, columns, form, Where(name, header.number))
    if told is not None:
        told.update({field: header.cells[place] for place, field in assigned})
    for row in rows:
        if row.problem:
            yield TableRow(row.number, _as_it_was(row, header.cells), _wrong(row, row.problem, name))
            continue
        fields = {field: row.cells[place] for place, field in assigned if row.cells[place]}
        try:
            made = document(gathered(fields, form), header.cells)
        except ValueError as problem:
            yield TableRow(row.number, _as_it_was(row, header.cells), _wrong(row, str(problem), name))
        else:
            yield TableRow(row.number, encoded(made), None, made.keys())


def _wrong(row: Row, problem: str, file: str) -> FormatError:
    return FormatError(row.number, problem, file=file)


def _as_it_was(row: Row, header: Sequence[str]) -> bytes:
    """A row that can be no record, as an object in which nothing is lost."""
    names = [*header, *(f"column_{place + 1}" for place in range(len(header), len(row.cells)))]
    return encoded(dict(zip(names, row.cells, strict=False)))


def gathered(fields: dict[str, Any], form: Form) -> dict[str, Any]:
    """The fields, those of the metadata in one object; raises ValueError where one says not to learn it."""
    document = {field: value for field, value in fields.items() if not field.startswith(_PREFIX)}
    inner = {field.removeprefix(_PREFIX): fields[field] for field in fields if field.startswith(_PREFIX)}
    for key, value in inner.items():
        if form.traces and says_not_learned(key, value):
            raise ValueError(
                f"{key}: is {str(value)[:_SHOWN]!r}, but the answer of a trace is learned whole; leave out "
                "what is not to be learned"
            )
    whole = document.pop(METADATA, None)
    if whole is not None:
        parsed = _parsed(whole)
        found = parsed if isinstance(parsed, dict) else {METADATA: whole}
        if twice := sorted(found.keys() & inner.keys()):
            raise ValueError(f"metadata.{twice[0]}: is in the metadata, and in a column of its own")
        inner = found | inner
    return document | ({METADATA: inner} if inner else {})


def _parsed(cell: Any) -> Any:
    try:
        return json.loads(cell) if isinstance(cell, str) else cell
    except ValueError:
        return None


def trace_document(fields: dict[str, Any], names: Sequence[str] = ()) -> dict[str, Any]:
    """The object of a trace: in our own form where its steps are there, else a prompt and a completion.

    Columns ``names`` that are those of GSM8K's lines make one of these where the answer is as in them. Raises
    ValueError for steps and messages that look like lists and are none.
    """
    for chat in _CHATS:
        if chat in fields:
            listed_ = _list(fields[chat], chat) if isinstance(fields[chat], str) else fields[chat]
            return {**fields, chat: listed_}
    steps = fields.pop("steps", None)
    for role in ("prompt",) if steps else ("prompt", "completion"):
        if fields.get(role) in (None, ""):
            raise ValueError(f"{role}: is missing or empty")
    if not steps:
        if set(names) == _GSM8K and ends_in_result(str(fields.get("completion"))):
            return {"question": fields.get("prompt"), "answer": fields["completion"]}
        return {key: value for key, value in fields.items() if key != "trace_version"}
    if isinstance(steps, str):
        steps = _list(steps, "steps") if _LIST.match(steps) else paragraphs(steps)
    if isinstance(steps, list) and all(isinstance(step, str) for step in steps):
        steps = [{"i": index, "type": "reason", "content": step} for index, step in enumerate(steps)]
    document = {"trace_version": TRACE_VERSION, **fields, "steps": steps}
    if "completion" in document:
        document["final_answer"] = document.pop("completion")
    if len(str(document.get("source", ""))) > MAX_LABEL:
        document[METADATA] = {**document.get(METADATA, {}), "source": document.pop("source")}
    return document


_GSM8K: Final = {"question", "answer"}
# A list of texts or of objects, as JSON or Python writes one; "[1, 2]" may be a text like any other.
_LIST: Final = re.compile(r"""\s*\[\s*["'{]""")


def _list(cell: str, field: str) -> list[Any]:
    found = _parsed(cell)
    if not isinstance(found, list):
        raise ValueError(f"{field}: looks like a list, and is none in JSON: {cell[:40]!r}")  # noqa: TRY004
    return found
