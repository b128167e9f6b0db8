"""`tunix-rt train`: follow training jobs, and look after them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import idle, tables
from tunix_rt.cli.audit_view import model_tokenizer
from tunix_rt.cli.command import command, group
from tunix_rt.cli.dataset_preview import Example, examples, print_examples
from tunix_rt.cli.deleting import DeletedResources, ForceOption, YesOption, delete_resources
from tunix_rt.cli.labels import (
    ChangeOptions,
    DatasetOption,
    Listed,
    ListOptions,
    StateOption,
    change_labels,
    dataset_names,
    list_option,
    numbered,
    show_list,
    sort_option,
)
from tunix_rt.cli.lookup import cancelled, completes, look_up, named
from tunix_rt.cli.options import (
    DetachOption,
    LimitOption,
    resource_name,
    short_name,
)
from tunix_rt.cli.progress import training_progress
from tunix_rt.cli.session import Session
from tunix_rt.cli.training_page import losses_by_step, write_training_page
from tunix_rt.cli.training_view import print_training_job
from tunix_rt.naming import CHECKPOINTS, in_folder

app = group("Fine-tune a base model on a dataset.")
_ROWS_OF_A_PAGE = 3

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="The training job's id, the beginning of it, or its name.",
        autocompletion=completes("trainingJobs"),
    ),
]


@command(app, "watch", example="tunix-rt train watch $JOB --server localhost:50050", prints=v1.TrainingJob)
def watch(session: Session, job: JobArgument) -> None:
    """Follow a training job until it ends, and show its log lines."""
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        name = named(session, client, name, patience_s=jobs.PATIENCE)
        session.check_runs(lambda: client.trainer.get_training_job(name))
        ended = wait_for_job(session, client, name, show_log=True)
    session.show(ended, print_training_job)


@command(
    app,
    "list",
    example=(
        "tunix-rt train list --limit 5",
        "tunix-rt train list --tag sweep --state succeeded --sort name",
        "tunix-rt train list --dataset arithmetic --since 2d --sort=-created",
    ),
    prints=list[v1.TrainingJob],
)
def list_(
    session: Session,
    wanted: ListOptions,
    state: StateOption = None,
    base_model: Annotated[
        list[str] | None,
        list_option("--base-model", "-m", help="Only of this base model (may be repeated)."),
    ] = None,
    dataset: DatasetOption = None,
    sort: Annotated[str, sort_option("created", "name", "state", "model", "dataset", "loss")] = "",
    limit: LimitOption = 20,
) -> None:
    """List training jobs, the newest first unless they are sorted."""
    condition = v1.TrainingJobFilter(
        **wanted.conditions(),
        states=numbered(v1.TrainingJob.State, state),
        base_models=base_model,
        datasets=dataset_names(dataset),
    )
    table = Listed(
        ("JOB", "!STATE", "?NAME", "BASE MODEL", "DATASET", ">STEP", ">LOSS", "?TAGS", "?DELETED", ">AGE"),
        _row,
        "no training jobs",
        ("STATE", "NAME", "STEP", "LOSS", "DATASET", "DELETED"),
    )
    show_list(session, "trainingJobs", condition, wanted, sort, limit, table)


def _row(job: v1.TrainingJob) -> tables.Row:
    metrics = job.latest_metrics
    return (
        short_name(job.name),
        tables.state(v1.TrainingJob.State.Name(job.state)),
        job.display_name,
        job.spec.base_model,
        short_name(job.spec.dataset),
        f"{metrics.step:,}/{job.spec.max_steps:,}",
        f"{metrics.loss:.4f}" if metrics.step else "-",
        ", ".join(job.tags),
        tables.deleted(job),
        tables.age(job.create_time),
    )


@command(
    app,
    "show",
    example=(
        "tunix-rt train show $JOB",
        "tunix-rt train show $JOB --rows 3",
        "tunix-rt train show $JOB --html job.html",
    ),
    prints=v1.TrainingJob,
)
def show(
    session: Session,
    job: JobArgument,
    rows: Annotated[
        int,
        typer.Option(
            "--rows", min=0, max=1000, help="Also show so many rows, with what it learns in colour."
        ),
    ] = 0,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page that needs no server: the job, its losses and 3 rows, or --rows.",
        ),
    ] = None,
) -> None:
    """Show one training job: its state, metrics, checkpoint and how long its stages took."""
    asked = "--html" if html else "--rows"
    if (rows or html) and session.as_json:
        told = "writes text; tunix-rt dataset preview --json writes rows as a document"
        raise typer.BadParameter(told, param_hint=f"'{asked}'")
    found = look_up(session, resource_name("trainingJobs", job))
    if html is None:
        session.show(found, print_training_job)
    if rows or html:
        with session.connect() as client:
            learned = _learned(client, found, rows or _ROWS_OF_A_PAGE)
            losses = losses_by_step(_past(client, found)) if html else {}
        if html is None:
            print_examples(session.out, learned, tokens=False)
        else:
            write_training_page(html, found, losses, learned)
            session.say_written(len(learned), "example", html)


def _learned(client: Client, job: v1.TrainingJob, rows: int) -> list[Example]:
    """Rows of a job's dataset, token by token."""
    tokenizer = model_tokenizer(client, job.spec.base_model)
    return examples(client.exporter.preview_rows(job.spec.dataset, row_count=rows, tokenizer=tokenizer))


def _past(client: Client, job: v1.TrainingJob) -> Iterable[v1.WatchTrainingJobResponse]:
    """What happened in a job that has ended; nothing of one that goes on, whose events do not end."""
    return client.trainer.watch_training_job(job.name) if idle.has_ended(job) else ()


@command(
    app,
    "update",
    example=(
        "tunix-rt train update $JOB --name 'rank 8, best so far'",
        "tunix-rt train update $JOB --tag keep --remove-tag sweep --note 'loss still falling at the end'",
    ),
    prints=v1.TrainingJob,
)
def update(session: Session, job: JobArgument, labels: ChangeOptions) -> None:
    """Rename a training job, tag it, or note something about it."""
    change_labels(session, resource_name("trainingJobs", job), labels)


@command(app, "cancel", example="tunix-rt train cancel $JOB --server localhost:50050", prints=v1.TrainingJob)
def cancel(session: Session, job: JobArgument) -> None:
    """Ask a training job to stop at its next step; asked twice, it is stopped at once."""
    session.show(cancelled(session, resource_name("trainingJobs", job)), print_training_job)


@command(
    app,
    "delete",
    prints=DeletedResources,
    example=(
        "tunix-rt train delete $JOB",
        "tunix-rt train delete trainingJobs/$JOB/checkpoints/20",
        "tunix-rt train delete $JOB --force --yes",
    ),
)
def delete(
    session: Session,
    jobs: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB",
            help="Ids of jobs, or names of checkpoints, JOB/checkpoints/STEP.",
            autocompletion=completes("trainingJobs"),
        ),
    ],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete training jobs with their checkpoints, exports and states, or single checkpoints. What they were,
    and their digests, stay on record."""
    names = [
        in_folder("trainingJobs", name) if CHECKPOINTS in name else resource_name("trainingJobs", name)
        for name in jobs
    ]
    kind = "checkpoint" if all(CHECKPOINTS in name for name in names) else "training job"
    delete_resources(session, names, kind, force=force, yes=yes)


@command(
    app,
    "resume",
    example=("tunix-rt train resume $JOB", "tunix-rt train resume $JOB -s localhost:50050 --detach"),
    prints=v1.TrainingJob,
)
def resume(
    session: Session,
    job: JobArgument,
    detach: DetachOption = False,
) -> None:
    """Resume a failed, cancelled or interrupted job from its latest checkpoint, and wait for it."""
    session.check_detached(detach)
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        found = client.trainer.resume_training_job(named(session, client, name))
        resumed = follow(session, client, found, detach=detach)
    session.show(resumed, print_training_job)


def wait_for_job(session: Session, client: Client, name: str, *, show_log: bool = False) -> v1.TrainingJob:
    """The job, once it has succeeded; raises JobFailedError."""
    look = f"tunix-rt train {'show' if session.embedded else 'watch'} {short_name(name)}"
    job = v1.TrainingJob(name=name)
    with session.progress() as progress, session.waiting_for("training job", job, look):
        return jobs.wait_for_training_job(
            client, name, on_event=training_progress(progress, show_log=show_log)
        )


def follow(session: Session, client: Client, job: v1.TrainingJob, *, detach: bool) -> v1.TrainingJob:
    """Print the job's name; return it once it has succeeded or, with ``detach``, as it is."""
    if detach:
        session.say_how_to_watch(job, f"tunix-rt train watch {short_name(job.name)}")
        return job
    session.say(f"training job {short_name(job.name)}")
    # Their ids are in the order in which they were made, which is that of the queue.
    session.say_what_goes_on_too(job, client.trainer.list_training_jobs, "first")
    return wait_for_job(session, client, job.name)
