"""Databases with the tables of ``support.fake_jobs``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import fake_jobs
from support.fake_jobs import Jobs
from tunix_rt_kit.database import Database


@pytest.fixture
def store(database_url: str) -> Iterator[Jobs]:
    database = Database(database_url)
    fake_jobs.metadata.create_all(database.engine)
    yield Jobs(database)
    database.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Jobs]:
    """For what hangs on no database."""
    database = Database(f"sqlite:///{tmp_path}/test.db")
    fake_jobs.metadata.create_all(database.engine)
    yield Jobs(database)
    database.close()
