"""Names of resources as they are typed: looked up by their beginnings, and completed by the shell."""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import typer

from tunix_rt.cli.options import resource_name
from tunix_rt.cli.session import Session, SharedOptions
from tunix_rt.errors import NotFoundError, UnavailableError
from tunix_rt.naming import CHECKPOINTS, COLLECTIONS, begins, call, listing, resolve
from tunix_rt.rpc.caller import patient

if TYPE_CHECKING:
    from tunix_rt import Client, v1

Completion = Callable[[typer.Context, str], list[tuple[str, str]]]

_MOST: Final = 50
_PAUSE_S: Final = 0.5
# Entries whose tags a server is asked for, and whose tags a command completes.
_TAGS_READ: Final = 200
_TAGGED: Final = {
    "dataset": "datasets",
    "train": "trainingJobs",
    "loop": "trainingJobs",
    "evalset": "evalSets",
    "evaluate": "evaluations",
    "evaluation": "evaluations",
    "compare": "comparisonReports",
    "reports": "comparisonReports",
}
# Traces that are looked at for the keys of their metadata, and keys that are told.
_TRACES_READ: Final = 200
_KEYS_TOLD: Final = 10
# Fields of filters that hold names.
_NAMES: Final = {"eval_sets", "evaluations", "datasets", "models"}
# No base model is called like this.
_BEGINS_A_JOB: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]*|01[0-9a-f]{2,6}")
# The server is asked while somebody waits for the next word.
_PATIENCE_S: Final = 0.7


def named(
    session: Session, client: Client, name: str, *, whole: bool = False, patience_s: float = 0.0
) -> str:
    """The resource name that ``name`` stands for, see ``tunix_rt.naming.resolve``, which it raises as.

    What was not typed whole is said, so that nobody works on another resource than they think. A server that
    is away is asked again for ``patience_s`` seconds.
    """
    over = time.monotonic() + patience_s
    while True:
        try:
            with patient(patience_s) if patience_s else nullcontext():
                found = resolve(client, name, whole=whole)
            break
        except UnavailableError:
            if time.monotonic() > over:
                raise
            time.sleep(_PAUSE_S)
    if not found.startswith(f"{name}@") and found != name:
        session.say(f"{name.partition('/')[2]} is {found}")
    return found


def get(client: Client, name: str) -> Any:
    """The resource of this whole name."""
    return call(client, "get", name)(name)


def look_up(session: Session, name: str) -> Any:
    """The resource that ``name``, as ``named`` takes it, stands for."""
    with session.connect() as client:
        return get(client, named(session, client, name))


def cancelled(session: Session, name: str) -> Any:
    """The job that ``name``, as ``named`` takes it, stands for, after ``Session.cancelled``."""
    with session.connect() as client:
        name = named(session, client, name)
        return session.cancelled(call(client, "cancel", name), call(client, "get", name), name)


def whole_names(session: Session, client: Client, condition: Any) -> None:
    """Put whole names into a list's filter, where what was typed fits one resource; what fits none stays as
    it is. Raises as ``named``.

    A dataset without a version stands for all of its versions.
    """
    for field in _NAMES & set(condition.DESCRIPTOR.fields_by_name):
        names = getattr(condition, field)
        for place, name in enumerate(names):
            if field == "models" and _BEGINS_A_JOB.fullmatch(name):
                name = f"trainingJobs/{name}"
            known = name.partition("/")[0] in COLLECTIONS
            if known and not (field == "datasets" and "@" not in name):
                with suppress(NotFoundError):
                    names[place] = named(session, client, name)


def say_unknown_keys(session: Session, client: Client, condition: v1.TraceFilter | None) -> None:
    """Where a filter fits no trace: which of its metadata keys no trace has, and which there are."""
    wanted = [
        entry.key
        for entry in (condition.metadata if condition is not None else ())
        if entry.exists or entry.WhichOneof("condition") == "equals"
    ]
    if not wanted:
        return
    traces = list(islice(client.trace_store.list_traces(page_size=_TRACES_READ), _TRACES_READ))
    known = sorted({key for trace in traces for key in trace.metadata})
    among = "trace" if len(traces) < _TRACES_READ else f"one of the newest {_TRACES_READ} traces"
    for key in dict.fromkeys(wanted):
        if traces and key not in known:
            near = _near(key, known)
            there = ", ".join(map(repr, (near or known)[:_KEYS_TOLD])) or "none"
            which = "near it" if near else "their keys"
            session.notify(f"--where: no {among} has the metadata key {key!r}; {which}: {there}")


def _near(key: str, known: Sequence[str]) -> list[str]:
    """Keys that differ from ``key`` by case or punctuation, or by a few characters."""
    plain = {other: re.sub(r"\W|_", "", other.casefold()) for other in known}
    asked = re.sub(r"\W|_", "", key.casefold())
    same = [other for other, bare in plain.items() if bare == asked]
    close = difflib.get_close_matches(asked, plain.values())
    return same or [other for other in known if plain[other] in close]


def checkpoint_name(session: Session, client: Client, given: str) -> str:
    """The name of a checkpoint, which may be given as a training job: then its best checkpoint is meant if it
    keeps one, else its latest.

    Raises typer.BadParameter when the job has none, and as ``named``.
    """
    if CHECKPOINTS in given:
        job_id, _, step = given.removeprefix("trainingJobs/").partition(CHECKPOINTS)
        return f"{named(session, client, resource_name('trainingJobs', job_id))}{CHECKPOINTS}{step}"
    name = named(session, client, resource_name("trainingJobs", given))
    job = client.trainer.get_training_job(name)
    if not job.checkpoint:
        raise typer.BadParameter(f"{job.name} has no checkpoint yet")
    return job.best_checkpoint or job.checkpoint


def completes(collection: str) -> Completion:
    """What completes ids and display names of a collection such as "trainingJobs", or "baseModels".

    It only looks, and is silent where nothing can be asked.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        # A shell shows whatever is printed or raised in the middle of the line.
        with suppress(Exception):
            return list(_completed(ctx, collection, incomplete))
        return []

    return complete


def completes_tags(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Completes tags that others of the command's collection have; as ``completes``."""
    with suppress(Exception):
        *_, group = _words(ctx)
        session, collection = Session(_given(ctx)), _TAGGED[group]
        if session.server is None:
            return [(_word(tag), "") for tag in session.known_tags(collection, incomplete, _MOST)]
        from tunix_rt import Client

        with Client(session.server, timeout=_PATIENCE_S) as client:
            entries = islice(listing(client, collection)(page_size=_TAGS_READ), _TAGS_READ)
            tags = sorted({tag for entry in entries for tag in entry.tags if tag.startswith(incomplete)})
        return [(_word(tag), "") for tag in tags[:_MOST]]
    return []


def _words(context: Any) -> Iterator[str]:
    """The words of a command without the program's name, the last one first."""
    while context.parent is not None:
        yield context.info_name
        context = context.parent


def _completed(context: typer.Context, collection: str, incomplete: str) -> Iterator[tuple[str, str]]:
    folder = f"{collection}/" if incomplete.startswith(f"{collection}/") else ""
    begun = incomplete.removeprefix(folder)
    for found, label in _known(_given(context), collection, begun):
        if found.startswith(begun):
            yield folder + found, label
        if label.startswith(begun) and begun:
            yield _word(folder + label), found


def _given(context: Any) -> SharedOptions:
    """The shared options of the line so far, wherever they stand."""
    given = SharedOptions()
    while context is not None:
        options = context.params
        given = given.over(SharedOptions(server=options.get("server"), data_dir=options.get("data_dir")))
        context = context.parent
    return given.over_environment()


def _known(given: SharedOptions, collection: str, begun: str) -> Iterator[tuple[str, str]]:
    """Ids and display names of which one begins so."""
    session = Session(given)
    if session.server is None:
        yield from session.known_names(collection, begun, _MOST)
        return
    from tunix_rt import Client

    with Client(session.server, timeout=_PATIENCE_S) as client:
        yield from begins(client, collection, begun, _MOST)


class _Quoted(str):
    """A word with the signs that make a shell take it as one; what was typed is compared without them."""

    plain: str

    def startswith(self, *begun: Any) -> bool:
        return self.plain.startswith(*begun)


def _word(label: str) -> str:
    """A label as the shell takes it for one word.

    Bash inserts what it is told as it is: inside of quotes that were typed, or else with its own signs.
    Others quote by themselves.
    """
    if os.environ.get("_TUNIX_RT_COMPLETE") != "complete_bash":
        return label
    typed = os.environ["COMP_WORDS"].split("\n")[int(os.environ["COMP_CWORD"])]
    if typed[:1] in ("'", '"'):
        return label
    quoted = _Quoted(re.sub(r"([^\w@%+,./:=-])", r"\\\1", label))
    quoted.plain = label
    return quoted
