"""How training jobs and plans look in a terminal."""

from __future__ import annotations

from rich.console import Console, RenderableType

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.labels import label_facts
from tunix_rt.cli.options import short_name


def training_facts(job: v1.TrainingJob) -> list[tuple[str, RenderableType]]:
    """What is known of a training job, by name; what is not known is empty."""
    spec, metrics = job.spec, job.latest_metrics
    return [
        ("job", job.name),
        *label_facts(job),
        ("state", tables.state(v1.TrainingJob.State.Name(job.state))),
        ("error", job.error.message),
        ("base model", spec.base_model),
        ("dataset", f"{short_name(spec.dataset)} ({text.short_digest(job.dataset_digest)})"),
        ("template", text.short_digest(job.chat_template_digest)),
        *_spec_facts(spec),
        ("steps", f"{metrics.step:,} of {spec.max_steps:,}"),
        ("loss", f"{metrics.loss:.6f}" if metrics.step else ""),
        ("validation loss", f"{metrics.validation_loss:.6f}" if metrics.HasField("validation_loss") else ""),
        ("checkpoint", job.checkpoint),
        ("best checkpoint", job.best_checkpoint),
        ("stages", tables.stage_line(job.stage_timings)),
        ("attempts", _attempts(job)),
        ("created", tables.moment(job.create_time)),
        ("deleted", tables.deleted(job)),
    ]


def print_training_job(console: Console, job: v1.TrainingJob) -> None:
    """A training job as a sheet of facts."""
    console.print(tables.facts(training_facts(job)))
    if job.HasField("delete_time"):
        return
    if job.state in (v1.TrainingJob.STATE_FAILED, v1.TrainingJob.STATE_CANCELLED):
        hint = f"tunix-rt train resume {short_name(job.name)}"
    elif job.checkpoint:
        hint = f"tunix-rt evaluate --eval-set ID --checkpoint {short_name(job.name)}"
    else:
        return
    console.print(f"next: {hint}", style="dim", highlight=False)


def print_training_plan(console: Console, plan: v1.TrainingPlan) -> None:
    """What a job would do, as a sheet of facts."""
    spec = plan.spec
    share = plan.supervised_tokens / plan.train_tokens if plan.train_tokens else 0.0
    passes = spec.max_steps / plan.steps_per_epoch
    memory = dict(plan.memory_bytes)
    items = ", ".join(
        f"{name} {text.size(memory[name])}" for name in sorted(memory, key=lambda n: -memory[n])
    )
    console.print(
        tables.facts(
            [
                ("base model", f"{spec.base_model}, {text.count(plan.base_parameters)} parameters"),
                ("dataset", short_name(spec.dataset)),
                *_spec_facts(spec),
                ("learned", f"{text.count(plan.trainable_parameters)} parameters"),
                (
                    "examples",
                    f"{plan.train_examples:,} to train on, {plan.validation_examples:,} to validate with",
                ),
                (
                    "tokens",
                    f"{plan.train_tokens:,}, of which {plan.supervised_tokens:,} ({share:.0%}) are learned",
                ),
                ("rows", f"{plan.rows_per_epoch:,} an epoch, {plan.packing_efficiency:.0%} filled"),
                (
                    "steps",
                    f"{spec.max_steps:,} ({passes:.2g} epochs of "
                    f"{text.counted(plan.steps_per_epoch, 'step')})",
                ),
                ("memory", f"about {text.size(sum(memory.values()))}: {items}"),
                ("audit", "every row can be learned"),
            ]
        )
    )


def _spec_facts(spec: v1.TrainingSpec) -> list[tuple[str, str]]:
    optimizer, lora = spec.optimizer, spec.lora
    method = text.enum_label(v1.TuningMethod.Name(spec.method), "TUNING_METHOD_")
    adapter = f", rank {lora.rank}, alpha {lora.alpha:g}, {', '.join(lora.target_modules)}"
    schedule = text.enum_label(v1.LearningRateSchedule.Name(optimizer.schedule), "LEARNING_RATE_SCHEDULE_")
    microbatches = spec.gradient_accumulation_steps
    stopping = spec.early_stopping
    return [
        ("method", method + (adapter if spec.HasField("lora") else "")),
        (
            "optimizer",
            f"AdamW, learning rate {optimizer.learning_rate:g}, {schedule}, warm-up {optimizer.warmup_steps}",
        ),
        (
            "batches",
            f"{text.counted(spec.rows_per_batch, 'row')} of {spec.max_length} tokens, "
            f"{f'in {microbatches} microbatches, ' if microbatches > 1 else ''}"
            f"{'packed, ' if spec.packing else ''}"
            f"{text.enum_label(v1.Dtype.Name(spec.dtype), 'DTYPE_')}, seed {spec.seed}",
        ),
        (
            "early stopping",
            f"after {text.counted(stopping.patience, 'validation')} without a fall"
            if spec.HasField("early_stopping")
            else "",
        ),
    ]


def _attempts(job: v1.TrainingJob) -> str:
    if job.attempt_count < 2:
        return ""
    resumed = [
        f"{attempt.number} resumed from step {attempt.resumed_from_step:,}"
        for attempt in job.attempts
        if attempt.resumed_from_step
    ]
    return f"{job.attempt_count}{': ' if resumed else ''}{', '.join(resumed)}"
