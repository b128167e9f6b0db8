"""AdamW and its learning rate, through optax."""

from __future__ import annotations

import optax

from tunix_rt_trainer.jobs.model import OptimizerConfig


def learning_rate(config: OptimizerConfig, max_steps: int) -> optax.Schedule:
    """The learning rate of the update that follows ``n`` updates.

    It rises on a line from 0 to the peak over the warm-up, then stays, or falls so that it would be 0 after
    the last step.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    remaining = max_steps - warmup
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, remaining),
        "cosine": lambda: optax.cosine_decay_schedule(peak, remaining),
    }[config.schedule]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(config: OptimizerConfig, max_steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, if asked for, then AdamW."""
    adamw = optax.adamw(
        learning_rate(config, max_steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    if not config.max_grad_norm:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), adamw)
