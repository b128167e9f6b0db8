"""What a comparison of two sides that answered the same questions holds. Plain values, free of transport."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tunix_rt_evaluator.evaluations.model import Accuracy, Evaluation, Interval, ItemResult
from tunix_rt_kit.values import AskedDtype, DeleteTime, Labelled, ListFilter, StoredFile, Value, Wanted

REPORT_NAME: Final = "comparisonReports/{comparison_report}"
VerdictName = Literal["IMPROVED", "REGRESSED", "NO_EVIDENCE", "INCONCLUSIVE"]
TestName = Literal["exact McNemar", "permutation"]
IntervalName = Literal["Newcombe", "clustered t", "t"]
SeedTestName = Literal["Welch t", "one-sample t"]
LookupState = Literal["NOT_APPLICABLE", "LOOKED_UP", "NOT_LOOKED_UP"]

Reason = Literal[
    "eval_set",
    "items",
    "prompt_tokens",
    "chat_template",
    "decoding",
    "dtype",
    "reasoning",
    "graders",
    "engine",
]


PatternName = Literal[
    "not_generated",
    "not_graded",
    "repeats",
    "reasoning_unclosed",
    "empty",
    "same_answer",
    "other_format",
    "cut",
    "accepted_in_text",
    "no_answer",
    "more_steps",
    "fewer_steps",
    "other_value",
    "other",
]
"""What the text of a wrong answer shows; ``patterns.RULES`` has the rule of each, in this order."""

WarningReason = Literal["same_evaluation", "equal_answers"]


def report_name(report_id: str) -> str:
    """The resource name of a comparison report."""
    return f"comparisonReports/{report_id}"


class PairedDifference(Value):
    """Two accuracies over the same items; ``difference`` is the candidate's minus the base's.

    ``p_value`` is two-sided. ``detectable`` is the smallest true difference that such a comparison detects
    four times in five; it is None where nothing varied. ``cluster_count`` is 0 if items have no clusters.
    """

    base: Accuracy
    candidate: Accuracy
    difference: float
    interval: Interval
    gained_count: int
    lost_count: int
    p_value: float
    test: TestName = "exact McNemar"
    interval_method: IntervalName = "Newcombe"
    detectable: float | None = None
    cluster_count: int = 0

    @property
    def minimum_detectable_effect(self) -> float | None:
        """``detectable``, as messages call it."""
        return self.detectable


class ScoreDifference(Value):
    """Two mean scores (0 to 1) over the same items, compared by a permutation test.

    Reports have it where some score is neither 0 nor 1.
    """

    base: float
    candidate: float
    difference: float
    interval: Interval
    p_value: float


class CategoryDifference(Value):
    """The difference in one category; "" holds the items without one.

    ``adjusted_p_value`` is Holm's, over all categories of the report; None in reports of older versions.
    """

    category: str
    difference: PairedDifference
    adjusted_p_value: float | None = None


class Flip(Value):
    """An item whose verdict changed: what each side answered.

    ``pattern`` is that of the wrong one of the two answers; None in reports of older versions.
    """

    base: ItemResult
    candidate: ItemResult
    pattern: PatternName | None = None

    @property
    def regressed(self) -> bool:
        """Whether the base is right and the candidate wrong."""
        return not self.candidate.verdict.correct


class PatternCount(Value):
    """How many items went wrong, and how many went right, whose wrong answer shows a pattern."""

    pattern: PatternName
    regression_count: int
    improvement_count: int


class ComparisonWarning(Value):
    """Why a comparison can show little or nothing."""

    reason: WarningReason
    description: str


class TrainingFacts(Value):
    """What a checkpoint was trained on and how, from its training manifest.

    ``steps`` are those that were taken, ``learned_row_count`` the dataset's rows that they learned from; None
    where that is not known. ``lora_rank`` and ``lora_alpha`` are None where all weights were tuned.
    """

    training_job: str
    dataset: str
    dataset_digest: str
    learned_row_count: int | None
    base_model: str
    method: Literal["lora", "qlora", "full"]
    learning_rate: float
    schedule: Literal["constant", "linear", "cosine"]
    lora_rank: int | None
    lora_alpha: float | None
    steps: int
    epochs: float | None
    rows_per_batch: int
    max_length: int
    seed: int
    dtype: AskedDtype


class TrainingStep(Value):
    """The metrics of one step of the candidate's training, from its checkpoint; losses are nats per token."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int
    loss: float
    learning_rate: float = 0.0
    grad_norm: float = 0.0
    supervised_tokens: int = 0
    tokens: int = 0
    validation_loss: float | None = None


class Waiver(Value):
    """A difference in how the sides were asked, which the caller waived."""

    reason: Reason
    description: str


class OutcomeBounds(Value):
    """The difference if all unsettled answers went against the candidate, or all for it.

    Unsettled are the answers of items that failed, could not be graded or are missing on a side. The fields
    named ``truncated`` count answers that were cut as unsettled too.
    """

    unsettled_count: int
    worst: float
    best: float
    truncated_count: int
    worst_with_truncated: float
    best_with_truncated: float


class LeakedItem(Value):
    """An item of the eval set that a row of the training data holds, and how they match."""

    item_id: str
    dataset: str
    row_id: str
    match: str


class Contamination(Value):
    """The items that the training data holds. ``clean`` is the difference over the others, if there are any.

    ``reason`` says why nothing was looked up.
    """

    state: LookupState
    reason: str = ""
    datasets: tuple[str, ...] = ()
    items: tuple[LeakedItem, ...] = ()
    clean: PairedDifference | None = None


class SeedSummary(Value):
    """Accuracies of several training seeds; ``spread`` is their standard deviation, None for one alone.

    ``p_value`` and ``interval`` are None where the seeds do not differ, so that there is nothing to test by.
    """

    base: tuple[float, ...]
    candidate: tuple[float, ...]
    base_mean: float
    candidate_mean: float
    base_spread: float | None
    candidate_spread: float | None
    difference: float
    interval: Interval | None
    p_value: float | None
    test: SeedTestName


class UnmarkedAnswers(Value):
    """How many verdicts of each side rest on an answer that no mark showed, and how many of them are right.

    All runs of a side count together. ``without`` is the comparison with every one of these wrong.
    """

    base_count: int
    base_correct_count: int
    candidate_count: int
    candidate_correct_count: int
    without: PairedDifference
    verdict: VerdictName
    verdict_reasons: tuple[str, ...] = ()


class PartTokens(Value):
    """What a side's first run wrote: reasoning and answers. Tokens are None if some could not be counted."""

    answer_count: int
    reasoning_count: int
    unclosed_count: int
    reasoning_tokens: int | None
    answer_tokens: int | None


class ComparisonContent(Value):
    """A comparison report as it is stored: everything but its name, its digest and its time.

    ``base`` and ``candidate`` are finished evaluations with summary and manifest. ``more_bases`` and
    ``more_candidates`` are of other training seeds. Flips compare ``base`` and ``candidate`` only.
    """

    base: Evaluation
    candidate: Evaluation
    verdict: VerdictName
    overall: PairedDifference
    categories: tuple[CategoryDifference, ...]
    flips: tuple[Flip, ...] = ()
    training: tuple[TrainingStep, ...] = ()
    more_bases: tuple[Evaluation, ...] = ()
    more_candidates: tuple[Evaluation, ...] = ()
    verdict_reasons: tuple[str, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    bounds: OutcomeBounds | None = None
    contamination: Contamination | None = None
    seeds: SeedSummary | None = None
    scores: ScoreDifference | None = None
    base_output_tokens: tuple[int, ...] = ()
    candidate_output_tokens: tuple[int, ...] = ()
    # None where nothing rests on such answers, and in reports of older versions.
    unmarked: UnmarkedAnswers | None = None
    # Empty in reports of older versions, and where no verdict changed.
    patterns: tuple[PatternCount, ...] = ()
    warnings: tuple[ComparisonWarning, ...] = ()
    # None of a side that is no checkpoint, or whose training manifest is gone.
    base_training: TrainingFacts | None = None
    candidate_training: TrainingFacts | None = None
    # None where neither side wrote reasoning.
    base_parts: PartTokens | None = None
    candidate_parts: PartTokens | None = None


LEFT_OUT_OF_LISTS: Final = {"flips", "training", "base_output_tokens", "candidate_output_tokens"}
"""Fields of a report's content that grow with its items or steps."""


class ComparisonReport(Labelled):
    """A stored comparison report: ``digest`` is that of its content's canonical JSON, ``documents`` are its
    renderings by format.

    In a list, and of one that was deleted, ``content`` lacks what ``LEFT_OUT_OF_LISTS`` names; it is None if
    an older version stored it.
    """

    id: str
    digest: str
    create_time: datetime
    content: ComparisonContent | None
    documents: Mapping[str, StoredFile] = Field(default_factory=dict)
    delete_time: DeleteTime = None


class ReportFilter(ListFilter):
    """Which reports a list has."""

    order_fields = ("create_time", "display_name", "name", "verdict", "eval_set", "base_model", "dataset")

    verdicts: tuple[Annotated[VerdictName, BeforeValidator(str.upper)], ...] = ()
    models: Wanted = ()
    datasets: Wanted = ()
    eval_sets: Wanted = ()
    evaluations: Wanted = ()


@dataclass(frozen=True, slots=True)
class Run:
    """An evaluation with its results, by the digest of each item."""

    evaluation: Evaluation
    results: dict[str, ItemResult]

    @classmethod
    def of(cls, evaluation: Evaluation, results: Iterable[ItemResult]) -> Run:
        """A run of an evaluation's results."""
        return cls(evaluation, {result.item_digest: result for result in results})
