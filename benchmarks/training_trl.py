"""TRL's ``SFTTrainer`` with ``peft``: ``python -m benchmarks.training_trl TASK``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_caching
from peft import LoraConfig, PeftModel
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.training_peer import Task, answer, told


class RecordingTrainer(SFTTrainer):  # type: ignore[misc]
    """Keeps the loss and the supervised tokens of each step, and the order of the examples if asked to."""

    def __init__(self, *args: Any, in_order: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_order = in_order
        self.losses: list[float] = []
        self.tokens: list[int] = []

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.tokens.append(int((inputs["labels"][:, 1:] != -100).sum()))
        found = super().compute_loss(model, inputs, *args, **kwargs)
        self.losses.append(float(found[0] if isinstance(found, tuple) else found))
        return found

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        if self._in_order:
            return SequentialSampler(dataset or self.train_dataset)
        return super()._get_train_sampler(dataset)


class _Clock(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def train(task: Task) -> tuple[Sequence[float], Sequence[int], Sequence[float]]:
    """Train as a task says; returns the arguments of ``training_peer.answer``."""
    disable_caching()
    dtype = getattr(torch, task.dtype)
    model = AutoModelForCausalLM.from_pretrained(task.base_model, dtype=dtype, attn_implementation="sdpa")
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
        trainer = RecordingTrainer(
            model=_with_adapter(model, task) if task.adapter else model,
            args=_settings(task, folder),
            train_dataset=Dataset.from_list(task.examples()),
            processing_class=AutoTokenizer.from_pretrained(task.base_model),
            peft_config=None if task.adapter else _lora(task),
            in_order=bool(task.steps),
        )
        epoch = -(-len(trainer.train_dataset) // task.rows_per_batch)
        trainer.args.max_steps = task.steps or task.warmup + epoch
        clock = _Clock()
        trainer.add_callback(clock)
        trainer.train()
    return clock.ends, trainer.tokens, trainer.losses


def _settings(task: Task, folder: str) -> SFTConfig:
    return SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=task.rows_per_batch,
        learning_rate=task.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=0.0,
        max_steps=1,
        max_length=task.length,
        packing=task.packing,
        completion_only_loss=True,
        bf16=task.dtype == "bfloat16",
        # It saves memory and costs time, of which TRL is given its best.
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _lora(task: Task) -> LoraConfig:
    return LoraConfig(
        r=task.rank, lora_alpha=task.alpha, target_modules=list(task.target_modules), task_type="CAUSAL_LM"
    )


def _with_adapter(model: Any, task: Task) -> PeftModel:
    adapted = PeftModel.from_pretrained(model, Path(task.adapter), is_trainable=True)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    return adapted


if __name__ == "__main__":
    given = told()
    answer(given, *train(given))
