"""Importing traces through client, gRPC and trace store into SQLite, beside bare inserts of the same rows.

The peer is SQLAlchemy core ``executemany`` of ready rows, 1,000 a transaction with a full sync, in a
database of the same kind: what the database itself costs.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

import tunix_rt_local
from tunix_rt import Client, v1
from tunix_rt.formats import trace_from_json, trace_to_json
from tunix_rt.generate import generate_traces
from tunix_rt.importing import import_traces
from tunix_rt_kit.database import Database

COUNT = 10_000
BATCH = 1_000
REPEATS = 3


def run() -> dict[str, float]:
    """Traces a second of both, the median of interleaved repeats, and their ratio."""
    traces = [trace_from_json(json.dumps(trace.to_dict())) for trace in generate_traces(COUNT, seed=1)]
    ours, peers = [], []
    for _ in range(REPEATS):
        ours.append(COUNT / _seconds_of_import(traces))
        peers.append(COUNT / _seconds_of_inserts(traces))
    mine, peer = sorted(ours)[REPEATS // 2], sorted(peers)[REPEATS // 2]
    return {
        "traces_per_second": round(mine),
        "executemany_per_second": round(peer),
        "ratio": round(mine / peer, 3),
    }


def _seconds_of_import(traces: list[v1.Trace]) -> float:
    with (
        tempfile.TemporaryDirectory() as folder,
        tunix_rt_local.embedded(Path(folder)) as server,
        Client(server.address) as client,
    ):
        begun = time.perf_counter()
        result = import_traces(client, traces, batch_size=BATCH)
        seconds = time.perf_counter() - begun
    if result.created != len(traces):
        raise RuntimeError(f"{result.created} of {len(traces)} traces were stored")
    return seconds


def _seconds_of_inserts(traces: list[v1.Trace]) -> float:
    table = sa.Table(
        "traces",
        sa.MetaData(),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("prompt", sa.Text),
        sa.Column("body", sa.Text),
    )
    rows = [
        {"sequence": number, "prompt": trace.prompt, "body": trace_to_json(trace)}
        for number, trace in enumerate(traces)
    ]
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/peer.db")
        try:
            table.create(database.engine)
            begun = time.perf_counter()
            for start in range(0, len(rows), BATCH):
                with database.write() as session:
                    session.execute(sa.insert(table), rows[start : start + BATCH])
            return time.perf_counter() - begun
        finally:
            database.close()
