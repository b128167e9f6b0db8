"""The same behaviour on SQLite and on PostgreSQL."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from tunix_rt_kit.database import (
    CanonicalJson,
    Database,
    RequestLog,
    UtcDateTime,
    check_request_id,
    request_log_table,
    transaction_lock,
)
from tunix_rt_kit.database.engine import newest_revision
from tunix_rt_kit.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from tunix_rt_kit.values import RequestKey

METADATA = MetaData()
ITEMS = Table(
    "items",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("label", String(50), unique=True),
    Column("time", UtcDateTime),
    Column("data", CanonicalJson),
    Column("parent", ForeignKey("items.id")),
)
LOG = RequestLog(request_log_table(METADATA))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    METADATA.create_all(database.engine)
    yield database
    database.close()


def count(database: Database) -> int:
    with database.read() as session:
        return session.execute(select(func.count()).select_from(ITEMS)).scalar_one()


def test_a_write_is_kept_and_a_failed_one_leaves_nothing(database: Database) -> None:
    with database.write() as session:
        session.execute(insert(ITEMS).values(id=1, label="kept"))
    with pytest.raises(ValueError, match="stop"), database.write() as session:
        session.execute(insert(ITEMS).values(id=2))
        raise ValueError("stop")
    assert count(database) == 1


def test_a_read_sees_one_moment(database: Database) -> None:
    with database.read() as session:
        before = session.execute(select(func.count()).select_from(ITEMS)).scalar_one()
        with database.write() as writer:
            writer.execute(insert(ITEMS).values(id=1))
        assert session.execute(select(func.count()).select_from(ITEMS)).scalar_one() == before == 0
    assert count(database) == 1


def test_values_come_back_as_they_were_stored(database: Database) -> None:
    time = datetime(2024, 2, 29, 23, 59, 59, 123457, tzinfo=timezone(timedelta(hours=5)))
    data = {"b": [1, 2.5, None, True], "a": "é\u0000\U0001f600"[:1], "deep": {"x": {}}}
    with database.write() as session:
        session.execute(insert(ITEMS).values(id=1, time=time, data=data))
    with database.read() as session:
        row = session.execute(select(ITEMS)).one()
        stored = session.execute(text("SELECT data FROM items")).scalar_one()
    assert row.time == time and row.time.tzinfo is UTC
    assert row.data == data
    assert stored == '{"a":"é","b":[1,2.5,null,true],"deep":{"x":{}}}'


def test_a_time_without_zone_is_refused(database: Database) -> None:
    with pytest.raises(Exception, match="without a time zone"), database.write() as session:
        session.execute(insert(ITEMS).values(id=1, time=datetime(2024, 1, 1)))


def test_constraints_hold_and_stay_the_repositorys_business(database: Database) -> None:
    for values in ({"label": "x"}, {"parent": 77}):
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(insert(ITEMS).values(label="x"))
            session.execute(insert(ITEMS).values(**values))
    assert count(database) == 0


def test_writers_in_many_threads_lose_nothing(database: Database) -> None:
    with database.write() as session:
        session.execute(insert(ITEMS).values(id=1, data=0))

    def increment(_: int) -> None:
        with database.write() as session:
            transaction_lock(session, "counter")
            value = session.execute(select(ITEMS.c.data)).scalar_one()
            session.execute(ITEMS.update().values(data=value + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(80)))
    with database.read() as session:
        assert session.execute(select(ITEMS.c.data)).scalar_one() == 80


def ping(database: Database) -> None:
    with database.read() as session:
        session.execute(text("SELECT 1"))


def create(database: Database, request_id: str, digest: str, make: Callable[[], str]) -> tuple[str, bool]:
    with database.write() as session:
        return LOG.once(session, RequestKey("CreateItem", request_id, digest), make)


def test_a_repeated_request_gives_the_first_result(database: Database) -> None:
    assert create(database, "r-1", "d1", lambda: "items/1") == ("items/1", True)
    assert create(database, "r-1", "d1", lambda: "items/2") == ("items/1", False)
    with pytest.raises(AlreadyExists) as caught:
        create(database, "r-1", "d2", lambda: "items/3")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert create(database, "", "d1", lambda: "items/4") == ("items/4", True)
    assert create(database, "", "d1", lambda: "items/5") == ("items/5", True)


def test_a_request_that_failed_may_be_sent_again(database: Database) -> None:
    def fail() -> str:
        raise ValueError("first attempt")

    with pytest.raises(ValueError, match="first attempt"):
        create(database, "r-1", "d1", fail)
    assert create(database, "r-1", "d1", lambda: "items/2") == ("items/2", True)


def test_one_request_sent_many_times_at_once_is_carried_out_once(database: Database) -> None:
    barrier = threading.Barrier(8)

    def send(number: int) -> tuple[str, bool]:
        barrier.wait()
        return create(database, "same", "d", lambda: f"items/{number}")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert len({name for name, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1


@pytest.mark.parametrize("good", ["", "x" * 64, "A-z.0:9_"])
def test_a_well_formed_request_id_is_kept(good: str) -> None:
    assert check_request_id(good) == good


@pytest.mark.parametrize("bad", ["two words", "x" * 65, "line\n", "é"])
def test_a_malformed_request_id_is_named(bad: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_request_id(bad)
    assert caught.value.violations[0].field == "request_id"


SCRIPTS = {
    "0001_first.py": """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table("parents", sa.Column("id", sa.Integer, primary_key=True))
    reference = sa.ForeignKey("parents.id", ondelete="CASCADE")
    op.create_table("children", sa.Column("id", sa.Integer, primary_key=True),
                    sa.Column("parent", sa.Integer, reference, nullable=False))
""",
    "0002_second.py": """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    rebuilt = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("parents", recreate=rebuilt) as batch:
        batch.add_column(sa.Column("label", sa.String(10), nullable=False, server_default="none"))
""",
}


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "100% scripts"
    for name, content in SCRIPTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_migrations_bring_a_database_with_data_up_to_date(database_url: str, scripts: Path) -> None:
    database = Database(database_url)
    database.upgrade(str(scripts), "test_revision", "0001")
    with database.write() as session:
        session.execute(text("INSERT INTO parents (id) VALUES (1)"))
        session.execute(text("INSERT INTO children (id, parent) VALUES (5, 1)"))
    database.upgrade(str(scripts), "test_revision")
    database.upgrade(str(scripts), "test_revision")
    with database.read() as session:
        assert session.execute(text("SELECT label FROM parents")).scalar_one() == "none"
        assert session.execute(text("SELECT parent FROM children")).scalar_one() == 1
        assert session.execute(text("SELECT version_num FROM test_revision")).scalar_one() == "0002"
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text("INSERT INTO children (id, parent) VALUES (6, 99)"))
    database.close()


@pytest.mark.parametrize("service", ["trace_store", "exporter", "trainer", "evaluator"])
def test_the_newest_revision_is_read_off_the_scripts_as_alembic_does(service: str) -> None:
    scripts = f"tunix_rt_{service}:migrations"
    config = Config()
    for option in ("script_location", "version_locations"):
        config.set_main_option(option, scripts)
    config.set_main_option("path_separator", "newline")
    assert newest_revision(scripts) == ScriptDirectory.from_config(config).get_current_head()


@pytest.mark.one_database
def test_a_database_of_the_newest_revision_is_left_alone(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url)
    database.upgrade("tunix_rt_trace_store:migrations", "version")
    monkeypatch.setattr(Database, "_migration", None)
    database.upgrade("tunix_rt_trace_store:migrations", "version")
    with database.write() as session:
        session.execute(text("UPDATE version SET version_num = '0001'"))
    with pytest.raises(TypeError, match="NoneType"):
        database.upgrade("tunix_rt_trace_store:migrations", "version")
    with database.write() as session:
        session.execute(text("UPDATE version SET version_num = '9999'"))
    with pytest.raises(FailedPrecondition, match="a newer version made it") as caught:
        database.upgrade("tunix_rt_trace_store:migrations", "version")
    assert caught.value.reason == "DATABASE_TOO_NEW"
    database.close()


def test_a_failing_migration_leaves_the_database_as_it_was(database_url: str, scripts: Path) -> None:
    broken = SCRIPTS["0002_second.py"] + "    op.execute('SELECT no_such_function()')\n"
    (scripts / "0002_second.py").write_text(broken)
    database = Database(database_url)
    with pytest.raises(Exception, match="no_such_function"):
        database.upgrade(str(scripts), "test_revision")
    assert inspect(database.engine).get_table_names() == []
    database.close()


UPGRADE = """
import sys
from sqlalchemy import text
from tunix_rt_kit.database import Database
database = Database(sys.argv[1])
with database.read() as session:
    session.execute(text("SELECT 1"))
print("ready", flush=True)
sys.stdin.readline()
database.upgrade(sys.argv[2], "test_revision")
"""


def test_servers_that_start_at_once_migrate_once(database_url: str, scripts: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, database_url, str(scripts)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for server in servers:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
    for server in servers:
        assert server.stdin is not None
        server.stdin.write("go\n")
        server.stdin.flush()
    ends = [server.communicate(timeout=30)[1] for server in servers]
    assert [server.returncode for server in servers] == [0, 0, 0], ends
    database = Database(database_url)
    assert {"parents", "children"} <= set(inspect(database.engine).get_table_names())
    database.close()


def test_databases_of_one_process_may_be_migrated_at_once(tmp_path: Path, scripts: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path / f'{number}.db'}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda database: database.upgrade(str(scripts), "test_revision"), databases))
    for database in databases:
        assert "children" in inspect(database.engine).get_table_names()
        database.close()


def test_migrating_leaves_the_processs_logging_alone(database_url: str, scripts: Path) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger("tunix_rt").disabled
    database = Database(database_url)
    database.upgrade(str(scripts), "test_revision")
    database.close()
    assert (logging.getLogger().handlers[:], logging.getLogger("tunix_rt").disabled) == before


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_an_unsupported_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Database(url)
    assert caught.value.reason == "DATABASE_URL_INVALID"
    assert "secret" not in str(caught.value)


def test_a_table_that_is_not_there_means_not_migrated(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(FailedPrecondition) as caught:
        count(database)
    assert caught.value.reason == "DATABASE_NOT_MIGRATED"
    database.close()


@pytest.mark.parametrize("statement", ["SELECT wanted FROM items", "INSERT INTO items (wanted) VALUES (1)"])
def test_a_column_that_is_not_there_means_not_migrated(database: Database, statement: str) -> None:
    with pytest.raises(FailedPrecondition, match="lacks a column") as caught, database.write() as session:
        session.execute(text(statement))
    assert caught.value.reason == "DATABASE_NOT_MIGRATED"


def test_unreachable_databases(tmp_path: Path) -> None:
    for url in (
        f"sqlite:///{tmp_path / 'no' / 'folder.db'}",
        "postgresql://u:secret@127.0.0.1:1/d",
    ):
        with pytest.raises(Unavailable) as caught:
            ping(Database(url))
        assert caught.value.reason == "DATABASE_UNAVAILABLE"
        assert "secret" not in str(caught.value)


def test_a_read_only_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    METADATA.create_all(Database(f"sqlite:///{path}").engine)
    database = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(FailedPrecondition) as caught, database.write() as session:
        session.execute(insert(ITEMS).values(id=1))
    assert caught.value.reason == "DATABASE_READ_ONLY"


def test_a_full_sqlite_file_loses_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    METADATA.create_all(database.engine)
    with pytest.raises(ResourceExhausted) as caught, database.write() as session:
        session.execute(text("PRAGMA max_page_count = 20"))
        session.execute(insert(ITEMS), [{"data": "x" * 2000} for _ in range(500)])
    assert caught.value.reason == "DATABASE_FULL"
    assert count(database) == 0


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DataLoss) as caught:
        ping(Database(f"sqlite:///{path}"))
    assert caught.value.reason == "DATABASE_CORRUPT"


def test_acknowledged_writes_are_on_disk(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    with database.write() as session:
        values = [
            session.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("synchronous", "journal_mode")
        ]
    assert values == [2, "wal"]


def test_a_read_only_postgresql(postgres_url: str) -> None:
    database = Database(postgres_url)
    METADATA.create_all(database.engine)
    with pytest.raises(FailedPrecondition) as caught, database.read() as session:
        session.execute(insert(ITEMS).values(id=1))
    assert caught.value.reason == "DATABASE_READ_ONLY"
    database.close()


def drop_connections(server_url: str, database_url: str) -> None:
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(kill, (make_url(database_url).database,))


def test_a_postgresql_connection_dropped_in_a_write_undoes_it(
    postgres_url: str, postgres_server_url: str
) -> None:
    database = Database(postgres_url)
    METADATA.create_all(database.engine)
    with pytest.raises(Unavailable) as caught, database.write() as session:
        session.execute(insert(ITEMS).values(id=1))
        drop_connections(postgres_server_url, postgres_url)
        session.execute(insert(ITEMS).values(id=2))
    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    assert count(database) == 0
    database.close()


def test_a_postgresql_connection_dropped_while_idle_is_replaced(
    postgres_url: str, postgres_server_url: str
) -> None:
    database = Database(postgres_url)
    METADATA.create_all(database.engine)
    drop_connections(postgres_server_url, postgres_url)
    assert count(database) == 0
    database.close()


def test_a_missing_postgresql_database_is_named(postgres_server_url: str) -> None:
    missing = make_url(postgres_server_url).set(database="no_such_database")
    with pytest.raises((FailedPrecondition, Unavailable), match="no_such_database"):
        ping(Database(missing.render_as_string(hide_password=False)))
