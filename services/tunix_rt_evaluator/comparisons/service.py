"""Compares evaluations, and lists and reads the reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from tunix_rt_evaluator.comparisons.model import (
    REPORT_NAME,
    ComparisonContent,
    ComparisonReport,
    Contamination,
    LeakedItem,
    ReportFilter,
    Run,
    TrainingFacts,
    TrainingStep,
    report_name,
)
from tunix_rt_evaluator.comparisons.pairing import NO_TRAINING_DATA, compared, report_id
from tunix_rt_evaluator.comparisons.policy import check_sound, checked_waivers, manifest_of
from tunix_rt_evaluator.eval_sets.model import eval_set_name
from tunix_rt_evaluator.eval_sets.service import EvalSetRepository
from tunix_rt_evaluator.evaluations.model import EVALUATION_NAME, CheckpointInput, Evaluation
from tunix_rt_evaluator.evaluations.service import EvaluationRepository
from tunix_rt_kit.errors import DomainError, FailedPrecondition, InvalidArgument, check_living, not_found
from tunix_rt_kit.serving.requests import checked_labels, listed, parse_name
from tunix_rt_kit.values import NO_LABELS, JobState, ListAsked, Order, Page, Position, StoredFile

DocumentFormat = Literal["markdown", "json", "html"]

METRICS_FILE: Final = "metrics.jsonl"
# Of a page: the evaluations of each report are in it.
MAX_REPORTS: Final = 100
MAX_SEEDS: Final = 32
"""Evaluations on one side of a comparison."""


class ReportRepository(Protocol):
    """Where reports and their documents are kept."""

    def report(self, report_id: str) -> ComparisonReport | None: ...
    def page(
        self, wanted: ReportFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[ComparisonReport, Position]]: ...
    def set_labels(self, report_id: str, labels: Mapping[str, Any]) -> None: ...
    def delete(self, report_id: str) -> bool: ...
    def add(self, report_id: str, content: ComparisonContent) -> None: ...

    def content(self, digest: str) -> ComparisonContent:
        """The content of a stored report."""

    def training(self, file: StoredFile) -> tuple[TrainingStep, ...]:
        """The training metrics in a checkpoint's file."""

    def trained(self, checkpoint: CheckpointInput) -> TrainingFacts | None:
        """How a checkpoint was trained, by its manifest and its ledger; None if the manifest is gone."""

    def chunks(self, document: StoredFile, offset: int) -> Iterator[bytes]:
        """A document's bytes from ``offset`` on."""


class TrainingData(Protocol):
    """The datasets that checkpoints were trained on."""

    def leaked_items(self, dataset: str, eval_set: str) -> Sequence[LeakedItem]:
        """The items of an eval set that the training split holds; raises DomainError."""


class ComparisonService:
    """The use cases of comparisons.

    Every method raises InvalidArgument, which names each wrong field, NotFound, and what the ports raise.
    """

    def __init__(
        self,
        evaluations: EvaluationRepository,
        eval_sets: EvalSetRepository,
        reports: ReportRepository,
        training_data: TrainingData,
    ) -> None:
        self._evaluations = evaluations
        self._eval_sets = eval_sets
        self._reports = reports
        self._training_data = training_data

    def compare(
        self,
        base_names: Sequence[str],
        candidate_names: Sequence[str],
        waivers: Sequence[str],
        labels: Mapping[str, Any] = NO_LABELS,
    ) -> ComparisonReport:
        """Compare finished evaluations; comparing again gives the same report.

        Args:
            base_names: the base, and further training seeds of it.
            candidate_names: the candidate, and further training seeds of it.
            waivers: differences that are let pass, by their reasons.
            labels: take the place of those that a stored report has.

        Raises FailedPrecondition: EVALUATION_NOT_SUCCEEDED; COMPARISON_UNSOUND, which names each difference
        that was not waived; COMPARISON_EMPTY.
        """
        waived, labels = checked_waivers(waivers), checked_labels(labels)
        bases = self._side(base_names, "base", "more_bases")
        candidates = self._side(candidate_names, "candidate", "more_candidates")
        runs = [
            Run.of(evaluation, self._evaluations.all_results(evaluation.id))
            for evaluation in (*bases, *candidates)
        ]
        found = check_sound(runs, waived)
        identity = report_id(bases, candidates)
        if self._missing(identity):
            contamination = self._contamination([*bases, *candidates])
            looked_up = contamination.state != "NOT_LOOKED_UP"
            identity = report_id(bases, candidates, looked_up=looked_up)
            if self._missing(identity):
                content = compared(
                    runs[: len(bases)],
                    runs[len(bases) :],
                    clusters=self._clusters(bases[0]),
                    waivers=found,
                    contamination=contamination,
                    training=self._training(candidates[0]),
                    trained=(self._trained(bases[0]), self._trained(candidates[0])),
                )
                self._reports.add(identity, content)
        if labels:
            self._reports.set_labels(identity, labels)
        return self._read(self._stored_report(identity))

    def get_report(self, name: str) -> ComparisonReport:
        """One comparison report."""
        return self._read(self._stored_report(parse_name(REPORT_NAME, name)))

    def delete_report(self, name: str) -> ComparisonReport:
        """Delete a report and its documents; what it was stays on record. To compare again makes it again.

        Raises NotFound(COMPARISON_REPORT_NOT_FOUND), also if it is deleted already.
        """
        identity = parse_name(REPORT_NAME, name)
        if not self._reports.delete(identity):
            # It is not there, or was deleted a moment ago.
            self._living(identity)
        return self._stored_report(identity)

    def _missing(self, identity: str) -> bool:
        stored = self._reports.report(identity)
        return stored is None or stored.delete_time is not None

    def _living(self, identity: str) -> ComparisonReport:
        stored = self._stored_report(identity)
        check_living(report_name(identity), "COMPARISON_REPORT", stored.delete_time)
        return stored

    def list_reports(self, asked: ListAsked) -> Page[ComparisonReport]:
        """One page of those that are wanted, by id unless another order is asked for, without the fields in
        ``LEFT_OUT_OF_LISTS``.

        Reads no artifact.
        """

        def find(*wanted: Any) -> Sequence[tuple[ComparisonReport, Position]]:
            found = self._reports.page(*wanted)
            named = self._named([report for report, _ in found])
            return list(zip(named, (position for _, position in found), strict=True))

        return listed("ListComparisonReports", ReportFilter, asked, find, MAX_REPORTS)

    def update_report(self, name: str, labels: Mapping[str, Any]) -> ComparisonReport:
        """Change what people call a report: those of its labels that are given."""
        identity = parse_name(REPORT_NAME, name, "comparison_report.name")
        self._reports.set_labels(identity, checked_labels(labels, "comparison_report"))
        return self._read(self._stored_report(identity))

    def read_report(
        self, name: str, format_: DocumentFormat, offset: int
    ) -> tuple[StoredFile, Iterator[bytes]]:
        """A report as a document, and its bytes from ``offset`` on."""
        stored = self._living(parse_name(REPORT_NAME, name))
        document = stored.documents[format_]
        if not 0 <= offset <= document.size_bytes:
            raise InvalidArgument.of_field(
                "offset",
                f"{offset} is outside the document, which has {document.size_bytes} bytes",
                reason="OFFSET_INVALID",
            )
        return document, self._reports.chunks(document, offset)

    def _side(self, names: Sequence[str], field: str, more: str) -> list[Evaluation]:
        if len(names) > MAX_SEEDS:
            description = f"holds {len(names) - 1}; at most {MAX_SEEDS - 1} would be right"
            raise InvalidArgument.of_field(more, description, reason="TOO_MANY_SEEDS")
        fields = [field, *(f"{more}[{index}]" for index in range(len(names) - 1))]
        found = [self._succeeded(name, where) for name, where in zip(names, fields, strict=True)]
        _check_seeds(found, fields)
        return found

    def _succeeded(self, name: str, field: str) -> Evaluation:
        evaluation = self._evaluations.living(parse_name(EVALUATION_NAME, name, field))
        if evaluation.state is not JobState.SUCCEEDED:
            raise FailedPrecondition(
                f"{field}: {name} is {evaluation.state}; only one that SUCCEEDED can be compared",
                reason="EVALUATION_NOT_SUCCEEDED",
                metadata={"evaluation": name, "state": evaluation.state},
            )
        return evaluation

    def _clusters(self, evaluation: Evaluation) -> Mapping[str, str]:
        items = self._eval_sets.get(evaluation.spec.eval_set).items or ()
        return {item.id: item.cluster for item in items}

    def _contamination(self, evaluations: Sequence[Evaluation]) -> Contamination:
        """The items that the training data of any of the checkpoints holds."""
        checkpoints = [entry.inputs.checkpoint for entry in evaluations if entry.inputs.checkpoint]
        datasets = tuple(sorted({checkpoint.dataset for checkpoint in checkpoints}))
        if not datasets:
            return NO_TRAINING_DATA
        eval_set = eval_set_name(evaluations[0].spec.eval_set)
        found: dict[str, LeakedItem] = {}
        try:
            for dataset in datasets:
                if not dataset:
                    return Contamination(
                        state="NOT_LOOKED_UP", reason="a checkpoint does not name its dataset"
                    )
                for entry in self._training_data.leaked_items(dataset, eval_set):
                    found.setdefault(entry.item_id, entry)
        except DomainError as error:
            return Contamination(state="NOT_LOOKED_UP", reason=error.message, datasets=datasets)
        return Contamination(
            state="LOOKED_UP", datasets=datasets, items=tuple(found[key] for key in sorted(found))
        )

    def _training(self, evaluation: Evaluation) -> tuple[TrainingStep, ...]:
        checkpoint = evaluation.inputs.checkpoint
        file = checkpoint.file(METRICS_FILE) if checkpoint else None
        return self._reports.training(file) if file else ()

    def _trained(self, evaluation: Evaluation) -> TrainingFacts | None:
        checkpoint = evaluation.inputs.checkpoint
        return self._reports.trained(checkpoint) if checkpoint else None

    def _stored_report(self, identity: str) -> ComparisonReport:
        stored = self._reports.report(identity)
        if stored is None:
            raise not_found(report_name(identity), "COMPARISON_REPORT")
        return stored

    def _read(self, stored: ComparisonReport) -> ComparisonReport:
        if stored.delete_time is None:
            stored = stored.model_copy(update={"content": self._reports.content(stored.digest)})
        return self._named([stored])[0]

    def _named(self, reports: Sequence[ComparisonReport]) -> Sequence[ComparisonReport]:
        """The reports, their two evaluations as people call them by now."""
        contents = [report.content for report in reports if report.content]
        sides = [side for content in contents for side in (content.base, content.candidate)]
        labels = self._evaluations.labels({side.id for side in sides})

        def named(side: Evaluation) -> Evaluation:
            return side.model_copy(update=dict(labels.get(side.id, {})))

        return [
            report.model_copy(
                update={
                    "content": report.content.model_copy(
                        update={
                            "base": named(report.content.base),
                            "candidate": named(report.content.candidate),
                        }
                    )
                }
            )
            if report.content
            else report
            for report in reports
        ]


def _check_seeds(evaluations: Sequence[Evaluation], fields: Sequence[str]) -> None:
    """Refuse two runs of the same weights: they are one seed, and would understate the spread."""
    seen: dict[str, str] = {}
    for evaluation, field in zip(evaluations, fields, strict=True):
        manifest = manifest_of(evaluation)
        # Of an endpoint's model only the name is known.
        weights = (
            manifest.checkpoint_digest or manifest.base_weights_digest or manifest.spec.endpoint_model or ""
        )
        earlier = seen.setdefault(weights, field)
        if earlier != field:
            raise InvalidArgument.of_field(
                field,
                f"is of the same weights as {earlier}; one evaluation of each training seed would be right",
                reason="SEED_REPEATED",
            )
