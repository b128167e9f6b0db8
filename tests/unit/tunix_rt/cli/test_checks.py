"""What the doctor finds."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from tunix_rt.cli import doctor
from tunix_rt.cli.doctor import Level
from tunix_rt.cli.main import app

REQUIREMENTS = [
    "rich>=14",
    "tunix-rt[kit]; extra == 'trainer'",
    "no-such-package-a>=1; extra == 'trainer'",
    "pydantic>=1; extra == 'kit'",
    "no-such-package-b; extra == 'evaluator'",
    "pytest<1; extra == 'exporter'",
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "9.9" if name == "tunix-rt" else real(name))
    monkeypatch.setattr(doctor.metadata, "requires", lambda _name: REQUIREMENTS)


@pytest.mark.usefixtures("installed")
def test_extras_are_followed_and_what_is_missing_is_named() -> None:
    found = {finding.subject: finding for finding in doctor.package_findings()}
    assert found["[trainer]"].level is Level.NOTE
    assert found["[trainer]"].detail == "1 of 2 packages missing: no-such-package-a"
    assert found["[trainer]"].remedy == "pip install 'tunix-rt[trainer]'"
    assert "rich" not in found["[trainer]"].detail
    assert found["[exporter]"].level is Level.WARNING
    assert "(wanted <1)" in found["[exporter]"].detail


def test_a_marker_is_of_one_extra() -> None:
    wanted = doctor._requirements_of("trainer", [Requirement(line) for line in REQUIREMENTS])
    assert [requirement.name for requirement in wanted] == ["no-such-package-a", "pydantic"]


def test_folder_that_cannot_be_written_is_broken_only_when_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for needed, level in ((True, Level.BROKEN), (False, Level.WARNING)):
        found = {f.subject: f for f in doctor.host_findings(tmp_path / "file" / "data", needed=needed)}
        assert found["data folder"].level is level
        assert "not a folder" in found["data folder"].detail


def test_models_in_the_data_folder_are_listed(tmp_path: Path) -> None:
    for name in ("b", "a", ".a.partial"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    found = {f.subject: f for f in doctor.host_findings(tmp_path, needed=True)}
    assert (found["models"].level, found["models"].detail) == (Level.OK, "a, b")
    assert found["data folder"].level is Level.OK


def test_broken_jax_is_named_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_DEVICE_PROGRAM", "raise SystemExit('no such driver')")
    [finding] = doctor.device_findings()
    assert (finding.level, finding.detail) == (Level.BROKEN, "no such driver")


def test_jax_that_hangs_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_DEVICE_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_DEVICE_SECONDS", 0.2)
    [finding] = doctor.device_findings()
    assert finding.level is Level.BROKEN
    assert "within 0.2 s" in finding.detail


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.usefixtures("quick_retries")
def test_doctor_fails_and_says_so_when_the_server_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_DEVICE_PROGRAM", 'print(\'[["cpu", "cpu"]]\')')
    address = f"127.0.0.1:{free_port()}"
    arguments = ["doctor", "--server", address, "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 1
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["healthy"] is False
    broken = [finding for finding in report["findings"] if finding["level"] == "broken"]
    assert [finding["subject"] for finding in broken] == ["trace-store", "exporter", "trainer", "evaluator"]
    assert all(address in finding["detail"] for finding in broken)
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 1
    assert "4 to mend: trace-store, exporter, trainer, evaluator" in plain.stdout


def test_doctor_is_content_with_a_usable_computer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_DEVICE_PROGRAM", 'print(\'[["cpu", "cpu"]]\')')
    monkeypatch.delenv("TUNIX_RT_SERVER", raising=False)
    result = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "nothing is broken" in result.stdout
