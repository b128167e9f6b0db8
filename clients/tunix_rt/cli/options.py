"""The options that every command takes, before the command or after it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

SERVER_VARIABLE = "TUNIX_RT_SERVER"
DATA_DIR_VARIABLE = "TUNIX_RT_DATA_DIR"

_PANEL = "Shared options"

# The environment is read in `resolve` and not by typer: else a variable would win over an option that was
# given before the command.
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="ADDR",
        help=f"Use a running server: HOST:PORT. \\[env: {SERVER_VARIABLE}]",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help=f"Folder that the embedded server keeps its data in. \\[env: {DATA_DIR_VARIABLE}]",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=_PANEL)]
VerboseOption = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Log more; twice: log all, and show where an error came from.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """What was given at one place of the command line; None, False and 0 stand for "not given"."""

    server: str | None = None
    data_dir: Path | None = None
    as_json: bool = False
    verbose: int = 0

    def over(self, outer: SharedOptions) -> SharedOptions:
        """These options, and those of ``outer`` where these were not given."""
        return SharedOptions(
            server=self.server or outer.server,
            data_dir=self.data_dir or outer.data_dir,
            as_json=self.as_json or outer.as_json,
            verbose=max(self.verbose, outer.verbose),
        )

    def over_environment(self) -> SharedOptions:
        """These options, and those of the environment where these were not given."""
        folder = os.environ.get(DATA_DIR_VARIABLE)
        return self.over(
            SharedOptions(
                server=os.environ.get(SERVER_VARIABLE) or None, data_dir=Path(folder) if folder else None
            )
        )
