"""What the services' loggers told."""

from __future__ import annotations

from typing import Any

import pytest

_ENVELOPE = {"event", "level", "logger", "time"}


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The facts of each log line of an event, in order."""
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [
        {name: value for name, value in line.items() if name not in _ENVELOPE}
        for line in lines
        if line["event"] == event
    ]
