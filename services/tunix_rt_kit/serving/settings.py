"""Settings that every server has, read from flags and from the environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

from tunix_rt_kit.artifacts import storage_errors

MEBIBYTE = 1 << 20


def check_address(address: str) -> str:
    """``address``, if it is ``host:port`` (``[::1]:port`` for IPv6) or ``unix:/path``; raises ValueError."""
    if address.startswith("unix:/"):
        return address
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host):
        raise ValueError("it must be host:port, for example 127.0.0.1:50051")
    if not (port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
        raise ValueError(f"port {port!r} must be a number from 0 to 65535, where 0 means any free port")
    return address


Address = Annotated[str, AfterValidator(check_address)]


class ServerSettings(BaseSettings):
    """Settings of every server.

    A service's settings derive from this, with ``SettingsConfigDict(env_prefix="TUNIX_RT_<SERVICE>_")`` and a
    ``listen`` of their own. A flag (``--log-level``) wins over the environment
    (``TUNIX_RT_TRACE_STORE_LOG_LEVEL``), which wins over the default.
    """

    model_config = SettingsConfigDict(
        env_prefix="TUNIX_RT_",
        env_ignore_empty=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    listen: Address = Field(
        "127.0.0.1:50050", description="address to serve on, host:port; port 0 picks a free one"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="one JSON object a line, or for people"
    )
    shutdown_grace_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="seconds within which the server ends when it is told to; calls and jobs get most of it",
    )
    max_message_bytes: int = Field(
        4 * MEBIBYTE, ge=1024, le=1 << 30, description="largest message taken or sent, in bytes"
    )

    @property
    def calls_and_jobs_s(self) -> float:
        """How long running calls and jobs may take to stop; the rest of the time is for all else."""
        return self.shutdown_grace_s * 0.8


class DataSettings(ServerSettings):
    """Settings of a server with a database, of the name in its environment prefix."""

    data_dir: Path = Field(
        Path("data"), description="folder of the SQLite database and of other files, made if need be"
    )
    database_url: str = Field(
        "", description="postgresql://... or sqlite:///...; empty means SERVICE.db in the data folder"
    )

    @property
    def database(self) -> str:
        """The database URL with its default filled in."""
        prefix = self.model_config["env_prefix"].removeprefix("TUNIX_RT_")
        name = prefix.rstrip("_").replace("_", "-").lower()
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / name}.db"

    def make_data_dir(self) -> None:
        """Make the data folder unless it is there; raises as ``storage_errors``."""
        with storage_errors(str(self.data_dir)):
            self.data_dir.mkdir(parents=True, exist_ok=True)


SHARED_MARK: Final = "used-with-another-database"
"""A file in an artifact store: that a data folder's own databases do not know all of its artifacts."""


class ArtifactSettings(DataSettings):
    """Settings of a server that keeps artifacts."""

    artifacts_uri: str = Field(
        "",
        description="folder or fsspec URI of artifacts, which exporter, trainer and evaluator share; empty "
        "means artifacts in the data folder",
    )

    @property
    def artifacts(self) -> str:
        """The place of the artifact store with its default filled in."""
        return self.artifacts_uri or str(self.data_dir.absolute() / "artifacts")

    @property
    def keeps_all_here(self) -> bool:
        """Whether database and artifacts are in the data folder."""
        folder = self.data_dir.absolute()
        is_inside = self.database.startswith(f"sqlite:///{folder}/")
        return is_inside and self.artifacts == str(folder / "artifacts")

    def make_data_dir(self) -> None:
        """As of any server; an artifact store that others share is marked."""
        super().make_data_dir()
        if not self.keeps_all_here and "://" not in self.artifacts:
            folder = Path(self.artifacts)
            with storage_errors(str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / SHARED_MARK).touch()


class ModelSettings(ArtifactSettings):
    """Settings of a server that runs models."""

    models_dir: Path | None = Field(
        None, description="folder of the base models; left out: models in the data folder"
    )

    @property
    def models(self) -> Path:
        """The folder of the base models with its default filled in."""
        return (self.models_dir or self.data_dir / "models").absolute()


class SettingsInvalid(Exception):
    """A flag or a variable of the environment holds a bad value; the message is one line."""


Settings = TypeVar("Settings", bound=BaseSettings)


def load_settings(
    settings_type: type[Settings], argv: Sequence[str] | None = None, *, program: str
) -> Settings:
    """Settings from flags (``sys.argv`` without the program if ``argv`` is None) and the environment.

    Raises:
        SettingsInvalid: an unknown flag or a bad value, in one line.
        SystemExit: ``--help`` was printed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        source: CliSettingsSource[Settings] = CliSettingsSource(
            settings_type, cli_prog_name=program, cli_parse_args=arguments, cli_exit_on_error=False
        )
        return settings_type(_cli_settings_source=source)
    except ValidationError as error:
        raise SettingsInvalid("; ".join(setting_problems(settings_type, error))) from error
    except SettingsError as error:
        raise SettingsInvalid(" ".join(str(error).split())) from error


def setting_problems(settings_type: type[BaseSettings], error: ValidationError) -> list[str]:
    """A line for each wrong setting: its name, its value, what would be right, and where it is given."""
    prefix = settings_type.model_config.get("env_prefix", "")
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        flag = str(problem["loc"][0]).replace("_", "-") if problem["loc"] else ""
        reason = problem["msg"].removeprefix("Value error, ")
        value = problem["input"]
        lines.append(
            f"{path}: {value!r} is not accepted: {reason} (flag --{flag}, environment {prefix}{path.upper()})"
        )
    return lines
