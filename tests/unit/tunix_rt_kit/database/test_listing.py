"""Lists by any filter and order, page by page: each row once, as plain Python would list them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Index, Integer, MetaData, String, Table, delete, insert

from tunix_rt import v1
from tunix_rt_kit.convert import page_message
from tunix_rt_kit.database import Database, Listing, UtcDateTime, label_values, listing_columns
from tunix_rt_kit.errors import InvalidArgument
from tunix_rt_kit.serving.requests import listed
from tunix_rt_kit.values import ListAsked, ListFilter, Page, Position, Wanted, subjects

_METADATA = MetaData()
_ROWS = Table(
    "rows",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("create_time", UtcDateTime, nullable=False),
    Column("delete_time", UtcDateTime),
    *listing_columns("base_model"),
    Index("ix", "create_time", "id"),
)
_START = datetime(2026, 1, 1, tzinfo=UTC)
_FIELDS = ("create_time", "display_name", "state", "base_model")


class RowFilter(ListFilter):
    """Which rows."""

    order_fields: ClassVar = _FIELDS
    states: Wanted = ()
    base_models: Wanted = ()


_LISTING = Listing(
    _ROWS,
    _ROWS.c.id,
    {name: (_ROWS.c["display_name_folded" if name == "display_name" else name],) for name in _FIELDS},
)

_NAMES = st.sampled_from(["", "a", "A", "b a", "ÄRGER", "ärger", "z", 'say "a"', "%", "_", "日本"])
_TAGS = st.lists(
    st.sampled_from(["x", "X", "x y", 'x"', 'a"x', "[", "\\", "日", "a%"]), max_size=3, unique=True
)
_MODELS = st.sampled_from(["m", "M", "m-2", "/models/ü"])
_ROW = st.fixed_dictionaries(
    {
        "display_name": _NAMES,
        "tags": _TAGS,
        "note": _NAMES,
        "state": st.sampled_from(["FAILED", "QUEUED"]),
        "base_model": _MODELS,
        "minute": st.integers(0, 3),
    }
)
_ASKED = st.fixed_dictionaries(
    {},
    optional={
        # No entry has a tag with a comma, which stands between tags where they are stored.
        "tags": _TAGS | st.just([","]),
        "display_name_contains": _NAMES,
        "note_contains": _NAMES,
        "created_from": st.integers(0, 3).map(lambda minute: _START + timedelta(minutes=minute)),
        "created_before": st.integers(0, 3).map(lambda minute: _START + timedelta(minutes=minute)),
        "states": st.lists(st.sampled_from(["FAILED", "QUEUED"]), max_size=2),
        "base_models": st.lists(_MODELS, max_size=2),
    },
)
_TAGGED: Any = {"display_name": "", "note": "", "state": "QUEUED", "base_model": "m", "minute": 0}
_ORDER = st.lists(st.tuples(st.sampled_from(_FIELDS), st.booleans()), max_size=4, unique_by=lambda by: by[0])


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    _METADATA.create_all(made.engine)
    yield made
    made.close()


def stored(number: int, row: dict[str, Any]) -> dict[str, Any]:
    labels = {name: row[name] for name in ("display_name", "tags", "note")}
    return {
        "id": number,
        "state": row["state"],
        "base_model": row["base_model"],
        "create_time": _START + timedelta(minutes=row["minute"]),
        "subjects": subjects(models=[row["base_model"]]),
        **label_values(labels),
    }


def takes(asked: dict[str, Any], row: dict[str, Any]) -> bool:
    moment = _START + timedelta(minutes=row["minute"])
    return (
        set(asked.get("tags", ())) <= set(row["tags"])
        and asked.get("display_name_contains", "").casefold() in row["display_name"].casefold()
        and asked.get("note_contains", "").casefold() in row["note"].casefold()
        and asked.get("created_from", moment) <= moment
        and ("created_before" not in asked or moment < asked["created_before"])
        and (not asked.get("states") or row["state"] in asked["states"])
        and (not asked.get("base_models") or row["base_model"] in asked["base_models"])
    )


def key(row: dict[str, Any], field: str) -> Any:
    return {"create_time": row["minute"], "display_name": row["display_name"].casefold()}.get(
        field, row.get(field)
    )


def page(database: Database, size: int, token: str, asked: dict[str, Any], order_by: str) -> Page[int]:
    def find(*wanted: Any) -> list[tuple[int, Position]]:
        return _LISTING.page(database, *wanted, lambda row: int(row.id))

    return listed("ListRows", RowFilter, ListAsked(size, token, asked, order_by), find)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rows=[_TAGGED | {"tags": ['a"x', "[", "y"]}], asked={"tags": ["x"]}, order=[], size=1)
@example(rows=[_TAGGED | {"tags": ["[", "y"]}], asked={"tags": [","]}, order=[], size=1)
@given(rows=st.lists(_ROW, max_size=12), asked=_ASKED, order=_ORDER, size=st.integers(1, 5))
def test_pages_give_every_row_once_and_in_order(
    database: Database,
    rows: list[dict[str, Any]],
    asked: dict[str, Any],
    order: list[tuple[str, bool]],
    size: int,
) -> None:
    with database.write() as session:
        session.execute(delete(_ROWS))
        if rows:
            session.execute(insert(_ROWS), [stored(number, row) for number, row in enumerate(rows)])
    expected = [number for number, row in enumerate(rows) if takes(asked, row)]
    expected.sort(reverse=order[-1][1] if order else True)
    for field, falls in reversed(order):
        expected.sort(key=lambda number, field=field: key(rows[number], field), reverse=falls)  # type: ignore[misc]
    order_by = ", ".join(field + " desc" * falls for field, falls in order)
    found: list[int] = []
    token = ""
    while True:
        part = page(database, size, token, asked, order_by)
        assert len(part.items) <= size
        found += part.items
        token = part.next_page_token
        if not token:
            break
        with pytest.raises(InvalidArgument, match="another filter"):
            page(database, size, token, asked | {"tags": ["other"]}, order_by)
    # Python keeps equal rows in their order where it sorts backwards; the key turns with the last field.
    assert found == expected


@pytest.mark.one_database
def test_a_page_of_long_notes_stops_short_of_what_a_message_holds() -> None:
    jobs = [v1.TrainingJob(name=f"trainingJobs/{number}", note="ä" * 2_000) for number in range(1_500)]
    found: list[str] = []
    at = 0
    while True:
        rest = [(job, [number]) for number, job in enumerate(jobs) if number >= at]

        def find(*_: Any, rest: list[tuple[v1.TrainingJob, Position]] = rest) -> Any:
            return rest[:1_001]

        part = listed("ListTrainingJobs", RowFilter, ListAsked(1_000, "", {}, ""), find)
        message = page_message(part, v1.ListTrainingJobsResponse, lambda job: job)
        assert 0 < message.ByteSize() < 4 << 20
        found += [job.name for job in message.training_jobs]
        at = len(found)
        if not message.next_page_token:
            break
    assert found == [job.name for job in jobs]
