"""The schema, made anew and brought up from the first revision with data in it."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tunix_rt_kit.database import Database, UtcDateTime
from tunix_rt_kit.values import ListAsked
from tunix_rt_trace_store import convert
from tunix_rt_trace_store.tables import VERSION_TABLE, metadata
from tunix_rt_trace_store.traces.repository import SqlTraceRepository
from tunix_rt_trace_store.traces.service import TraceStoreService


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    repository = SqlTraceRepository(database)
    repository.migrate()
    repository.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    assert repository.last_sequence() == 0
    database.close()


OLD_TRACES = sa.table(
    "traces",
    *map(
        sa.column,
        [
            "sequence",
            "id",
            "content_digest",
            "create_time",
            "size_bytes",
            "source",
            "trace_version",
            "prompt",
            "prompt_folded",
        ],
    ),
    *map(sa.column, ["final_answer", "steps", "metadata"]),
)


def old_row(number: int) -> dict[str, object]:
    return {
        "sequence": number,
        "id": f"01a2131f-0bad-747b-9465-{number:012}",
        "content_digest": bytes([number % 256]) * 32,
        "create_time": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "size_bytes": 1,
        "source": "old",
        "trace_version": "1.0",
        "prompt": f"Prompt\t{number} \u00df",
        "prompt_folded": f"prompt\t{number} ss",
        "final_answer": str(number),
        "steps": '[{"content":"One\\n\u00e9","i":3,"type":"t"},{"content":"Two","i":1,"type":"u"}]',
        "metadata": '{"a":[1,2.5,null,{"b":true}]}' if number % 2 else "{}",
    }


def test_traces_of_the_first_revision_stay_as_they_were(database_url: str) -> None:
    database = Database(database_url)
    database.upgrade("tunix_rt_trace_store:migrations", VERSION_TABLE, "0001")
    with database.write() as session:
        rows = [old_row(number) for number in range(1, 1203)]
        typed = OLD_TRACES.insert().values(
            create_time=sa.bindparam("create_time", type_=UtcDateTime()),
            content_digest=sa.bindparam("content_digest", type_=sa.LargeBinary()),
        )
        session.execute(typed, rows)
        session.execute(sa.text("UPDATE trace_commits SET last_sequence = 1202"))
    repository = SqlTraceRepository(database)
    repository.migrate()
    service = TraceStoreService(repository, convert.content)
    as_of, parts = service.stream_traces({}, 0)
    found = [trace for part in parts for trace in part]
    assert (as_of, [trace.sequence for trace in found]) == (1202, list(range(1, 1203)))
    for trace in (found[0], found[1], found[-1]):
        old = old_row(trace.sequence)
        assert (trace.id, trace.create_time) == (old["id"], old["create_time"])
        assert trace.content_digest == f"sha256:{bytes(old['content_digest']).hex()}"  # type: ignore[call-overload]
        assert convert.content(trace.encoded) == {
            "trace_version": "1.0",
            "prompt": old["prompt"],
            "final_answer": old["final_answer"],
            "steps": [
                {"i": 3, "type": "t", "content": "One\n\u00e9"},
                {"i": 1, "type": "u", "content": "Two"},
            ],
            "metadata": {"a": [1, 2.5, None, {"b": True}]} if trace.sequence % 2 else {},
            "source": "old",
        }
    listed = service.list_traces(
        ListAsked(10, "", {"prompt_contains": "PROMPT\t7 SS", "sources": ["old"]}, "")
    )
    assert [trace.sequence for trace in listed.items] == [7]
    database.close()
