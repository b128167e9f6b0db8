"""Databases that are away, read-only or full: one meaningful error, and nothing lost or half-written."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from support.postgres import own_postgres
from support.store_process import StoreProcess
from support.traces import step, trace
from tunix_rt import Client, v1
from tunix_rt.errors import TunixRtError
from tunix_rt.importing import import_traces


def reason_of(call: Callable[[], object]) -> tuple[str, str]:
    """Code and reason of a call that fails."""
    with pytest.raises(TunixRtError) as caught:
        call()
    assert "Traceback" not in caught.value.message
    return caught.value.code, caught.value.reason


def writes(client: Client, name: str) -> list[Callable[[], object]]:
    store = client.trace_store
    return [
        lambda: store.create_trace(trace(100)),
        lambda: store.batch_create_traces([trace(101), trace(102)]),
        lambda: store.score_trace(name),
        lambda: store.delete_trace(name),
    ]


def reads(client: Client, name: str) -> list[Callable[[], object]]:
    store = client.trace_store
    return [
        lambda: store.get_trace(name),
        lambda: list(store.list_traces()),
        lambda: list(store.stream_traces()),
        lambda: store.compare_traces(name, name),
    ]


def numbers_in_order(client: Client) -> list[int]:
    """The number of each stored trace; the sequences must be 1, 2, 3 and so on."""
    traces = list(client.trace_store.stream_traces())
    assert [stored.sequence for stored in traces] == list(range(1, len(traces) + 1))
    return [int(stored.metadata["number"]) for stored in traces]


def test_a_database_that_crashes_in_the_middle_of_an_import(tmp_path: Path) -> None:
    enough = threading.Event()
    under_way = threading.Event()

    def endless() -> Iterator[v1.Trace]:
        for number in count():
            if enough.is_set():
                return
            yield trace(number)

    with (
        own_postgres() as postgres,
        StoreProcess(postgres.url, tmp_path) as store,
        Client(store.address) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        name = client.trace_store.create_trace(trace(-1)).name
        importing = pool.submit(
            import_traces, client, endless(), batch_size=20, on_progress=lambda _: under_way.set()
        )
        try:
            assert under_way.wait(30)
            postgres.crash()
            for call in (writes(client, name)[1], *reads(client, name)[:2]):
                assert reason_of(call) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
            postgres.start()
            assert client.trace_store.get_trace(name).metadata["number"] == -1
        finally:
            enough.set()
        result = importing.result(150)
        numbers = numbers_in_order(client)
    assert result.created == result.read > 0
    assert sorted(numbers) == list(range(-1, result.read))


def set_read_only(url: str, value: str) -> None:
    """For all sessions of a PostgreSQL database, those that are there included."""
    with psycopg.connect(url, autocommit=True) as connection:
        # The database itself may be what is read-only.
        connection.execute("SET default_transaction_read_only = off")
        name, setting = sql.Identifier(connection.info.dbname), sql.Literal(value)
        change = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        connection.execute(change.format(name, setting))
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_postgresql_that_turns_read_only(postgres_url: str, tmp_path: Path) -> None:
    with StoreProcess(postgres_url, tmp_path) as store, Client(store.address) as client:
        name = client.trace_store.create_trace(trace(0)).name
        set_read_only(postgres_url, "on")
        for call in writes(client, name):
            assert reason_of(call) == ("FAILED_PRECONDITION", "DATABASE_READ_ONLY")
        for call in reads(client, name):
            call()
        # On the connections that have just read.
        for call in writes(client, name):
            assert reason_of(call) == ("FAILED_PRECONDITION", "DATABASE_READ_ONLY")
        assert numbers_in_order(client) == [0]
        set_read_only(postgres_url, "off")
        client.trace_store.create_trace(trace(1))
        assert numbers_in_order(client) == [0, 1]


def test_a_read_only_sqlite_file(tmp_path: Path) -> None:
    file = tmp_path / "disk" / "test.db"
    file.parent.mkdir()
    # The permissions of a file do not bind root.
    wrapper = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    with StoreProcess(f"sqlite:///{file}", tmp_path) as store, Client(store.address) as client:
        name = client.trace_store.create_trace(trace(0)).name
    file.chmod(0o444)
    with StoreProcess(f"sqlite:///{file}", tmp_path, wrapper) as store, Client(store.address) as client:
        for call in writes(client, name):
            assert reason_of(call) == ("FAILED_PRECONDITION", "DATABASE_READ_ONLY")
        for call in reads(client, name):
            call()
        assert numbers_in_order(client) == [0]


def small_disk(folder: Path) -> tuple[list[str], tuple[str, str]]:
    """A command that runs a server whose ``folder`` has 4 MB, and how it answers when they are used up.

    Where this user may not mount, files that may not grow beyond 3 MB take the disk's place.
    """
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'
    command = [*own_mounts, "sh", "-c", mount, str(folder)]
    if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
        return command, ("RESOURCE_EXHAUSTED", "DATABASE_FULL")
    return ["prlimit", "--fsize=3000000"], ("UNAVAILABLE", "DATABASE_UNAVAILABLE")


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    wrapper, expected = small_disk(disk)
    stored: list[int] = []

    def store_until_it_fails(client: Client) -> None:
        for first in range(0, 100_000, 50):
            batch = [trace(first + i, steps=[step(0, content="x" * 2_000)]) for i in range(50)]
            client.trace_store.batch_create_traces(batch)
            stored.extend(range(first, first + 50))

    with (
        StoreProcess(f"sqlite:///{disk}/test.db", tmp_path, wrapper) as store,
        Client(store.address) as client,
    ):
        assert reason_of(lambda: store_until_it_fails(client)) == expected
        assert stored
        assert numbers_in_order(client) == stored
        store.kill()
        log = store.log
    assert "unexpected_error" not in log
