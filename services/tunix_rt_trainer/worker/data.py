"""The data of a job: read, tokenised, refused by name where it does not fit, and planned as batches."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import optax
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tunix_rt_kit.canonical import digest_file, digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DataLoss, DomainError, FailedPrecondition
from tunix_rt_kit.loss_mask import ExampleEncoder, TextExample, TokenExample, parse_example
from tunix_rt_kit.models.store import BaseModelInfo
from tunix_rt_kit.models.tensor_files import storing
from tunix_rt_kit.models.tokenizer import load_tokenizer
from tunix_rt_trainer.base_models import require_single_tokens
from tunix_rt_trainer.jobs.admission import (
    LOST,
    NAMED,
    NO_END,
    NO_RESPONSE,
    SPECIAL,
    Problem,
    refusal,
    too_long,
)
from tunix_rt_trainer.jobs.model import TRAIN_SPLIT, VALIDATION_SPLIT, EarlyStopping, SplitFile, WorkerSpec
from tunix_rt_trainer.jobs.plan import step_count
from tunix_rt_trainer.worker.batches import BatchPlan, BatchSource
from tunix_rt_trainer.worker.reporter import Reporter
from tunix_rt_trainer.worker.step import learning_rate

_CHUNK = 512


def read_examples(path: Path, digest: str) -> list[TextExample]:
    """The rows of a split's file of training examples.

    Raises:
        DataLoss: EXAMPLES_CORRUPT, the file's bytes are not those of ``digest``, or a line is not an example.
    """
    actual = digest_file(path)
    if actual != digest:
        raise DataLoss(
            f"{path.name} has digest {actual}, expected {digest}",
            reason="EXAMPLES_CORRUPT",
            metadata={"file": path.name, "digest": digest, "actual_digest": actual},
        )
    with path.open(encoding="utf-8") as file:
        return [parse_example(line, path.name, number) for number, line in enumerate(file, 1)]


def tokenize(
    examples: Sequence[TextExample], encoder: ExampleEncoder, *, progress: Callable[[int, int], None]
) -> list[TokenExample]:
    """The examples as tokens; ``progress`` is called with (done, total)."""
    tokens: list[TokenExample] = []
    for start in range(0, len(examples), _CHUNK):
        tokens += encoder.encode(examples[start : start + _CHUNK])
        progress(len(tokens), len(examples))
    return tokens


def check_examples(
    examples: Sequence[TokenExample], *, max_length: int, vocab_size: int, end_id: int, split: str
) -> None:
    """Refuse examples that cannot be learned as they are.

    Args:
        examples: the rows of one split.
        max_length: most tokens of an example.
        vocab_size: rows of the model's embedding.
        end_id: the token that ends a turn.
        split: the split's name, for messages.

    Raises:
        FailedPrecondition: EXAMPLE_TOO_LONG, EXAMPLE_WITHOUT_RESPONSE, TOKEN_OUT_OF_VOCABULARY,
        END_NOT_SUPERVISED, TARGET_LOST or SPECIAL_TOKEN_IN_TEXT; each says how many examples are wrong and
        names the first of them.
    """
    _refuse(
        too_long(max_length),
        split,
        ((r.id, f"{len(r.ids)} tokens") for r in examples if len(r.ids) > max_length),
    )
    _refuse(NO_RESPONSE, split, ((r.id, "no token to learn") for r in examples if r.supervised_tokens < 1))
    unknown = Problem(
        "TOKEN_OUT_OF_VOCABULARY",
        f"with a token that the model, which knows {vocab_size}, has no embedding for",
        "the base model's tokenizer and weights must belong together",
    )
    _refuse(unknown, split, ((r.id, f"token {max(r.ids)}") for r in examples if max(r.ids) >= vocab_size))
    _refuse(NO_END, split, ((r.id, "no end") for r in examples if not r.ends_learned(end_id)))
    for problem, fault in ((LOST, "target_lost"), (SPECIAL, "special_token")):
        _refuse(problem, split, ((r.id, f"{len(r.ids)} tokens") for r in examples if r.fault == fault))


def _refuse(problem: Problem, split: str, wrong: Iterable[tuple[str, str]]) -> None:
    found = list(wrong)
    if found:
        labels = [f"{name} ({detail})" for name, detail in found[:NAMED]]
        raise refusal(problem, split, len(found), found[0][0], labels)


Arrays = Mapping[str, np.ndarray[Any, Any]]


class TokenCache:
    """Splits as tokens under one folder, which may be shared by jobs at the same time and emptied at any.

    A file's name is a digest of the split's file (whose texts the chat template has already rendered), of the
    tokenizer and of the version of ``tokenizers``. Length is no part of it, for nothing is cut off. Only
    examples without a fault are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, file_digest: str, tokenizer_digest: str) -> Path:
        """Where the tokens of a split's file lie or would lie."""
        made_from = {
            "format": 3,
            "file": file_digest,
            "tokenizer": tokenizer_digest,
            "tokenizers": metadata.version("tokenizers"),
        }
        return self._folder / f"{digest_json(made_from).removeprefix('sha256:')}.safetensors"

    def read(self, path: Path) -> list[TokenExample] | None:
        """The examples at ``path``; None if there are none, or if the file is damaged."""
        try:
            with safe_open(path, framework="numpy") as file:  # type: ignore[no-untyped-call]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                told = file.metadata() or {}
        except (OSError, SafetensorError):
            return None
        if told.get("content") != _digest(arrays):
            return None
        ids = json.loads(arrays["ids"].tobytes())
        tokens, ends, learned, behind = (
            arrays[name].tolist() for name in ("tokens", "ends", "learned", "learned_ends")
        )
        spans = [(start, end) for start, end in learned]
        return [
            TokenExample(name, tuple(tokens[start:end]), tuple(spans[first:last]))
            for name, start, end, first, last in zip(
                ids, [0, *ends][:-1], ends, [0, *behind][:-1], behind, strict=True
            )
        ]

    def write(self, path: Path, examples: Sequence[TokenExample]) -> None:
        """Keep the examples at ``path``; raises ResourceExhausted(STORAGE_FULL) and the like."""
        ids = json.dumps([row.id for row in examples]).encode()
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "ids": np.frombuffer(ids, np.uint8),
            "tokens": np.fromiter((token for row in examples for token in row.ids), np.int32),
            "ends": np.cumsum([len(row.ids) for row in examples], dtype=np.int64),
            "learned": np.array([span for row in examples for span in row.learned], np.int64).reshape(-1, 2),
            "learned_ends": np.cumsum([len(row.learned) for row in examples], dtype=np.int64),
        }
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with storing(path):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                save_file(arrays, partial, metadata={"content": _digest(arrays)})
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """What to feed, when to measure the validation loss and when to save: at interval 0 only at the end.

    ``microbatches`` is how many a batch of ``train`` has. ``keep_best`` saves the checkpoint of each step
    whose validation loss is the lowest so far. ``early_stopping`` is None to train to the last step.
    """

    train: BatchSource
    microbatches: int
    validation: BatchSource | None
    validation_interval_steps: int
    checkpoint_interval_steps: int
    keep_best: bool
    early_stopping: EarlyStopping | None
    max_steps: int
    learning_rate: optax.Schedule


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
        template = ChatTemplate.of(inputs.chat_template)
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
            train=self._source(train, train_plan, steps, microbatches=spec.gradient_accumulation_steps),
            microbatches=spec.gradient_accumulation_steps,
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
        return self._source(examples, plan, plan.batches_per_epoch, microbatches=1)

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
        self, examples: list[TokenExample], plan: BatchPlan, steps: int, *, microbatches: int
    ) -> BatchSource:
        return BatchSource(
            examples,
            plan,
            row_length=self.worker.spec.max_length,
            pad_id=self._pad_id,
            steps=steps,
            microbatches=microbatches,
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
