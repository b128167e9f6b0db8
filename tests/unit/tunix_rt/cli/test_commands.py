"""Commands as far as they go without a server: what they write, refuse and say."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tunix_rt.cli.main import app
from tunix_rt.formats import read_traces


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUNIX_RT_SERVER", raising=False)
    monkeypatch.setenv("TUNIX_RT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address where nothing listens, held so that nothing else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_generated_traces_are_written_and_can_be_read(tmp_path: Path) -> None:
    result = run(
        "traces", "generate", "--count", "12", "--seed", "5", "--families", "addition", "-o", "t.jsonl"
    )
    assert result.exit_code == 0, result.output
    assert "12 traces written to t.jsonl" in result.stderr
    traces = list(read_traces(tmp_path / "t.jsonl"))
    assert len(traces) == 12
    assert {trace.metadata["family"] for trace in traces} == {"addition"}


def test_generated_traces_go_to_stdout_and_go_on_where_others_stopped() -> None:
    arguments = ("traces", "generate", "--seed", "5", "-o", "-")
    whole = run(*arguments, "--count", "10").stdout.splitlines()
    rest = run(*arguments, "--count", "4", "--start", "6").stdout.splitlines()
    assert [json.loads(line)["prompt"] for line in whole[6:]] == [json.loads(line)["prompt"] for line in rest]


def test_a_named_pipe_stays_one_and_a_link_stays_a_link(tmp_path: Path) -> None:
    arguments = ("traces", "generate", "--count", "3", "-o")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    # Opened for both, so that neither end waits for the other.
    held = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        assert run(*arguments, "pipe").exit_code == 0
        assert os.read(held, 1 << 16).count(b"\n") == 3
    finally:
        os.close(held)
    assert (tmp_path / "pipe").is_fifo()
    assert run(*arguments, "link").exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes().count(b"\n") == 3


def test_unknown_family_is_named_with_the_known_ones() -> None:
    result = run("traces", "generate", "--families", "addition,alchemy", "-o", "t.jsonl")
    assert result.exit_code == 2
    assert "alchemy" in result.stderr
    assert "addition" in result.stderr


def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("traces", "generate", "--count", "1", "-o", "file/t.jsonl")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: file")


@pytest.mark.usefixtures("quick_retries")
def test_server_that_is_not_there(nowhere: str) -> None:
    result = run("traces", "list", "--server", nowhere)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: no tunix-rt server at {nowhere}")
    assert "tunix-rt up" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("traces", "list", "-s", "host:port"), 1, "port 'port' is not a number"),
        (("traces", "import", "nope.jsonl"), 1, "error: nope.jsonl: no such file"),
        (
            ("traces", "import", "-", "--format", "parquet"),
            1,
            "error: standard input: is Parquet, which cannot be read from a pipe; give the file's name",
        ),
        (("traces", "show", "datasets/x"), 2, "traces/ID"),
        (("dataset", "build", "d", "--latest", "1", "--random", "1"), 2, "exclude each other"),
        (
            ("train", "start", "-d", "d", "-m", "m", "--max-steps", "9" * 30),
            1,
            "more than its field can hold",
        ),
        (("compare", "datasets/x", "y"), 2, "evaluations/ID"),
        (("dataset", "build", "d", "--split", "train=2"), 2, "NAME=FRACTION"),
        *[
            (("dataset", "build", "d", option, ""), 2, f"Invalid value for '{option}': it is empty")
            for option in ("--template", "--base-model", "--group-by")
        ],
        (("dataset", "build", "d", "--unwritable", "x"), 2, "Invalid value for '--unwritable': "),
        (
            ("evaluate", "-e", "x", "-m", "m", "--reasoning-marks", '{"start"'),
            2,
            "Invalid value for --reasoning-marks: is no JSON",
        ),
        (("train", "start", "-d", "d", "-m", "m", "--detach"), 2, "--detach needs a server"),
        (("train", "start", "-d", "d"), 2, "--base-model"),
        (("evaluate", "-e", "x"), 2, "one of the three"),
        (("evaluate", "-e", "x", "-m", "m", "--system", "s"), 2, "--system goes with"),
        (("evalset", "import", "x"), 2, "one of the two"),
        (("evalset", "import", "x", "nope.jsonl"), 1, "error: nope.jsonl: no such file"),
        (("loop", "run", "nope.yaml"), 1, "error: nope.yaml: no such file"),
        (("demo", "--server", "localhost:1"), 2, "tunix-rt loop run FILE"),
    ],
)
def test_bad_input_is_refused_before_any_server_starts(
    arguments: tuple[str, ...], exit_code: int, message: str, tmp_path: Path
) -> None:
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    assert not (tmp_path / "data").exists()


def test_misspelt_setting_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(
        "name: x\ndataset: {id: x, splitz: {train: 1.0}}\ntraining: {base_model: m}\n"
    )
    result = run("loop", "run", "loop.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: loop.yaml: dataset.splitz")
    assert "splits" in result.stderr


def test_fresh_demo_deletes_nothing_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = run("demo", "--fresh", "--output", "mine")
    assert result.exit_code == 1
    assert "error: mine was not made by the demo" in result.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    other = run("demo", "--fresh", "--output", "out", "--data-dir", "mine")
    assert other.exit_code == 1
    assert (tmp_path / "mine" / "thesis.txt").exists()
