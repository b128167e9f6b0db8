"""A training spec and metrics of steps, for tests that need any."""

from __future__ import annotations

from tunix_rt_trainer.jobs.model import LoraConfig, OptimizerConfig, StepMetrics, TrainingSpec

SPEC = TrainingSpec(
    base_model="tiny",
    dataset="datasets/sums@1",
    lora=LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj",)),
    optimizer=OptimizerConfig(
        learning_rate=0.01,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        max_grad_norm=1.0,
    ),
    max_steps=3,
    rows_per_batch=4,
    max_length=128,
    packing=True,
    dtype="float32",
    seed=1,
    validation_interval_steps=0,
)


def metrics(step: int) -> StepMetrics:
    """Metrics of a step, whose loss is 4 / step."""
    return StepMetrics(
        step=step,
        loss=4.0 / step,
        learning_rate=0.01,
        grad_norm=1.0,
        supervised_tokens=10,
        tokens=20,
        tokens_per_second=200.0,
        step_duration_s=0.1,
        eta_s=1.0,
    )
