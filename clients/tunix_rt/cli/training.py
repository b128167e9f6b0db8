"""`tunix-rt train`: start, follow and export training jobs."""

from __future__ import annotations

import shutil
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.options import (
    DTYPE_HELP,
    DTYPES,
    METHODS,
    REMATS,
    SCHEDULES,
    Dtype,
    Method,
    Remat,
    Schedule,
    checkpoint_name,
    dataset_name,
    resource_name,
    short_name,
)
from tunix_rt.cli.progress import training_progress
from tunix_rt.cli.session import Session, waiting_for
from tunix_rt.cli.training_view import print_training_job, print_training_plan

app = group("Fine-tune a base model on a dataset.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The training job's name or id.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Do not wait for the job (with a server only).")]


_LORA = "LoRA adapter"
_OPTIMIZER = "Optimizer"
_MEMORY = "Memory and devices"
_CHECKPOINTS = "Validation and checkpoints"


@command(
    app,
    "start",
    example=(
        "tunix-rt train start --dataset arithmetic@1 --base-model smollm2-135m-instruct",
        "tunix-rt train start -d arithmetic@1 -m smollm2-135m-instruct --epochs 3 --dry-run",
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
    method: Annotated[
        Method,
        typer.Option(
            "--method", help="lora: an adapter; qlora: one beside weights of 4 bits; full: all weights."
        ),
    ] = Method.LORA,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the training split. \\[default: 1]")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", help="Optimizer steps, instead of --epochs.")
    ] = None,
    rows_per_batch: Annotated[
        int | None,
        typer.Option("--rows-per-batch", help="Rows that one step learns from. \\[default: 8]"),
    ] = None,
    tokens_per_batch: Annotated[
        int | None,
        typer.Option("--tokens-per-batch", help="The same in tokens: a multiple of --max-length."),
    ] = None,
    gradient_accumulation: Annotated[
        int | None,
        typer.Option(
            "--gradient-accumulation",
            help="Compute a batch in this many parts, which needs less memory and gives the same step. "
            "\\[default: 1]",
            rich_help_panel=_MEMORY,
        ),
    ] = None,
    remat: Annotated[
        Remat,
        typer.Option(
            "--remat",
            help="What of a layer is kept for the backward pass; none is the most, full the least memory.",
            rich_help_panel=_MEMORY,
        ),
    ] = Remat.DOTS,
    fsdp: Annotated[
        int | None,
        typer.Option("--fsdp", help="Devices that share rows. \\[default: 1]", rich_help_panel=_MEMORY),
    ] = None,
    tp: Annotated[
        int | None,
        typer.Option("--tp", help="Devices that share a layer. \\[default: 1]", rich_help_panel=_MEMORY),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Tokens in a row. \\[default: 256]")
    ] = None,
    packing: Annotated[
        bool, typer.Option("--packing/--no-packing", help="Put several examples into a row.")
    ] = True,
    dtype: Annotated[Dtype, typer.Option("--dtype", help=DTYPE_HELP)] = Dtype.AUTO,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the adapter's first values and the data order.")
    ] = 0,
    validation_interval: Annotated[
        int | None,
        typer.Option(
            "--validation-interval",
            help="Steps between validations. \\[default: only at the end]",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = None,
    checkpoint_interval: Annotated[
        int | None,
        typer.Option(
            "--checkpoint-interval",
            help="Steps between checkpoints, from which an interrupted job goes on; 0: only at the end. "
            "\\[default: 50]",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = None,
    keep_best: Annotated[
        bool,
        typer.Option(
            "--keep-best",
            help="Keep the checkpoint with the lowest validation loss too.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = False,
    early_stopping: Annotated[
        int | None,
        typer.Option(
            "--early-stopping",
            metavar="N",
            help="Stop after N validations in a row whose loss did not fall.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = None,
    min_delta: Annotated[
        float | None,
        typer.Option(
            "--min-delta",
            help="A fall must be more than this to count. \\[default: 0]",
            rich_help_panel=_CHECKPOINTS,
        ),
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
    beta1: Annotated[
        float | None, typer.Option("--beta1", help="AdamW's. \\[default: 0.9]", rich_help_panel=_OPTIMIZER)
    ] = None,
    beta2: Annotated[
        float | None, typer.Option("--beta2", help="AdamW's. \\[default: 0.999]", rich_help_panel=_OPTIMIZER)
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="AdamW's. \\[default: 1e-8]", rich_help_panel=_OPTIMIZER)
    ] = None,
    max_grad_norm: Annotated[
        float | None,
        typer.Option(
            "--max-grad-norm", help="Gradient clipping; 0: none. \\[default: 1]", rich_help_panel=_OPTIMIZER
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show what the job would do, and stop there.")
    ] = False,
    detach: DetachOption = False,
) -> None:
    """Train on a dataset, and wait for it."""
    check_detached(session, detach)
    spec = v1.TrainingSpec(
        base_model=base_model,
        dataset=dataset_name(dataset),
        method=METHODS[method],
        lora=v1.LoraConfig(rank=rank, alpha=alpha, target_modules=target_module or ()),
        optimizer=v1.OptimizerConfig(
            learning_rate=learning_rate,
            schedule=SCHEDULES[schedule],
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            max_grad_norm=max_grad_norm,
        ),
        max_steps=max_steps,
        epochs=epochs,
        rows_per_batch=rows_per_batch,
        tokens_per_batch=tokens_per_batch,
        gradient_accumulation_steps=gradient_accumulation,
        remat=REMATS[remat],
        mesh=v1.MeshShape(fsdp=fsdp, tp=tp),
        max_length=max_length,
        packing=packing,
        dtype=DTYPES[dtype],
        seed=seed,
        validation_interval_steps=validation_interval,
        checkpoint_interval_steps=checkpoint_interval,
        keep_best_checkpoint=keep_best,
        early_stopping=_early_stopping(early_stopping, min_delta),
    )
    with session.connect() as client:
        with session.progress() as progress:
            checking = progress.bar("checking the dataset")
            if dry_run:
                plan = client.trainer.plan_training_job(spec)
            else:
                job = client.trainer.create_training_job(spec)
            checking.finish()
        if not dry_run:
            job = follow(session, client, job, detach=detach)
    if not dry_run:
        show_training_job(session, job)
    elif session.as_json:
        session.print_message(plan)
    else:
        print_training_plan(session.out, plan)


def _early_stopping(patience: int | None, min_delta: float | None) -> v1.EarlyStopping | None:
    if patience is None:
        if min_delta is not None:
            raise typer.BadParameter("--min-delta needs --early-stopping")
        return None
    return v1.EarlyStopping(patience=patience, min_delta=min_delta)


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


class Format(StrEnum):
    """How a checkpoint's files are laid out."""

    PEFT = "peft"
    HF = "hf"


_FORMATS = {Format.PEFT: v1.CHECKPOINT_FORMAT_PEFT, Format.HF: v1.CHECKPOINT_FORMAT_HUGGING_FACE}


@command(
    app,
    "export",
    example=(
        "tunix-rt train export $JOB --format hf -o tuned",
        "tunix-rt train export $JOB --format peft -o adapter",
    ),
)
def export(
    session: Session,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A training job or one of its checkpoints.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder that is new or empty.")],
    format: Annotated[
        Format,
        typer.Option(
            "--format", "-f", help="peft: the adapter; hf: a whole model, the adapter merged into it."
        ),
    ] = Format.HF,
) -> None:
    """Write a checkpoint as `peft` or `transformers` loads it.

    Of a job its best checkpoint is taken where it was asked to keep one, else its latest.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise typer.BadParameter(f"{output} is there already; give a folder that is new or empty")
    with session.connect() as client, session.progress() as progress:
        name = checkpoint_name(client, job)
        making = progress.bar(f"making {format.value} files")
        made = client.trainer.export_checkpoint(name, _FORMATS[format])
        making.finish()
        _download(session, client, made, output.absolute())
    if session.as_json:
        session.print_message(made)
    else:
        size = sum(file.size_bytes for file in made.files)
        session.say(f"{text.counted(len(made.files), 'file')}, {text.size(size)}, written to {output}")


def _download(session: Session, client: Client, made: v1.CheckpointExport, output: Path) -> None:
    """The files appear in ``output`` all together or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with session.progress() as progress:
            bar = progress.bar("fetching", sum(file.size_bytes for file in made.files), "bytes")
            done = 0
            for file in made.files:
                target = temporary / Path(file.path).name
                client.trainer.download_checkpoint_file(
                    made.checkpoint, file.path, target, format=made.format
                )
                done += file.size_bytes
                bar.update(done)
            bar.finish()
        if not output.is_dir():
            temporary.rename(output)
            return
        # It may be the folder that the shell is in.
        for part in temporary.iterdir():
            part.rename(output / part.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def show_training_job(session: Session, job: v1.TrainingJob) -> None:
    """A training job, in the form that was asked for."""
    if session.as_json:
        session.print_message(job)
    else:
        print_training_job(session.out, job)


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
