"""What an evaluation is: its spec, state, results, summary and manifest. Plain values, free of transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, ClassVar, Final, Literal

from tunix_rt_evaluator.grading.model import (
    Answer,
    FinishReason,
    Grader,
    Grown,
    Parts,
    ReasoningMarks,
    Split,
    Verdict,
)
from tunix_rt_kit.values import (
    AskedDtype,
    ChatTemplateFields,
    DeleteTime,
    JobError,
    JobState,
    Labelled,
    ListFilter,
    Progress,
    StageTiming,
    StoredFile,
    Value,
    Wanted,
)

Dtype = Literal["bfloat16", "float32"]

EVALUATION_NAME: Final = "evaluations/{evaluation}"
MAX_NEW_TOKENS: Final = 8_192
MAX_BATCH_SIZE: Final = 256
# Far below these they are 0 in float32, and nothing can be sampled.
MIN_TEMPERATURE: Final = 0.001
MIN_TOP_P: Final = 0.000_001
MAX_TEMPERATURE: Final = 5.0
MAX_SAMPLES: Final = 64
# Of an item, all its samples together: 8 bytes each in a message.
MAX_LOGGED_TOKENS: Final = 1 << 17
DEFAULT_MAX_NEW_TOKENS: Final = 128
DEFAULT_BATCH_SIZE: Final = 16
CONFIDENCE: Final = 0.95


def evaluation_name(evaluation_id: str) -> str:
    """The resource name of an evaluation."""
    return f"evaluations/{evaluation_id}"


class Decoding(Grown, Value):
    """At most ``max_new_tokens`` an answer, ``batch_size`` answers at a time, ``samples`` of each item.

    ``temperature`` 0 is greedy; else tokens are sampled, by ``seed``, from the most probable ones whose
    probabilities sum to ``top_p``.
    """

    added = frozenset({"temperature", "top_p", "seed", "samples", "log_probabilities"})

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    batch_size: int = DEFAULT_BATCH_SIZE
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    samples: int = 1
    log_probabilities: bool = False


@dataclass(frozen=True, slots=True)
class RegradeDraft:
    """What a caller wants graded again, unchecked; names are resource names, "" and None were left out."""

    evaluation: str
    eval_set: str
    grader: Mapping[str, Any] | None
    reasoning_marks: Mapping[str, Any] | None = None


class EvaluationSpec(Grown, Value):
    """What is evaluated on ``eval_set`` (an id): ``base_model``, ``checkpoint`` (a resource name) or
    ``endpoint_model``.

    ``chat_template`` is None for an endpoint's model, and while the base model's own is meant and the model
    is not on this host yet. ``fresh`` leaves out what was kept from earlier evaluations. ``reasoning_marks``
    are those that are asked for, None to go by the template; of an evaluation that has a manifest the
    resolved ones, and None if it was made before reasoning was split off.
    """

    added = frozenset({"endpoint_model", "fresh", "reasoning_marks"})

    eval_set: str
    base_model: str | None = None
    checkpoint: str | None = None
    endpoint_model: str | None = None
    chat_template: ChatTemplateFields | None = None
    decoding: Decoding = Decoding()
    # None for an endpoint's model, whose is not known; "auto" until the child has chosen.
    dtype: AskedDtype | None = "auto"
    fresh: bool = False
    reasoning_marks: ReasoningMarks | None = None


class CheckpointInput(Value):
    """What the evaluator needs to know of a checkpoint."""

    name: str
    base_model: str
    digest: str
    files: tuple[StoredFile, ...]
    manifest_digest: str
    dataset_digest: str
    base_weights_digest: str
    chat_template: ChatTemplateFields
    # Empty where an older evaluator admitted the evaluation.
    dataset: str = ""

    def file(self, path: str) -> StoredFile | None:
        """One of its files, if it has it."""
        return next((file for file in self.files if file.path == path), None)


class BaseModelFacts(Value):
    """A base model as admission sees it; digest and template are None until it is on this host."""

    id: str
    available: bool
    path: str
    weights_digest: str | None = None
    chat_template: ChatTemplateFields | None = None


class Regrade(Value):
    """Where the answers of an evaluation come from that only graded them.

    ``source`` is the id of the evaluation that holds them, ``grader`` what replaced the items' own graders.
    """

    source: str
    grader: Grader | None = None
    source_results_digest: str = ""


class EvaluationInput(Value):
    """What an evaluation was given when it was admitted, kept so that it can be started again.

    ``base_model`` is the name of the endpoint's model where there is one.
    """

    eval_set_digest: str
    base_model: str
    checkpoint: CheckpointInput | None = None
    regrade: Regrade | None = None


class Interval(Value):
    """An interval with its level of confidence."""

    lower: float
    upper: float
    confidence: float = CONFIDENCE


class Accuracy(Value):
    """``correct_count`` of ``item_count`` right, with Wilson's interval."""

    item_count: int
    correct_count: int
    accuracy: float
    interval: Interval


class CategoryAccuracy(Value):
    """The accuracy of one category; "" holds the items without one."""

    category: str
    accuracy: Accuracy


class Summary(Value):
    """The result of an evaluation. ``tokens_per_second`` leaves compilation out."""

    overall: Accuracy
    categories: tuple[CategoryAccuracy, ...]
    truncated_count: int
    failed_count: int
    generated_tokens: int
    tokens_per_second: float
    ungraded_count: int = 0
    # None in what was stored before there were scores.
    mean_score: float | None = None
    cached_count: int = 0
    # None in what was stored before there were samples.
    any_correct_count: int | None = None
    # Right answers if those that failed, were not graded or were cut short were all wrong, or all right.
    worst_correct_count: int | None = None
    best_correct_count: int | None = None
    # Answers with reasoning, those whose reasoning was never closed, and the tokens of all reasoning: None
    # where some of it could not be counted.
    reasoning_count: int = 0
    unclosed_reasoning_count: int = 0
    reasoning_tokens: int | None = 0
    # Verdicts that rest on an answer that no mark showed, and those of them that are right.
    unmarked_count: int = 0
    unmarked_correct_count: int = 0


class RunFacts(Grown, Value):
    """What was run, and everything about it that can change a result.

    Of an endpoint's model digests and device are empty.
    """

    base_weights_digest: str
    base_config_digest: str = ""
    tokenizer_digest: str
    chat_template_digest: str
    engine: str
    package_versions: Mapping[str, str]
    runtime_settings: Mapping[str, str]
    device: str
    code_revision: str


class ModelFacts(RunFacts):
    """What a worker found; of an endpoint's model there is neither a chat template nor a type."""

    added = frozenset({"dtype"})

    chat_template: ChatTemplateFields | None
    dtype: Dtype | None = None

    def completed(self, spec: EvaluationSpec) -> EvaluationSpec:
        """``spec`` with what was left to the worker."""
        return spec.model_copy(
            update={"chat_template": self.chat_template, "dtype": self.dtype or spec.dtype}
        )


class Manifest(RunFacts):
    """Everything that can change the result of an evaluation."""

    added = frozenset({"base_config_digest", "eval_set_origin"})

    evaluation: str
    spec: EvaluationSpec
    eval_set_digest: str
    checkpoint_digest: str
    training_manifest_digest: str
    dataset_digest: str
    graders: tuple[str, ...]
    results_digest: str
    regrade: Regrade | None = None
    # As an ``EvalSetOrigin`` is written.
    eval_set_origin: Mapping[str, Any] | None = None


class Evaluation(Labelled):
    """One run of a model over an eval set."""

    id: str
    spec: EvaluationSpec
    inputs: EvaluationInput
    state: JobState
    create_time: datetime
    attempt_count: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    progress: Progress | None = None
    stage_timings: tuple[StageTiming, ...] = ()
    error: JobError | None = None
    summary: Summary | None = None
    manifest: Manifest | None = None
    manifest_file: StoredFile | None = None
    delete_time: DeleteTime = None


class EvaluationFilter(ListFilter):
    """Which evaluations a list has."""

    order_fields = (
        "create_time", "display_name", "state", "eval_set", "base_model", "dataset", "accuracy",
    )  # fmt: skip

    states: tuple[JobState, ...] = ()
    models: Wanted = ()
    datasets: Wanted = ()
    eval_sets: Wanted = ()
    regraded: Wanted = ()


class EvaluationUpdate(Value):
    """What changes about an evaluation; None leaves a fact as it is."""

    spec: EvaluationSpec | None = None
    progress: Progress | None = None
    stage_timings: tuple[StageTiming, ...] | None = None
    attempt_count: int | None = None
    start_time: datetime | None = None
    error: JobError | None = None
    summary: Summary | None = None
    manifest: Manifest | None = None
    manifest_file: StoredFile | None = None


# A message of 4 MiB, less what is around one result.
MAX_RESULT_BYTES: Final = (4 << 20) - (1 << 16)
# Of an encoded result: its digests, numbers and times, and what stands before each of its texts.
_RESULT_BYTES: Final = 512
_FIELD_BYTES: Final = 32


class Generation(Answer):
    """What a model wrote for one item: the first answer, and ``more`` where several were asked for.

    ``seconds`` is the wall time that the item took of its engine's, of all its answers. ``kept_tokens`` are
    those of its answers that were kept from an earlier evaluation, ``cached`` says that all were.
    ``prompt_tokens`` and ``prompt_token_digest`` are 0 and empty where the prompt could not be rendered.
    """

    added = Answer.added | {"more", "cached", "kept_tokens"}

    item_id: str
    prompt_tokens: int
    prompt_token_digest: str
    error: str = ""
    seconds: float = 0.0
    more: tuple[Answer, ...] = ()
    cached: bool = False
    kept_tokens: int = 0

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Every answer, in order; none where the item failed."""
        return () if self.finish_reason == "failed" else (self, *self.more)

    @property
    def finish_reasons(self) -> frozenset[FinishReason]:
        """Why its answers stopped."""
        return frozenset({self.finish_reason, *(answer.finish_reason for answer in self.more)})


class ItemResult(Grown, Value):
    """What a model answered to one item, and its grade.

    ``verdicts`` are those of every answer where there are several; ``verdict`` then sums them up. ``splits``
    say of every answer where its reasoning stands, None of one without; none at all where no answer has any.
    """

    added = frozenset({"verdicts", "splits"})

    item_id: str
    item_digest: str
    category: str
    prompt: str
    accepted_answers: tuple[str, ...]
    grader: str
    generation: Generation
    verdict: Verdict
    verdicts: tuple[Verdict, ...] = ()
    splits: tuple[Split | None, ...] = ()

    @property
    def parts(self) -> tuple[Parts, ...]:
        """Reasoning and answer of everything that was written, in order; nothing where the item failed."""
        answers = self.generation.answers
        return tuple(
            answer.parts(found) for answer, found in zip(answers, self.splits or repeat(None), strict=False)
        )

    @property
    def each(self) -> tuple[Verdict, ...]:
        """The verdict on every answer, in order; a single one where the item failed."""
        return self.verdicts or (self.verdict,)

    @property
    def settled(self) -> bool:
        """Whether there is an answer that came to its end by itself, and every one could be graded."""
        answers = self.generation.answers
        whole = bool(answers) and all(answer.finish_reason == "stop" for answer in answers)
        return whole and not any(verdict.error for verdict in self.each)

    @property
    def told_parts(self) -> tuple[bool, bool]:
        """Whether a message holds the first answer in its two parts besides its output, and whether it holds
        the reasoning ones of several so: all of it has to fit."""
        first, samples = self._parts_bytes
        room = MAX_RESULT_BYTES - self._whole_bytes
        return first <= room, first + samples <= room

    @property
    def size_bytes(self) -> int:
        """Upper bound of its encoded size, in which the first of several answers stands twice."""
        return self._whole_bytes + sum(
            size for size, told in zip(self._parts_bytes, self.told_parts, strict=True) if told
        )

    @property
    def _whole_bytes(self) -> int:
        answers = [self.generation, *(self.generation.answers if self.verdicts else ())]
        verdicts = [self.verdict, *self.verdicts]
        texts = [self.item_id, self.category, self.prompt, self.grader, self.generation.error]
        texts += self.accepted_answers
        texts += [answer.output for answer in answers]
        for verdict in verdicts:
            texts += [verdict.extracted_answer, verdict.error, verdict.explanation]
        return (
            sum(len(text.encode()) + _FIELD_BYTES for text in texts)
            + sum(8 * len(answer.log_probabilities) + _FIELD_BYTES for answer in answers)
            + _RESULT_BYTES
        )

    @property
    def _parts_bytes(self) -> tuple[int, int]:
        """Of the first answer in its two parts, and of all the samples that hold reasoning."""
        every = self.parts
        first, *_ = [*map(_bytes_of, every[:1]), 0]
        return first, sum(_bytes_of(parts) for parts in every if parts.state != "none" and self.verdicts)


def _bytes_of(parts: Parts) -> int:
    return sum(len(text.encode()) + _FIELD_BYTES for text in (parts.reasoning, parts.answer))


class ItemFilter(Value):
    """Which results are wanted: those that meet every condition that is not None."""

    order_fields: ClassVar = ("item_id", "category", "score", "output_tokens")

    correct: bool | None = None
    category: str | None = None
    finish_reason: FinishReason | None = None
    grader: str | None = None
    ungraded: bool | None = None
    unclosed_reasoning: bool | None = None

    def takes(self, result: ItemResult) -> bool:
        """Whether a result meets every condition."""
        found = (
            (self.correct, result.verdict.correct),
            (self.category, result.category),
            (self.grader, result.grader.partition("/")[0]),
            (self.ungraded, bool(result.verdict.error)),
            (self.unclosed_reasoning, any(parts.state == "unclosed" for parts in result.parts)),
        )
        return all(wanted is None or wanted == value for wanted, value in found) and (
            self.finish_reason is None or self.finish_reason in result.generation.finish_reasons
        )
