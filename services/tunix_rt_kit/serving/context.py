"""Id and service of the RPC that is being served, wherever its code runs."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

REQUEST_ID_KEY = "x-request-id"
_ACCEPTED = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_request_id: ContextVar[str] = ContextVar("tunix_rt_request_id", default="")
_service: ContextVar[str] = ContextVar("tunix_rt_service", default="")


def current_request_id() -> str:
    """The request id of this call, or an empty string outside any."""
    return _request_id.get()


def current_service() -> str:
    """The full name of the service that this call is one of, or an empty string outside any."""
    return _service.get()


def begin_request(offered: str = "", method: str = "") -> str:
    """Start a request of ``method`` (``/package.Service/Method``): keep the id that the caller offers if it
    is a plain token, else make one; returns it."""
    request_id = offered if _ACCEPTED.fullmatch(offered) else uuid.uuid4().hex
    _request_id.set(request_id)
    _service.set(method.rpartition("/")[0].removeprefix("/"))
    return request_id
