"""What Ctrl-C says while a command waits for a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from tunix_rt.cli.session import Session

_INTERRUPTED = 130


@contextmanager
def waiting_for(session: Session, job: str, look: str) -> Iterator[None]:
    """Around the wait for ``job``: on Ctrl-C says what becomes of it and leaves with exit code 130.

    ``look`` is the command that looks at it later.
    """
    try:
        yield
    except KeyboardInterrupt:
        if session.embedded:
            line = f"interrupted: the {job} stops now and goes on at the next start; look with: {look}"
        else:
            line = f"interrupted: the {job} keeps running on the server; look with: {look}"
        session.err.print(line, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(_INTERRUPTED) from None
