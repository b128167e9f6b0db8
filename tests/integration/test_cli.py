"""The command line against the four services, each a process of its own: the whole loop on a tiny model."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from support.program import Program
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt.cli.main import app

SERVICES = ("trace_store", "exporter", "trainer", "evaluator")
NEEDS = {
    "trace_store": (),
    "exporter": ("trace_store", "evaluator"),
    "trainer": ("exporter",),
    "evaluator": ("trainer",),
}
LOOP = """
name: small
traces: {generate: {count: 60, seed: 9}}
dataset: {id: small, splits: {train: 0.8, test: 0.2}, chat_template: model}
training: {base_model: tiny, max_steps: 4, rows_per_batch: 2, lora: {rank: 4}}
evaluation: {max_new_tokens: 8}
output_dir: out
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [int(held.getsockname()[1]) for held in sockets]
    for held in sockets:
        held.close()
    return ports


def wait_for(port: int, process: Program, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"the server of port {port} ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, f"nothing listens on port {port}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the four services are, as `--server` takes it."""
    data_dir = tmp_path_factory.mktemp("services")
    make_tiny_model(data_dir / "models" / "tiny", config=ONE_LAYER)
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    processes = []
    for service in SERVICES:
        targets = [
            part for other in NEEDS[service]
            for part in (f"--{other.replace('_', '-')}-target", f"127.0.0.1:{ports[other]}")
        ]  # fmt: skip
        arguments = ["--listen", f"127.0.0.1:{ports[service]}", "--data-dir", str(data_dir), *targets]
        processes.append(Program(f"tunix_rt_{service}", arguments, data_dir / f"{service}.log"))
    try:
        for service, process in zip(SERVICES, processes, strict=True):
            wait_for(ports[service], process)
        yield ",".join(f"{service.replace('_', '-')}=127.0.0.1:{port}" for service, port in ports.items())
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


class Shell:
    """Runs commands in the current folder, as a person does in a terminal that is a pipe."""

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tunix_rt.cli", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # A shell that runs the tests in the background makes them, and their children, ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def __call__(self, *arguments: str, exit_code: int = 0) -> tuple[str, str]:
        """In this process: most of what a small command takes is the start of another one."""
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == exit_code, result.output
        return result.stdout, result.stderr


@pytest.fixture
def shell(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("TUNIX_RT_SERVER", server)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return Shell()


def test_a_loop_is_interrupted_and_goes_on_to_the_same_end(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(LOOP)
    interrupted = shell.start(["loop", "run", "loop.yaml"])
    assert interrupted.stderr is not None
    lines: list[str] = []
    for line in interrupted.stderr:
        lines.append(line)
        if line.startswith("base evaluation: evaluations/"):
            interrupted.send_signal(signal.SIGINT)
            break
    _, rest = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, "".join(lines) + rest
    assert "the same command goes on from here" in rest

    out, err = shell("loop", "run", "loop.yaml")
    assert "Verdict:" in out
    assert [line.partition(":")[0] for line in err.splitlines() if line.endswith("was done before")] == [
        "import", "dataset", "eval set", "base evaluation",
    ]  # fmt: skip
    assert "training: 4/4 steps loss" in err
    first = json.loads((tmp_path / "out" / "loop.json").read_text())

    again, _ = shell("loop", "run", "loop.yaml", "--json")
    assert {key: json.loads(again)[key] for key in first} == first
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.lstrip().lower().startswith("<!doctype html")

    job = first["training_job"]["name"].partition("/")[2]
    shown, _ = shell("train", "show", job)
    assert first["checkpoint"]["name"] in shown
    out, _ = shell("evaluate", "-e", first["eval_set"]["name"], "-c", job, "--max-new-tokens", "8", "--json")
    assert json.loads(out)["manifest"]["results_digest"] == first["evaluation_after"]["results_digest"]
    wrong, _ = shell("evaluation", "items", json.loads(out)["name"], "--wrong")
    assert "wrong" in wrong


def test_a_dataset_is_exported_audited_and_refused_where_it_does_not_fit(
    shell: Shell, tmp_path: Path
) -> None:
    shell("traces", "generate", "--count", "40", "--seed", "4")
    built, _ = shell("dataset", "build", "audited", "--base-model", "tiny")
    assert "<|im_start|>, <|im_end|>; here: tiny" in " ".join(built.split())
    shell("dataset", "export", "audited", "--format", "chat", "-o", "train.jsonl")
    shell("dataset", "export", "audited", "--format", "chat_parquet", "-o", "train.parquet")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "train.parquet")
    assert table.column("messages").to_pylist() == [row["messages"] for row in rows]

    shown, _ = shell("dataset", "show", "audited")
    assert "tokens are counted by" in shown
    shown, err = shell("dataset", "show", "audited", "--audit", "tiny", "--max-length", "64")
    assert "audit: counting tokens" in err
    assert "longer than 64 tokens" in shown
    out, _ = shell("dataset", "show", "audited", "--audit", "tiny", "--max-length", "64", "--json")
    train = json.loads(out)["splits"][0]
    assert int(train["row_count"]) == len(rows)
    assert int(train["truncated"]["row_count"]) > 0
    shown, _ = shell("dataset", "show", "audited")
    assert "AUDIT FOR" in shown
    assert "tokens are counted by" not in shown
    _, err = shell("train", "start", "-d", "audited", "-m", "tiny", "--max-length", "64", exit_code=1)
    assert "longer than --max-length of 64 tokens" in err
    row_id = train["truncated"]["example_row_ids"][0]
    assert row_id in err
    out, _ = shell("traces", "show", row_id, "--json")
    assert json.loads(out)["content_digest"] == f"sha256:{row_id}"


def test_bad_input_is_one_clear_line_and_leaves_nothing(shell: Shell, tmp_path: Path) -> None:
    good = '{"question": "How much is 1 + %d?", "answer": "1 + %d = %d\\n#### %d"}\n'
    (tmp_path / "bad.jsonl").write_text(
        "".join(good % (n, n, n + 1, n + 1) for n in range(900, 937)) + '{"question": \n'
    )
    importing = shell.start(["traces", "import", "bad.jsonl"])
    out, err = importing.communicate(timeout=60)
    assert (importing.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: 37 traces stored, then: bad.jsonl, line 38: not JSON")
    listed, _ = shell(
        "traces", "list", "--source", "gsm8k", "--contains", "1 + 9", "--limit", "100", "--json"
    )
    assert len(json.loads(listed)) == 37

    for arguments, message in (
        (["dataset", "build", "none", "--source", "nowhere"], "the dataset would be empty"),
        (["train", "start", "-d", "none", "-m", "tiny"], "datasets/none@1"),
        (["dataset", "build", "half", "--split", "train=0.5"], "add to 0.5"),
        (["evaluate", "-e", "none", "-m", "tiny"], "evalSets/none"),
    ):
        _, err = shell(*arguments, exit_code=1)
        assert message in err.splitlines()[-1], err
