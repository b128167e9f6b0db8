"""An exporter over a real channel, on both databases, with a real trace store beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.exporting import Exporting, exporting


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[Exporting]:
    async with exporting(tmp_path, database_url) as opened:
        yield opened
