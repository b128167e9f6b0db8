"""The embedded server: four services on one data folder, for one process or for everybody on one address."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunix_rt_local
from tunix_rt import Client, v1
from tunix_rt.cli.session import Session, SharedOptions, leave_on_sigterm
from tunix_rt.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError


def a_trace() -> v1.Trace:
    return v1.Trace(
        trace_version="1.0",
        prompt="What is 2 + 2?",
        steps=[v1.TraceStep(i=0, type="compute", content="2 + 2 = 4")],
        final_answer="4",
    )


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """`tunix-rt up` on a free port: its process, its address and its data folder."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tunix-rt"), "up", "--json", "--listen", "127.0.0.1:0"],
        env={**os.environ, "TUNIX_RT_DATA_DIR": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = ""
    while not lines.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, f"up ended with {process.wait()}"
        lines += line
    try:
        yield process, json.loads(lines)["address"], tmp_path / "data"
    finally:
        process.kill()
        process.wait()


def test_what_is_stored_is_there_for_the_next_embedded_server(tmp_path: Path) -> None:
    with tunix_rt_local.embedded(tmp_path / "data") as server, Client(server.address) as client:
        stored = client.trace_store.create_trace(trace=a_trace())
    with tunix_rt_local.embedded(tmp_path / "data") as server, Client(server.address) as client:
        assert client.trace_store.get_trace(name=stored.name) == stored
        with pytest.raises(NotFoundError):
            client.exporter.get_dataset(name="datasets/none@1")


def test_a_second_server_on_the_data_folder_is_told_who_holds_it(tmp_path: Path) -> None:
    with tunix_rt_local.embedded(tmp_path) as server:
        with (
            pytest.raises(tunix_rt_local.DataDirLocked, match=f"process {os.getpid()}") as caught,
            tunix_rt_local.embedded(tmp_path),
        ):
            pass
        assert caught.value.metadata["address"] == server.address
        with pytest.raises(tunix_rt_local.DataDirLocked):
            tunix_rt_local.require_free(tmp_path)
    tunix_rt_local.require_free(tmp_path)


def test_a_folder_that_is_not_there_is_free_and_stays_absent(tmp_path: Path) -> None:
    tunix_rt_local.require_free(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_data_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(tunix_rt_local.DataDirUnusable, match=r"data folder .*/file/data: .*--data-dir"),
        tunix_rt_local.embedded(tmp_path / "file" / "data"),
    ):
        pass


def test_a_wrong_setting_of_the_environment_is_named_with_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNIX_RT_EVALUATOR_ENDPOINT_URL", "foo")
    named = "endpoint_url: 'foo' is not accepted: http://.* environment TUNIX_RT_EVALUATOR_ENDPOINT_URL"
    with pytest.raises(Exception, match=named), tunix_rt_local.embedded(tmp_path):
        pass


def test_a_command_that_is_told_to_end_waits_for_its_embedded_server_as_long_as_that_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, **_: waits.append(seconds))
    monkeypatch.setenv("TUNIX_RT_TRAINER_SHUTDOWN_GRACE_S", "40")
    session = Session(SharedOptions(server=None, data_dir=tmp_path, as_json=False, verbose=0))
    with pytest.raises(SystemExit, match="143"), session.embedded_client(tmp_path):
        leave_on_sigterm(signal.SIGTERM, None)
    assert [seconds > 40 for seconds in waits] == [True]


def test_up_serves_until_it_is_told_to_stop_and_frees_the_folder(
    serving: tuple[subprocess.Popen[str], str, Path],
) -> None:
    process, address, data_dir = serving
    with Client(address) as client:
        client.trace_store.create_trace(trace=a_trace())
    with pytest.raises(tunix_rt_local.DataDirLocked, match=f"--server {address}"):
        tunix_rt_local.require_free(data_dir)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, 143)
    tunix_rt_local.require_free(data_dir)


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"listen: .* is not accepted"):
        tunix_rt_local.serve_forever(tmp_path, listen)


def test_a_port_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(FailedPreconditionError, match=f"cannot listen on {address}"):
            tunix_rt_local.serve_forever(tmp_path, address)
    tunix_rt_local.require_free(tmp_path)
