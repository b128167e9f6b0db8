"""Which traces a command means: the options, and the filter that they make."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from tunix_rt import v1

_AGE = re.compile(r"(\d+)\s*(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_WHICH = "Which traces"


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """The options of every command that takes a trace filter."""

    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", help="Only traces of this source (may be repeated).", rich_help_panel=_WHICH
        ),
    ] = None
    contains: Annotated[
        str,
        typer.Option("--contains", help="Only traces whose prompt holds this text.", rich_help_panel=_WHICH),
    ] = ""
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="KEY[=VALUE]",
            help="Only traces with this in their metadata (may be repeated).",
            rich_help_panel=_WHICH,
        ),
    ] = None
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="KEY",
            help="Only traces without this key in their metadata (may be repeated).",
            rich_help_panel=_WHICH,
        ),
    ] = None
    created_after: Annotated[
        str | None,
        typer.Option(
            "--created-after",
            metavar="TIME",
            help="Only traces stored then or later: 2026-01-31, 2026-01-31T12:00, or 2d, 3h, 10min ago.",
            rich_help_panel=_WHICH,
        ),
    ] = None
    created_before: Annotated[
        str | None,
        typer.Option(
            "--created-before",
            metavar="TIME",
            help="Only traces stored before then.",
            rich_help_panel=_WHICH,
        ),
    ] = None
    min_score: Annotated[
        list[str] | None,
        typer.Option(
            "--min-score",
            metavar="CRITERION=VALUE",
            help="Only traces whose latest score is at least this (may be repeated).",
            rich_help_panel=_WHICH,
        ),
    ] = None

    def filter(self) -> v1.TraceFilter | None:
        """The filter; None when no option was given. Raises typer.BadParameter."""
        return trace_filter(
            self.source or (),
            self.contains,
            self.where or (),
            without=self.without or (),
            created_after=self.created_after,
            created_before=self.created_before,
            min_score=self.min_score or (),
        )


def trace_filter(
    sources: Iterable[str] = (),
    contains: str = "",
    where: Iterable[str] = (),
    *,
    without: Iterable[str] = (),
    created_after: str | None = None,
    created_before: str | None = None,
    min_score: Iterable[str] = (),
) -> v1.TraceFilter | None:
    """The filter for the options of ``FilterOptions``; None when none was given.

    A VALUE of `--where KEY=VALUE` that reads as a JSON number, boolean or null is one, all others are texts;
    KEY alone asks that it is there. Raises typer.BadParameter for what is no condition, time or score.
    """
    conditions = [_condition(text) for text in where]
    conditions += [v1.MetadataCondition(key=key, exists=False) for key in without]
    made = v1.TraceFilter(
        sources=sources,
        prompt_contains=contains,
        metadata=conditions,
        created_from=_moment("--created-after", created_after),
        created_before=_moment("--created-before", created_before),
        scores=[_score(given) for given in min_score],
    )
    return made if made.ByteSize() else None


def _moment(option: str, given: str | None) -> Timestamp | None:
    if given is None:
        return None
    age = _AGE.fullmatch(given.strip())
    try:
        if age:
            moment = datetime.now(UTC) - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
        else:
            # Without a zone, it is this computer's time.
            moment = datetime.fromisoformat(given.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{option} {given!r} is no time; give 2026-01-31, 2026-01-31T12:00, 2026-01-31T12:00Z, or an age "
            "such as 10min, 3h or 2d"
        ) from None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _score(given: str) -> v1.ScoreCondition:
    criterion, _, text = given.partition("=")
    try:
        minimum = float(text)
    except ValueError:
        minimum = math.nan
    if not criterion or not math.isfinite(minimum):
        raise typer.BadParameter(f"--min-score takes CRITERION=VALUE, such as structure=80, not {given!r}")
    return v1.ScoreCondition(criterion=criterion, minimum=minimum)


def _condition(given: str) -> v1.MetadataCondition:
    key, equals, text = given.partition("=")
    if not key:
        raise typer.BadParameter(f"--where takes KEY=VALUE or KEY, not {given!r}")
    if not equals:
        return v1.MetadataCondition(key=key, exists=True)
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = text
    if isinstance(parsed, dict | list):
        parsed = text
    try:
        return v1.MetadataCondition(key=key, equals=ParseDict(parsed, Value()))
    except ParseError:
        raise typer.BadParameter(f"--where {given}: {text} is not a value of metadata") from None
