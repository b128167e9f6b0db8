"""Requests that are sent again: carried out once, whatever they make."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import MetaData, select
from sqlalchemy.exc import IntegrityError

from tunix_rt_kit.database import Database
from tunix_rt_kit.database.request_log import RequestLog, check_request_id, request_log_table
from tunix_rt_kit.errors import AlreadyExists, InvalidArgument
from tunix_rt_kit.values import RequestKey

METADATA = MetaData()
TABLE = request_log_table(METADATA, "requests")
LOG = RequestLog(TABLE)
KEY = RequestKey("CreateThing", "id-1", "sha256:a")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    METADATA.create_all(database.engine)
    yield database
    database.close()


def once(database: Database, key: RequestKey, result: str | list[str]) -> tuple[str | list[str], bool]:
    with database.write() as session:
        return LOG.once(session, key, lambda: result)


def made(database: Database, key: RequestKey) -> str | None:
    with database.read() as session:
        return LOG.made(session, key)


def test_a_request_is_carried_out_once(database: Database) -> None:
    assert made(database, KEY) is None
    assert once(database, KEY, "things/1") == ("things/1", True)
    assert once(database, KEY, "things/2") == ("things/1", False)
    assert made(database, KEY) == "things/1"


def test_many_names_come_back_in_order(database: Database) -> None:
    assert once(database, KEY, ["b", "a"]) == (["b", "a"], True)
    assert once(database, KEY, []) == (["b", "a"], False)


def test_without_an_id_each_request_is_its_own(database: Database) -> None:
    key = RequestKey("CreateThing", "", "sha256:a")
    assert [once(database, key, name) for name in "ab"] == [("a", True), ("b", True)]
    assert made(database, key) is None


def test_ids_of_one_method_are_not_those_of_another(database: Database) -> None:
    other = RequestKey("CreateOther", "id-1", "sha256:b")
    assert once(database, KEY, "things/1") == ("things/1", True)
    assert made(database, other) is None
    assert once(database, other, "others/1") == ("others/1", True)
    assert (made(database, KEY), made(database, other)) == ("things/1", "others/1")
    assert made(database, RequestKey("CreateThing", "id-2", "sha256:a")) is None


@pytest.mark.parametrize("again", [True, False])
def test_an_id_of_another_content_is_refused(database: Database, again: bool) -> None:
    once(database, KEY, "things/1")
    other = RequestKey("CreateThing", "id-1", "sha256:b")
    with pytest.raises(AlreadyExists) as caught:
        once(database, other, "things/2") if again else made(database, other)
    error = caught.value
    assert error.message == "request_id: 'id-1' was used for another CreateThing; use a new one"
    assert error.reason == "REQUEST_ID_REUSED"
    assert error.metadata == {"request_id": "id-1", "method": "CreateThing"}


def test_what_an_earlier_version_took_for_the_content_is_known(database: Database) -> None:
    once(database, KEY, "things/1")
    assert made(database, RequestKey("CreateThing", "id-1", "sha256:b", "sha256:a")) == "things/1"


def test_a_create_that_fails_leaves_the_id_unused(database: Database) -> None:
    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), database.write() as session:
        LOG.once(session, KEY, fail)
    assert once(database, KEY, "things/1") == ("things/1", True)


def test_the_row_says_when(database: Database) -> None:
    once(database, KEY, "things/1")
    with database.read() as session:
        row = session.execute(select(TABLE)).one()
    assert (row.method, row.request_id, row.request_digest) == ("CreateThing", "id-1", "sha256:a")
    assert abs(row.create_time - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("column", [column.name for column in TABLE.columns if not column.primary_key])
def test_nothing_of_a_row_may_be_missing(database: Database, column: str) -> None:
    row = {
        "method": "m",
        "request_id": "i",
        "request_digest": "d",
        "result": "r",
        "create_time": datetime.now(UTC),
    }
    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.execute(TABLE.insert().values({name: row[name] for name in row if name != column}))


@pytest.mark.parametrize("good", ["", "a", "A-z_0.9:x", "x" * 64])
def test_ids_that_are_accepted(good: str) -> None:
    assert check_request_id(good) == good


@pytest.mark.parametrize("bad", ["x" * 65, "a b", "é", "a\n", "a/b"])
def test_ids_that_are_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_request_id(bad)
    assert caught.value.reason == "REQUEST_ID_INVALID"
    right = "1 to 64 characters of A-Z, a-z, 0-9, dot, colon, underscore and hyphen; a UUID is best"
    assert caught.value.message == f"request_id: {bad[:40]!r} is not accepted; it must be {right}"
