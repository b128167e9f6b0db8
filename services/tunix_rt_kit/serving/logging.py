"""Structured logs on standard error: one JSON object a line, or coloured lines for people.

Records of the standard library's loggers (Alembic, SQLAlchemy, gRPC) come out in the same form. Inside an
RPC every line carries its ``request_id``.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from tunix_rt.escapes import visible
from tunix_rt_kit.callers import current_request_id

if TYPE_CHECKING:
    import structlog

LogFormat = Literal["json", "console"]


def _add_request_id(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    request_id = current_request_id()
    if request_id:
        event.setdefault("request_id", request_id)
    return event


def _show_values(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Values of a request may hold escape sequences; the renderer's own colours come later."""
    return {key: visible(value) if isinstance(value, str) else value for key, value in event.items()}


def _shared() -> list[structlog.typing.Processor]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]


def configure_logging(level: str = "info", log_format: LogFormat = "json") -> None:
    """Send all logs of this process to standard error; a second call replaces the settings."""
    import structlog

    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            structlog.processors.format_exc_info,
            _show_values,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Logger:
    """Writes lines of an event name and keyword facts: ``log.info("job_started", job=name)``.

    structlog, which writes them, takes long to import: a command that looks at something writes none.
    """

    def __init__(self, name: str) -> None:
        self._standard = logging.getLogger(name)

    def debug(self, event: str, **facts: Any) -> None:
        self._write(logging.DEBUG, event, facts)

    def info(self, event: str, **facts: Any) -> None:
        self._write(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self._write(logging.WARNING, event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self._write(logging.ERROR, event, facts)

    def exception(self, event: str, **facts: Any) -> None:
        self._write(logging.ERROR, event, {"exc_info": True, **facts})

    def _write(self, level: int, event: str, facts: dict[str, Any]) -> None:
        if self._standard.isEnabledFor(level):
            _structured(self._standard.name).log(level, event, **facts)


def get_logger(name: str) -> Logger:
    """The logger of a name."""
    return Logger(name)


@cache
def _structured(name: str) -> structlog.stdlib.BoundLogger:
    import structlog

    # Without this, structlog would print to standard output, which belongs to a command's own answer.
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
