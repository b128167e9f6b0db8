"""`tunix-rt train`: fine-tune a base model on a dataset."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich.console import Console

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.job_progress import training_progress
from tunix_rt.cli.resources import dataset_name, resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.spec_options import DTYPES, SCHEDULES, Dtype, Schedule
from tunix_rt.cli.waiting import waiting_for

app = group("Fine-tune a base model on a dataset.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The training job's name or id.")]
_LORA = "LoRA adapter"
_OPTIMIZER = "Optimizer"


@command(
    app,
    "start",
    example=(
        "tunix-rt train start --dataset arithmetic@1 --base-model smollm2-135m-instruct",
        "tunix-rt train start -d gsm8k@2 -m smollm2-135m-instruct --max-steps 20 -s localhost:50050 --detach",
    ),
)
def start(
    session: Session,
    dataset: Annotated[
        str, typer.Option("--dataset", "-d", help="The dataset: ID or ID@VERSION.", show_default=False)
    ],
    base_model: Annotated[
        str,
        typer.Option(
            "--base-model",
            "-m",
            help="A base model's id, or a Hugging Face folder on the trainer's host.",
            show_default=False,
        ),
    ],
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", help="Optimizer steps. \\[default: one pass]")
    ] = None,
    rows_per_batch: Annotated[
        int | None, typer.Option("--rows-per-batch", help="Rows in a batch. \\[default: 8]")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Tokens in a row. \\[default: 256]")
    ] = None,
    packing: Annotated[
        bool, typer.Option("--packing/--no-packing", help="Put several examples into a row.")
    ] = True,
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="Type of weights and activations.")
    ] = Dtype.BFLOAT16,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the adapter's first values and the data order.")
    ] = 0,
    validation_interval: Annotated[
        int | None,
        typer.Option("--validation-interval", help="Steps between validations. \\[default: only at the end]"),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", help="Rank. \\[default: 16]", rich_help_panel=_LORA)
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="Scale numerator. \\[default: twice the rank]", rich_help_panel=_LORA),
    ] = None,
    target_module: Annotated[
        list[str] | None,
        typer.Option(
            "--target-module",
            help="A projection that gets one (may be repeated). \\[default: all seven]",
            rich_help_panel=_LORA,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", "--lr", help="Its peak. \\[default: 0.001]", rich_help_panel=_OPTIMIZER
        ),
    ] = None,
    schedule: Annotated[
        Schedule, typer.Option("--schedule", help="How the rate falls.", rich_help_panel=_OPTIMIZER)
    ] = Schedule.LINEAR,
    warmup_steps: Annotated[
        int | None,
        typer.Option("--warmup-steps", help="Steps of warm-up. \\[default: 0]", rich_help_panel=_OPTIMIZER),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option("--weight-decay", help="AdamW's. \\[default: 0]", rich_help_panel=_OPTIMIZER),
    ] = None,
    max_grad_norm: Annotated[
        float | None,
        typer.Option(
            "--max-grad-norm", help="Gradient clipping; 0: none. \\[default: 1]", rich_help_panel=_OPTIMIZER
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for the job (with a server only).")
    ] = False,
) -> None:
    """Train a LoRA adapter, and wait for it."""
    if detach and session.embedded:
        raise typer.BadParameter("--detach needs a server: the embedded one ends with this command")
    spec = v1.TrainingSpec(
        base_model=base_model,
        dataset=dataset_name(dataset),
        lora=v1.LoraConfig(rank=rank, alpha=alpha, target_modules=target_module or ()),
        optimizer=v1.OptimizerConfig(
            learning_rate=learning_rate,
            schedule=SCHEDULES[schedule],
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
        ),
        max_steps=max_steps,
        rows_per_batch=rows_per_batch,
        max_length=max_length,
        packing=packing,
        dtype=DTYPES[dtype],
        seed=seed,
        validation_interval_steps=validation_interval,
    )
    with session.connect() as client:
        with session.progress() as progress:
            checking = progress.bar("checking the dataset")
            job = client.trainer.create_training_job(spec)
            checking.finish()
        if not detach:
            session.say(f"training job {short_name(job.name)}")
            job = _wait(session, client, job.name)
    _show(session, job)


@command(app, "watch", example="tunix-rt train watch $JOB --server localhost:50050")
def watch(session: Session, job: JobArgument) -> None:
    """Follow a training job until it ends, its log lines included."""
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        ended = _wait(session, client, name, show_log=True)
    _show(session, ended)


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
    _show(session, found)


@command(app, "cancel", example="tunix-rt train cancel $JOB --server localhost:50050")
def cancel(session: Session, job: JobArgument) -> None:
    """Ask a training job to stop at its next step; asked twice, it is stopped at once."""
    name = resource_name("trainingJobs", job)
    with session.connect() as client:
        found = client.trainer.cancel_training_job(name)
    _show(session, found)


def _wait(session: Session, client: Client, name: str, *, show_log: bool = False) -> v1.TrainingJob:
    look = f"tunix-rt train watch {short_name(name)}"
    with session.progress() as progress, waiting_for(session, "training job", look):
        return jobs.wait_for_training_job(
            client, name, on_event=training_progress(progress, show_log=show_log)
        )


def _show(session: Session, job: v1.TrainingJob) -> None:
    if session.as_json:
        session.print_message(job)
    else:
        print_training_job(session.out, job)


def print_training_job(console: Console, job: v1.TrainingJob) -> None:
    """A training job as a sheet of facts."""
    spec, lora, optimizer, metrics = job.spec, job.spec.lora, job.spec.optimizer, job.latest_metrics
    console.print(
        tables.facts(
            [
                ("job", job.name),
                ("state", tables.state(v1.TrainingJob.State.Name(job.state))),
                ("error", job.error.message),
                ("base model", spec.base_model),
                ("dataset", f"{short_name(spec.dataset)} ({text.short_digest(job.dataset_digest)})"),
                ("template", text.short_digest(job.chat_template_digest)),
                ("adapter", f"LoRA rank {lora.rank}, alpha {lora.alpha:g}, {', '.join(lora.target_modules)}"),
                (
                    "optimizer",
                    f"AdamW, learning rate {optimizer.learning_rate:g}, "
                    f"{_schedule_label(optimizer.schedule)}, warm-up {optimizer.warmup_steps}",
                ),
                (
                    "batches",
                    f"{spec.rows_per_batch} rows of {spec.max_length} tokens, "
                    f"{'packed, ' if spec.packing else ''}"
                    f"{text.enum_label(v1.Dtype.Name(spec.dtype), 'DTYPE_')}, seed {spec.seed}",
                ),
                ("steps", f"{metrics.step:,} of {spec.max_steps:,}"),
                ("loss", f"{metrics.loss:.6f}" if metrics.step else ""),
                (
                    "validation loss",
                    f"{metrics.validation_loss:.6f}" if metrics.HasField("validation_loss") else "",
                ),
                ("checkpoint", job.checkpoint),
                ("stages", tables.stage_line(job.stage_timings)),
                ("attempts", str(job.attempt_count) if job.attempt_count > 1 else ""),
                ("created", tables.moment(job.create_time)),
            ]
        )
    )
    if job.checkpoint:
        console.print(
            f"next: tunix-rt evaluate --eval-set ID --checkpoint {short_name(job.name)}",
            style="dim",
            highlight=False,
        )


def _schedule_label(schedule: v1.LearningRateSchedule.ValueType) -> str:
    return text.enum_label(v1.LearningRateSchedule.Name(schedule), "LEARNING_RATE_SCHEDULE_")
