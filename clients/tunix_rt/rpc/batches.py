"""Traces on their way into the store: encoded once, in batches, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tunix_rt import v1
from tunix_rt.errors import FieldViolation, InvalidArgumentError, TunixRtError
from tunix_rt.wire import MAX_MESSAGE_BYTES

# What stands before the length of each trace: the number of the field, and the wire type of a message.
_TRACES_TAG: Final = v1.BatchCreateTracesRequest.TRACES_FIELD_NUMBER << 3 | 2
# Room in a message for the request id and the policy.
_ENVELOPE: Final = 256


@dataclass(frozen=True, slots=True)
class RefusedTrace:
    """A trace that the server refused: its place in the whole import, from 1, and why."""

    position: int
    trace: v1.Trace
    field_violations: Sequence[FieldViolation]

    @property
    def reason(self) -> str:
        """Every wrong field, on one line."""
        return "; ".join(
            f"{violation.field}: {violation.description}" if violation.field else violation.description
            for violation in self.field_violations
        )


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did, or has done so far.

    ``read`` counts the traces that the server has answered for, ``created`` those that it stored, ``skipped``
    those whose content was there already, ``refused`` those that it refused; ``last_name`` names the trace
    that holds the last content.
    """

    read: int = 0
    created: int = 0
    skipped: int = 0
    last_name: str = ""
    refused: int = 0

    def plus(self, answer: v1.BatchCreateTracesResponse, refused: int = 0) -> ImportResult:
        """This result and one more batch."""
        return ImportResult(
            self.read + len(answer.results) + refused,
            self.created + answer.created_count,
            self.skipped + answer.skipped_count,
            answer.results[-1].name if answer.results else self.last_name,
            self.refused + refused,
        )


class ImportStoppedError(TunixRtError):
    """An import could not go on. What was stored stays; ``result`` counts it, ``__cause__`` says why.

    ``first`` is the number, in the whole import, of the first trace of the request that was refused: the
    field violations of a server count from it.
    """

    def __init__(self, result: ImportResult, cause: TunixRtError, message: str, *, first: int = 0) -> None:
        stored = f"{result.created:,} {'trace' if result.created == 1 else 'traces'} stored"
        if result.skipped:
            stored += f", {result.skipped:,} skipped"
        super().__init__(
            f"{stored}, then: {message}",
            code=cause.code,
            reason=cause.reason,
            metadata=cause.metadata,
            field_violations=cause.field_violations,
            request_id=cause.request_id,
        )
        self.result = result
        self.first = first


@dataclass(frozen=True, slots=True)
class Batch:
    """Traces as they stand in a request, each encoded once, and the first one's place in the import."""

    first: int
    traces: list[bytes]


class Reader:
    """Hands on traces until reading one fails, and keeps why; what was read before is still stored."""

    def __init__(self, traces: Iterable[v1.Trace]) -> None:
        self._traces = traces
        self.error: TunixRtError | None = None

    def __iter__(self) -> Iterator[v1.Trace]:
        try:
            for position, trace in enumerate(self._traces, 1):
                if not isinstance(trace, v1.Trace):
                    raise InvalidArgumentError(
                        f"trace {position}: a {type(trace).__name__} is given; expected a tunix_rt.v1.Trace, "
                        "which tunix_rt.formats.trace_from_json makes of JSON text",
                        reason="TRACE_INVALID",
                    )
                yield trace
        except TunixRtError as error:
            self.error = error


def batches(traces: Iterable[v1.Trace], batch_size: int) -> Iterator[Batch]:
    first, size, batch = 1, _ENVELOPE, list[bytes]()
    for trace in traces:
        encoded = _encoded(trace)
        if batch and (len(batch) >= batch_size or size + len(encoded) > MAX_MESSAGE_BYTES):
            yield Batch(first, batch)
            first, size, batch = first + len(batch), _ENVELOPE, []
        batch.append(encoded)
        size += len(encoded)
    if batch:
        yield Batch(first, batch)


def _encoded(trace: v1.Trace) -> bytes:
    """The bytes of a request that holds one trace; deterministic, for the ids that are made of them."""
    data = trace.SerializeToString(deterministic=True)
    prefix, length = bytearray((_TRACES_TAG,)), len(data)
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + data


def decoded(encoded: bytes) -> v1.Trace:
    return v1.BatchCreateTracesRequest.FromString(encoded).traces[0]


def violations_by_index(error: TunixRtError) -> dict[int, list[FieldViolation]]:
    """The violations of each trace of a batch, under their fields in it; those of none are left out."""
    found: dict[int, list[FieldViolation]] = {}
    for violation in error.field_violations:
        index, bracket, rest = violation.field.removeprefix("traces[").partition("]")
        if violation.field.startswith("traces[") and bracket and index.isdigit():
            field = FieldViolation(rest.removeprefix("."), violation.description)
            found.setdefault(int(index), []).append(field)
    return found


def located(error: TunixRtError, first: int) -> str:
    """The error with ``traces[3]`` of its batch turned into the number of the trace in the whole import."""
    placed = violations_in_import(error, first)
    return f"{placed[0].field}: {placed[0].description}" if placed else error.message


def violations_in_import(error: TunixRtError, first: int) -> list[FieldViolation]:
    """The violations of single traces, under the trace's number in the whole import."""
    return [
        FieldViolation(
            f"trace {first + index:,}" + (f": {violation.field}" if violation.field else ""),
            violation.description,
        )
        for index, violations in violations_by_index(error).items()
        for violation in violations
    ]
