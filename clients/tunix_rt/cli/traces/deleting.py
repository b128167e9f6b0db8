"""`tunix-rt traces delete`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tunix_rt.cli import text
from tunix_rt.cli.command import command
from tunix_rt.cli.resources import short_name, trace_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.traces.app import app
from tunix_rt.errors import NotFoundError

_SHOWN = 5


def can_ask() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty()


@command(
    app,
    "delete",
    example=(
        "tunix-rt traces delete $TRACE",
        "tunix-rt traces delete $TRACE $OTHER --yes",
    ),
)
def delete(
    session: Session,
    names: Annotated[list[str], typer.Argument(metavar="TRACE", help="Names or ids of traces.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete traces. Ids and digests stay on record; snapshots that held them can be streamed no more."""
    wanted = list(dict.fromkeys(trace_name(name) for name in names))
    if not yes and not can_ask():
        raise typer.BadParameter("there is no terminal to ask on; --yes deletes without asking")
    with session.connect() as client:
        # All names are looked up before the first trace is gone, so that a wrong one deletes nothing.
        found = {trace.name: trace for trace in map(client.trace_store.get_trace, wanted)}
        traces = list(found.values())
        if not yes:
            for trace in traces[:_SHOWN]:
                line = f"{short_name(trace.name)}  {text.one_line(trace.prompt, 60)}"
                session.err.print(line, markup=False, highlight=False)
            if len(traces) > _SHOWN:
                session.err.print(f"and {text.counted(len(traces) - _SHOWN, 'more', 'more')}")
            typer.confirm(f"Delete {text.counted(len(traces), 'trace')} for good?", abort=True, err=True)
        deleted: list[str] = []
        for name in found:
            try:
                client.trace_store.delete_trace(name)
            except NotFoundError:
                # Somebody else was faster.
                continue
            deleted.append(name)
    if session.as_json:
        session.print_json({"deleted": deleted})
    else:
        session.out.print(f"{text.counted(len(deleted), 'trace')} deleted")
