"""Commands that wait for a server say so once, and where a person reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import Result
from typer.testing import CliRunner

from support.threaded import fake_server, free_address
from tunix_rt import AsyncClient, v1
from tunix_rt.cli.main import app
from tunix_rt.rpc.caller import Outages

SILENT_S = 0.2
JOB = "trainingJobs/j"


class Slow(v1.TraceStoreServicer):
    """Answers the first call late, and the second, for the next page, too."""

    def ListTraces(self, request: v1.ListTracesRequest, _: Any) -> v1.ListTracesResponse:
        time.sleep(3 * SILENT_S)
        last = bool(request.page_token)
        return v1.ListTracesResponse(traces=[v1.Trace(prompt="p")], next_page_token="" if last else "more")

    def BatchCreateTraces(self, request: v1.BatchCreateTracesRequest, _: Any) -> v1.BatchCreateTracesResponse:
        time.sleep(3 * SILENT_S)
        created = v1.BatchCreateTracesResult(created=True)
        return v1.BatchCreateTracesResponse(results=[created] * len(request.traces))

    def StreamTraces(self, _: v1.StreamTracesRequest, __: Any) -> Iterator[v1.StreamTracesResponse]:
        time.sleep(3 * SILENT_S)
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader())


class Jobs(v1.TrainerServicer):
    """Knows one job, which has succeeded."""

    def WatchTrainingJob(
        self, _: v1.WatchTrainingJobRequest, __: Any
    ) -> Iterator[v1.WatchTrainingJobResponse]:
        done = v1.TrainingJob(name=JOB, state=v1.TrainingJob.STATE_SUCCEEDED)
        yield v1.WatchTrainingJobResponse(training_job=done)


def run(address: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--server", address])


def adding(servicer: v1.TraceStoreServicer) -> Callable[[grpc.Server], None]:
    return lambda server: v1.add_TraceStoreServicer_to_server(servicer, server)


@pytest.mark.parametrize("command", ["list", "import", "export"])
def test_a_command_whose_server_is_slow_says_so_once(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tunix_rt.rpc.caller._AWAY_S", SILENT_S / 2)
    monkeypatch.setattr("tunix_rt.rpc.caller._SILENT_S", SILENT_S)
    CliRunner().invoke(app, ["traces", "generate", "--count", "1", "-o", str(tmp_path / "t.jsonl")])
    arguments = {
        "list": ["list"],
        "import": ["import", str(tmp_path / "t.jsonl")],
        "export": ["export", "--output", str(tmp_path / "out.jsonl")],
    }[command]
    with fake_server(adding(Slow())) as address:
        result = run(address, "traces", *arguments)
        for_programs = run(address, "traces", *arguments, "--json")
    assert (result.exit_code, for_programs.exit_code) == (0, 0), result.output
    said = f"waiting for the server at {address}, which gives no answer yet; stop with Ctrl-C"
    assert result.stderr.splitlines().count(said) == 1
    json.loads(for_programs.stdout)
    assert for_programs.stderr == ""


def test_a_command_whose_server_answers_says_nothing() -> None:
    with fake_server(adding(Slow())) as address:
        result = run(address, "traces", "list", "--json")
    assert (result.exit_code, result.stderr) == (0, "")


async def test_a_program_is_told_that_a_server_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt.aio.rpc.caller._AWAY_S", SILENT_S / 2)
    monkeypatch.setattr("tunix_rt.aio.rpc.caller._SILENT_S", SILENT_S)
    told: list[str] = []
    with fake_server(adding(Slow())) as address:
        async with AsyncClient(address, on_waiting=told.append) as client:
            assert [trace.prompt async for trace in client.trace_store.list_traces()] == ["p", "p"]
    assert told == [address]


def test_a_server_is_told_of_each_time_that_it_is_away_and_once_that_it_is_busy() -> None:
    told: list[tuple[str, float]] = []
    outages = Outages(lambda waited: told.append((waited, waited.seconds)))
    for _ in range(2):
        outages.busy("a")
        outages.away("a", 60.0)
        outages.away("a", 3.0)
    outages.answered("a")
    outages.busy("a")
    outages.away("a", 3.0)
    assert told == [("a", 0.0), ("a", 60.0), ("a", 3.0)]


@pytest.mark.parametrize("command, seconds", [("list", 3), ("generate", 1)])
def test_a_command_says_that_nothing_listens_and_how_long_it_tries(
    command: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt.rpc.caller._AWAY_S", 0.1)
    monkeypatch.setattr("tunix_rt.importing.PATIENCE", 1.0)
    address = free_address()
    result = run(address, "traces", command)
    assert result.exit_code == 1
    said = f"nothing listens at {address}; trying again for up to {seconds} s in all; stop with Ctrl-C"
    assert result.stderr.splitlines()[0] == said
    for_programs = run(address, "traces", command, "--json")
    assert json.loads(for_programs.stderr)["code"] == "UNAVAILABLE"
    assert (result.stdout, for_programs.stdout) == ("", "")


def test_who_watches_a_job_says_that_its_server_is_away_and_goes_on_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunix_rt.rpc.caller._AWAY_S", 0.1)
    address = free_address()
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(run, address, "train", "watch", "j", "--json")
        # Longer than gRPC tries by itself.
        time.sleep(3)
        port = int(address.rpartition(":")[2])
        with fake_server(lambda server: v1.add_TrainerServicer_to_server(Jobs(), server), port=port):
            result = watching.result(30)
    assert result.exit_code == 0, result.output
    said = f"nothing listens at {address}; trying again for up to 60 s in all; stop with Ctrl-C"
    assert [json.loads(line)["message"] for line in result.stderr.splitlines()] == [said]
