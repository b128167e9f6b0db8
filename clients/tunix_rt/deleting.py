# Generated from aio/deleting.py by `make proto`: change that one.
"""Deleting resources, when it is known what uses them: also what other services keep.

A service refuses for what it knows itself, in the transaction that deletes. It asks no service that stands
behind it: which training jobs use a dataset, and which evaluations a checkpoint, is looked up here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from tunix_rt import jobs, v1
from tunix_rt.client import Client
from tunix_rt.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    TunixRtError,
    UnavailableError,
)
from tunix_rt.naming import call

Resource: TypeAlias = (
    v1.Dataset
    | v1.TrainingJob
    | v1.Checkpoint
    | v1.EvalSet
    | v1.Evaluation
    | v1.ComparisonReport
    | v1.BaseModel
)
_NAMED: Final = 5


def delete(client: Client, name: str, *, force: bool = False) -> Resource:
    """Delete one resource, of any kind but traces; what it was stays on record.

    Args:
        client: where it is.
        name: its resource name, such as ``trainingJobs/{training_job}/checkpoints/{checkpoint}``.
        force: whether to delete it although others were made from it. What runs is never deleted, nor what
            something that runs uses.

    Returns:
        The resource as it is now, with its ``delete_time``.

    Raises:
        NotFoundError: it never was, or is deleted already.
        FailedPreconditionError: it runs, or is used; each use is named.
        UnavailableError: a service cannot tell whether it is used.
    """
    kind = _kind(name)
    name, there = _looked_at(client, name)
    found = users(client, name) if there else {}
    running = [user for user, runs in found.items() if runs]
    named = running or ([] if force else list(found))
    if named:
        more = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
        advice = (
            ", which still run: cancel those first"
            if running
            else ": delete those first, or force it (--force)"
        )
        raise FailedPreconditionError(
            f"{name} is used by {', '.join(named[:_NAMED])}{more}{advice}",
            reason=f"{kind}_IN_USE",
            metadata={"name": name, "count": str(len(named)), "used_by": ",".join(named[:_NAMED])},
        )
    if kind == "BASE_MODEL":
        return client.trainer.delete_base_model(name, force=force)
    forced = {"force": force} if kind in ("DATASET", "EVAL_SET", "EVALUATION") else {}
    deleted: Resource = call(client, "delete", name)(name, **forced)
    return deleted


def after_deleting(error: TunixRtError, deleted: Sequence[str]) -> TunixRtError:
    """An error that ended a series of deletions, telling what of it was ``deleted`` before."""
    if deleted:
        more = f" and {len(deleted) - _NAMED:,} more" if len(deleted) > _NAMED else ""
        error.message += f"; deleted before that: {', '.join(deleted[:_NAMED])}{more}"
        error.metadata["deleted"] = ",".join(deleted)
    return error


def users(client: Client, name: str) -> dict[str, bool]:
    """What its own service cannot tell of what uses a resource: names, and whether each still runs.

    Raises UnavailableError if a service cannot tell.
    """
    kind = _kind(name)
    if kind not in _LOOKED_UP:
        return {}
    try:
        return _LOOKED_UP[kind](client, name)
    except (UnavailableError, DeadlineExceededError) as error:
        raise UnavailableError(
            f"whether {name} is used cannot be told now, so it is not deleted: {error}",
            reason="USERS_UNKNOWN",
            metadata={"name": name},
        ) from error


def _looked_at(client: Client, name: str) -> tuple[str, bool]:
    """The name that the service has for it, and whether to look what uses it: the service says what is wrong
    otherwise."""
    if _kind(name) not in ("DATASET", "TRAINING_JOB", "CHECKPOINT"):
        return name, True
    found = call(client, "get", name)(name)
    return found.name, not found.HasField("delete_time")


def _users_of_dataset(client: Client, name: str) -> dict[str, bool]:
    """Jobs, and datasets that derive from it, so that one refusal names all."""
    found = {
        job.name: not jobs.has_ended(job)
        for job in client.trainer.list_training_jobs(
            filter=v1.TrainingJobFilter(datasets=[name]), page_size=_PAGE
        )
        if job.spec.dataset == name
    }
    derived = v1.DatasetFilter(parents=[name])
    # A server of an earlier version, which knows no such filter, tells of all.
    for dataset in client.exporter.list_datasets(filter=derived, page_size=_PAGE):
        if dataset.spec.parent == name:
            found[dataset.name] = not jobs.has_ended(dataset)
    return found


def _evaluations_of_checkpoints(client: Client, name: str) -> dict[str, bool]:
    """Of one checkpoint, or of all of a job."""
    return {
        evaluation.name: not jobs.has_ended(evaluation)
        for evaluation in client.evaluator.list_evaluations(
            filter=v1.EvaluationFilter(models=[name]), page_size=_PAGE
        )
        if f"{evaluation.spec.checkpoint}/".startswith(f"{name}/")
    }


def _evaluations_of_base_model(client: Client, name: str) -> dict[str, bool]:
    """Those that run: one that has ended needs no model any more."""
    base_model = name.partition("/")[2]
    used: dict[str, bool] = {}
    running = v1.EvaluationFilter(states=_RUNNING)
    for evaluation in client.evaluator.list_evaluations(filter=running, page_size=_PAGE):
        spec = evaluation.spec
        if jobs.has_ended(evaluation) or spec.endpoint_model:
            continue
        model = spec.base_model
        if spec.checkpoint:
            checkpoint = client.trainer.get_checkpoint(spec.checkpoint)
            model = checkpoint.manifest.spec.base_model
        if _same_model(client, model, base_model):
            used[evaluation.name] = True
    return used


def _same_model(client: Client, one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        found = [(client.trainer.get_base_model(model)).weights_digest for model in (one, other)]
    except (UnavailableError, DeadlineExceededError):
        raise
    except TunixRtError:
        # What cannot be told may be so.
        return True
    return found[0] == found[1]


_PAGE: Final = 1_000
_RUNNING: Final = (
    v1.Evaluation.STATE_QUEUED,
    v1.Evaluation.STATE_RUNNING,
    v1.Evaluation.STATE_CANCELLING,
)
Users: TypeAlias = dict[str, bool]
_LOOKED_UP: Final[dict[str, Callable[[Client, str], Users]]] = {
    "DATASET": _users_of_dataset,
    "TRAINING_JOB": _evaluations_of_checkpoints,
    "CHECKPOINT": _evaluations_of_checkpoints,
    "BASE_MODEL": _evaluations_of_base_model,
}
_KINDS: Final = {
    "datasets": "DATASET",
    "trainingJobs": "TRAINING_JOB",
    "evalSets": "EVAL_SET",
    "evaluations": "EVALUATION",
    "comparisonReports": "COMPARISON_REPORT",
    "baseModels": "BASE_MODEL",
}


def _kind(name: str) -> str:
    collection = name.partition("/")[0]
    if collection not in _KINDS:
        known = ", ".join(_KINDS)
        raise InvalidArgumentError(
            f"name: {name!r} names nothing that can be deleted; a name of {known} would be right",
            reason="RESOURCE_NAME_INVALID",
        )
    return "CHECKPOINT" if "/checkpoints/" in name else _KINDS[collection]
