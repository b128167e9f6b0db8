"""Lines of a prompt and its completion, under these keys or others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.chat import chat, pair
from tunix_rt.formats.columns import TRACE_FORM, Assigned, Where, assign, gathered, trace_document
from tunix_rt.formats.lines import object_of
from tunix_rt.formats.reading import Reading
from tunix_rt.formats.rows import encoded, native

_PLAIN: Final = {"prompt", "completion", "metadata", "source"}
_KNOWN: Final = 100


class Pairs:
    """Makes a trace of a line with a prompt and a completion; call it with line, number and file.

    Args:
        reading: has the key of each field. Left out: keys whose names leave no doubt.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._columns = reading.columns
        self._assigned: dict[tuple[str, ...], Sequence[Assigned]] = {}

    def __call__(self, line: bytes, number: int, file: str) -> v1.Trace:
        """Raises FormatError that names what is wrong."""
        document = self.document(line, number, file)
        if "steps" in document:
            return native(encoded(document), number, file)
        if "messages" in document or "conversations" in document:
            return chat(encoded(document), number, file, reading=self._reading)
        return pair(document, number, file, reading=self._reading)

    def document(self, line: bytes, number: int, file: str) -> dict[str, Any]:
        """The fields of a line under their own names; raises FormatError."""
        row = object_of(line, number, file)
        if not self._columns and {"prompt", "completion"} <= row.keys() <= _PLAIN:
            return row
        names = tuple(row)
        if names not in self._assigned:
            if len(self._assigned) >= _KNOWN:
                self._assigned.clear()
            self._assigned[names] = assign(names, self._columns, TRACE_FORM, Where(file, number, "key"))
            self._tell(names)
        values = list(row.values())
        fields = {field: values[place] for place, field in self._assigned[names] if values[place] is not None}
        try:
            return trace_document(gathered(fields, TRACE_FORM))
        except ValueError as problem:
            raise FormatError(number, str(problem), file=file) from None

    def _tell(self, names: Sequence[str]) -> None:
        told = self._reading.assigned
        for place, field in self._assigned[tuple(names)]:
            if len(told) < _KNOWN:
                told.setdefault(field, names[place])
