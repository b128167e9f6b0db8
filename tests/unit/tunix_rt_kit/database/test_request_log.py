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

KEY = RequestKey("CreateThing", "id-1", "sha256:a")


class Requests:
    """A log of requests in a database of its own."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        metadata = MetaData()
        self.table = request_log_table(metadata, "requests")
        self.log = RequestLog(self.table)
        metadata.create_all(self.database.engine)

    def once(self, key: RequestKey, result: str | list[str]) -> tuple[str | list[str], bool]:
        with self.database.write() as session:
            return self.log.once(session, key, lambda: result)

    def made(self, key: RequestKey) -> str | None:
        with self.database.read() as session:
            return self.log.made(session, key)


@pytest.fixture
def requests(database_url: str) -> Iterator[Requests]:
    requests = Requests(database_url)
    yield requests
    requests.database.close()


def test_a_request_is_carried_out_once(requests: Requests) -> None:
    assert requests.made(KEY) is None
    assert requests.once(KEY, "things/1") == ("things/1", True)
    assert requests.once(KEY, "things/2") == ("things/1", False)
    assert requests.made(KEY) == "things/1"


def test_many_names_come_back_in_order(requests: Requests) -> None:
    assert requests.once(KEY, ["b", "a"]) == (["b", "a"], True)
    assert requests.once(KEY, []) == (["b", "a"], False)


def test_without_an_id_each_request_is_its_own(requests: Requests) -> None:
    key = RequestKey("CreateThing", "", "sha256:a")
    assert [requests.once(key, name) for name in "ab"] == [("a", True), ("b", True)]
    assert requests.made(key) is None


def test_ids_of_one_method_are_not_those_of_another(requests: Requests) -> None:
    other = RequestKey("CreateOther", "id-1", "sha256:b")
    assert requests.once(KEY, "things/1") == ("things/1", True)
    assert requests.made(other) is None
    assert requests.once(other, "others/1") == ("others/1", True)
    assert (requests.made(KEY), requests.made(other)) == ("things/1", "others/1")
    assert requests.made(RequestKey("CreateThing", "id-2", "sha256:a")) is None


@pytest.mark.parametrize("again", [True, False])
def test_an_id_of_another_content_is_refused(requests: Requests, again: bool) -> None:
    requests.once(KEY, "things/1")
    other = RequestKey("CreateThing", "id-1", "sha256:b")
    with pytest.raises(AlreadyExists) as caught:
        requests.once(other, "things/2") if again else requests.made(other)
    error = caught.value
    assert error.message == "request_id: 'id-1' was used for another CreateThing; use a new one"
    assert error.reason == "REQUEST_ID_REUSED"
    assert error.metadata == {"request_id": "id-1", "method": "CreateThing"}


def test_what_an_earlier_version_took_for_the_content_is_known(requests: Requests) -> None:
    requests.once(KEY, "things/1")
    assert requests.made(RequestKey("CreateThing", "id-1", "sha256:b", "sha256:a")) == "things/1"


def test_a_create_that_fails_leaves_the_id_unused(requests: Requests) -> None:
    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), requests.database.write() as session:
        requests.log.once(session, KEY, fail)
    assert requests.once(KEY, "things/1") == ("things/1", True)


def test_the_row_says_when(requests: Requests) -> None:
    requests.once(KEY, "things/1")
    with requests.database.read() as session:
        row = session.execute(select(requests.table)).one()
    assert requests.table.name == "requests"
    assert [column.name for column in requests.table.primary_key] == ["method", "request_id"]
    assert (row.method, row.request_id, row.request_digest) == ("CreateThing", "id-1", "sha256:a")
    assert abs(row.create_time - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_table_is_the_one_that_migrations_make() -> None:
    table = request_log_table(MetaData())
    assert table.name == "request_log"
    assert [(column.name, str(column.type), column.nullable) for column in table.columns][:3] == [
        ("method", "VARCHAR(128)", False),
        ("request_id", "VARCHAR(64)", False),
        ("request_digest", "VARCHAR(71)", False),
    ]
    assert [(column.name, column.nullable) for column in table.columns][3:] == [
        ("result", False),
        ("create_time", False),
    ]


@pytest.mark.parametrize("column", ["request_digest", "result", "create_time"])
def test_nothing_of_a_row_may_be_missing(requests: Requests, column: str) -> None:
    row = {
        "method": "m",
        "request_id": "i",
        "request_digest": "d",
        "result": "r",
        "create_time": datetime.now(UTC),
    }
    with pytest.raises(IntegrityError), requests.database.engine.begin() as connection:
        connection.execute(
            requests.table.insert().values({name: row[name] for name in row if name != column})
        )


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
