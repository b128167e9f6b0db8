"""Deleting what a loop made, in the order in which nothing is deleted that the rest still uses."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.aio import jobs
from tunix_rt.aio.client import AsyncClient
from tunix_rt.aio.deleting import delete, users
from tunix_rt.aio.loop.stages import REPORTS, RESULT_FILE, STATE_FILE, made_by
from tunix_rt.errors import FailedPreconditionError, NotFoundError
from tunix_rt.files import read_text

_MAX_RESULT_BYTES: Final = 1 << 20
# What is made of others comes first.
_ORDER: Final = ("comparisonReports", "evaluations", "trainingJobs", "datasets", "evalSets")
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class LoopRemoval:
    """What deleting a loop takes away.

    ``names`` are the resources that are deleted, in order; ``kept`` are those that the loop made and others
    use, each with its users; ``files`` are what the loop wrote into its output folder.
    """

    names: tuple[str, ...]
    kept: dict[str, tuple[str, ...]]
    files: tuple[Path, ...]


async def plan_removal(client: AsyncClient, output_dir: Path, *, force: bool = False) -> LoopRemoval:
    """What deleting the loop with this output folder would take away; nothing is deleted.

    Args:
        client: the server, or data folder, that the loop ran on.
        output_dir: where it wrote its report.
        force: whether to delete, too, what others use.

    Raises:
        FailedPreconditionError: LOOP_UNKNOWN, the folder does not say what a loop made; LOOP_RUNNING, one of
            its jobs has not ended.
        UnavailableError: a service cannot tell what is used.
    """
    there: dict[str, Any] = {}
    for name in _made(output_dir):
        found = await _found(client, name)
        if found is not None:
            there[name] = found
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
    names = (*REPORTS, RESULT_FILE, STATE_FILE)
    files = tuple(path for path in (output_dir / name for name in names) if path.is_file())
    return LoopRemoval(tuple(name for name in ordered if name not in kept), kept, files)


async def remove_loop(client: AsyncClient, removal: LoopRemoval, *, force: bool = False) -> list[str]:
    """Delete what ``plan_removal`` told, the notes of the loop last; returns the names that were deleted.

    What somebody else deleted meanwhile is passed over. What is kept stays noted in the output folder.

    Raises FailedPreconditionError for what somebody began to use meanwhile; then run both again.
    """
    deleted = []
    for name in removal.names:
        try:
            await delete(client, name, force=force)
        except NotFoundError:
            continue
        deleted.append(name)
    for path in removal.files:
        if path.name != STATE_FILE or not removal.kept:
            path.unlink(missing_ok=True)
    return deleted


def _made(output_dir: Path) -> list[str]:
    """The names that the notes of a loop tell, and the result of one of an earlier version."""
    made: list[str] = []
    with suppress(OSError, ValueError):
        made += made_by(output_dir)
    with suppress(OSError, ValueError, KeyError, TypeError):
        result = json.loads(read_text(output_dir / RESULT_FILE, _MAX_RESULT_BYTES))
        # Dataset and eval set may have been there before.
        for key in ("evaluation_before", "training_job", "evaluation_after", "comparison"):
            made.append(str(result[key]["name"]))
    known = [name for name in dict.fromkeys(made) if name.partition("/")[0] in _ORDER]
    if not known:
        raise FailedPreconditionError(
            f"{output_dir} does not say what a loop made: neither {STATE_FILE} nor {RESULT_FILE} there names "
            "anything; delete its resources one by one",
            reason="LOOP_UNKNOWN",
            metadata={"output_dir": str(output_dir)},
        )
    return known


async def _found(client: AsyncClient, name: str) -> Any:
    """The resource, or None if it is not there any more."""
    get = {
        "comparisonReports": client.evaluator.get_comparison_report,
        "evaluations": client.evaluator.get_evaluation,
        "trainingJobs": client.trainer.get_training_job,
        "datasets": client.exporter.get_dataset,
        "evalSets": client.evaluator.get_eval_set,
    }[name.partition("/")[0]]
    try:
        found = await get(name)
    except NotFoundError:
        return None
    return None if found.HasField("delete_time") else found


async def _users(client: AsyncClient, name: str) -> list[str]:
    """What uses a resource, in whatever service."""
    collection = name.partition("/")[0]
    found = list(await users(client, name))
    if collection in ("datasets", "evalSets"):
        async for dataset in client.exporter.list_datasets(page_size=_PAGE):
            if name == dataset.spec.parent or name in dataset.spec.eval_sets:
                found.append(dataset.name)
    if collection in ("evalSets", "evaluations"):
        async for evaluation in client.evaluator.list_evaluations(page_size=_PAGE):
            if name in (evaluation.spec.eval_set, evaluation.regrade.source):
                found.append(evaluation.name)
    if collection == "evaluations":
        async for report in client.evaluator.list_comparison_reports():
            if name in _compared(report):
                found.append(report.name)
    return found


def _compared(report: v1.ComparisonReport) -> set[str]:
    return {report.base.name, report.candidate.name, *report.more_bases, *report.more_candidates}
