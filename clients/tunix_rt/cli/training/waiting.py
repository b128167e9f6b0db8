"""Waiting for a training job with a live view of it."""

from __future__ import annotations

import typer

from tunix_rt import Client, jobs, v1
from tunix_rt.cli.job_progress import training_progress
from tunix_rt.cli.resources import short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.waiting import waiting_for


def wait_for_job(session: Session, client: Client, name: str, *, show_log: bool = False) -> v1.TrainingJob:
    """The job, once it has succeeded; raises JobFailedError."""
    look = f"tunix-rt train watch {short_name(name)}"
    with session.progress() as progress, waiting_for(session, "training job", look):
        return jobs.wait_for_training_job(
            client, name, on_event=training_progress(progress, show_log=show_log)
        )


def check_detached(session: Session, detach: bool) -> None:
    """Raise typer.BadParameter for ``detach`` without a server that goes on."""
    if detach and session.embedded:
        raise typer.BadParameter("--detach needs a server: the embedded one ends with this command")


def follow(session: Session, client: Client, job: v1.TrainingJob, *, detach: bool) -> v1.TrainingJob:
    """The job once it has succeeded or, with ``detach``, as it is; its name is said first."""
    if detach:
        return job
    session.say(f"training job {short_name(job.name)}")
    return wait_for_job(session, client, job.name)
