"""What data holds is shown, and never obeyed; and any standard output will do."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import tables
from tunix_rt.cli.console import SafeConsole
from tunix_rt.cli.documents import document_text
from tunix_rt.cli.traces import trace_panel
from tunix_rt.cli.traces_score import comparison_view
from tunix_rt.escapes import visible

OBEYED = {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F)}
OBEYED |= {chr(code) for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
PROGRAM = [sys.executable, "-c", "from tunix_rt.cli.main import main; main()"]


def attacked(content: str) -> v1.Trace:
    trace = v1.Trace(
        name="traces/a",
        prompt=content,
        steps=[v1.TraceStep(i=0, type=content, content=content)],
        final_answer=content,
        source=content,
    )
    trace.metadata.update({content: content})
    return trace


def written(*renderables: object) -> str:
    console = SafeConsole(io.StringIO())
    for renderable in renderables:
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_nothing_that_is_printed_holds_what_a_terminal_obeys(content: str) -> None:
    sheet = tables.table("A", "~B")
    tables.add_row(sheet, content, Text(content))
    trace = attacked(content)
    compared = v1.CompareTracesResponse(base=v1.ScoredTrace(trace=trace), other=v1.ScoredTrace(trace=trace))
    text = written(
        content, Text(content, style="red"), sheet, tables.facts([(content, content)]), trace_panel(trace),
        comparison_view(compared), Panel(Group(content), title=Text(content)),
    )  # fmt: skip
    assert not OBEYED & set(text)


def test_every_place_of_a_trace_shows_the_escapes() -> None:
    # Prompt, a step's type and content, answer, source, and a key of the metadata with its value.
    assert written(trace_panel(attacked("\x1b[2J\r\u202e"))).count(r"\x1b[2J\x0d\u202e") == 7


def test_markup_and_emoji_codes_of_data_are_text() -> None:
    assert written("[bold]x[/bold] :smile:") == "[bold]x[/bold] :smile:\n"


def test_what_was_marked_stays_marked() -> None:
    console = SafeConsole(io.StringIO())
    segments = [*console.render(Text.assemble(("a\x1b", "bold"), ("b", "dim")))]
    marked = {style: "".join(s.text for s in segments if str(s.style) == style) for style in ("bold", "dim")}
    assert marked == {"bold": r"a\x1b", "dim": "b"}


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_json_says_the_same_and_holds_nothing_that_is_obeyed(content: str) -> None:
    for encoding in ("utf-8", "ascii"):
        text = document_text({content: [content]}, (), encoding)
        assert json.loads(text) == {content: [content]}
        assert not OBEYED & set(text)
        text.encode(encoding)


def test_text_without_such_characters_is_left_alone() -> None:
    text = "Zahlen: ½ · 3 = 1,5\n\tdéjà vu 👩\u200d🚀 עברית"
    assert visible(text) == text


@pytest.mark.parametrize(
    "environment",
    [{"COLUMNS": "0"}, {"COLUMNS": ""}, {"TERMINAL_WIDTH": "0"}, {"PYTHONIOENCODING": "ascii"}],
    ids=str,
)
def test_help_is_written_whatever_standard_output_is(environment: dict[str, str]) -> None:
    ended = subprocess.run(
        [*PROGRAM, "compare", "--help"], env=os.environ | environment, capture_output=True, check=True
    )
    assert b"--output" in ended.stdout
    assert not ended.stderr


def test_a_window_of_no_columns_is_written_to() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 0, 0, 0))
    subprocess.run([*PROGRAM, "--help"], stdin=theirs, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    assert b"Fine-tune a language model" in os.read(ours, 1 << 16)
    os.close(ours)


def test_closed_streams_are_not_what_the_next_file_becomes(tmp_path: Path) -> None:
    arguments = ["traces", "generate", "--count", "3", "-o", str(tmp_path / "t.jsonl")]
    command = '"$0" "$@" >&- 2>&- <&-'
    ended = subprocess.run(["bash", "-c", command, *PROGRAM, *arguments], check=False)
    assert ended.returncode == 0
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 3


@pytest.mark.parametrize("arguments", [["--help"], ["traces", "generate", "--count", "1", "-o", "-"]])
def test_a_full_disk_behind_standard_output_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: No space left on device"
    assert "Traceback" not in ended.stderr
