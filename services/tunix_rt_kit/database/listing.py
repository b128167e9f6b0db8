"""Lists as SQL, the same on SQLite and on PostgreSQL: what people call things, filters, order, pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from sqlalchemy import (
    Column,
    ColumnElement,
    Row,
    String,
    Table,
    Text,
    and_,
    false,
    func,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.orm import Session

from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.database.columns import CanonicalJson, UtcDateTime
from tunix_rt_kit.database.engine import Database
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.values import MOST_TAGS, ListFilter, Order, Position, TagChanges

T = TypeVar("T")

CODE_POINTS: Final = String().with_variant(String(collation="C"), "postgresql")
"""A text that is ordered by its code points in both databases, whatever the locale."""

_AS_NAMED: Final[Mapping[str, tuple[Column[Any], ...]]] = MappingProxyType({})
# No text of an id has a greater character.
_BEHIND_ALL: Final = "\U0010ffff"
_FOLDED: Final = {"display_name": "display_name_folded", "note": "note_folded"}
# What filters ask for among an entry's subjects, and the kind that it has there.
_SUBJECTS: Final = {
    "models": "models",
    "base_models": "models",
    "datasets": "datasets",
    "eval_sets": "eval_sets",
    "evaluations": "evaluations",
    "parents": "parents",
    "regraded": "regraded",
}


def listing_columns(*scalars: str) -> list[Column[Any]]:
    """The columns by which a list is filtered and ordered, for a table and for the migration that adds them.

    ``scalars`` are further texts by which it is ordered, such as "base_model".
    """
    return [
        Column("display_name", Text, nullable=False, server_default=""),
        # Folded by Python, so that both databases find and order alike whatever their locale.
        Column("display_name_folded", CODE_POINTS, nullable=False, server_default=""),
        Column("tags", CanonicalJson, nullable=False, server_default="[]"),
        Column("note", Text, nullable=False, server_default=""),
        Column("note_folded", Text, nullable=False, server_default=""),
        # See ``tunix_rt_kit.values.subjects``.
        Column("subjects", CanonicalJson, nullable=False, server_default="[]"),
        *(Column(name, CODE_POINTS, nullable=False, server_default="") for name in scalars),
    ]


def label_values(labels: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that labels set, of which some may be given alone."""
    values = {name: list(value) if name == "tags" else value for name, value in labels.items()}
    return values | {_FOLDED[name]: labels[name].casefold() for name in _FOLDED if name in labels}


def change_labels(
    session: Session, table: Table, changes: Mapping[str, Any], *where: ColumnElement[bool]
) -> bool:
    """Set labels of the row of which ``where`` is true, and add and take away tags, none of which is lost
    where others do the same at once. Returns whether there is one.

    Raises InvalidArgument(LABELS_INVALID) if that makes too many tags.
    """
    moved = {name: changes[name] for name in TagChanges.model_fields if name in changes}
    labels = {name: value for name, value in changes.items() if name not in moved}
    if moved:
        # Locked, so that nobody else changes them meanwhile.
        row = session.execute(select(table.c.tags).where(*where).with_for_update()).one_or_none()
        if row is None:
            return False
        kept = [tag for tag in row.tags if tag not in moved.get("remove_tags", ())]
        labels["tags"] = list(dict.fromkeys([*kept, *moved.get("add_tags", ())]))
        if len(labels["tags"]) > MOST_TAGS:
            problem = f"makes {len(labels['tags'])} tags of it; at most {MOST_TAGS} would be right"
            raise InvalidArgument.of_field("add_tags", problem, reason="LABELS_INVALID")
    done = session.connection().execute(update(table).where(*where).values(**label_values(labels)))
    return done.rowcount > 0


class Ordered:
    """A table's rows, a page at a time, in an order that callers choose.

    Args:
        table: the table.
        key: the columns that tell rows apart, and order those that are equal.
        order: the columns behind fields that callers may order by, where those are not columns themselves.
        columns: what is read of each row; left out: all.
        default: the order where none is asked for.
        newest_first: whether greater keys come first where there is no order at all.
    """

    def __init__(
        self,
        table: Table,
        key: tuple[Column[Any], ...],
        order: Mapping[str, tuple[Column[Any], ...]] = _AS_NAMED,
        columns: tuple[Column[Any], ...] = (),
        *,
        default: Order = (),
        newest_first: bool = True,
    ) -> None:
        self._table = table
        self._key = key
        self._order = order
        self._columns = columns or tuple(table.c)
        self._default = default
        self._newest_first = newest_first

    def rows(
        self,
        session: Session,
        where: Sequence[ColumnElement[bool]],
        order: Order,
        after: Position | None,
        limit: int,
    ) -> list[tuple[Row[Any], Position]]:
        """Up to ``limit`` rows of which all of ``where`` is true, from behind ``after`` on, each with its
        place."""
        by: list[tuple[ColumnElement[Any], bool]]
        by = [(column, falls) for name, falls in order or self._default for column in self._columns_of(name)]
        falls = by[-1][1] if by else self._newest_first
        if session.get_bind().dialect.name == "postgresql":
            by = [(_by_code_points(column), falls) for column, falls in by]
        # As they are, so that their index serves.
        by += [(column, falls) for column in self._key]
        found = [*where] if after is None else [*where, _behind(by, after)]
        query = select(*self._columns, *(column.label(f"at_{n}") for n, (column, _) in enumerate(by)))
        query = query.where(*found).order_by(*(c.desc() if falls else c.asc() for c, falls in by))
        read = len(self._columns)
        rows = session.execute(query.limit(limit)).all()
        return [(row, [_json(value) for value in row[read:]]) for row in rows]

    def _columns_of(self, name: str) -> tuple[Column[Any], ...]:
        return self._order.get(name) or (self._table.c[_FOLDED.get(name, name)],)


class Listing(Ordered):
    """The list of a table of what people give names.

    Args:
        table: has ``listing_columns``, "create_time" and "delete_time".
        key: the column that tells rows apart, and orders those that are equal.
        order: the columns behind fields that callers may order by, where those are not columns themselves.
        columns: what is read of each row; left out: all.
        ids: what callers know rows by, where that is not the key.
        default: the order where none is asked for.
        newest_first: whether greater keys come first where there is no order at all.
    """

    def __init__(
        self,
        table: Table,
        key: Column[Any],
        order: Mapping[str, tuple[Column[Any], ...]] = _AS_NAMED,
        columns: tuple[Column[Any], ...] = (),
        *,
        ids: ColumnElement[str] | None = None,
        default: Order = (),
        newest_first: bool = True,
    ) -> None:
        super().__init__(table, (key,), order, columns, default=default, newest_first=newest_first)
        self._ids = key if ids is None else ids

    def page(
        self,
        database: Database,
        wanted: ListFilter,
        order: Order,
        after: Position | None,
        limit: int,
        convert: Callable[[Row[Any]], T],
        *further: ColumnElement[bool],
    ) -> list[tuple[T, Position]]:
        """Up to ``limit`` entries that are wanted, from behind ``after`` on, each with its place."""
        where = [*self._conditions(wanted, database.dialect), *further]
        with database.read() as session:
            rows = self.rows(session, where, order, after, limit)
        return [(convert(row), place) for row, place in rows]

    def _conditions(self, wanted: ListFilter, dialect: str) -> list[ColumnElement[bool]]:
        columns = self._table.c
        found = [holds(columns.tags, tag, dialect) for tag in wanted.tags]
        if not wanted.show_deleted:
            found.append(columns.delete_time.is_(None))
        if wanted.id_prefix:
            ids = self._ids if dialect == "sqlite" else _by_code_points(self._ids)
            found.append(and_(ids >= wanted.id_prefix, ids < wanted.id_prefix + _BEHIND_ALL))
        if wanted.display_name:
            found.append(columns.display_name == wanted.display_name)
        for name, folded in _FOLDED.items():
            if text := getattr(wanted, f"{name}_contains"):
                found.append(_contains(columns[folded], text.casefold(), dialect))
        found += made_between(columns.create_time, wanted)
        for name, kind in _SUBJECTS.items():
            if values := getattr(wanted, name, ()):
                found.append(or_(*(holds(columns.subjects, f"{kind} {value}", dialect) for value in values)))
        for name in ("states", "verdicts"):
            if values := getattr(wanted, name, ()):
                found.append(columns[name.removesuffix("s")].in_([str(value) for value in values]))
        return found


def holds(column: ColumnElement[Any], member: str, dialect: str) -> ColumnElement[bool]:
    """Whether a list of texts has this member, looked for in the list's canonical JSON.

    A quote inside a text follows a backslash there, so that one behind a bracket or a comma begins or ends a
    text. No member begins with a comma, so that what is found begins one.
    """
    if member.startswith(","):
        return false()
    written, wanted = type_coerce(column, Text), canonical_json(member).decode()
    return or_(*(_contains(written, f"{mark}{wanted}", dialect) for mark in "[,"))


def _contains(column: ColumnElement[Any], text: str, dialect: str) -> ColumnElement[bool]:
    position = func.instr if dialect == "sqlite" else func.strpos
    return position(column, text) > 0


def made_between(create_time: ColumnElement[Any], wanted: Any) -> list[ColumnElement[bool]]:
    """The conditions of a filter on when something was made."""
    found = [] if wanted.created_from is None else [create_time >= wanted.created_from]
    return found if wanted.created_before is None else [*found, create_time < wanted.created_before]


def row_fields(row: Row[Any], kind: type[BaseModel]) -> dict[str, Any]:
    """The columns of a row that are fields of ``kind``."""
    return {name: row._mapping[name] for name in kind.model_fields if name in row._mapping}


def _by_code_points(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return column.collate("C") if isinstance(column.type, String) else column


def _behind(by: list[tuple[ColumnElement[Any], bool]], after: Position) -> ColumnElement[bool]:
    """Rows that come after ``after`` in the order of ``by``."""
    ways: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    bounds: list[ColumnElement[bool]] = []
    for (column, falls), value in zip(by, after, strict=True):
        moment = datetime.fromisoformat(value) if isinstance(column.type, UtcDateTime) else value
        if not bounds:
            # It follows from the rest, and lets an index begin where the page does.
            bounds.append(column <= moment if falls else column >= moment)
        ways.append(and_(*equal, column < moment if falls else column > moment))
        equal.append(column == moment)
    return and_(*bounds, or_(*ways))


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
