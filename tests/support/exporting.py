# ruff: noqa: ARG002  (gRPC hands every method a context)
"""An exporter with a real trace store and an evaluator that knows some eval sets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2

from support.migrated import migrated
from support.serving import served, served_at
from tunix_rt import v1
from tunix_rt.wire import open_aio_channel
from tunix_rt_exporter import wiring as exporter_wiring
from tunix_rt_exporter.wiring import ExporterSettings
from tunix_rt_kit.errors import NotFound
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration
from tunix_rt_trace_store import wiring as store_wiring
from tunix_rt_trace_store.wiring import TraceStoreSettings


class EvalSets(v1.EvaluatorServicer):
    """Answers GetEvalSet from ``known``: prompts by name. The digest of a set is made from its prompts."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}

    async def ListEvalSets(self, request: v1.ListEvalSetsRequest, context: Any) -> v1.ListEvalSetsResponse:
        return v1.ListEvalSetsResponse(eval_sets=[v1.EvalSet(name=name) for name in self.known])

    async def GetEvalSet(self, request: v1.GetEvalSetRequest, context: Any) -> v1.EvalSet:
        if request.name not in self.known:
            raise NotFound("no such eval set", reason="EVAL_SET_NOT_FOUND")
        prompts = self.known[request.name]
        digest = "sha256:" + format(abs(hash(tuple(prompts))), "064x")
        items = [v1.EvalItem(id=f"item-{i}", prompt=prompt) for i, prompt in enumerate(prompts)]
        return v1.EvalSet(name=request.name, digest=digest, items=items)

    def built(self) -> BuiltService:
        def add(server: grpc.aio.Server) -> None:
            v1.add_EvaluatorServicer_to_server(self, server)

        return BuiltService(ServiceRegistration("tunix_rt.v1.Evaluator", add), lambda: None, lambda: None)


@dataclass
class Exporting:
    """Stubs of an exporter and of the trace store beside it, and the settings of both."""

    exporter: Any
    store: Any
    settings: ExporterSettings
    eval_sets: EvalSets = field(default_factory=EvalSets)

    async def add(self, traces: Iterable[v1.Trace], batch: int = 1000) -> list[v1.BatchCreateTracesResult]:
        """Store traces, ``batch`` a call; returns what became of them."""
        found, waiting = [], list(traces)
        for start in range(0, len(waiting), batch):
            request = v1.BatchCreateTracesRequest(traces=waiting[start : start + batch])
            found += (await self.store.BatchCreateTraces(request)).results
        return found

    async def create(self, dataset_id: str = "d", **spec: Any) -> v1.Dataset:
        """Ask for a dataset."""
        request_id = spec.pop("request_id", "")
        request = v1.CreateDatasetRequest(
            spec=v1.DatasetSpec(dataset_id=dataset_id, **spec), request_id=request_id
        )
        return await self.exporter.CreateDataset(request)

    async def build(self, dataset_id: str = "d", **spec: Any) -> v1.Dataset:
        """Ask for a dataset and wait for the end of its build."""
        return await self.ended((await self.create(dataset_id, **spec)).name)

    async def ended(self, name: str) -> v1.Dataset:
        """The dataset once its build has ended."""
        watch = self.exporter.WatchDataset(v1.WatchDatasetRequest(name=name))
        return [dataset async for dataset in watch][-1]

    async def read(self, name: str, split: str = "train", kind: int = 0, offset: int = 0) -> bytes:
        """A split in a format; the header must fit."""
        request = v1.ReadDatasetRequest(name=name, split=split, format=kind, offset=offset)
        parts = [part async for part in self.exporter.ReadDataset(request)]
        data = b"".join(part.chunk for part in parts[1:])
        assert parts[0].header.size_bytes == offset + len(data)
        return data


def real_store(folder: Path, database_url: str = "") -> BuiltService:
    """A trace store with its data in ``folder``."""
    settings = TraceStoreSettings(data_dir=folder, database_url=database_url)
    migrated(settings, store_wiring.migrate)
    return store_wiring.build(settings, asyncio.Event())


@asynccontextmanager
async def exporting(
    folder: Path, database_url: str = "", store: BuiltService | None = None, **options: Any
) -> AsyncIterator[Exporting]:
    """A running exporter, a trace store and an evaluator, each with its data below ``folder``."""
    eval_sets = EvalSets()
    async with served_at(store or real_store(folder / "store"), eval_sets.built()) as address:
        settings = ExporterSettings(
            data_dir=folder / "exporter",
            database_url=database_url,
            trace_store_target=address,
            evaluator_target=address,
            **options,
        )
        migrated(settings, exporter_wiring.migrate)
        stop = asyncio.Event()
        async with (
            served(exporter_wiring.build(settings, stop), stop=stop) as channel,
            open_aio_channel(address) as store_channel,
        ):
            yield Exporting(v1.ExporterStub(channel), v1.TraceStoreStub(store_channel), settings, eval_sets)


def rows(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def split(name: str, fraction: float) -> v1.SplitFraction:
    return v1.SplitFraction(split=name, fraction=fraction)


def failure(dataset: v1.Dataset) -> tuple[str, str]:
    info = error_details_pb2.ErrorInfo()
    assert dataset.error.details[0].Unpack(info)
    return info.reason, dataset.error.message


ALL_TRAIN = [split("train", 1.0)]
