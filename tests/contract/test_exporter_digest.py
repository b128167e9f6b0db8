"""The same traces give the same dataset, however they came and wherever they are kept.

``TUNIX_RT_TEST_PERMUTATIONS=200`` runs as many as are asked of a release. Fresh services with fresh databases
take in the traces each time.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from support.exporting import exporting, real_store
from support.postgres import Databases
from tunix_rt import v1
from tunix_rt.formats import trace_from_json
from tunix_rt.generate import generate_traces

PERMUTATIONS = int(os.environ.get("TUNIX_RT_TEST_PERMUTATIONS", "3"))
SPEC: dict[str, Any] = {
    "seed": 11,
    "deduplication": v1.Deduplication(method=v1.Deduplication.METHOD_NEAR, threshold=0.5),
    "split_group": v1.SplitGroup(near_duplicate_threshold=0.5),
    "eval_sets": ["evalSets/asked"],
}


@functools.cache
def some_traces() -> list[v1.Trace]:
    return [trace_from_json(json.dumps(trace.to_dict())) for trace in generate_traces(1_200, seed=3)]


async def digest(folder: Path, url: str, order: random.Random | None) -> str:
    """The digest of the dataset of all traces, stored in this order and in batches of this order's choice."""
    traces = list(some_traces())
    if order is not None:
        order.shuffle(traces)
    async with exporting(folder, url, real_store(folder / "store", url)) as world:
        world.eval_sets.known["evalSets/asked"] = [trace.prompt for trace in some_traces()[:25]]
        start = 0
        while start < len(traces):
            size = 1_000 if order is None else order.randint(1, 1_000)
            await world.add(traces[start : start + size])
            start += size
        dataset = await world.build(**SPEC)
    assert dataset.state == v1.Dataset.STATE_SUCCEEDED
    assert {drop.stage for drop in dataset.dropped} >= {"contaminated", "near_duplicate", "split_conflict"}
    return dataset.digest


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the dataset of all traces, stored in their order."""
    return asyncio.run(digest(tmp_path_factory.mktemp("plain"), "", None))


@pytest.mark.timeout(3600)
async def test_order_and_batches_of_imports_leave_one_digest(tmp_path: Path, expected: str) -> None:
    for number in range(PERMUTATIONS):
        assert await digest(tmp_path / str(number), "", random.Random(number)) == expected


@pytest.mark.timeout(3600)
async def test_the_digest_on_postgresql_is_that_on_sqlite(
    tmp_path: Path, postgres_databases: Databases, expected: str
) -> None:
    for number in range(PERMUTATIONS):
        with postgres_databases.one() as url:
            assert await digest(tmp_path / str(number), url, random.Random(PERMUTATIONS + number)) == expected
