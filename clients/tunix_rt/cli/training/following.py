"""`tunix-rt train watch|list|show|cancel|resume`."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from tunix_rt import v1
from tunix_rt.cli import tables
from tunix_rt.cli.command import command
from tunix_rt.cli.resources import resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.training.app import DetachOption, JobArgument, app
from tunix_rt.cli.training.views import show_training_job
from tunix_rt.cli.training.waiting import check_detached, follow, wait_for_job


@command(app, "watch", example="tunix-rt train watch $JOB --server localhost:50050")
def watch(session: Session, job: JobArgument) -> None:
    """Follow a training job until it ends, its log lines included."""
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        ended = wait_for_job(session, client, name, show_log=True)
    show_training_job(session, ended)


@command(app, "list", example="tunix-rt train list --limit 5")
def list_(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most jobs shown.")] = 20,
) -> None:
    """List training jobs, newest first."""
    with session.connect() as client:
        found = list(islice(client.trainer.list_training_jobs(page_size=min(limit, 1000)), limit))
    if session.as_json:
        session.print_messages(found)
        return
    rows = tables.table("JOB", "!STATE", "BASE MODEL", "DATASET", ">STEP", ">LOSS", ">AGE")
    for job in found:
        metrics = job.latest_metrics
        tables.add_row(
            rows,
            short_name(job.name),
            tables.state(v1.TrainingJob.State.Name(job.state)),
            job.spec.base_model,
            short_name(job.spec.dataset),
            f"{metrics.step:,}/{job.spec.max_steps:,}",
            f"{metrics.loss:.4f}" if metrics.step else "-",
            tables.age(job.create_time),
        )
    tables.print_table(session.out, rows, "no training jobs")


@command(app, "show", example="tunix-rt train show $JOB")
def show(session: Session, job: JobArgument) -> None:
    """Show one training job: its state, metrics, checkpoint and how long its stages took."""
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        found = client.trainer.get_training_job(name)
    show_training_job(session, found)


@command(app, "cancel", example="tunix-rt train cancel $JOB --server localhost:50050")
def cancel(session: Session, job: JobArgument) -> None:
    """Ask a training job to stop at its next step; asked twice, it is stopped at once."""
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        found = client.trainer.cancel_training_job(name)
    show_training_job(session, found)


@command(
    app,
    "resume",
    example=("tunix-rt train resume $JOB", "tunix-rt train resume $JOB -s localhost:50050 --detach"),
)
def resume(
    session: Session,
    job: JobArgument,
    detach: DetachOption = False,
) -> None:
    """Go on with a failed or cancelled job from its latest checkpoint, and wait for it."""
    check_detached(session, detach)
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        resumed = follow(session, client, client.trainer.resume_training_job(name), detach=detach)
    show_training_job(session, resumed)
