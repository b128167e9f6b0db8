"""Settings from flags and environment, and logs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tunix_rt_kit.callers import begin_call
from tunix_rt_kit.serving.logging import configure_logging, get_logger
from tunix_rt_kit.serving.settings import ServerSettings, SettingsInvalid, check_address, load_settings


class StoreSettings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_STORE_")

    listen: str = "127.0.0.1:50051"
    data_dir: Path = Field(Path("data"), description="where the data lies")
    slots: int = Field(1, ge=1)


def load(*argv: str) -> StoreSettings:
    return load_settings(StoreSettings, argv, program="store")


def test_flags_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().listen == "127.0.0.1:50051"
    monkeypatch.setenv("TUNIX_RT_STORE_SLOTS", "3")
    monkeypatch.setenv("TUNIX_RT_STORE_DATA_DIR", "/env")
    monkeypatch.setenv("TUNIX_RT_STORE_LOG_LEVEL", "")
    settings = load("--data-dir", "/flag", "--log-format=console")
    assert (settings.slots, settings.data_dir, settings.log_level) == (3, Path("/flag"), "info")
    assert (settings.log_format, settings.max_message_bytes) == ("console", 4 * 1024 * 1024)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (
            ["--slots", "0"],
            ["slots: '0' is not accepted", "greater than or equal to 1", "--slots", "TUNIX_RT_STORE_SLOTS"],
        ),
        (["--log-level", "loud"], ["log_level", "'loud'", "'debug'", "--log-level"]),
        (["--shutdown-grace-s", "soon"], ["shutdown_grace_s", "'soon'", "number"]),
        (["--colour", "red"], ["--colour"]),
        (["--slots"], ["--slots"]),
    ],
)
def test_a_bad_flag_is_one_line_that_names_it(argv: list[str], parts: list[str]) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(*argv)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_bad_value_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNIX_RT_STORE_SLOTS", "many")
    with pytest.raises(SettingsInvalid, match=r"slots: 'many' .*environment TUNIX_RT_STORE_SLOTS"):
        load()


def test_help_lists_flags_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load("--help")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "--data-dir" in out and "where the data lies" in out


@pytest.mark.parametrize("good", ["127.0.0.1:0", "localhost:65535", "[::1]:50051", "0.0.0.0:1"])
def test_addresses(good: str) -> None:
    assert check_address(good) == good


@pytest.mark.parametrize(
    "bad", ["", "50051", ":50051", "localhost", "localhost:", "h:65536", "h:x", "::1:50051", "h:٣"]
)
def test_wrong_addresses(bad: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_address(bad)


@pytest.fixture
def root() -> Iterator[None]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.usefixtures("root")
def test_logs_are_json_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    begin_call("r-9")
    log = get_logger("tunix_rt.test_json")
    log.debug("hidden")
    log.info("started", job="jobs/1", seconds=1.5)
    logging.getLogger("somebody.elses").warning("plain %s", "words")
    try:
        raise ValueError("broken")
    except ValueError as error:
        log.exception("failed", key=str(error))
    captured = capsys.readouterr()
    first, second, third = [json.loads(line) for line in captured.err.splitlines()]
    assert captured.out == ""
    assert (first["event"], first["job"], first["seconds"]) == ("started", "jobs/1", 1.5)
    assert (first["level"], first["logger"], first["request_id"]) == ("info", "tunix_rt.test_json", "r-9")
    assert first["time"].endswith("Z")
    assert (second["event"], second["level"], second["logger"]) == (
        "plain words",
        "warning",
        "somebody.elses",
    )
    assert third["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.usefixtures("root")
def test_logs_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "console")
    log = get_logger("tunix_rt.test_console")
    log.info("hidden")
    log.warning("careful", job="jobs/2")
    err = capsys.readouterr().err
    assert "careful" in err and "job=jobs/2" in err and "hidden" not in err
    assert logging.getLogger().handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
