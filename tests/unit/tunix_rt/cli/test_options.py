"""Where shared options may stand, and which one wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tunix_rt.cli.command import command
from tunix_rt.cli.main import _LazyGroup
from tunix_rt.cli.session import Session, SharedOptions
from tunix_rt.errors import FieldViolation, InvalidArgumentError, NotFoundError

probe = typer.Typer(add_completion=False)


@probe.callback()
def root(ctx: typer.Context) -> None:
    ctx.obj = SharedOptions(server="outer:1", data_dir=Path("/outer"))


@command(probe, "settings", example="probe settings")
def settings(session: Session, word: str = "") -> None:
    """Say what was given."""
    session.print_json([session.server, str(session.data_dir), session.as_json, session.verbose, word])


@command(probe, "fail", example="probe fail")
def fail(_session: Session, how: str) -> None:
    """Fail in some way."""
    errors: dict[str, BaseException] = {
        "not-found": NotFoundError("there is no traces/x"),
        "fields": InvalidArgumentError(
            "2 fields are wrong",
            field_violations=[
                FieldViolation("spec.seed", "is -1"),
                FieldViolation("spec.splits", "add to 1.2"),
            ],
        ),
        "bug": ZeroDivisionError("division by zero"),
        "disk": OSError(28, "No space left on device", "/data/x"),
        "module": ModuleNotFoundError("No module named 'sqlalchemy'", name="sqlalchemy"),
        "interrupt": KeyboardInterrupt(),
        "usage": typer.BadParameter("give one of the two"),
    }
    raise errors[how]


def read(*arguments: str, env: dict[str, str] | None = None) -> list[object]:
    result = CliRunner().invoke(probe, ["settings", *arguments], env=env)
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


def test_options_before_the_command_hold() -> None:
    assert read() == ["outer:1", "/outer", False, 0, ""]


def test_options_after_the_command_win() -> None:
    found = read("-s", "inner:2", "--data-dir", "/inner", "--json", "-vv", "--word", "x")
    assert found == ["inner:2", "/inner", True, 2, "x"]


def test_environment_comes_last() -> None:
    env = {"TUNIX_RT_SERVER": "env:3", "TUNIX_RT_DATA_DIR": "/env"}
    assert read(env=env)[:2] == ["outer:1", "/outer"]


def test_environment_holds_when_nothing_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNIX_RT_SERVER", "env:3")
    monkeypatch.setenv("TUNIX_RT_DATA_DIR", "/env")
    session = Session(SharedOptions())
    assert (session.server, session.data_dir, session.embedded) == ("env:3", Path("/env"), False)


def test_empty_environment_means_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNIX_RT_SERVER", "")
    monkeypatch.delenv("TUNIX_RT_DATA_DIR", raising=False)
    session = Session(SharedOptions())
    assert session.embedded
    assert session.data_dir.name == "tunix-rt"


def test_root_hands_its_options_on() -> None:
    app = typer.Typer(cls=_LazyGroup)
    assert set(typer.main.get_command(_with_callback(app)).commands) >= {"traces", "doctor"}


def _with_callback(app: typer.Typer) -> typer.Typer:
    app.callback()(lambda: None)
    return app


@pytest.mark.parametrize(
    ("how", "exit_code", "lines"),
    [
        ("not-found", 1, ["error: there is no traces/x"]),
        ("fields", 1, ["error: 2 fields are wrong", "  spec.seed: is -1", "  spec.splits: add to 1.2"]),
        ("disk", 1, ["error: /data/x: No space left on device"]),
        ("interrupt", 130, ["error: interrupted"]),
    ],
)
def test_errors_become_clear_lines(how: str, exit_code: int, lines: list[str]) -> None:
    result = CliRunner().invoke(probe, ["fail", how])
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.splitlines() == lines


def test_missing_module_names_the_command_that_installs_it() -> None:
    result = CliRunner().invoke(probe, ["fail", "module"])
    assert result.exit_code == 1
    assert "sqlalchemy is not installed" in result.stderr
    assert "pip install 'tunix-rt[local]'" in result.stderr


def test_a_bug_is_one_line_and_a_traceback_only_with_vv() -> None:
    plain = CliRunner().invoke(probe, ["fail", "bug"])
    assert (plain.exit_code, len(plain.stderr.splitlines())) == (1, 1)
    assert "ZeroDivisionError: division by zero" in plain.stderr
    full = CliRunner().invoke(probe, ["fail", "bug", "-vv"])
    assert full.exit_code == 1
    assert "Traceback (most recent call last)" in full.stderr


def test_bad_usage_exits_with_2() -> None:
    result = CliRunner().invoke(probe, ["fail", "usage"])
    assert result.exit_code == 2
    assert "give one of the two" in result.stderr
