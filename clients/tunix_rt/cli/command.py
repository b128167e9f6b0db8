"""How a command is declared: its shared options, its example and what happens to its errors, in one place."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import traceback
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from tunix_rt.cli.documents import UNDECLARED
from tunix_rt.cli.effects import effect_of
from tunix_rt.cli.errors import Command, Failure, Group, TypedNames, failure_of
from tunix_rt.cli.session import (
    INTERRUPTED,
    DataDirOption,
    JsonOption,
    ServerOption,
    Session,
    SharedOptions,
    VerboseOption,
)
from tunix_rt.cli.text import examples
from tunix_rt.escapes import visible

_SHARED: tuple[tuple[str, Any, Any], ...] = (
    ("server", ServerOption, None),
    ("data_dir", DataDirOption, None),
    ("as_json", JsonOption, False),
    ("verbose", VerboseOption, 0),
)


def group(purpose: str) -> typer.Typer:
    """An app for commands that share a first word."""
    app = typer.Typer(
        cls=Group, help=purpose, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )  # fmt: skip
    # A group with one command stays a group.
    app.callback(help=purpose)(lambda: None)
    return app


def single() -> typer.Typer:
    """An app for one command that has a word of its own."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def command(
    app: typer.Typer, name: str, *, example: str | tuple[str, ...], prints: Any = UNDECLARED
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register ``function(session, ...)`` as a command: its docstring is its help.

    Its parameters after ``session`` are typer's; one whose type is a dataclass adds an option for each of its
    fields. The shared options are added. An error becomes clear lines on stderr, or one JSON document there,
    and exit code 1, Ctrl-C exit code 130.

    Args:
        app: the app that it belongs to.
        name: its word.
        example: one command line, or several.
        prints: the kind of the document that it writes with `--json`, or a tuple of several: a message, a
            ``TypedDict``, a list of either, or ``Lines``. Its schema stands in docs/reference/json.
    """
    lines = (example,) if isinstance(example, str) else example
    kinds = prints if isinstance(prints, tuple) else (prints,)

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(function, include_extras=True)
        together: dict[str, Any] = {
            name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)
        }

        @functools.wraps(function)
        def run(ctx: typer.Context, **arguments: Any) -> None:
            here = SharedOptions(**{name: arguments.pop(name) for name, _, _ in _SHARED})
            given = here.over(ctx.obj) if isinstance(ctx.obj, SharedOptions) else here
            session = Session(given, effect_of(" ".join(_words(ctx))), prints=kinds)
            session.set_up_logging()
            for name, options in together.items():
                own = {field.name: arguments.pop(field.name) for field in dataclasses.fields(options)}
                arguments[name] = options(**own)
            with _reported(session, ctx):
                function(session, **arguments)

        run.prints = kinds  # type: ignore[attr-defined]
        _declare(run, function, hints)
        app.command(name, cls=Command, epilog=examples(*lines))(run)
        return function

    return register


def _words(ctx: Any) -> Iterator[str]:
    """The words of a command, without the program's name."""
    if ctx.parent is not None:
        yield from _words(ctx.parent)
        yield ctx.info_name or ""


def _declare(run: Callable[..., None], function: Callable[..., None], hints: dict[str, Any]) -> None:
    """Gives ``run`` the parameters of ``function``, a context for the session, and the shared options."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        declared
        for parameter in list(inspect.signature(function).parameters.values())[1:]
        for declared in _options(parameter.replace(annotation=hints[parameter.name], kind=keyword))
    ]
    context = inspect.Parameter("ctx", keyword, annotation=typer.Context)
    shared = [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, annotation, default in _SHARED
    ]
    parameters = [context, *own, *shared]
    run.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {
        "return": None
    }
    # typer looks at the wrapped function's hints where it finds one.
    del run.__wrapped__  # type: ignore[attr-defined]


def _options(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    if not dataclasses.is_dataclass(parameter.annotation):
        yield parameter
        return
    hints = typing.get_type_hints(parameter.annotation, include_extras=True)
    for field in dataclasses.fields(parameter.annotation):
        yield inspect.Parameter(
            field.name, parameter.kind, default=field.default, annotation=hints[field.name]
        )


@contextmanager
def _reported(session: Session, ctx: typer.Context) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        session.leave(Failure("interrupted", "CANCELLED", "INTERRUPTED", exit_code=INTERRUPTED))
    except typer.BadParameter as error:
        error.message = visible(error.message)
        raise
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except Exception as error:
        failure = failure_of(error, TypedNames(ctx.command.params, ctx.params))
        if session.verbose > 1:
            told = traceback.format_exc()
            if session.as_json:
                failure = dataclasses.replace(failure, metadata={**failure.metadata, "traceback": told})
            else:
                session.err.print(told, soft_wrap=True)
        session.leave(failure)
