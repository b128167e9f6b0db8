"""Leases: which server has which job, and for how long."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import MetaData, delete, event, insert, select, update

from support import fake_jobs
from support.fake_jobs import Counting, Jobs, engine_of
from support.timing import PATIENCE_S, eventually
from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs.engine import Lease
from tunix_rt_kit.jobs.leases import SqlLeases, lease_table
from tunix_rt_kit.jobs.run import LeaseLost, Run
from tunix_rt_kit.values import JobState


def test_the_table_of_leases_is_the_one_that_servers_have_migrated_to() -> None:
    table = lease_table(MetaData(), "job_leases")
    assert table.name == "job_leases"
    assert [
        (column.name, repr(column.type), column.nullable, column.primary_key) for column in table.columns
    ] == [
        ("job_id", "String(length=36)", False, True),
        ("owner", "String(length=120)", False, False),
        ("expires", "Float(precision=53)", False, False),
        ("at_once", "Boolean()", False, False),
    ]


def expiry(store: Jobs, job_id: str) -> float:
    with store.database.read() as session:
        leases = fake_jobs.leases
        return float(session.execute(select(leases.c.expires).where(leases.c.job_id == job_id)).scalar_one())


def test_a_lease_lasts_its_time_and_is_renewed_by_its_owner_alone(store: Jobs) -> None:
    mine, other, silent = (SqlLeases(store.database, fake_jobs.leases, s) for s in (100.0, 200.0, -1.0))
    own, foreign = Lease(mine=True, free=True, at_once=False), Lease(mine=False, free=False, at_once=False)

    def lasts(job_id: str, seconds: float, act: Callable[[], object]) -> bool:
        before = time.time()
        act()
        # By the database's clock, which may be another.
        return before - 1.0 <= expiry(store, job_id) - seconds <= time.time() + 1.0

    assert lasts("a", 100.0, lambda: mine.claim("a"))
    assert lasts("b", 200.0, lambda: other.claim("b"))
    assert silent.claim("c")
    expired = Lease(mine=False, free=True, at_once=False)
    assert mine.all() == {"a": own, "b": foreign, "c": expired}
    assert not other.claim("a")
    assert mine.claim("a")
    before = {name: expiry(store, name) for name in "bc"}
    assert lasts("a", 100.0, lambda: mine.renew(["a", "b"]))
    assert {name: expiry(store, name) for name in "bc"} == before
    other.end_at_once("a")
    assert other.all()["a"] == Lease(mine=False, free=False, at_once=True)
    assert not other.all()["b"].at_once
    other.release("a")
    mine.release("a")
    assert set(mine.all()) == {"b", "c"}
    # Another's wish does not outlive the lease that it was for.
    assert other.claim("c") and mine.claim("a")
    assert other.all() == {"a": foreign, "b": own, "c": own}


def test_the_leases_of_a_process_that_has_ended_are_free_and_those_of_other_machines_are_not(
    sqlite: Jobs,
) -> None:
    leases = SqlLeases(sqlite.database, fake_jobs.leases, 100.0)
    assert leases.claim("mine")
    machine, process, start, _ = sqlite.owners()["mine"].split()
    ended = subprocess.Popen(["true"])
    ended.wait()
    for job_id, owner in {
        "same process": f"{machine} {process} {start} x",
        "same number": f"{machine} {process} {float(start) + 1} x",
        "ended": f"{machine} {ended.pid} {start} x",
        "elsewhere": f"another {ended.pid} {start} x",
    }.items():
        values = {"job_id": job_id, "owner": owner, "expires": 2 * time.time(), "at_once": False}
        with sqlite.database.write() as session:
            session.execute(insert(fake_jobs.leases).values(values))
    assert {job_id for job_id, lease in leases.all().items() if lease.free} == {
        "mine",
        "same number",
        "ended",
    }


def test_a_machine_without_proc_is_told_by_its_name(sqlite: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(path: str) -> Any:
        raise FileNotFoundError(path)

    monkeypatch.setattr("tunix_rt_kit.jobs.leases.Path", nowhere)
    monkeypatch.setattr("platform.node", lambda: "a machine of " + 20 * "many words ")
    mine, other = (SqlLeases(sqlite.database, fake_jobs.leases, 100.0) for _ in range(2))
    assert mine.claim("a") and not other.claim("a")
    (owner,) = sqlite.owners().values()
    assert owner.startswith("a-machine-of-many-words-many-words-many-") and len(owner) <= 120
    monkeypatch.setattr("platform.node", lambda: "another")
    assert SqlLeases(sqlite.database, fake_jobs.leases, 100.0).all().keys() == {"a"}


def test_a_server_that_vanishes_in_the_middle_of_a_write_does_not_keep_the_job(postgres_url: str) -> None:
    """On PostgreSQL; a process that ends leaves SQLite's lock, and one that is stopped keeps all of it."""
    database = Database(postgres_url)
    fake_jobs.metadata.create_all(database.engine)
    mine, other = (SqlLeases(database, fake_jobs.leases, 1.0) for _ in range(2))
    assert mine.claim("a")
    with pytest.raises(DomainError), mine.held("a", lambda: None), database.write():
        eventually(lambda: other.claim("a"))
    database.close()


def test_a_server_that_vanishes_while_it_renews_does_not_keep_the_job(postgres_url: str) -> None:
    """On PostgreSQL; what waits for its turn at the lease would not look at its own any more."""
    database, of_mine = Database(postgres_url), Database(postgres_url)
    fake_jobs.metadata.create_all(database.engine)
    # The other one's writes may take long on a busy machine.
    mine, other = SqlLeases(of_mine, fake_jobs.leases, 0.2), SqlLeases(database, fake_jobs.leases, 10.0)
    assert mine.claim("a")
    taken, errors = threading.Event(), []

    @event.listens_for(of_mine.engine, "commit")
    def vanish(_: Any) -> None:
        taken.wait(PATIENCE_S)

    def renew() -> None:
        try:
            mine.renew(["a"])
        except DomainError as error:
            errors.append(error)

    renewing = threading.Thread(target=renew)
    renewing.start()
    eventually(lambda: other.claim("a"))
    taken.set()
    renewing.join()
    assert [error.reason for error in errors] == ["DATABASE_UNAVAILABLE"]
    for used in (database, of_mine):
        used.close()


def test_one_of_many_that_claim_a_job_at_once_gets_it(store: Jobs) -> None:
    leases = [SqlLeases(store.database, fake_jobs.leases, 30.0) for _ in range(8)]
    for name in ("new", "expired"):
        if name == "expired":
            with store.database.write() as session:
                session.execute(delete(fake_jobs.leases))
            assert SqlLeases(store.database, fake_jobs.leases, -1.0).claim(name)
        won: list[int] = []
        start = threading.Barrier(len(leases))

        def claim(number: int, name: str = name, won: list[int] = won, start: Any = start) -> None:
            start.wait()
            if leases[number].claim(name):
                won.append(number)

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(len(leases))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert [lease.all()[name].mine for lease in leases].count(True) == 1


def test_a_lease_is_not_taken_while_its_owner_writes(store: Jobs) -> None:
    mine, other = (SqlLeases(store.database, fake_jobs.leases, seconds) for seconds in (-1.0, 30.0))
    store.add("a")
    assert mine.claim("a")
    taken: list[bool] = []
    taking = threading.Thread(target=lambda: taken.append(other.claim("a")))
    with mine.held("a", lambda: None), store.database.write() as session:
        taking.start()
        if store.database.dialect == "postgresql":
            taking.join()
            assert taken == [False]
        session.execute(update(fake_jobs.jobs).values(state="RUNNING"))
    taking.join()
    assert other.claim("a") or taken == [True]
    with pytest.raises(LeaseLost), mine.held("a", lambda: None):
        store.add_step("a", 1)
    assert store.steps("a") == 0
    mine.renew(["a"])
    mine.release("a")
    assert other.all()["a"].mine


@pytest.mark.parametrize("only_ends", [False, True])
def test_a_job_that_is_cancelled_just_before_its_server_stops_is_ended(sqlite: Jobs, only_ends: bool) -> None:
    kind = Counting(sqlite)
    engine = engine_of(kind, poll_s=PATIENCE_S)
    engine.start(only_ends=only_ends)
    time.sleep(0.1)
    sqlite.add("a")
    sqlite.add("b", state=JobState.CANCELLING)
    engine.stop(PATIENCE_S)
    assert (sqlite.state("a"), sqlite.state("b")) == (JobState.QUEUED, JobState.CANCELLED)
    assert (kind.begun, sqlite.owners()) == (["b"], {})


@pytest.mark.parametrize("state", [JobState.CANCELLING, JobState.QUEUED])
def test_a_second_wish_to_cancel_outlives_the_server_that_had_the_job(sqlite: Jobs, state: JobState) -> None:
    dead = SqlLeases(sqlite.database, fake_jobs.leases, -1.0)
    sqlite.add("a", state=state)
    assert dead.claim("a")
    dead.end_at_once("a")
    runs: list[Run] = []
    kind = Counting(sqlite, most=1)
    work = kind.work
    kind.work = lambda run: (runs.append(run), work(run))[1]  # type: ignore[method-assign]
    engine = engine_of(kind)
    engine.start()
    eventually(lambda: sqlite.state("a").ended)
    engine.stop(PATIENCE_S)
    # Where it was resumed since, the wish is not for this run.
    assert [run.at_once.is_set() for run in runs] == [state is JobState.CANCELLING]
