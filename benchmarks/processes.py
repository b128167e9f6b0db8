"""Servers as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that answers on ``address`` (``host:port``), and its process."""

    address: str
    process: psutil.Process


@contextmanager
def trace_store(database_url: str) -> Iterator[ServerProcess]:
    """``python -m tunix_rt_trace_store`` on a database, which is migrated first."""
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
        options = ["--database-url", database_url, "--data-dir", folder, "--log-level", "warning"]
        migrate = [sys.executable, "-m", "tunix_rt_trace_store", "migrate", *options]
        subprocess.run(migrate, check=True, env=_environment(), timeout=_START_S)
        with _served(
            "tunix_rt_trace_store", lambda address: ["serve", "--listen", address, *options]
        ) as server:
            yield server


@contextmanager
def exporter(trace_store_address: str) -> Iterator[ServerProcess]:
    """``python -m tunix_rt_exporter`` on SQLite, which reads from the trace store at that address."""
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
        options = ["--data-dir", folder, "--log-level", "warning"]
        options += ["--trace-store-target", trace_store_address]
        with _served("tunix_rt_exporter", lambda address: ["serve", "--listen", address, *options]) as server:
            yield server


@contextmanager
def rest_baseline(database_url: str, *options: str) -> Iterator[ServerProcess]:
    """``python -m benchmarks.rest_baseline`` on a database, whose table it makes."""
    with _served("benchmarks.rest_baseline", lambda address: [address, database_url, *options]) as server:
        yield server


@contextmanager
def _served(module: str, arguments: Callable[[str], Sequence[str]]) -> Iterator[ServerProcess]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", module, *arguments(address)], env=_environment()) as server:
        try:
            _wait_until_it_listens(port, server)
            yield ServerProcess(address, psutil.Process(server.pid))
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_it_listens(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while True:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])}
