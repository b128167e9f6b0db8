"""The request id of the RPC that is being served, wherever its code runs."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

REQUEST_ID_KEY = "x-request-id"
_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_request_id: ContextVar[str] = ContextVar("tunix_rt_request_id", default="")


def current_request_id() -> str:
    """The request id of this call, or an empty string outside any."""
    return _request_id.get()


def begin_request(offered: str = "") -> str:
    """Start a request: keep the id that the caller offers if it is a plain token, else make one; returns
    it."""
    request_id = offered if _ACCEPTED.fullmatch(offered) else uuid.uuid4().hex
    _request_id.set(request_id)
    return request_id
