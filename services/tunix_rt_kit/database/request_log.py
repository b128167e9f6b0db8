"""``request_id``: the same create, sent again, gives what the first one made."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from sqlalchemy import Column, MetaData, String, Table, insert, select
from sqlalchemy.orm import Session

from tunix_rt_kit.database.columns import CanonicalJson, UtcDateTime
from tunix_rt_kit.database.engine import transaction_lock
from tunix_rt_kit.errors import AlreadyExists, InvalidArgument
from tunix_rt_kit.values import RequestKey

_RULE = "1 to 64 characters of A-Z, a-z, 0-9, dot, colon, underscore and hyphen; a UUID is best"
_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,64}")

Result = TypeVar("Result", str, list[str])


def request_log_table(metadata: MetaData, name: str = "request_log") -> Table:
    """The table of the requests that were carried out, in a service's own metadata."""
    return Table(
        name,
        metadata,
        Column("method", String(128), primary_key=True),
        Column("request_id", String(64), primary_key=True),
        Column("request_digest", String(71), nullable=False),
        Column("result", CanonicalJson, nullable=False),
        Column("create_time", UtcDateTime, nullable=False),
    )


def check_request_id(request_id: str) -> str:
    """Return the id if it is empty or well formed; raise InvalidArgument(REQUEST_ID_INVALID) on
    ``request_id``."""
    if request_id and not _ACCEPTED.fullmatch(request_id):
        description = f"{request_id[:40]!r} is not accepted; it must be {_RULE}"
        raise InvalidArgument.of_field("request_id", description, reason="REQUEST_ID_INVALID")
    return request_id


class RequestLog:
    """Remembers by method and request id what a create made."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def once(
        self, session: Session, request: RequestKey, create: Callable[[], Result]
    ) -> tuple[Result, bool]:
        """Call ``create`` unless this request was carried out before.

        The result (a resource name, or a list of names) and what ``create`` writes are committed together,
        so a request is carried out once however often it is sent, also when two arrive at the same moment.

        Args:
            session: of a ``Database.write`` block.
            request: which request it is. Without an id ``create`` is called in any case.
            create: makes the resource and returns its name.

        Returns:
            What ``create`` returned, now or the first time, and whether it was called now.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED, the id belongs to a request with another content.
            InvalidArgument: REQUEST_ID_INVALID.
        """
        if not check_request_id(request.request_id):
            return create(), True
        table = self._table
        transaction_lock(session, f"{table.name} {request.method} {request.request_id}")
        stored = self._result(session, request)
        if stored is not None:
            return cast(Result, stored), False
        result = create()
        session.execute(
            insert(table).values(
                method=request.method,
                request_id=request.request_id,
                request_digest=request.digest,
                result=result,
                create_time=datetime.now(UTC),
            )
        )
        return result, True

    def made(self, session: Session, request: RequestKey) -> str | None:
        """The name of what this request made, None if it was not carried out yet.

        Raises AlreadyExists(REQUEST_ID_REUSED).
        """
        return cast(str | None, self._result(session, request))

    def _result(self, session: Session, request: RequestKey) -> Any:
        table = self._table
        row = session.execute(
            select(table.c.request_digest, table.c.result).where(
                table.c.method == request.method, table.c.request_id == request.request_id
            )
        ).one_or_none()
        if row is None:
            return None
        if row.request_digest not in (request.digest, request.earlier_digest):
            raise AlreadyExists(
                f"request_id: {request.request_id!r} was used for another {request.method}; use a new one",
                reason="REQUEST_ID_REUSED",
                metadata={"request_id": request.request_id, "method": request.method},
            )
        return row.result
