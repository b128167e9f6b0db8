"""`tunix-rt train start`."""

from __future__ import annotations

from typing import Annotated

import typer

from tunix_rt import v1
from tunix_rt.cli.command import command
from tunix_rt.cli.resources import dataset_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.spec_options import (
    DTYPE_HELP,
    DTYPES,
    METHODS,
    REMATS,
    SCHEDULES,
    Dtype,
    Method,
    Remat,
    Schedule,
)
from tunix_rt.cli.training.app import DetachOption, app
from tunix_rt.cli.training.views import print_training_plan, show_training_job
from tunix_rt.cli.training.waiting import check_detached, follow

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
