# Generated from tunix_rt/v1/{training_job,evaluation}.proto by `make proto`: change those.
"""The settings of a loop that are fields of the contract, as it says them."""

from __future__ import annotations

from typing import Literal

from tunix_rt.schema import Int32, Int64, Section, Seed


class LoraSettings(Section):
    """A low-rank adapter (LoRA, arXiv:2106.09685)."""

    rank: Int32 | None = None
    """Rank, 1-1,024. Left out: 16."""
    alpha: float | None = None
    """Scale numerator; updates are scaled by alpha / rank. Above 0. Left out: twice the rank."""
    target_modules: list[str] = []
    """Projections that get an adapter, of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj.
    Empty: all seven."""


class OptimizerSettings(Section):
    """AdamW (arXiv:1711.05101) and its learning rate."""

    learning_rate: float | None = None
    """Peak learning rate, above 0 and at most 1. Left out: 0.001."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """How it goes over the steps."""
    warmup_steps: Int64 | None = None
    """Steps in which it rises from 0 to the peak. Left out: 0."""
    weight_decay: float | None = None
    """Decoupled weight decay, at least 0. Left out: 0."""
    beta1: float | None = None
    """Decay of the first moment, in [0, 1). Left out: 0.9."""
    beta2: float | None = None
    """Decay of the second moment, in [0, 1). Left out: 0.999."""
    epsilon: float | None = None
    """Added to the denominator, above 0. Left out: 1e-8."""
    max_grad_norm: float | None = None
    """Gradients are scaled down to this global norm, above 0; 0 turns it off. Left out: 1."""


class EarlyStoppingSettings(Section):
    """Ends training when the validation loss no longer falls."""

    patience: Int32 | None = None
    """Validations in a row without a fall after which training ends. At least 1; left out: 3."""
    min_delta: float | None = None
    """A fall counts if it is more than this, in nats. At least 0; left out: 0."""


class MeshSettings(Section):
    """How devices are laid out."""

    fsdp: Int32 | None = None
    """Devices that share rows of a batch, and slices of the weights. Left out: 1."""
    tp: Int32 | None = None
    """Devices that share each layer's width (tensor parallelism). Left out: 1."""


class TrainingConfig(Section):
    """What to train."""

    base_model: str
    """Id of a base model (see ListBaseModels), or the absolute path of a Hugging Face folder on the trainer's
    host."""
    lora: LoraSettings = LoraSettings()
    """The adapter that is trained; must be left out with full."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """How it is trained."""
    max_steps: Int64 | None = None
    """Optimizer steps. At least 1; left out: as many as `epochs` takes."""
    rows_per_batch: Int32 | None = None
    """Rows that one optimizer step learns from, 1-1,024. Left out: 8, or as `tokens_per_batch` says."""
    max_length: Int32 | None = None
    """Tokens of a row, 16 up to the model's context length. Left out: 256. An example that is longer is
    refused by name."""
    packing: bool | None = None
    """Put several examples into a row, kept apart by the attention mask. Left out: true."""
    dtype: Literal["auto", "bfloat16", "float32"] | None = None
    """Type of weights and activations; the adapter and the loss are kept in float32. Left out: auto."""
    seed: Seed = 0
    """Seed of the adapter's first values and of the data order."""
    validation_interval_steps: Int64 | None = None
    """Measure the validation loss every this many steps, and at the end; 0: only at the end. Left out: 0."""
    method: Literal["lora", "qlora", "full"] | None = None
    """Which weights are learned."""
    epochs: float | None = None
    """Passes over the training split, above 0; not together with `max_steps`. Left out: 1."""
    tokens_per_batch: Int32 | None = None
    """Tokens of a batch, padding included: a multiple of `max_length`. Not together with `rows_per_batch`."""
    gradient_accumulation_steps: Int32 | None = None
    """Microbatches into which a batch is split, to hold fewer rows in memory at a time; divides
    `rows_per_batch`. The step is the one that the whole batch would take, whatever tokens each microbatch
    has. Left out: 1."""
    remat: Literal["none", "dots", "full"] | None = None
    """What is kept for the backward pass; the rest is recomputed."""
    checkpoint_interval_steps: Int64 | None = None
    """Save a checkpoint every this many steps, and at the end; 0: only at the end. An interrupted job resumes
    from the latest one. Left out: 50."""
    keep_best_checkpoint: bool = False
    """Also keep the checkpoint with the lowest validation loss. Needs `validation_interval_steps` and a
    validation split."""
    early_stopping: EarlyStoppingSettings | None = None
    """Unset: train to the last step. Needs `validation_interval_steps` and a validation split."""
    mesh: MeshSettings | None = None
    """How devices are laid out; fsdp times tp must be the number of devices to use."""


class DecodingSettings(Section):
    """How answers are generated."""

    max_new_tokens: Int32 | None = None
    """Most tokens of an answer, 1-8,192. Left out: 128."""
    batch_size: Int32 | None = None
    """Answers that are generated together, 1-256. Left out: 16."""
    temperature: float | None = None
    """0 takes the most probable token at each step. From 0.001 to 5: logits are divided by it and a token is
    sampled. Left out: 0."""
    top_p: float | None = None
    """Tokens are sampled from the most probable ones whose probabilities sum to this, 0.000001 to 1; needs a
    temperature. Left out: 1."""
    seed: Int64 | None = None
    """Seed of the sampling. A sample depends on it, on the prompt's tokens and on the sample's number, and on
    no other item; needs a temperature. Left out: 0."""
    samples: Int32 | None = None
    """Answers of each item, 1-64; more than one needs a temperature. Left out: 1."""
    log_probabilities: bool | None = None
    """Keep the log-probability of each token of an answer; `max_new_tokens` times `samples` may then be
    131,072 at most."""
