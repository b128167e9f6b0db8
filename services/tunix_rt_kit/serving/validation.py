"""Collects the wrong fields of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tunix_rt_kit.errors import FieldViolation, InvalidArgument

MOST: Final = 1_000
"""Wrong fields that are worth looking for: an error names the first few of them."""


@dataclass(slots=True)
class Violations:
    """Collects the wrong fields of a request, so that one error names them all."""

    found: list[FieldViolation] = field(default_factory=list)

    def check(self, condition: bool, field_path: str, description: str) -> bool:
        """Note a violation unless ``condition`` holds; returns ``condition``."""
        if not condition:
            self.add(field_path, description)
        return condition

    def add(self, field_path: str, description: str) -> None:
        """Note a violation of the field at ``field_path``."""
        self.found.append(FieldViolation(field_path, description))

    def names(self, *paths: str) -> bool:
        """Whether a field at one of the paths, or inside it, is wrong."""
        return any(violation.field.startswith(paths) for violation in self.found)

    @property
    def enough(self) -> bool:
        """Whether so many are wrong that nobody looks for more."""
        return len(self.found) >= MOST

    def raise_if_any(
        self, reason: str, message: str = "", *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Raise one InvalidArgument that names every violation, or return if there is none.

        Args:
            reason: the error's reason.
            message: what was being checked, put before the first violation.
            metadata: further facts for the error.
        """
        if not self.found:
            return
        first = self.found[0]
        line = f"{first.field}: {first.description}"
        if message:
            line = f"{message}: {line}"
        if len(self.found) > 1:
            least = "at least " if self.enough else ""
            line += f" (and {least}{len(self.found) - 1:,} more)"
        raise InvalidArgument(line, reason=reason, metadata=metadata, violations=self.found)
