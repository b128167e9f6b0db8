"""The use cases of the trace store, the built-in criteria of scores, and two traces side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import Match, SequenceMatcher
from typing import Any, Final, Literal, Protocol

from tunix_rt_kit.callers import check
from tunix_rt_kit.canonical import canonical_json, digest_json, normalised
from tunix_rt_kit.errors import DomainError, FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from tunix_rt_kit.serving.requests import Paging, Violations, checked_order, listed, parse_name
from tunix_rt_kit.values import NO_REQUEST_ID, ListAsked, Order, Page, Position, RequestKey
from tunix_rt_trace_store.traces.conversation import ConversationContent, final_text, thoughts, turns
from tunix_rt_trace_store.traces.model import (
    MAX_BATCH,
    MAX_SCORED,
    TRACE_NAME,
    CreateResult,
    Criterion,
    DuplicatePolicy,
    NewTrace,
    Score,
    ScoreFilter,
    ScoreResult,
    StoredTrace,
    TraceContent,
    TraceDraft,
    TraceFilter,
    TraceStep,
)
from tunix_rt_trace_store.traces.validation import (
    checked_filter,
    checked_scores,
    checked_trace_ids,
    checked_traces,
)

_ID_CHARACTERS: Final = 64
STREAM_BATCH: Final = 1_000
# Each may have details of 16 KiB, and a page must fit in 4 MiB.
SCORE_PAGE: Final = 200
# What the scores of one answer may take, of 4 MiB, and what one takes beside its details.
_ANSWER_BYTES: Final = 7 << 19
_SCORE_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class TracePart:
    """Some traces, whether they are the last ones, and the place behind which there are more."""

    traces: Sequence[StoredTrace]
    last: bool
    end: Position = ()


class TraceRepository(Protocol):
    """Where traces are stored."""

    def create(
        self, batch: Sequence[NewTrace], policy: DuplicatePolicy, request: RequestKey
    ) -> list[CreateResult]: ...
    def get(self, trace_id: str, field: str = "name") -> StoredTrace: ...
    def each(self, trace_ids: Sequence[str], field: str) -> Iterator[StoredTrace | DomainError]: ...
    def last_sequence(self) -> int: ...
    def page(
        self, wanted: TraceFilter, order: Order, after: Position | None, limit: int, id_prefix: str = ""
    ) -> TracePart: ...
    def snapshot_part(self, wanted: TraceFilter, after: int, as_of: int, limit: int) -> TracePart: ...
    def delete(self, trace_id: str) -> None: ...
    def delete_each(self, trace_ids: Sequence[str]) -> list[str]: ...
    def add_scores(self, given: Sequence[Score], request: RequestKey, field: str) -> None: ...
    def latest_scores(self, trace: StoredTrace) -> list[Score]: ...
    def scores(
        self, trace_id: str, criterion: str, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[Score, Position]]: ...


class TraceStoreService:
    """The use cases of traces and scores.

    Every method raises InvalidArgument, which names each wrong field, NotFound, and what the repository
    raises.

    Args:
        repository: where traces are stored.
        decode: reads the content of a stored, encoded trace.
    """

    def __init__(self, repository: TraceRepository, decode: Callable[[bytes], Content]) -> None:
        self._repository = repository
        self._decode = decode

    def create_trace(self, draft: TraceDraft, request_id: str) -> StoredTrace:
        """Store one trace, once for each request id."""
        (trace,) = checked_traces([draft], 1, "trace")
        request = RequestKey("CreateTrace", request_id, trace.content_digest)
        (result,) = self._repository.create([trace], "keep", request)
        return self._repository.get(result.id)

    def create_traces(
        self, drafts: Iterable[TraceDraft], count: int, policy: DuplicatePolicy, request_id: str
    ) -> list[CreateResult]:
        """Store a batch of ``count`` traces, all or nothing, once for each request id.

        Returns one result for each draft, in order.
        """
        batch = checked_traces(drafts, count, "traces[{}]")
        body = digest_json({"policy": policy, "traces": [trace.content_digest for trace in batch]})
        return self._repository.create(batch, policy, RequestKey("BatchCreateTraces", request_id, body))

    def get_trace(self, name: str) -> StoredTrace:
        """One trace by its resource name."""
        return self._repository.get(parse_name(TRACE_NAME, name))

    def list_traces(self, asked: ListAsked, id_prefix: str = "") -> Page[StoredTrace]:
        """One page of those whose ids begin with ``id_prefix``, the newest first unless another order is
        asked for."""
        # Not as other lists: an empty source is one, and a page stops short of a message's limit.
        wanted = checked_filter(asked.filter_fields)
        if len(id_prefix) > _ID_CHARACTERS:
            problem = f"has {len(id_prefix):,} characters; at most {_ID_CHARACTERS} would be right"
            raise InvalidArgument.of_field("id_prefix", problem, reason="FILTER_INVALID")
        order = checked_order(asked.order_by, TraceFilter.order_fields)
        paging = Paging(
            asked.page_size,
            asked.page_token,
            method="ListTraces",
            filter=wanted.model_dump(mode="json"),
            id_prefix=id_prefix,
            order=[list(by) for by in order],
        )
        part = self._repository.page(wanted, order, paging.after("at"), paging.limit, id_prefix)
        return Page(part.traces, "" if part.last else paging.token({"at": part.end}))

    def stream_traces(
        self, filter_fields: dict[str, Any], as_of: int, after: int = 0
    ) -> tuple[int, Iterator[Sequence[StoredTrace]]]:
        """The snapshot's number, and its traces in the order of commits, by parts that fit in one message.

        ``as_of`` 0 means the newest commit; only traces with a sequence greater than ``after`` come. The
        parts raise FailedPrecondition(SNAPSHOT_INCOMPLETE) if traces among them have been deleted.
        """
        wanted = checked_filter(filter_fields)
        newest = self._repository.last_sequence()
        if not 0 <= as_of <= newest:
            raise InvalidArgument.of_field(
                "as_of",
                f"is {as_of}; the newest commit is {newest}, and 0 means that one",
                reason="AS_OF_INVALID",
                metadata={"newest": str(newest)},
            )
        if after < 0:
            raise InvalidArgument(
                f"after_sequence: is {after}; the sequence of a trace, or 0, would be right",
                reason="AFTER_SEQUENCE_INVALID",
                violations=[FieldViolation("after_sequence", f"is {after}; at least 0 would be right")],
            )
        snapshot = as_of or newest
        return snapshot, self._parts(wanted, after, snapshot)

    def delete_trace(self, name: str) -> None:
        """Delete one trace; its id and content digest stay on record."""
        self._repository.delete(parse_name(TRACE_NAME, name))

    def delete_traces(self, names: Sequence[str]) -> list[str]:
        """Delete traces together; returns the names of those that were there."""
        trace_ids = checked_trace_ids(names, MAX_BATCH)
        return [f"traces/{trace_id}" for trace_id in self._repository.delete_each(trace_ids)]

    def score_trace(self, name: str, criteria: Sequence[str]) -> list[Score]:
        """Score one trace by built-in criteria (none: "structure") and store the scores.

        Raises FailedPrecondition(REFERENCE_ANSWER_MISSING).
        """
        trace_id = parse_name(TRACE_NAME, name)
        chosen = checked_criteria(criteria)
        trace = self._repository.get(trace_id)
        given = self._scores(trace, chosen)
        self._repository.add_scores(given, NO_REQUEST_ID, "name")
        return given

    def score_traces(self, names: Sequence[str], criteria: Sequence[str]) -> list[ScoreResult]:
        """Score traces as ``score_trace`` does, and store the scores of them all together.

        One result for each name, in order, as far as they fit in one message, at least one.
        """
        trace_ids = checked_trace_ids(names, MAX_SCORED)
        chosen = checked_criteria(criteria)
        while True:
            results = self._score_results(trace_ids, chosen)
            try:
                given = [score for result in results for score in result.scores]
                if given:
                    self._repository.add_scores(given, NO_REQUEST_ID, "names")
                return results
            except NotFound:
                # One was deleted since it was read: now that is its result.
                continue

    def _score_results(self, trace_ids: Sequence[str], criteria: Sequence[Criterion]) -> list[ScoreResult]:
        results: list[ScoreResult] = []
        used = 0
        for trace in self._repository.each(trace_ids, "names[{}]"):
            check()
            result = self._score_result(trace, criteria)
            used += sum(_SCORE_BYTES + len(canonical_json(score.details)) for score in result.scores)
            if results and used > _ANSWER_BYTES:
                break
            results.append(result)
        return results

    def _score_result(self, trace: StoredTrace | DomainError, criteria: Sequence[Criterion]) -> ScoreResult:
        if isinstance(trace, DomainError):
            return ScoreResult(reason=trace.reason, message=trace.message)
        try:
            return ScoreResult(self._scores(trace, criteria))
        except FailedPrecondition as error:
            return ScoreResult(reason=error.reason, message=error.message)

    def _scores(self, trace: StoredTrace, criteria: Sequence[Criterion]) -> list[Score]:
        content = self._decode(trace.encoded)
        now = datetime.now(UTC)
        return [Score(trace.id, criterion, *CRITERIA[criterion](content), now) for criterion in criteria]

    def write_scores(self, fields: Sequence[Mapping[str, Any]], request_id: str) -> int:
        """Store the caller's own scores, all or nothing, once for each request id; returns how many."""
        drafts = checked_scores(fields, CRITERIA)
        now = datetime.now(UTC)
        given = [
            Score(
                parse_name(TRACE_NAME, draft.trace, f"scores[{index}].trace"),
                draft.criterion,
                draft.value,
                draft.details,
                now,
            )
            for index, draft in enumerate(drafts)
        ]
        body = digest_json([draft.model_dump() for draft in drafts])
        self._repository.add_scores(given, RequestKey("WriteScores", request_id, body), "scores[{}].trace")
        return len(given)

    def list_scores(self, trace_name: str, asked: ListAsked) -> Page[Score]:
        """One page of a trace's scores, the newest first unless another order is asked for."""
        trace_id = parse_name(TRACE_NAME, trace_name, "trace")

        def find(
            wanted: ScoreFilter, order: Order, after: Position | None, limit: int
        ) -> Sequence[tuple[Score, Position]]:
            return self._repository.scores(trace_id, wanted.criterion, order, after, limit)

        return listed("ListScores", ScoreFilter, asked, find, SCORE_PAGE, trace=trace_id)

    def compare_traces(self, base_name: str, other_name: str) -> Comparison:
        """Two traces side by side, each with its latest scores."""
        base_id = parse_name(TRACE_NAME, base_name, "base")
        other_id = parse_name(TRACE_NAME, other_name, "other")
        return compared(self._scored(base_id, "base"), self._scored(other_id, "other"))

    def _scored(self, trace_id: str, field: str) -> ScoredTrace:
        trace = self._repository.get(trace_id, field)
        return ScoredTrace(trace, self._decode(trace.encoded), self._repository.latest_scores(trace))

    def _parts(self, wanted: TraceFilter, after: int, as_of: int) -> Iterator[Sequence[StoredTrace]]:
        last = False
        while not last:
            page = self._repository.snapshot_part(wanted, after, as_of, STREAM_BATCH)
            last = page.last
            if page.traces:
                after = page.traces[-1].sequence
                yield page.traces


FULL_STEPS: Final = 10
FULL_STEP_CHARACTERS: Final = 500
REFERENCE_KEY: Final = "reference_answer"


Content = TraceContent | ConversationContent


def structure(content: Content) -> tuple[float, dict[str, Any]]:
    """0 to 100: half for up to 10 steps, half for a mean step length of up to 500 characters.

    The steps of a conversation are what the assistant thought, and the calls that it made.
    """
    steps = thoughts(content)
    count = len(steps)
    mean = sum(map(len, steps)) / max(count, 1)
    value = 50 * min(count / FULL_STEPS, 1.0) + 50 * min(mean / FULL_STEP_CHARACTERS, 1.0)
    return value, {"step_count": count, "mean_step_characters": mean}


def answer(content: Content) -> tuple[float, dict[str, Any]]:
    """100 when the final answer is the metadata's ``reference_answer``, both normalised; else 0.

    Raises FailedPrecondition(REFERENCE_ANSWER_MISSING) if the metadata has none that is a text or a number.
    """
    reference = content["metadata"].get(REFERENCE_KEY)
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        raise FailedPrecondition(
            f"criterion 'answer' needs metadata.{REFERENCE_KEY}, a text or a number, and the trace has none",
            reason="REFERENCE_ANSWER_MISSING",
        )
    given, wanted = normalised(final_text(content)), normalised(str(reference))
    return (100.0 if given == wanted else 0.0), {"final_answer": given, REFERENCE_KEY: wanted}


CRITERIA: Final[Mapping[Criterion, Callable[[Content], tuple[float, dict[str, Any]]]]] = {
    "structure": structure,
    "answer": answer,
}


def checked_criteria(criteria: Sequence[str]) -> list[Criterion]:
    """The criteria of a request, "structure" for none; raises InvalidArgument(CRITERION_INVALID)."""
    violations = Violations()
    chosen: list[Criterion] = []
    for index, name in enumerate(criteria or ["structure"]):
        known = next((criterion for criterion in CRITERIA if criterion == name), None)
        if known is None:
            violations.add(f"criteria[{index}]", f"is {name!r}; one of {', '.join(CRITERIA)} would be right")
        elif known in chosen:
            violations.add(f"criteria[{index}]", f"is {name!r}, which stands there already")
        else:
            chosen.append(known)
    violations.raise_if_any("CRITERION_INVALID")
    return chosen


Relation = Literal["same", "changed", "only_base", "only_other"]


@dataclass(frozen=True, slots=True)
class ScoredTrace:
    """A trace with the latest score of each criterion, ordered by criterion."""

    trace: StoredTrace
    content: Content
    scores: Sequence[Score]


@dataclass(frozen=True, slots=True)
class StepPair:
    """One row of two traces side by side: positions from 0, None where a trace has no step, or turn."""

    relation: Relation
    base_index: int | None
    other_index: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two traces side by side: their steps, or if one is a conversation the ``turns`` of both."""

    base: ScoredTrace
    other: ScoredTrace
    alignment: Sequence[StepPair]
    turns: Sequence[StepPair]
    same_final_answer: bool


def compared(base: ScoredTrace, other: ScoredTrace) -> Comparison:
    """Compare two traces."""
    first, second = base.content, other.content
    same = normalised(final_text(first)) == normalised(final_text(second))
    if "messages" in first or "messages" in second:
        return Comparison(base, other, [], _paired(turns(first), turns(second)), same)
    return Comparison(base, other, align(first["steps"], second["steps"]), [], same)


def align(base: Sequence[TraceStep], other: Sequence[TraceStep]) -> list[StepPair]:
    """Every step of both, in reading order.

    Two steps are the same if kind and text are, white space aside. Steps that differ are paired in order as
    changed; those left over on one side stand alone.
    """
    return _paired(*([(step["type"], step["content"]) for step in steps] for steps in (base, other)))


def _paired(base: Iterable[tuple[str, str]], other: Iterable[tuple[str, str]]) -> list[StepPair]:
    matcher = _Matcher(None, _keys(base), _keys(other), autojunk=False)
    pairs: list[StepPair] = []
    for tag, base_from, base_to, other_from, other_to in matcher.get_opcodes():
        paired = min(base_to - base_from, other_to - other_from)
        for k in range(paired):
            pairs.append(StepPair("same" if tag == "equal" else "changed", base_from + k, other_from + k))
        pairs += [StepPair("only_base", index, None) for index in range(base_from + paired, base_to)]
        pairs += [StepPair("only_other", None, index) for index in range(other_from + paired, other_to)]
    return pairs


class _Matcher(SequenceMatcher[tuple[str, str]]):
    """Stops when its caller has left: a thousand similar steps can take more than ten seconds."""

    def find_longest_match(self, *where: Any, **named: Any) -> Match:
        check()
        return super().find_longest_match(*where, **named)


def _keys(parts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(kind, " ".join(text.split())) for kind, text in parts]
