"""Options of commands that take traces in: what is kept out of them, and how that is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from tunix_rt.cli import text
from tunix_rt.errors import FailedPreconditionError
from tunix_rt.formats import Record
from tunix_rt.formats.redacted import redacted_records
from tunix_rt.redaction import KINDS, Finding, Redactor, UnknownKindError


@dataclass(frozen=True)
class RedactionOptions:
    """Whether personal data and secrets are replaced by placeholders."""

    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Replace e-mail addresses, phone numbers, cards, IBANs, IP addresses, keys and tokens by "
            "placeholders such as <EMAIL_1>, before anything is sent.",
        ),
    ] = False
    redact_skip: Annotated[
        list[str] | None,
        typer.Option(
            "--redact-skip",
            metavar="KIND",
            help=f"With --redact: leave this kind as it is (may be repeated): {', '.join(KINDS)}.",
        ),
    ] = None

    redact_with: Annotated[
        Literal["presidio"] | None,
        typer.Option(
            "--redact-with",
            help="With --redact: also what this library finds, such as names if spaCy has a model. It "
            "comes with the extra redact.",
        ),
    ] = None

    def redactor(self) -> Redactor | None:
        """None if nothing is to be redacted.

        Raises typer.BadParameter; FailedPreconditionError if the library is missing.
        """
        skip = [kind.upper() for kind in self.redact_skip or ()]
        if not self.redact:
            if skip or self.redact_with:
                option = "--redact-skip" if skip else "--redact-with"
                raise typer.BadParameter(f"{option} goes with --redact")
            return None
        try:
            return Redactor(skip, self._library())
        except UnknownKindError as error:
            raise typer.BadParameter(f"--redact-skip: {error}") from None

    def _library(self) -> Callable[[str], Iterator[Finding]] | None:
        if self.redact_with is None:
            return None
        from tunix_rt.redaction.library import LibraryMissingError, presidio

        try:
            return presidio()
        except LibraryMissingError as error:
            raise FailedPreconditionError(f"--redact-with: {error}", reason="LIBRARY_MISSING") from None

    def applied(self, records: Iterator[Record], redactor: Redactor | None) -> Iterator[Record]:
        """The records without what is to be redacted, of which ``redactor`` counts what traces held.

        Lines and errors are redacted too, since they may go into a file or onto a terminal.
        """
        return records if redactor is None else redacted_records(records, redactor)


def redacted_line(counts: Counter[str]) -> str:
    """What was redacted, such as "3 values redacted: 2 EMAIL, 1 PHONE"."""
    kinds = ", ".join(f"{text.count(count)} {kind}" for kind, count in sorted(counts.items()))
    return f"{text.counted(counts.total(), 'value')} redacted" + (f": {kinds}" if kinds else "")
