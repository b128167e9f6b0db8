"""Resource names as they are typed: whole, or their id alone."""

from __future__ import annotations

import typer

from tunix_rt import Client


def resource_name(collection: str, given: str) -> str:
    """The name of a resource in ``collection`` that was given by name or id.

    Raises typer.BadParameter for a name of another collection.
    """
    if given.startswith(f"{collection}/"):
        return given
    if not given or "/" in given:
        raise typer.BadParameter(f"{given!r} is not one of {collection}; give an id, or {collection}/ID")
    return f"{collection}/{given}"


def trace_name(given: str) -> str:
    """The name of a trace given by name or id, or by its content digest or a row's id, whole or shortened."""
    return resource_name("traces", given.removeprefix("sha256:"))


def dataset_name(given: str) -> str:
    """The name of a dataset given as ID, ID@VERSION or datasets/ID@VERSION; the version defaults to 1."""
    name = resource_name("datasets", given)
    return name if "@" in name else f"{name}@1"


def checkpoint_name(client: Client, given: str) -> str:
    """The name of a checkpoint that was given whole, or as a training job: then its best one is meant, if it
    was asked to keep that, else its latest.

    Raises typer.BadParameter when the job has none, TunixRtError when there is no such job.
    """
    if "/checkpoints/" in given:
        return given
    job = client.trainer.get_training_job(name=resource_name("trainingJobs", given))
    if not job.checkpoint:
        raise typer.BadParameter(f"{job.name} has no checkpoint yet")
    return job.best_checkpoint or job.checkpoint


def short_name(name: str) -> str:
    """A resource's name without its collection."""
    return name.partition("/")[2] or name
