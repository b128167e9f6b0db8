"""The root of the command line.

A command's module is imported when the command is called: the root and its help know each command by name and
purpose only, so that they answer at once.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tunix_rt.cli.console import standard_streams
from tunix_rt.cli.effects import EFFECTS
from tunix_rt.cli.errors import Group, failure_outside
from tunix_rt.cli.session import (
    DataDirOption,
    JsonOption,
    ServerOption,
    SharedOptions,
    VerboseOption,
    leave_on_sigterm,
)
from tunix_rt.cli.text import examples

_LOOP = "The loop"
_STAGES = "Its stages, one at a time"
_HOST = "This computer"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command: its modules, of which the first has the app that the others add commands to."""

    modules: str
    app: str
    purpose: str
    panel: str


_COMMANDS = {
    "demo": _Entry("demo", "demo_app", "Show the whole loop on generated traces and a real model.", _LOOP),
    "loop": _Entry("loops", "app", "Run a loop from a YAML file: traces in, comparison report out.", _LOOP),
    "traces": _Entry(
        "traces traces_import traces_score",
        "app",
        "Import, generate, score, compare and export reasoning traces.",
        _STAGES,
    ),
    "dataset": _Entry(
        "datasets dataset_export", "app", "Build immutable datasets from traces, and export them.", _STAGES
    ),
    "train": _Entry(
        "training training_start training_export", "app", "Fine-tune a base model on a dataset.", _STAGES
    ),
    "evalset": _Entry(
        "eval_sets benchmarks", "app", "Import, generate and look at sets of questions.", _STAGES
    ),
    "evaluate": _Entry("evaluate", "evaluate_app", "Let a model answer an eval set.", _STAGES),
    "evaluation": _Entry("evaluations evaluate", "app", "Look at evaluations, item by item.", _STAGES),
    "grade": _Entry("grading", "app", "Grade one answer and store nothing, to try a grader.", _STAGES),
    "compare": _Entry("comparisons", "app", "Say whether one evaluation is better than another.", _STAGES),
    "reports": _Entry(
        "reports regressions",
        "app",
        "List, show, rename and delete comparison reports, and look at what went wrong.",
        _STAGES,
    ),
    "models": _Entry("this_computer", "models_app", "Fetch, list, verify and delete base models.", _HOST),
    "up": _Entry("up", "up_app", "Serve all four services on one address.", _HOST),
    "du": _Entry("this_computer", "du_app", "Show what takes the space of the data folder.", _HOST),
    "gc": _Entry("this_computer", "gc_app", "Free what nothing in the data folder names.", _HOST),
    "doctor": _Entry("doctor", "app", "Say what is installed, what is missing and how to get it.", _HOST),
}


def _inside(group: str) -> list[str]:
    """The commands of a group; none of a command that stands alone."""
    words = (command.split() for command in EFFECTS)
    return list(dict.fromkeys(rest[0] for first, *rest in words if first == group and rest))


class _LazyGroup(Group):
    """Holds a stand-in for each command, and loads the command itself when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._next = ""
        self._for_programs = False
        for name, entry in _COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=entry.purpose, rich_help_panel=entry.panel)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if ctx is not None and ctx.resilient_parsing and not self._next and (names := _inside(cmd_name)):
            # The shell completes the next word, and need not wait for what the commands load.
            return TyperGroup(name=cmd_name, commands={name: TyperCommand(name) for name in names})
        first, *others = (f"tunix_rt.cli.{module}" for module in entry.modules.split())
        app: typer.Typer = getattr(import_module(first), entry.app)
        if self._next not in [command.name for command in app.registered_commands]:
            for module in others:
                import_module(module)
        command = typer.main.get_command(app)
        command.name = cmd_name
        if self._for_programs:
            command.no_args_is_help = False
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self._next = args[1] if len(args) > 1 else ""
        if args[1:3] == ["import", "bench"]:
            # A command of two words, which stands in a module of its own.
            self._next = "import bench"
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        index = self._index()
        return index.shell_complete(typer.Context(index, info_name=ctx.info_name), incomplete)

    def main(self, args: Sequence[str] | None = None, *positional: Any, **named: Any) -> Any:
        """Run a command line; with `--json` all that goes wrong becomes a document on stderr."""
        given = list(sys.argv[1:] if args is None else args)
        # What follows `--` is no option.
        if "--json" not in given[: given.index("--") if "--" in given else None]:
            return super().main(given, *positional, **named)
        self._for_programs = True
        try:
            with self.make_context(named.get("prog_name"), given) as ctx:
                self.invoke(ctx)
        except typer.Exit as left:
            sys.exit(left.exit_code)
        except BrokenPipeError:
            # Whoever read has left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            failure = failure_outside(error)
            if failure is None:
                raise
            failure.write_json()
            sys.exit(failure.exit_code)
        sys.exit(0)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._index().format_help(ctx, formatter)

    def _index(self) -> Group:
        """A group of the stand-ins."""
        return Group(
            name=self.name,
            commands=dict(self.commands),
            params=self.params,
            help=self.help,
            epilog=self.epilog,
        )


app = typer.Typer(
    cls=_LazyGroup,
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            installed = version("tunix-rt")
        except PackageNotFoundError:
            installed = "(not installed as a package)"
        typer.echo(f"tunix-rt {installed}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "tunix-rt demo",
        "tunix-rt loop run loop.yaml --server localhost:50050",
        "tunix-rt traces import traces.jsonl",
    )
)
def root(
    ctx: typer.Context,
    server: ServerOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = 0,
    show_version: Annotated[  # noqa: ARG001
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Fine-tune a language model on reasoning traces, and measure whether it got better.

    Without a server, commands start one inside this process on the data folder.

    With --json, the result is one JSON document on stdout, and an error is one on stderr.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 rejected by a gate, 130 by Ctrl-C, 143 by SIGTERM.
    """
    ctx.obj = SharedOptions(server=server, data_dir=data_dir, as_json=as_json, verbose=verbose)


def main() -> None:
    """Entry point of `tunix-rt`. A SIGTERM unwinds the stack, so that an embedded server stops cleanly; if
    that takes much longer than the server's grace, the process ends at once."""
    # What is imported stays, and to look through it again and again takes a tenth of the start.
    gc.set_threshold(50_000, 20, 20)
    standard_streams()
    signal.signal(signal.SIGTERM, leave_on_sigterm)
    try:
        app(prog_name="tunix-rt")
    except OSError as error:
        # Help and version are written by typer, whose output may have no room either.
        raise SystemExit(f"error: {error.strerror or error}") from None
