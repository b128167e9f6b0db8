"""From what people type to resource names: whole ids, display names, and unique beginnings of ids.

The services take whole names alone. Who types one looks it up here first, and every command does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.aio.client import AsyncClient
from tunix_rt.aio.rpc.pager import AsyncPager
from tunix_rt.errors import InvalidArgumentError, NotFoundError, UnimplementedError

LEAST: Final = 4
"""Characters that the beginning of an id has at least."""
_LOOKED_AT: Final = 50
_NAMED: Final = 5
_LONGEST: Final = 200
_TOLD: Final = 60
_WHOLE: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")
_DIGEST: Final = re.compile(r"[0-9a-f]{12,64}")
CHECKPOINTS: Final = "/checkpoints/"


@dataclass(frozen=True, slots=True)
class _Kind:
    """A collection: the service that has it, what one of it and all of it are called in the contract, the
    message of its filter, and whether people choose its ids."""

    service: str
    one: str
    all: str
    filter: Any = None
    chosen: bool = False

    @property
    def label(self) -> str:
        """What one of it is called in a sentence."""
        return self.one.replace("_", " ")

    @property
    def reason(self) -> str:
        """The reason of the error that one of it is not there."""
        return f"{self.one.upper()}_NOT_FOUND"


_CHECKPOINT: Final = _Kind("trainer", "checkpoint", "checkpoints")
_KINDS: Final = {
    "traces": _Kind("trace_store", "trace", "traces"),
    "datasets": _Kind("exporter", "dataset", "datasets", v1.DatasetFilter, chosen=True),
    "trainingJobs": _Kind("trainer", "training_job", "training_jobs", v1.TrainingJobFilter),
    "evalSets": _Kind("evaluator", "eval_set", "eval_sets", v1.EvalSetFilter, chosen=True),
    "evaluations": _Kind("evaluator", "evaluation", "evaluations", v1.EvaluationFilter),
    "comparisonReports": _Kind(
        "evaluator", "comparison_report", "comparison_reports", v1.ComparisonReportFilter
    ),
}
COLLECTIONS: Final = tuple(_KINDS)


def reads_as_id(name: str) -> bool:
    """Whether a text reads as a resource name or as a whole id, so that it is never looked up as a display
    name. The services refuse such display names."""
    folder, slash, _ = name.partition("/")
    named = slash and folder in (*COLLECTIONS, "baseModels")
    return bool(named or _WHOLE.fullmatch(name) or CHECKPOINTS in name)


def in_folder(collection: str, given: str) -> str:
    """``given`` behind its collection, where it may stand already."""
    return given if given.startswith(f"{collection}/") else f"{collection}/{given}"


def call(client: AsyncClient, verb: str, name: str) -> Callable[..., Any]:
    """The client's method that does this to the resource of a whole name: ``client.trainer.get_training_job``
    is that of "get" and ``trainingJobs/1``."""
    kind = _CHECKPOINT if CHECKPOINTS in name else _KINDS[name.partition("/")[0]]
    method: Callable[..., Any] = getattr(getattr(client, kind.service), f"{verb}_{kind.one}")
    return method


def listing(client: AsyncClient, collection: str) -> Callable[..., AsyncPager[Any, Any]]:
    """The client's method that lists a collection, such as ``client.trainer.list_training_jobs``."""
    kind = _KINDS[collection]
    method: Callable[..., AsyncPager[Any, Any]] = getattr(getattr(client, kind.service), f"list_{kind.all}")
    return method


async def resolve(client: AsyncClient, name: str, *, whole: bool = False) -> str:
    """The resource name that ``name`` stands for.

    Behind its collection, ``name`` has a whole id, a display name, or the beginning of an id, of four
    characters or more, that only one resource has. They are tried in this order. Of a dataset, the version
    may be left out: 1 is meant. A checkpoint's job may be given so, too. The name of a trace may have its
    content digest, or 12 digits of it and more, instead of its id.

    A server of an earlier version, which cannot look for beginnings, is taken to know ``name`` as it is.

    Args:
        client: to the services.
        name: such as ``trainingJobs/01a2`` or ``evaluations/my run``.
        whole: do not take the beginning of an id that people chose, as those of datasets and eval sets: where
            something is deleted, another one with a longer id must not take its place.

    Raises:
        InvalidArgumentError: it fits more than one resource (reason ``NAME_AMBIGUOUS``), or the collection
            is unknown (``RESOURCE_NAME_INVALID``).
        NotFoundError: there is none.
    """
    collection, _, given = name.partition("/")
    if collection not in _KINDS or not given:
        known = ", ".join(f"{known}/..." for known in COLLECTIONS)
        raise InvalidArgumentError(
            f"{name!r} is no name of a resource; known are {known}", reason="RESOURCE_NAME_INVALID"
        )
    if collection == "trainingJobs" and CHECKPOINTS in given:
        job, _, step = name.rpartition(CHECKPOINTS)
        found = await resolve(client, job)
        return f"{found}{CHECKPOINTS}{step}"
    made = not _KINDS[collection].chosen and _WHOLE.fullmatch(given)
    if made or (collection == "traces" and _DIGEST.fullmatch(given)):
        return name
    if collection == "datasets" and await _there(client, _versioned(name)):
        return _versioned(name)
    try:
        return await _looked_up(client, collection, given, whole)
    except UnimplementedError:
        return _versioned(name) if collection == "datasets" else name


async def _looked_up(client: AsyncClient, collection: str, given: str, whole: bool) -> str:
    kind, name = _KINDS[collection], f"{collection}/{given}"
    # The characters that no display name has.
    if len(given) > _LONGEST or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in given):
        told = repr(given[:_TOLD]) + "..." * (len(given) > _TOLD)
        raise _missing(kind, name[:_LONGEST], f"no {kind.label} has the id or the name {told}")
    entries, more = await _first(client, collection, _LOOKED_AT, id_prefix=given)
    begun = [entry.name for entry in entries]
    if any(not found.startswith(name) for found in begun):
        # A server that knows no such filter has told of everything.
        return _versioned(name) if collection == "datasets" else name
    # A dataset was asked for already. What was deleted says so, whatever else is called or begins alike.
    if name in begun or (collection == "evalSets" and await _there(client, name)):
        return name
    if kind.filter is not None:
        labelled, many = await _first(client, collection, _LOOKED_AT, display_name=given)
        if labelled:
            return _only(kind, f"the name {given!r}", [entry.name for entry in labelled], many)
    versions = [found for found in begun if found.startswith(f"{name}@")]
    if collection == "datasets" and versions:
        raise _missing(kind, name, f"{_versioned(name)} does not exist; there are {_listed(versions, more)}")
    if not kind.chosen and not begun and await _there(client, name):
        return name
    if begun and len(given) >= LEAST and not (whole and kind.chosen):
        return _only(kind, f"an id that begins with {given!r}", begun, more)
    told = (
        f"{name} does not exist: no {kind.label} has the id{' or the name' if kind.filter else ''} {given!r}"
    )
    if begun and len(given) < LEAST:
        told += f"; of a longer id give at least {LEAST} characters ({_listed(begun, more)})"
    elif begun:
        told += f", and here it must be whole ({_listed(begun, more)} begins so)"
    elif len(given) >= LEAST:
        told += ", or an id that begins so"
    raise _missing(kind, name, told)


async def _there(client: AsyncClient, name: str) -> bool:
    """Whether a resource has this whole name; raises NotFoundError for one that had it."""
    kind = _KINDS[name.partition("/")[0]]
    try:
        await call(client, "get", name)(name)
    except InvalidArgumentError:
        # It is no id.
        return False
    except NotFoundError as error:
        if error.reason not in ("", kind.reason):
            raise
        return False
    return True


async def begins(client: AsyncClient, collection: str, begun: str, most: int) -> Sequence[tuple[str, str]]:
    """Ids and display names of resources of which either begins with ``begun``, up to ``most`` of each kind.

    ``collection`` may be "baseModels", too. Raises TunixRtError.
    """
    if collection == "baseModels":
        models = [model.base_model async for model in client.trainer.list_base_models()]
        return [(name, "") for name in models if name.startswith(begun)]
    found, _ = await _first(client, collection, most, id_prefix=begun)
    if begun and _KINDS[collection].filter is not None:
        labelled, _ = await _first(client, collection, most, display_name_contains=begun)
        found = [*found, *labelled]
    pairs = {entry.name.partition("/")[2]: getattr(entry, "display_name", "") for entry in found}
    return [pair for pair in pairs.items() if any(text.startswith(begun) for text in pair)]


async def _first(
    client: AsyncClient, collection: str, most: int, **condition: str
) -> tuple[Sequence[Any], bool]:
    """The first resources that meet a condition, and whether there are more."""
    pager = _listing(client, collection, most, condition)
    async for page in pager.pages():
        return getattr(page, _KINDS[collection].all), bool(page.next_page_token)
    return [], False


def _listing(
    client: AsyncClient, collection: str, most: int, condition: dict[str, str]
) -> AsyncPager[Any, Any]:
    kind, listed = _KINDS[collection], listing(client, collection)
    if kind.filter is None:
        return listed(page_size=most, **condition)
    # What is exact comes first among ids that begin alike.
    order = {"order_by": "name"} if kind.chosen else {}
    return listed(filter=kind.filter(**condition), page_size=most, **order)


def _versioned(name: str) -> str:
    """A dataset's name with its version, which is 1 where none is given."""
    return name if "@" in name else f"{name}@1"


def _only(kind: _Kind, what: str, found: Sequence[str], more: bool) -> str:
    if len(found) == 1:
        return found[0]
    count = f"more than {len(found)}" if more else len(found)
    raise InvalidArgumentError(
        f"{count} {kind.label}s have {what}: {_listed(found, more)}; give more of the id, or all of it",
        reason="NAME_AMBIGUOUS",
        metadata={"names": ",".join(found)},
    )


def _listed(names: Sequence[str], more: bool) -> str:
    shown = ", ".join(name.partition("/")[2] for name in names[:_NAMED])
    if more:
        return f"{shown} and more"
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def _missing(kind: _Kind, name: str, told: str) -> NotFoundError:
    return NotFoundError(told, reason=kind.reason, metadata={"name": name})
