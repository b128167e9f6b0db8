"""Deleting what a loop made, in the order in which nothing is deleted that the rest still uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.aio import jobs
from tunix_rt.aio.client import AsyncClient
from tunix_rt.aio.deleting import after_deleting, delete, users
from tunix_rt.aio.loop.stages import REPORTS, RESULT_FILE, STATE_FILE, made_by
from tunix_rt.aio.naming import call
from tunix_rt.errors import FailedPreconditionError, NotFoundError, TunixRtError
from tunix_rt.files import folder_lock, read_text

_MAX_RESULT_BYTES: Final = 1 << 20
# What is made of others comes first.
_ORDER: Final = ("comparisonReports", "evaluations", "trainingJobs", "datasets", "evalSets")
# A loop uses those that it finds there.
_MAY_BE_THERE: Final = ("datasets", "evalSets")
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class LoopRemoval:
    """What deleting a loop takes away.

    ``names`` are the resources that are deleted, in order; ``kept`` are those that the loop made and others
    use, each with its users; ``files`` are those that the loop wrote into its output folder and that are
    deleted: while anything is kept, the notes that name it stay. ``not_its_own`` are dataset and eval set if
    the loop found them there: they stay. ``noted`` is all that the notes in ``output_dir`` named.
    """

    names: tuple[str, ...]
    kept: dict[str, tuple[str, ...]]
    files: tuple[Path, ...]
    not_its_own: tuple[str, ...] = ()
    output_dir: Path = Path()
    noted: tuple[str, ...] = ()


async def plan_removal(client: AsyncClient, output_dir: Path, *, force: bool = False) -> LoopRemoval:
    """What deleting the loop with this output folder would take away; nothing is deleted.

    Args:
        client: the server, or data folder, that the loop ran on.
        output_dir: where it wrote its report.
        force: whether to delete, too, what others use.

    Raises:
        FailedPreconditionError: LOOP_UNKNOWN, the folder does not say what a loop made; LOOP_ELSEWHERE, the
            loop ran on another server or data folder; LOOP_RUNNING, it still runs, or one of its jobs.
        UnavailableError: a service cannot tell what is used.
    """
    with _not_running(output_dir):
        return await _planned(client, output_dir, force=force)


async def _planned(client: AsyncClient, output_dir: Path, *, force: bool) -> LoopRemoval:
    made, others_own = _named(output_dir)
    there = await _there(client, made, output_dir)
    running = [name for name, found in there.items() if hasattr(found, "state") and not jobs.has_ended(found)]
    if running:
        raise FailedPreconditionError(
            f"the loop of {output_dir} is not over: {', '.join(running)} runs; cancel it first",
            reason="LOOP_RUNNING",
            metadata={"names": ",".join(running)},
        )
    ordered = sorted(there, key=lambda name: _ORDER.index(name.partition("/")[0]))
    kept: dict[str, tuple[str, ...]] = {}
    # What is kept is a user itself of what it was made of.
    for name in ordered:
        others = [user for user in await _users(client, name) if user not in there or user in kept]
        if others and not force:
            kept[name] = tuple(others)
    # The notes are the only record of what is left to delete.
    file_names = (*REPORTS, *(() if kept else (RESULT_FILE, STATE_FILE)))
    files = tuple(path for path in (output_dir / name for name in file_names) if path.is_file())
    names = tuple(name for name in ordered if name not in kept)
    not_its_own = [name for name in others_own if _living(await _found(client, name))]
    return LoopRemoval(names, kept, files, tuple(not_its_own), output_dir, (*made, *others_own))


async def remove_loop(client: AsyncClient, removal: LoopRemoval, *, force: bool = False) -> list[str]:
    """Delete what ``plan_removal`` told, the notes of the loop last; returns the names that were deleted.

    What somebody else deleted meanwhile is passed over.

    Raises FailedPreconditionError for what somebody began to use meanwhile, and if the loop runs or ran
    again: LOOP_RUNNING, LOOP_CHANGED; then run both again.
    """
    with _not_running(removal.output_dir):
        _check_notes(removal)
        deleted: list[str] = []
        for name in removal.names:
            try:
                await delete(client, name, force=force)
            except NotFoundError:
                continue
            except TunixRtError as error:
                raise after_deleting(error, deleted) from error.__cause__
            deleted.append(name)
        for path in removal.files:
            path.unlink(missing_ok=True)
    return deleted


@contextmanager
def _not_running(output_dir: Path) -> Iterator[None]:
    """Keep a loop from running in its output folder; raises FailedPreconditionError(LOOP_RUNNING)."""
    with folder_lock(output_dir, alone=True) as free:
        if not free:
            raise FailedPreconditionError(
                f"the loop of {output_dir} runs, or somebody else deletes it; stop it first",
                reason="LOOP_RUNNING",
                metadata={"output_dir": str(output_dir)},
            )
        yield


def _check_notes(removal: LoopRemoval) -> None:
    noted: list[str] = []
    with suppress(OSError, ValueError):
        noted = made_by(removal.output_dir)
    new = [name for name in noted if name not in removal.noted]
    if new:
        raise FailedPreconditionError(
            f"the loop of {removal.output_dir} ran since it was looked at, and made {', '.join(new)}; so "
            "nothing is deleted: delete the loop again",
            reason="LOOP_CHANGED",
            metadata={"names": ",".join(new)},
        )


def _named(output_dir: Path) -> tuple[list[str], list[str]]:
    """What the notes and the result of a loop name: what it made, and what it only used."""
    noted: list[str] = []
    with suppress(OSError, ValueError):
        noted += made_by(output_dir)
    results: list[str] = []
    for key in ("evaluation_before", "training_job", "evaluation_after", "comparison", "dataset", "eval_set"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            result = json.loads(read_text(output_dir / RESULT_FILE, _MAX_RESULT_BYTES))
            results.append(str(result[key]["name"]))
    # A loop that noted what it made did not make the dataset or the eval set that it left out. One of an
    # earlier version noted nothing.
    used = {name for name in results if noted and name.partition("/")[0] in _MAY_BE_THERE} - set(noted)
    named = [name for name in dict.fromkeys([*noted, *results]) if name.partition("/")[0] in _ORDER]
    if not named:
        raise FailedPreconditionError(
            _unknown(output_dir), reason="LOOP_UNKNOWN", metadata={"output_dir": str(output_dir)}
        )
    return [name for name in named if name not in used], [name for name in named if name in used]


def _unknown(output_dir: Path) -> str:
    folder = output_dir.absolute()
    if not folder.is_dir():
        return f"the loop's output folder {folder} is not there; if it lies elsewhere now, give that folder"
    return (
        f"{folder} does not say what a loop made: neither {STATE_FILE} nor {RESULT_FILE} there names "
        "anything; give the folder that the loop wrote its reports into, or delete its resources one by one"
    )


async def _there(client: AsyncClient, names: list[str], output_dir: Path) -> dict[str, Any]:
    """Those of the resources that are not deleted; raises LOOP_ELSEWHERE if this server never had any."""
    found = {name: await _found(client, name) for name in names}
    # Dataset and eval set are noted before they are made, which may have failed.
    created = [name for name in names if name.partition("/")[0] not in _MAY_BE_THERE]
    if created and not any(resource is not None for resource in found.values()):
        raise FailedPreconditionError(
            f"nothing that the loop of {output_dir} made was ever here, such as {created[0]}: it ran on "
            "another server or data folder; name that one",
            reason="LOOP_ELSEWHERE",
            metadata={"output_dir": str(output_dir), "name": created[0]},
        )
    return {name: resource for name, resource in found.items() if _living(resource)}


def _living(found: Any) -> bool:
    return found is not None and not found.HasField("delete_time")


async def _found(client: AsyncClient, name: str) -> Any:
    """The resource, deleted or not, or None if it never was."""
    try:
        return await call(client, "get", name)(name)
    except NotFoundError:
        return None


async def _users(client: AsyncClient, name: str) -> list[str]:
    """What uses a resource, in whatever service."""
    collection = name.partition("/")[0]
    found = list(await users(client, name))
    # A server of an earlier version, which does not know these filters, tells of all.
    if collection == "evalSets":
        leaving_out = v1.DatasetFilter(eval_sets=[name])
        async for dataset in client.exporter.list_datasets(filter=leaving_out, page_size=_PAGE):
            if name in dataset.spec.eval_sets:
                found.append(dataset.name)
    if collection in ("evalSets", "evaluations"):
        on_it = v1.EvaluationFilter(eval_sets=[name])
        wanted = on_it if collection == "evalSets" else v1.EvaluationFilter(regraded=[name])
        async for evaluation in client.evaluator.list_evaluations(filter=wanted, page_size=_PAGE):
            if name in (evaluation.spec.eval_set, evaluation.regrade.source):
                found.append(evaluation.name)
    if collection == "evaluations":
        about = v1.ComparisonReportFilter(evaluations=[name])
        async for report in client.evaluator.list_comparison_reports(filter=about):
            if name in _compared(report):
                found.append(report.name)
    return found


def _compared(report: v1.ComparisonReport) -> set[str]:
    return {report.base.name, report.candidate.name, *report.more_bases, *report.more_candidates}
