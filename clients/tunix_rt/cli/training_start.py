"""`tunix-rt train start`, whose options are read off the contract: only it loads what that takes."""

from __future__ import annotations

from typing import Annotated

import typer

from tunix_rt import v1
from tunix_rt.cli.command import command
from tunix_rt.cli.effects import Effect
from tunix_rt.cli.labels import LabelOptions
from tunix_rt.cli.lookup import completes, named
from tunix_rt.cli.options import DTYPE_HELP, DetachOption, Shown, SpecOptions, dataset_name, spec_options
from tunix_rt.cli.session import Session
from tunix_rt.cli.training import app, follow
from tunix_rt.cli.training_view import print_training_job, print_training_plan
from tunix_rt.loop.config import TrainingConfig
from tunix_rt.loop.specs import filled

_LORA = "LoRA adapter"
_OPTIMIZER = "Optimizer"
_MEMORY = "Memory and devices"
_CHECKPOINTS = "Validation and checkpoints"
_SHOWN = {
    "method": Shown(
        "lora: an adapter; qlora: an adapter on base weights in 4 bits; full: all weights.", default="lora"
    ),
    "epochs": Shown("Passes over the training split. \\[default: 1]"),
    "max_steps": Shown("Optimizer steps, instead of --epochs."),
    "rows_per_batch": Shown("Rows that one step learns from. \\[default: 8]"),
    "tokens_per_batch": Shown("The same in tokens: a multiple of --max-length."),
    "gradient_accumulation_steps": Shown(
        "Split a batch into this many microbatches: less memory, the same step. \\[default: 1]",
        _MEMORY,
        ("--gradient-accumulation",),
    ),
    "remat": Shown(
        "What of a layer is computed again in the backward pass: none needs the most memory, full the least.",
        _MEMORY,
        default="dots",
    ),
    "fsdp": Shown("Devices among which the rows are divided. \\[default: 1]", _MEMORY),
    "tp": Shown("Devices among which each layer is divided. \\[default: 1]", _MEMORY),
    "max_length": Shown("Tokens in a row. \\[default: 256]"),
    "packing": Shown("Put several examples into a row.", default=True),
    "dtype": Shown(DTYPE_HELP, default="auto"),
    "seed": Shown("Seed of the adapter's first values and the data order."),
    "validation_interval_steps": Shown(
        "Steps between validations. \\[default: only at the end]", _CHECKPOINTS, ("--validation-interval",)
    ),
    "checkpoint_interval_steps": Shown(
        "Steps between checkpoints, from which an interrupted job resumes; 0: only at the end. "
        "\\[default: 50]",
        _CHECKPOINTS,
        ("--checkpoint-interval",),
    ),
    "keep_best_checkpoint": Shown(
        "Also keep the checkpoint with the lowest validation loss.", _CHECKPOINTS, ("--keep-best",)
    ),
    "patience": Shown(
        "Stop after N validations in a row whose loss did not fall.",
        _CHECKPOINTS,
        ("--early-stopping",),
        metavar="N",
    ),
    "min_delta": Shown(
        "A loss must be lower by more than this to count as fallen. \\[default: 0]", _CHECKPOINTS
    ),
    "rank": Shown("Rank of the adapter. \\[default: 16]", _LORA),
    "alpha": Shown("The adapter is scaled by alpha / rank. \\[default: twice the rank]", _LORA),
    "target_modules": Shown(
        "A projection that gets an adapter (may be repeated). \\[default: all seven]",
        _LORA,
        ("--target-module",),
    ),
    "learning_rate": Shown("Peak learning rate. \\[default: 0.001]", _OPTIMIZER, ("--learning-rate", "--lr")),
    "schedule": Shown("How the learning rate falls.", _OPTIMIZER, default="linear"),
    "warmup_steps": Shown("Steps of warm-up. \\[default: 0]", _OPTIMIZER),
    "weight_decay": Shown("AdamW's weight decay. \\[default: 0]", _OPTIMIZER),
    "beta1": Shown("AdamW's beta1. \\[default: 0.9]", _OPTIMIZER),
    "beta2": Shown("AdamW's beta2. \\[default: 0.999]", _OPTIMIZER),
    "epsilon": Shown("AdamW's epsilon. \\[default: 1e-8]", _OPTIMIZER),
    "max_grad_norm": Shown("Gradients are clipped to this norm; 0: not clipped. \\[default: 1]", _OPTIMIZER),
}


@spec_options(TrainingConfig, _SHOWN, without=["base_model"])
class TrainingOptions(SpecOptions):
    """What is trained, and how."""

    def spec(self, base_model: str, dataset: str) -> v1.TrainingSpec:
        """The spec; raises typer.BadParameter."""
        values = self.values()
        stopping = values["early_stopping"]
        if stopping["patience"] is None:
            if stopping["min_delta"] is not None:
                raise typer.BadParameter("--min-delta needs --early-stopping")
            del values["early_stopping"]
        return filled(v1.TrainingSpec(base_model=base_model, dataset=dataset), values)


@command(
    app,
    "start",
    example=(
        "tunix-rt train start --dataset arithmetic@1 --base-model smollm2-135m-instruct",
        "tunix-rt train start -d arithmetic@1 -m smollm2-135m-instruct --epochs 3 --dry-run",
        "tunix-rt train start -d arithmetic@1 -m smollm2-135m-instruct --name 'short run' --tag sweep",
        "tunix-rt train start -d gsm8k@2 -m smollm2-135m-instruct --max-steps 20 -s localhost:50050 --detach",
    ),
    prints=(v1.TrainingJob, v1.TrainingPlan),
)
def start(
    session: Session,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            help="The dataset: ID or ID@VERSION.",
            show_default=False,
            autocompletion=completes("datasets"),
        ),
    ],
    base_model: Annotated[
        str,
        typer.Option(
            "--base-model",
            "-m",
            help="A base model's id, or a Hugging Face folder on the trainer's host.",
            show_default=False,
            autocompletion=completes("baseModels"),
        ),
    ],
    wanted: TrainingOptions,
    labels: LabelOptions,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything and show what the job would do, but do not start it."
        ),
    ] = False,
    detach: DetachOption = False,
) -> None:
    """Train on a dataset, and wait for it."""
    session.check_detached(detach)
    spec = wanted.spec(base_model, dataset_name(dataset))
    with session.connect(Effect.READS if dry_run else None) as client:
        spec.dataset = named(session, client, spec.dataset)
        with session.progress() as progress:
            checking = progress.bar("checking the dataset")
            if dry_run:
                plan = client.trainer.plan_training_job(spec)
            else:
                job = client.trainer.create_training_job(spec, **labels.given())
            checking.finish()
        if not dry_run:
            job = follow(session, client, job, detach=detach)
    if dry_run:
        session.show(plan, print_training_plan)
    else:
        session.show(job, print_training_job)


# First in the help, as it is first in use.
app.registered_commands.insert(0, app.registered_commands.pop())
