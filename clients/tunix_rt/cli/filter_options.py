"""Options that say which traces are meant."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from tunix_rt import v1

_AGE = re.compile(r"(\d+)\s*(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}

_which = partial(typer.Option, rich_help_panel="Which traces")


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """The options of every command that takes a trace filter."""

    source: Annotated[
        list[str] | None, _which("--source", help="Only traces of this source (may be repeated).")
    ] = None
    contains: Annotated[str, _which("--contains", help="Only traces whose prompt contains this text.")] = ""
    where: Annotated[
        list[str] | None,
        _which(
            "--where",
            metavar="KEY[=VALUE]",
            help="Only traces whose metadata has this (may be repeated).",
        ),
    ] = None
    without: Annotated[
        list[str] | None,
        _which(
            "--without",
            metavar="KEY",
            help="Only traces without this key in their metadata (may be repeated).",
        ),
    ] = None
    created_after: Annotated[
        str | None,
        _which(
            "--created-after",
            "--since",
            metavar="TIME",
            help="Only traces stored then or later: 2026-01-31, 2026-01-31T12:00, or 2d, 3h, 10min ago.",
        ),
    ] = None
    created_before: Annotated[
        str | None,
        _which("--created-before", "--until", metavar="TIME", help="Only traces stored before then."),
    ] = None
    min_score: Annotated[
        list[str] | None,
        _which(
            "--min-score",
            metavar="CRITERION=VALUE",
            help="Only traces whose latest score is at least this (may be repeated).",
        ),
    ] = None
    is_conversation: Annotated[
        bool | None,
        _which(
            "--conversations/--no-conversations",
            help="Only conversations, or only traces of a prompt, steps and an answer.",
        ),
    ] = None
    has_tool_calls: Annotated[
        bool | None,
        _which(
            "--tool-calls/--no-tool-calls",
            help="Only traces in which the assistant calls a tool, or calls none.",
        ),
    ] = None
    min_assistant_turns: Annotated[
        int | None,
        _which(
            "--min-turns",
            min=1,
            help="Only traces in which the assistant speaks at least so often; one that is no conversation "
            "counts 1.",
        ),
    ] = None
    max_assistant_turns: Annotated[
        int | None,
        _which("--max-turns", min=1, help="Only traces in which the assistant speaks at most so often."),
    ] = None

    def filter(self) -> v1.TraceFilter | None:
        """The filter; None when no option was given.

        A VALUE of `--where KEY=VALUE` that reads as a JSON number, boolean or null is one; any other is a
        text. KEY alone matches traces that have the key. Raises typer.BadParameter for a malformed condition,
        time or score.
        """
        conditions = [_condition(given) for given in self.where or ()]
        conditions += [v1.MetadataCondition(key=key, exists=False) for key in self.without or ()]
        made = v1.TraceFilter(
            sources=self.source or (),
            prompt_contains=self.contains,
            metadata=conditions,
            created_from=moment("--created-after", self.created_after),
            created_before=moment("--created-before", self.created_before),
            scores=[_score(given) for given in self.min_score or ()],
            is_conversation=self.is_conversation,
            has_tool_calls=self.has_tool_calls,
            min_assistant_turns=self.min_assistant_turns or 0,
            max_assistant_turns=self.max_assistant_turns or 0,
        )
        return made if made.ByteSize() else None


def moment(option: str, given: str | None) -> Timestamp | None:
    """The time that was given to ``option``; raises typer.BadParameter."""
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
