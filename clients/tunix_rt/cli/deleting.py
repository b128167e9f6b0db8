"""What the commands that delete have in common: say what goes, ask, delete."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from tunix_rt import Client
from tunix_rt.cli import text
from tunix_rt.cli.lookup import get, named
from tunix_rt.cli.session import Session
from tunix_rt.deleting import after_deleting, delete
from tunix_rt.errors import NotFoundError, TunixRtError

if TYPE_CHECKING:
    from tunix_rt.loop.removal import LoopRemoval

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Delete it even if others were made from it; they stay.")
]


class DeletedResources(TypedDict):
    """What was deleted; what it was stays on record."""

    deleted: Annotated[
        list[str], "Resource names; those that somebody else deleted meanwhile are not among them."
    ]


def can_ask() -> bool:
    """Whether somebody can answer a question."""
    return sys.stdin.isatty()


def check_answerable(session: Session, *, yes: bool) -> None:
    """Raise typer.BadParameter for a question, unless ``yes``, that nobody can answer or that programs would
    read."""
    if not yes and session.as_json:
        raise typer.BadParameter("no question is asked with --json; --yes deletes without asking")
    if not yes and not can_ask():
        raise typer.BadParameter("there is no terminal to ask on; --yes deletes without asking")


def delete_each(names: Iterable[str], delete_one: Callable[[str], object]) -> list[str]:
    """Delete resources one by one, those that others among them use last; returns those that nobody else
    deleted first. An error tells what was deleted before."""
    deleted: list[str] = []
    waiting, put_off = deque(names), 0
    while waiting:
        name = waiting.popleft()
        try:
            delete_one(name)
        except NotFoundError:
            continue
        except TunixRtError as error:
            users = error.metadata.get("used_by", "").split(",")
            if put_off > len(waiting) or not set(users) <= set(waiting):
                raise after_deleting(error, deleted) from error.__cause__
            waiting.append(name)
            put_off += 1
        else:
            deleted.append(name)
            put_off = 0
    return deleted


def confirm(session: Session, question: str, lines: Sequence[str], *, yes: bool) -> None:
    """Show what is going to be deleted and ask, unless ``yes``; leaves the command if the answer is no.

    Raises typer.BadParameter where nobody can answer.
    """
    if yes:
        return
    if not session.as_json:
        for line in lines:
            session.err.print(line, markup=False, highlight=False, soft_wrap=True)
    check_answerable(session, yes=yes)
    typer.confirm(question, abort=True, err=True)


def with_names(client: Client, told: str, names: Iterable[str]) -> str:
    """A text that names resources, with what people call them behind the names of those."""
    for name in dict.fromkeys(filter(None, names)):
        with suppress(TunixRtError, KeyError):
            if label := getattr(get(client, name), "display_name", ""):
                shown = f"{name} ({label})".replace("\\", r"\\")
                told = re.sub(rf"{re.escape(name)}(?![\w@./-]*\w)", shown, told)
    return told


def kept_of(removal: LoopRemoval) -> list[str]:
    """What stays of a loop that is deleted, and why, in words."""
    used = [f"kept {name}, used by {', '.join(users)}" for name, users in removal.kept.items()]
    if used:
        used.append(
            "kept loop.json and loop-state.json: when nothing uses these any more, delete the loop again"
        )
    found = [f"kept {name}, which was there before the loop ran" for name in removal.not_its_own]
    return used + found


def delete_resources(
    session: Session,
    names: Sequence[str],
    kind: str,
    get: Callable[[Client, str], Any] = get,
    *,
    force: bool,
    yes: bool,
) -> None:
    """Delete resources of one kind, each if nothing uses it, and say so.

    Args:
        session: of the command.
        names: as ``lookup.named`` takes them; ids that people chose must be whole.
        kind: what they are, in words.
        get: looks one up by its whole name. All are looked up before the first is deleted, so that a wrong
            name deletes nothing.
        force: whether to delete what others were made from.
        yes: whether to delete without asking.
    """
    with session.connect() as client:
        wanted = list(dict.fromkeys(_whole(session, client, name) for name in names))
        for name in wanted:
            found = get(client, name)
            if "delete_time" in found.DESCRIPTOR.fields_by_name and found.HasField("delete_time"):
                raise _deleted_before(name, found)
        what = wanted[0] if len(wanted) == 1 else text.counted(len(wanted), kind)
        confirm(session, f"Delete {what} for good?", wanted if len(wanted) > 1 else (), yes=yes)
        try:
            deleted = delete_each(wanted, lambda name: delete(client, name, force=force))
        except TunixRtError as error:
            error.message = with_names(client, error.message, error.metadata.get("used_by", "").split(","))
            raise
    if session.as_json:
        session.print_json({"deleted": deleted})
    else:
        names = f": {', '.join(deleted)}" if deleted else ""
        session.out.print(
            f"{text.counted(len(deleted), kind)} deleted{names}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _whole(session: Session, client: Client, name: str) -> str:
    # Base models have names of their own, which are never shortened.
    return name if name.startswith("baseModels/") else named(session, client, name, whole=True)


def _deleted_before(name: str, found: Any) -> NotFoundError:
    when = found.delete_time.ToDatetime().isoformat(timespec="seconds")
    return NotFoundError(
        f"{name} was deleted already, at {when} UTC",
        reason="ALREADY_DELETED",
        metadata={"name": name, "delete_time": when},
    )
