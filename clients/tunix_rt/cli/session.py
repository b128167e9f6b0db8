"""What a command works with: its options resolved, where it writes, and a client."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, TypeVar

import typer

from tunix_rt.cli import idle
from tunix_rt.cli.console import SafeConsole
from tunix_rt.cli.documents import UNDECLARED, as_document, document_text
from tunix_rt.cli.effects import Effect
from tunix_rt.cli.errors import Failure, line_of, write_line
from tunix_rt.errors import FailedPreconditionError
from tunix_rt.escapes import visible

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

    from tunix_rt import Client
    from tunix_rt.cli.progress import Reporter
    from tunix_rt.cli.tables import Row
    from tunix_rt.jobs import Job
    from tunix_rt.rpc.caller import Waited

Shown = TypeVar("Shown", bound="Message")

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C."""
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
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON document; errors are JSON on stderr.", rich_help_panel=_PANEL
    ),
]
VerboseOption = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Log more. Twice: log everything, and show where an error came from.",
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


# Of the embedded servers of this process.
_graces_s: list[float] = []
_MARGIN_S: Final = 5.0
_STANDARD_ERROR: Final = 2
# A wait that programs are told of.
_LONG_S: Final = 10.0
# A job that is cancelled ends at its next step.
_SETTLED_S: Final = 8.0
_LOOK_S: Final = 0.1
# The newest jobs of a kind.
_LOOKED_AT: Final = 200


def leave_on_sigterm(signal_number: int, frame: object) -> NoReturn:  # noqa: ARG001
    """Handle SIGTERM: unwind the stack, and end the process a few seconds after an embedded server should
    have."""
    # For a thread of the server that is stuck, which Python would wait for.
    seconds = max(_graces_s, default=0.0) + _MARGIN_S
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STANDARD_ERROR)
    raise SystemExit(128 + signal_number)


class Session:
    """One call of one command.

    ``server`` is None when the command starts an embedded server on ``data_dir``. ``out`` writes the
    command's result to stdout, ``err`` everything else to stderr. With `--json` there are documents alone on
    both: on stdout one of the kinds that the command ``prints``.
    """

    def __init__(
        self, options: SharedOptions, effect: Effect = Effect.WORKS, *, prints: tuple[Any, ...] = UNDECLARED
    ) -> None:
        resolved = options.over_environment()
        self.given = options
        self.effect = effect
        self._alone = False
        self.server = resolved.server
        self.data_dir = (resolved.data_dir or _default_data_dir()).expanduser().absolute()
        self.as_json = resolved.as_json
        self.verbose = resolved.verbose
        self.prints = prints
        self.out = SafeConsole(sys.stdout)
        self.err = SafeConsole(sys.stderr)

    @property
    def embedded(self) -> bool:
        """True when the server lives in this process and ends with it."""
        return self.server is None

    @contextmanager
    def connect(self, effect: Effect | None = None) -> Iterator[Client]:
        """A client of the given server, or of an embedded one that ends with the context; raises as both.

        ``effect`` is given where options of a command change it. What reads asks the server that runs on the
        data folder, should there be one.
        """
        from tunix_rt import Client

        self.effect = effect or self.effect
        self._alone = False
        if self.server is None and self.effect is Effect.READS:
            self.server = self._server_beside()
        if self.server is None:
            self._alone = self.effect is Effect.READS
            with self.embedded_client(self.data_dir) as client:
                yield client
            return
        with Client(self.server, on_waiting=self._say_waiting) as client:
            yield client

    def known_names(self, collection: str, begun: str, most: int) -> list[tuple[str, str]]:
        """Ids and display names in the data folder of which one begins so; no server is started for it."""
        import tunix_rt_local

        return tunix_rt_local.known_names(self.data_dir, collection, begun, most)

    def known_tags(self, collection: str, begun: str, most: int) -> list[str]:
        """Tags in the data folder that begin so, as ``known_names``."""
        import tunix_rt_local

        return tunix_rt_local.known_tags(self.data_dir, collection, begun, most)

    def data_bytes(self) -> int | None:
        """What the data folder takes; None where the data is a server's."""
        import tunix_rt_local

        return tunix_rt_local.folder_bytes(self.data_dir) if self.embedded else None

    def _server_beside(self) -> str | None:
        import tunix_rt_local

        return tunix_rt_local.server_of(self.data_dir)

    @contextmanager
    def embedded_client(self, data_dir: Path, effect: Effect | None = None) -> Iterator[Client]:
        """A client of a server inside this process, which ends with the context; ``effect`` as ``connect``.

        Raises TunixRtError when the folder is in use or cannot be written, ModuleNotFoundError when what the
        server needs is not installed.
        """
        import tunix_rt_local
        from tunix_rt import Client

        with (
            tunix_rt_local.embedded(data_dir, jobs=(effect or self.effect).value) as server,
            Client(server.address) as client,
        ):
            _graces_s.append(server.grace_s)
            yield client

    def check_detached(self, detach: bool) -> None:
        """Raise typer.BadParameter for `--detach` without a server that goes on."""
        if detach and self.embedded:
            raise typer.BadParameter("--detach needs a server: the embedded one ends with this command")

    def say_how_to_watch(self, job: Job, watch: str) -> None:
        """After `--detach`: the command, ``watch`` without a server, that follows the job."""
        server = f" --server {self.given.server}" if self.given.server else ""
        self.say(f"{job.name} goes on at the server; watch it with: {watch}{server}")

    @contextmanager
    def waiting_for(self, what: str, job: Job, look: str) -> Iterator[None]:
        """Around the wait for ``job``: on Ctrl-C, say what becomes of it and leave with exit code 130.

        ``what`` is its kind in words, ``look`` the command that looks at it later.
        """
        becomes = f"stops now; {idle.goes_on(job)}" if self.embedded else "keeps running on the server"
        try:
            yield
        except KeyboardInterrupt:
            self.leave_interrupted(f"the {what} {becomes}; look with: {look}", name=job.name)

    def check_runs(self, get: Callable[[], Job]) -> None:
        """Raise FailedPreconditionError for a job that has not ended, and that nothing will go on with while
        this command waits."""
        if self._nothing_runs() and not idle.has_ended(job := get()):
            raise FailedPreconditionError(
                f"{job.name} has not ended, and no server runs it now; {idle.goes_on(job)}",
                reason="JOB_INTERRUPTED",
                metadata={"name": job.name},
            )

    def cancelled(self, cancel: Callable[[str], Shown], get: Callable[[str], Shown], name: str) -> Shown:
        """Have a job cancelled, and give it as it is then.

        The embedded server, which ends it, ends with the command: so the job has ended, by a second wish if
        it does not heed the first for some seconds.
        """
        job = cancel(name)
        for again in (True, False):
            give_up = time.monotonic() + _SETTLED_S
            while self.embedded and not idle.has_ended(job) and time.monotonic() < give_up:
                time.sleep(_LOOK_S)
                job = get(name)
            if again and self.embedded and not idle.has_ended(job):
                job = cancel(name)
        if self.embedded and not idle.has_ended(job):
            self.notify(idle.told([job]))
        return job

    def say_what_goes_on_too(
        self, job: Job, jobs: Callable[[], Iterable[Any]], when: Literal["first", "too"] = "too"
    ) -> None:
        """Of what a command starts in this process: which jobs of its kind, of ``jobs``, it takes up besides;
        with "first", only those that were made before it, and so go before it."""
        if not self.embedded or self.as_json:
            return
        for other in islice(jobs(), _LOOKED_AT):
            before = other.name < job.name if when == "first" else other.name != job.name
            if before and idle.is_unfinished(other):
                self.say(f"{other.name} goes on {when}; it waited or was interrupted")

    def _nothing_runs(self) -> bool:
        """Whether jobs of the data folder that have not ended wait for a command that runs them."""
        if not self._alone:
            return False
        import tunix_rt_local

        return not tunix_rt_local.in_use(self.data_dir)

    def as_it_is(self, messages: Sequence[Shown]) -> Sequence[Shown]:
        """The messages that are to be shown, and a line about the jobs among them that nothing runs.

        Such a job waits in the queue, whatever a server that was killed has left in its state.
        """
        if not any(map(idle.is_unfinished, messages)) or not self._nothing_runs():
            return messages
        waiting = [message for message in messages if idle.is_unfinished(message)]
        self.notify(idle.told(waiting))
        return [idle.queued(message) for message in messages]

    def leave_interrupted(self, told: str, **facts: str) -> NoReturn:
        """Say what becomes of the work that Ctrl-C broke off, and leave with exit code 130.

        ``facts`` are for programs.
        """
        if self.as_json:
            self.leave(Failure(told, "CANCELLED", "INTERRUPTED", metadata=facts, exit_code=INTERRUPTED))
        self.err.print(f"interrupted: {told}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None

    def progress(self) -> Reporter:
        """What shows the progress of long work: bars on a terminal, a line now and then elsewhere."""
        from tunix_rt.cli import progress

        if self.as_json:
            return progress.Reporter()
        if self.err.is_terminal:
            return progress.LiveReporter(self.err)
        return progress.LineReporter(self.err)

    def say(self, text: str) -> None:
        """A line for people on stderr; nothing with --json."""
        if not self.as_json:
            self.err.print(text, highlight=False)

    def notify(self, text: str, *, next_page_token: str = "") -> None:
        """What is to be known beside the result, on stderr; with --json a document."""
        if self.as_json:
            write_line({"level": "NOTICE", "message": text, "next_page_token": next_page_token or None})
            return
        told = f"{text}: --page-token {next_page_token}" if next_page_token else text
        self.err.print(told, markup=False, highlight=False, soft_wrap=True)

    def say_written(self, written: int, what: str, path: Path) -> None:
        """That so many lines, each one of ``what``, were written to a file instead of being stored."""
        from tunix_rt.cli import text

        if self.as_json:
            self.print_json({"written": written, "file": str(path)})
        else:
            self.say(f"{text.counted(written, what)} written to {path}")

    def _say_waiting(self, server: Waited) -> None:
        if self.as_json and server.seconds < _LONG_S and not self.err.is_terminal:
            # What comes next is the error, or the result: programs need not tell it from a notice.
            return
        if server.seconds:
            tried = f"trying again for up to {server.seconds:,.0f} s in all"
            self.notify(f"nothing listens at {server}; {tried}; stop with Ctrl-C")
        else:
            self.notify(f"waiting for the server at {server}, which gives no answer yet; stop with Ctrl-C")

    def leave(self, failure: Failure) -> NoReturn:
        """Say on stderr what went wrong, its first line behind `error:`, and leave with its exit code."""
        if self.as_json:
            failure.write_json()
            raise typer.Exit(failure.exit_code) from None
        self.err.print("error:", style="bold red", end=" ")
        for line in failure.lines():
            self.err.print(line, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(failure.exit_code) from None

    def leave_unsound(self, told: str, reason: str) -> NoReturn:
        """Leave with exit code 1 after a result that says itself that not all is well.

        ``told`` and ``reason`` are for the error that programs read.
        """
        if self.as_json:
            self.leave(Failure(told, "FAILED_PRECONDITION", reason))
        raise typer.Exit(1)

    def print_json(self, document: Any) -> None:
        """One JSON document on stdout."""
        sys.stdout.write(document_text(document, self.prints, sys.stdout.encoding) + "\n")

    def show(self, message: Shown, print_it: Callable[[Console, Shown], None]) -> None:
        """A message of the contract in the form that was asked for: JSON, or as ``print_it`` prints it."""
        message = self.as_it_is([message])[0]
        if self.as_json:
            self.print_message(message)
        else:
            print_it(self.out, message)

    def print_message(self, message: Message) -> None:
        """A message of the contract as JSON."""
        self.print_json(as_document(message))

    def print_messages(self, messages: Iterable[Message]) -> None:
        """Messages of the contract as one JSON array, written as they come."""
        separator = "[\n  "
        for message in messages:
            listed = document_text([as_document(message)], self.prints, sys.stdout.encoding)
            sys.stdout.write(separator + listed[len("[\n  ") : -len("\n]")])
            separator = ",\n  "
        sys.stdout.write("[]\n" if separator == "[\n  " else "\n]\n")

    def show_all(
        self,
        messages: Iterable[Shown],
        columns: Sequence[str],
        row: Callable[[Shown], Row],
        none: str,
        important: Sequence[str] = (),
        *,
        filtered: bool = False,
    ) -> None:
        """Messages as a JSON array, or as a table with these columns and a ``row`` for each.

        A column that begins with `?` is left out where no row has anything in it. ``none`` is the line that
        takes the place of an empty table, and says so of one that is ``filtered``. A narrow window shows the
        ``important`` columns first.
        """
        from tunix_rt.cli import tables

        messages = self.as_it_is(list(messages))
        if self.as_json:
            self.print_messages(messages)
            return
        cells = [row(message) for message in messages]
        kept = [
            number
            for number, column in enumerate(columns)
            if not column.startswith("?") or any(entry[number] for entry in cells)
        ]
        rows = tables.table(*(columns[number].removeprefix("?") for number in kept), important=important)
        for entry in cells:
            tables.add_row(rows, *(entry[number] for number in kept))
        tables.print_table(self.out, rows, tables.none_of(none, filtered=filtered))

    def set_up_logging(self) -> None:
        """Log lines go to stderr: errors always, more with -v and -vv.

        Warnings of an embedded server, such as a job that failed, are left out: the command says so itself.
        """
        levels = (logging.ERROR, logging.INFO, logging.DEBUG)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JsonFormatter() if self.as_json else _VisibleFormatter(_LOG_LINE))
        logging.basicConfig(level=levels[min(self.verbose, 2)], handlers=[handler], force=True)
        if not self.verbose:
            # A command that ends early breaks off calls of its embedded server: gRPC prints a traceback.
            logging.getLogger("grpc").setLevel(logging.CRITICAL)


def _default_data_dir() -> Path:
    from platformdirs import user_data_path

    return user_data_path("tunix-rt", appauthor=False)


_LOG_LINE: Final = "%(levelname).1s %(name)s: %(message)s"


class _JsonFormatter(logging.Formatter):
    """Lines of the log as documents."""

    def format(self, record: logging.LogRecord) -> str:
        told = f"{record.name}: {super().format(record)}"
        return line_of({"level": record.levelname, "message": told, "next_page_token": None})


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
