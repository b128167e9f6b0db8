"""`tunix-rt up`: serve the four services on this computer."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any, TypedDict

import typer

from tunix_rt.cli import idle, tables
from tunix_rt.cli.command import command, single
from tunix_rt.cli.effects import Effect
from tunix_rt.cli.options import short_name
from tunix_rt.cli.session import SERVER_VARIABLE, Session
from tunix_rt.errors import TunixRtError

up_app = single()
# Jobs of each kind that are looked at, the newest.
_LOOKED_AT = 200


class ServingDocument(TypedDict):
    """Where a server listens; written once it does."""

    address: Annotated[str, "HOST:PORT, for --server."]
    data_dir: Annotated[str, "The folder that its data is in."]


@command(
    up_app,
    "up",
    example=(
        "tunix-rt up",
        "tunix-rt up --listen 127.0.0.1:0 --data-dir ./data",
        "tunix-rt up --redact-spans",
    ),
    prints=ServingDocument,
)
def up(
    session: Session,
    listen: Annotated[
        str,
        typer.Option("--listen", "-l", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one."),
    ] = "127.0.0.1:50050",
    redact_spans: Annotated[
        bool,
        typer.Option(
            "--redact-spans",
            help="Replace e-mail addresses, phone numbers, keys and the like in spans of OpenTelemetry by "
            "placeholders such as <EMAIL_1>, before anything is stored.",
        ),
    ] = False,
    host: Annotated[str | None, typer.Option("--host", hidden=True)] = None,
    port: Annotated[str | None, typer.Option("--port", hidden=True)] = None,
) -> None:
    """Serve all four services on one address until Ctrl-C. A data folder has one server at a time."""
    if host is not None or port is not None:
        # What other servers call it.
        raise typer.BadParameter(
            f"{'--port' if host is None else '--host'} is no option of `up`; "
            f"give --listen {host or '127.0.0.1'}:{port or '50050'}"
        )
    import tunix_rt_local

    tunix_rt_local.serve_forever(
        session.data_dir,
        listen,
        on_ready=lambda address: _ready(session, address),
        redact_spans=redact_spans,
    )
    session.say("stopped")
    _say_what_goes_on(session)


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


def _say_what_goes_on(session: Session) -> None:
    """After the server has stopped: which jobs go on at the next start, and how to look at them before."""
    with suppress(TunixRtError), session.embedded_client(session.data_dir, Effect.READS) as client:
        kinds: dict[str, Iterable[Any]] = {
            "train show": client.trainer.list_training_jobs(),
            "evaluation show": client.evaluator.list_evaluations(),
            "dataset show": client.exporter.list_datasets(),
        }
        for look, jobs in kinds.items():
            for job in filter(idle.is_unfinished, islice(jobs, _LOOKED_AT)):
                session.notify(
                    f"{idle.at_next_start(job)}; look without starting it: "
                    f"tunix-rt {look} {short_name(job.name)}"
                )
