"""`tunix-rt up`: serve all four services on one address."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tunix_rt.cli import tables
from tunix_rt.cli.command import command, single
from tunix_rt.cli.options import SERVER_VARIABLE
from tunix_rt.cli.session import Session

app = single()


@command(app, "up", example=("tunix-rt up", "tunix-rt up --listen 127.0.0.1:0 --data-dir ./data"))
def up(
    session: Session,
    listen: Annotated[
        str,
        typer.Option("--listen", "-l", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one."),
    ] = "127.0.0.1:50050",
) -> None:
    """Serve all four services on one address until Ctrl-C; one server at a time owns a data folder."""
    import tunix_rt_local

    tunix_rt_local.serve_forever(session.data_dir, listen, on_ready=lambda address: _ready(session, address))
    session.say("stopped")


def _ready(session: Session, address: str) -> None:
    if session.as_json:
        session.print_json({"address": address, "data_dir": str(session.data_dir)})
        sys.stdout.flush()
        return
    lines = [
        ("address", address),
        ("data folder", str(session.data_dir)),
        ("use it with", f"export {SERVER_VARIABLE}={address}"),
        ("or", f"tunix-rt traces list --server {address}"),
        ("stop it with", "Ctrl-C"),
    ]
    session.out.print(tables.facts(lines))
