"""Audits of complete datasets: which rows are contaminated, and what a model would learn of them.

The second kind is made once for each question, and then kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final, Protocol

from tunix_rt_exporter.audits.roles import RoleCounts
from tunix_rt_exporter.datasets.decontaminate import EvalIndex, EvalMatch
from tunix_rt_exporter.datasets.derived import LockPerKey
from tunix_rt_exporter.datasets.model import (
    CONVERSATION_EXAMPLE,
    BuildResult,
    Dataset,
    Decontamination,
    EvalSetSource,
    SourceTrace,
    SplitFiles,
)
from tunix_rt_exporter.datasets.rows import stored_rows
from tunix_rt_exporter.datasets.service import checked, naming
from tunix_rt_exporter.datasets.word_runs import NearestTexts
from tunix_rt_exporter.datasets.write import stored_file
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import canonical_json, digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition, FieldViolation, InvalidArgument, NotFound, not_found
from tunix_rt_kit.loss_mask import ExampleEncoder, SplitAudit, SplitSupervision
from tunix_rt_kit.models.hf_folder import MAX_TOKENIZER_BYTES
from tunix_rt_kit.models.tokenizer import TextTokenizer, parse_tokenizer
from tunix_rt_kit.serving.requests import Violations, in_order, listed, parse_names
from tunix_rt_kit.values import (
    Filter,
    ListAsked,
    Order,
    Page,
    Position,
    Progress,
    StoredFile,
    TimeLeft,
    Value,
    Wanted,
)


@dataclass(frozen=True, slots=True)
class ContaminatedRow:
    """A row that contains an item of an eval set, and the split that it is in."""

    row_id: str
    split: str
    match: EvalMatch


@dataclass(frozen=True, slots=True)
class ContaminationPart:
    """What was found since the part before, and how many of all the rows were compared so far."""

    found: Sequence[ContaminatedRow]
    compared: int
    total: int


@dataclass(frozen=True, slots=True)
class NearRow:
    """A row, and the similarity of its prompt with a text; its texts are cut at ``MAX_NEAR_CHARACTERS``."""

    row_id: str
    similarity: float
    prompt: str
    final_answer: str
    category: str
    by_characters: bool


@dataclass(frozen=True, slots=True)
class NearestRows:
    """For each text the rows that are nearest to it, and how many rows were compared."""

    nearest: Sequence[Sequence[NearRow]]
    compared: int


class AuditQuestion(Value):
    """What an audit of a dataset's loss mask is to find out.

    ``tokenizer_digest`` is that of a tokenizer.json in the artifact store. 0 and an empty tuple stand for the
    defaults until the question is checked.
    """

    dataset: str
    base_model: str
    tokenizer_digest: str
    max_length: int = 0
    packing_lengths: tuple[int, ...] = ()


class SupervisionAudit(Value):
    """The answer. ``audit_id`` is made of the question, so the same question has the same id."""

    audit_id: str
    dataset_digest: str
    base_model: str
    tokenizer_digest: str
    chat_template_digest: str
    max_length: int
    splits: tuple[SplitSupervision, ...]
    report: StoredFile


@dataclass(frozen=True, slots=True)
class StoredAudit:
    """An audit as it is kept; ``number`` is its place in lists."""

    number: int
    create_time: datetime
    audit: SupervisionAudit


class AuditFilter(Filter):
    """Which audits: those that meet every condition that is set."""

    order_fields = ("create_time", "base_model", "max_length")

    base_models: Wanted = ()


def _place(made: StoredAudit) -> Mapping[str, Any]:
    audit = made.audit
    # Numbers are in the order of time.
    return {
        "number": made.number,
        "create_time": made.number,
        "base_model": audit.base_model,
        "max_length": audit.max_length,
    }


AUDIT_NAME: Final = "datasets/{dataset_id}@{version}/supervisionAudits/{audit}"
REPORT_FORMAT: Final = "tunix-rt/supervision-audit/3"
DEFAULT_LENGTH: Final = 256
MAX_LENGTH: Final = 1 << 20
MAX_PACKING_LENGTHS: Final = 16
MAX_BASE_MODEL: Final = 4_096
LEARNED_SPLIT: Final = "train"
MAX_NEAR_TEXTS: Final = 100
MAX_NEAR_ROWS: Final = 10
DEFAULT_NEAR_ROWS: Final = 3
# Ten rows for each of a hundred texts fit into a message, whatever they are written in.
MAX_NEAR_CHARACTERS: Final = 400
MAX_CATEGORY: Final = 100
_PROGRESS_S: Final = 0.25
_ID_DIGITS: Final = 32


class AuditRepository(Protocol):
    """Where audits are kept."""

    def find(self, dataset_digest: str, audit_id: str) -> StoredAudit | None:
        """The audit of a dataset, or None."""

    def store(self, audit: SupervisionAudit) -> StoredAudit:
        """Keep an audit, unless one of its id is there already; returns the one that is."""

    def all(self, dataset_digest: str) -> list[StoredAudit]:
        """The audits of a dataset, one for each model and length."""


class DatasetAudits:
    """The use cases about audits.

    Args:
        complete_dataset: gives a dataset that was built, by name, and what came of it; or raises.
        eval_sets: the evaluator.
        artifacts: where the rows and tokenizers are, and where reports go.
        repository: where audits are kept.
    """

    def __init__(
        self,
        complete_dataset: Callable[[str], tuple[Dataset, BuildResult]],
        *,
        eval_sets: EvalSetSource,
        artifacts: ArtifactStore,
        repository: AuditRepository,
    ) -> None:
        self._complete_dataset = complete_dataset
        self._eval_sets = eval_sets
        self._artifacts = artifacts
        self._repository = repository
        self._locks = LockPerKey()

    def contamination(
        self, name: str, eval_set: str, decontamination: dict[str, Any]
    ) -> Iterator[ContaminationPart]:
        """Compare every row of a dataset with every item of an eval set, as a build does; one part at least.

        Raises FailedPrecondition(DATASET_NOT_READY), NotFound (DATASET_NOT_FOUND, EVAL_SET_NOT_FOUND),
        InvalidArgument(DECONTAMINATION_INVALID), DataLoss, Unavailable.
        """
        rule = checked(Decontamination, decontamination, "decontamination", reason="DECONTAMINATION_INVALID")
        parse_names("evalSets/{eval_set}", eval_set, field="eval_set")
        _, result = self._complete_dataset(name)
        with naming("eval_set"):
            items = EvalIndex([self._eval_sets.prompts(eval_set)], rule.ngram_words)
        total, compared = sum(split.row_count for split in result.splits), 0
        for split, rows in stored_rows(self._artifacts, result):
            matches = items.matches([row.texts for row in rows], [row.questions for row in rows])
            compared += len(rows)
            found = [
                ContaminatedRow(row.digest.hex(), split, match)
                for row, match in zip(rows, matches, strict=True)
                if match is not None
            ]
            yield ContaminationPart(found, compared, total)

    def nearest_rows(
        self, name: str, texts: Sequence[str], split: str, count: int, *, or_by_characters: bool
    ) -> NearestRows:
        """The rows of a split, "train" if it is "", whose prompts are nearest to each of some texts; with
        ``or_by_characters`` also for a text that shares no words with any.

        Raises FailedPrecondition(DATASET_NOT_READY), NotFound(DATASET_NOT_FOUND), InvalidArgument
        (TEXTS_INVALID, SPLIT_UNKNOWN), DataLoss.
        """
        wrong, split = Violations(), split or LEARNED_SPLIT
        right = f"1 to {MAX_NEAR_TEXTS} would be right"
        wrong.check(0 < len(texts) <= MAX_NEAR_TEXTS, "texts", f"has {len(texts)} entries; {right}")
        for index, text in enumerate(texts[:MAX_NEAR_TEXTS]):
            wrong.check(bool(text.strip()), f"texts[{index}]", "is empty; a question would be right")
        right = f"1 to {MAX_NEAR_ROWS}, or 0 for {DEFAULT_NEAR_ROWS}, would be right"
        wrong.check(0 <= count <= MAX_NEAR_ROWS, "row_count", f"is {count}; {right}")
        wrong.raise_if_any("TEXTS_INVALID")
        _, result = self._complete_dataset(name)
        split_named(result, split)
        count = count or DEFAULT_NEAR_ROWS
        nearest, compared = self._nearest(result, split, NearestTexts(texts, count))
        lonely = [place for place, near in enumerate(nearest) if not near] if or_by_characters else []
        if lonely:
            by_characters = NearestTexts([texts[place] for place in lonely], count, by_characters=True)
            for place, near in zip(lonely, self._nearest(result, split, by_characters)[0], strict=True):
                nearest[place] = near
        rows_of = self._rows(result, split, {number for near in nearest for number, _ in near})
        return NearestRows(
            [
                [_near_row(rows_of[number], similarity, place in lonely) for number, similarity in near]
                for place, near in enumerate(nearest)
            ],
            compared,
        )

    def _nearest(
        self, result: BuildResult, split: str, found: NearestTexts
    ) -> tuple[list[list[tuple[int, float]]], int]:
        """What ``found`` finds in all rows of a split, and how many those are."""
        compared = 0
        for _, rows in stored_rows(self._artifacts, result, split):
            found.add([row.prompt for row in rows], [row.digest.hex() for row in rows], compared)
            compared += len(rows)
        return found.nearest(), compared

    def _rows(self, result: BuildResult, split: str, numbers: set[int]) -> dict[int, SourceTrace]:
        """Rows of a split by their numbers."""
        rows = chain.from_iterable(batch for _, batch in stored_rows(self._artifacts, result, split))
        return {number: row for number, row in enumerate(rows) if number in numbers}

    def supervision(self, asked: AuditQuestion) -> Iterator[Progress | StoredAudit]:
        """What a model would learn of a dataset.

        Yields progress, and last the audit, which may have been there before, or is made for someone else.

        Raises InvalidArgument (AUDIT_INVALID, TOKENIZER_INVALID) naming each wrong field, NotFound
        (DATASET_NOT_FOUND, TOKENIZER_NOT_FOUND), FailedPrecondition (DATASET_NOT_READY,
        CHAT_TEMPLATE_MISMATCH: what ends a turn is not one token), DataLoss for missing or damaged rows.
        """
        question = _checked_question(asked)
        dataset, result = self._complete_dataset(question.dataset)
        key = question.model_dump(mode="json", exclude={"dataset"})
        # The format too: an audit of an older one did not look for all that this one does.
        whole = {**key, "dataset_digest": result.digest, "format": REPORT_FORMAT}
        audit_id = digest_json(whole).removeprefix("sha256:")[:_ID_DIGITS]
        audit = self._repository.find(result.digest, audit_id)
        if audit is None:
            lock = self._locks.of((result.digest, audit_id))
            # Not to wait in one go: whoever makes the audit may need this very thread.
            while not lock.acquire(timeout=_PROGRESS_S):
                yield Progress(stage="waiting for the same audit", unit="rows")
            try:
                audit = self._repository.find(result.digest, audit_id)
                if audit is None:
                    audit = yield from self._made(dataset, result, question, audit_id)
            finally:
                lock.release()
        yield audit

    def _made(
        self, dataset: Dataset, result: BuildResult, question: AuditQuestion, audit_id: str
    ) -> Generator[Progress, None, StoredAudit]:
        tokenizer = stored_tokenizer(self._artifacts, question.tokenizer_digest)
        end_id = _end_id(dataset, question, tokenizer)
        encoder = ExampleEncoder(tokenizer, ChatTemplate.of(dataset.spec.chat_template).frame)
        total, done, progress = sum(split.row_count for split in result.splits), 0, _Throttle()
        audits, splits = [], []
        for split in result.splits:
            audit = SplitAudit(split.split, max_length=question.max_length, end_id=end_id)
            traces = chain.from_iterable(
                batch for _, batch in stored_rows(self._artifacts, result, split.split)
            )
            roles = RoleCounts(dataset.spec, traces, tokenizer, encoder)
            audits.append((audit, roles))
            file = split.files.get(CONVERSATION_EXAMPLE) or split.files["training_example"]
            lines = self._artifacts.iter_lines(file.digest)
            for count in audit.read(lines, file.path, roles):
                # A conversation may be several examples.
                counted = done + min(count, split.row_count)
                yield from progress.of("counting tokens", counted, total, "rows")
            done += split.row_count
        for number, (audit, roles) in enumerate(audits):
            yield from progress.of("packing", number, len(audits), "splits")
            splits.append(roles.added_to(audit.result(question.packing_lengths)))
        return self._repository.store(self._stored(dataset, result, question, audit_id, tuple(splits)))

    def get(self, name: str) -> tuple[str, StoredAudit]:
        """The name of the dataset and the audit; raises NotFound(SUPERVISION_AUDIT_NOT_FOUND)."""
        ids = parse_names(AUDIT_NAME, name)
        dataset = name.rpartition("/supervisionAudits/")[0]
        found = self._repository.find(self._complete_dataset(dataset)[1].digest, ids["audit"])
        if found is None:
            raise not_found(name, "SUPERVISION_AUDIT")
        return dataset, found

    def list(self, parent: str, asked: ListAsked) -> Page[StoredAudit]:
        """One page of a dataset's audits, the newest first unless another order is asked for."""
        digest = self._complete_dataset(parent)[1].digest

        def find(
            wanted: AuditFilter, order: Order, after: Position | None, limit: int
        ) -> Sequence[tuple[StoredAudit, Position]]:
            models = wanted.base_models
            found = [
                made for made in self._repository.all(digest) if not models or made.audit.base_model in models
            ]
            return in_order(
                found, _place, [*order, ("number", order[-1][1] if order else True)], after, limit
            )

        return listed("ListSupervisionAudits", AuditFilter, asked, find, parent=parent)

    def _stored(
        self,
        dataset: Dataset,
        result: BuildResult,
        question: AuditQuestion,
        audit_id: str,
        splits: tuple[SplitSupervision, ...],
    ) -> SupervisionAudit:
        facts = {
            "dataset_digest": result.digest,
            "base_model": question.base_model,
            "tokenizer_digest": question.tokenizer_digest,
            "chat_template_digest": ChatTemplate.of(dataset.spec.chat_template).digest,
            "max_length": question.max_length,
        }
        told = [split.model_dump(mode="json") for split in splits]
        report = self._artifacts.put_bytes(canonical_json({"format": REPORT_FORMAT, **facts, "splits": told}))
        file = stored_file(f"supervision-{audit_id}.json", report)
        return SupervisionAudit.model_validate(
            {"audit_id": audit_id, **facts, "splits": splits, "report": file}
        )


def split_named(result: BuildResult, name: str) -> SplitFiles:
    """The split of that name; raises InvalidArgument(SPLIT_UNKNOWN)."""
    found = {entry.split: entry for entry in result.splits}
    if name not in found:
        description = f"is {name!r}; one of {', '.join(found)} would be right"
        raise InvalidArgument.of_field("split", description, reason="SPLIT_UNKNOWN")
    return found[name]


def stored_tokenizer(artifacts: ArtifactStore, digest: str) -> TextTokenizer:
    """The tokenizer whose file has that digest; raises NotFound(TOKENIZER_NOT_FOUND), InvalidArgument
    (TOKENIZER_INVALID)."""
    field = "tokenizer.digest"
    if not artifacts.exists(digest):
        problem = f"{digest} is not in {artifacts.root_uri}; exporter and trainer must share a store"
        raise NotFound.of_field(field, problem, reason="TOKENIZER_NOT_FOUND")
    size = artifacts.stat(digest).size
    try:
        if size > MAX_TOKENIZER_BYTES:
            raise InvalidArgument(
                f"has {size} bytes; at most {MAX_TOKENIZER_BYTES} are read", reason="TOKENIZER_INVALID"
            )
        return parse_tokenizer(artifacts.read_bytes(digest))
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{field}: {digest} {error.message}",
            reason="TOKENIZER_INVALID",
            violations=[FieldViolation(field, error.message)],
        ) from error


def _checked_question(asked: AuditQuestion) -> AuditQuestion:
    """The question with its defaults filled in; raises InvalidArgument(AUDIT_INVALID)."""
    wrong, right = Violations(), f"1 to {MAX_LENGTH:,} would be right"
    name, length = asked.base_model, asked.max_length or DEFAULT_LENGTH
    wrong.check(
        0 < len(name) <= MAX_BASE_MODEL,
        "base_model",
        "is empty or too long; name a base model, see ListBaseModels",
    )
    wrong.check(1 <= length <= MAX_LENGTH, "max_length", f"is {length}; {right}")
    lengths = asked.packing_lengths or (length,)
    wrong.check(
        len(lengths) <= MAX_PACKING_LENGTHS,
        "packing_lengths",
        f"has {len(lengths)} entries; at most {MAX_PACKING_LENGTHS} would be right",
    )
    for index, entry in enumerate(asked.packing_lengths[:MAX_PACKING_LENGTHS]):
        wrong.check(1 <= entry <= MAX_LENGTH, f"packing_lengths[{index}]", f"is {entry}; {right}")
    wrong.check(
        bool(asked.tokenizer_digest),
        "tokenizer.digest",
        "is empty; BaseModel.tokenizer_file of the trainer names the tokenizer of a base model",
    )
    wrong.raise_if_any("AUDIT_INVALID")
    changes = {"max_length": length, "packing_lengths": tuple(sorted(set(lengths)))}
    return asked.model_copy(update=changes)


def _near_row(row: SourceTrace, similarity: float, by_characters: bool) -> NearRow:
    # As an eval set that is made of rows names the categories of its items.
    category = row.metadata.get("category") or row.metadata.get("family")
    prompt, answer = (text[:MAX_NEAR_CHARACTERS] for text in (row.prompt, row.final_answer))
    category = category[:MAX_CATEGORY] if isinstance(category, str) else ""
    return NearRow(row.digest.hex(), similarity, prompt, answer, category, by_characters)


def _end_id(dataset: Dataset, question: AuditQuestion, tokenizer: TextTokenizer) -> int:
    marker = ChatTemplate.of(dataset.spec.chat_template).end_of_turn
    end_id = tokenizer.token_id(marker)
    if end_id is None:
        raise FailedPrecondition(
            f"the dataset's chat template ends a turn with {marker!r}, which is not one token of "
            f"{question.base_model}'s tokenizer; build it for this model: tunix-rt dataset build "
            f"DATASET@NEW_VERSION --base-model {question.base_model}",
            reason="CHAT_TEMPLATE_MISMATCH",
            metadata={"base_model": question.base_model, "marker": marker},
        )
    return end_id


class _Throttle:
    """Tells progress a few times a second, and each new stage."""

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._stage = ""
        self._left = TimeLeft()

    def of(self, stage: str, done: int, total: int, unit: str) -> Iterator[Progress]:
        now = time.monotonic()
        if stage == self._stage and now - self._told < _PROGRESS_S and done < total:
            return
        if stage != self._stage:
            self._stage, self._left = stage, TimeLeft()
        self._told = now
        eta_s = self._left.after(done, total, now)
        yield Progress(stage=stage, completed=done, total=total, unit=unit, eta_s=eta_s)
