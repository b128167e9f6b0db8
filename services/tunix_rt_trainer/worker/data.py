"""From the files of a job to the plan of its batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError, FailedPrecondition
from tunix_rt_kit.models.store import BaseModelInfo
from tunix_rt_kit.models.tokenizer import load_tokenizer
from tunix_rt_kit.supervision import ExampleEncoder, TokenExample
from tunix_rt_trainer.base_models.turn_markers import require_single_tokens
from tunix_rt_trainer.jobs.model import TRAIN_SPLIT, VALIDATION_SPLIT, SplitFile, WorkerSpec
from tunix_rt_trainer.jobs.plan import step_count
from tunix_rt_trainer.worker.batches import BatchSource
from tunix_rt_trainer.worker.examples import check_examples, read_examples, tokenize
from tunix_rt_trainer.worker.loop import LoopPlan
from tunix_rt_trainer.worker.optimizer import learning_rate
from tunix_rt_trainer.worker.packing import BatchPlan
from tunix_rt_trainer.worker.reporter import Reporter
from tunix_rt_trainer.worker.token_cache import TokenCache


@dataclass
class DataPreparation:
    """Makes the plan of a job's batches from its files in ``folder``."""

    worker: WorkerSpec
    model: BaseModelInfo
    folder: Path
    reporter: Reporter

    def plan(self) -> LoopPlan:
        """Raises DomainError, naming what does not fit."""
        spec, inputs = self.worker.spec, self.worker.inputs
        self._check_length()
        tokenizer = load_tokenizer(self.model.path)
        template = ChatTemplate(**inputs.chat_template.model_dump())
        end_of_turn = template.end_of_turn
        require_single_tokens((*inputs.turn_markers, end_of_turn), tokenizer, spec.base_model)
        end_id = tokenizer.token_id(end_of_turn)
        assert end_id is not None
        self._encoder = ExampleEncoder(tokenizer, template.frame)
        self._end_id, self._pad_id = end_id, tokenizer.pad_id()
        train = self._examples(self.worker.train_file, inputs.train, TRAIN_SPLIT)
        train_plan = self._batch_plan(train, spec.rows_per_batch, packing=spec.packing)
        steps = step_count(spec, train_plan.batches_per_epoch)
        self._check_warmup(steps)
        self.reporter.plan(steps, spec.dtype)
        self._tell(train, train_plan, steps)
        return LoopPlan(
            train=self._source(train, train_plan, steps, parts=spec.gradient_accumulation_steps),
            parts=spec.gradient_accumulation_steps,
            validation=self._validation(),
            validation_interval_steps=spec.validation_interval_steps,
            checkpoint_interval_steps=spec.checkpoint_interval_steps,
            keep_best=spec.keep_best_checkpoint,
            early_stopping=spec.early_stopping,
            max_steps=steps,
            learning_rate=learning_rate(spec.optimizer, steps),
        )

    def _validation(self) -> BatchSource | None:
        file, inputs = self.worker.validation_file, self.worker.inputs.validation
        if file is None or inputs is None:
            return None
        examples = self._examples(file, inputs, VALIDATION_SPLIT)
        # No more rows at a time than training computes.
        rows = self.worker.spec.rows_per_batch // self.worker.spec.gradient_accumulation_steps
        plan = self._batch_plan(examples, rows, packing=True)
        return self._source(examples, plan, plan.batches_per_epoch, parts=1)

    def _examples(self, file: str, split_file: SplitFile, split: str) -> list[TokenExample]:
        self.reporter.stage("preparing data", split_file.row_count, f"{split} examples")
        tokens = self._tokens(self.folder / file, split_file.digest)
        check_examples(
            tokens,
            max_length=self.worker.spec.max_length,
            vocab_size=self.model.vocab_size,
            end_id=self._end_id,
            split=split,
        )
        return tokens

    def _tokens(self, path: Path, digest: str) -> list[TokenExample]:
        cache = TokenCache(Path(self.worker.cache_dir) / "tokens") if self.worker.cache_dir else None
        if cache is None:
            return self._tokenized(path, digest)
        kept = cache.path(digest, self.model.tokenizer_digest or "")
        found = cache.read(kept)
        if found is not None:
            self.reporter.log(f"took the tokens of {len(found)} examples from {kept.name[:12]} in the cache")
            return found
        tokens = self._tokenized(path, digest)
        if any(row.fault for row in tokens):
            # They will be refused, and what is kept has no place for the reason.
            return tokens
        try:
            cache.write(kept, tokens)
        except DomainError as error:
            self.reporter.log(f"the tokens are not kept for other jobs: {error}")
        return tokens

    def _tokenized(self, path: Path, digest: str) -> list[TokenExample]:
        return tokenize(read_examples(path, digest), self._encoder, progress=self.reporter.progress)

    def _batch_plan(self, examples: list[TokenExample], rows: int, *, packing: bool) -> BatchPlan:
        return BatchPlan(
            [row.id for row in examples],
            [len(row.ids) for row in examples],
            row_length=self.worker.spec.max_length,
            rows_per_batch=rows,
            packing=packing,
            seed=self.worker.spec.seed,
            dataset_digest=self.worker.inputs.dataset_digest,
        )

    def _source(
        self, examples: list[TokenExample], plan: BatchPlan, steps: int, *, parts: int
    ) -> BatchSource:
        return BatchSource(
            examples,
            plan,
            row_length=self.worker.spec.max_length,
            pad_id=self._pad_id,
            steps=steps,
            parts=parts,
            row_multiple=self.worker.spec.mesh.fsdp,
        )

    def _tell(self, examples: list[TokenExample], plan: BatchPlan, steps: int) -> None:
        length = self.worker.spec.max_length
        filled = sum(len(row.ids) for row in examples) / (plan.rows_per_epoch * length)
        self.reporter.log(
            f"{len(examples)} examples in {plan.rows_per_epoch} rows of {length} tokens, {filled:.0%} "
            f"filled; {plan.batches_per_epoch} batches an epoch, {steps} steps"
        )

    def _check_length(self) -> None:
        length, most = self.worker.spec.max_length, self.model.context_length
        if length > most:
            raise FailedPrecondition(
                f"max_length is {length}; {self.worker.spec.base_model} takes at most {most} tokens",
                reason="MAX_LENGTH_INVALID",
            )

    def _check_warmup(self, steps: int) -> None:
        warmup = self.worker.spec.optimizer.warmup_steps
        if warmup >= steps:
            raise FailedPrecondition(
                f"optimizer.warmup_steps is {warmup}, but there are {steps} steps",
                reason="WARMUP_STEPS_INVALID",
            )
