"""What is wrong with a file."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.errors import FieldViolation, InvalidArgumentError


class FormatError(InvalidArgumentError):
    """A file, or one of its lines, is not what it should be.

    Args:
        line: its number from 1; 0 where the file as a whole is meant.
        message: what is wrong.
        file: its name.
        field_violations: the wrong fields of the line.
    """

    def __init__(
        self, line: int, message: str, *, file: str = "", field_violations: Sequence[FieldViolation] = ()
    ) -> None:
        place = ", ".join(part for part in (file, f"line {line}" if line else "") if part)
        super().__init__(
            f"{place}: {message}" if place else message,
            reason="FORMAT_INVALID",
            metadata={"file": file, "line": str(line)},
            field_violations=field_violations,
        )
        self.line = line
        self.file = file
