"""Where the four services are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tunix_rt.errors import InvalidArgumentError

DEFAULT_PORTS: Final[Mapping[str, int]] = {
    "trace-store": 50051,
    "exporter": 50052,
    "trainer": 50053,
    "evaluator": 50054,
}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]")
_FORMS = "HOST:PORT, HOST, or trace-store=HOST:PORT,exporter=...,trainer=...,evaluator=..."


@dataclass(frozen=True, slots=True)
class Targets:
    """The address, ``host:port``, of each service."""

    trace_store: str
    exporter: str
    trainer: str
    evaluator: str

    @classmethod
    def parse(cls, server: str) -> Targets:
        """Read ``HOST:PORT``, ``HOST``, ``unix:/path`` of a socket, or a list of all four such as
        ``trace-store=HOST:PORT,exporter=...``.

        In a list, an address without a port means the service's default port.

        Raises:
            InvalidArgumentError: the text is none of these (reason ``SERVER_INVALID``).
        """
        text = server.strip()
        if "=" in text or "," in text:
            return cls._parse_list(text)
        if not text:
            raise _invalid(text, "it is empty")
        if text.startswith("unix:/"):
            return cls(text, text, text, text)
        if "://" in text:
            raise _invalid(text, "a URL is not an address")
        if text.startswith("[") or text.count(":") <= 1:
            return cls(*(_address(text, port, text) for port in DEFAULT_PORTS.values()))
        raise _invalid(text, "an IPv6 address goes into brackets, such as [::1]:50050")

    @classmethod
    def _parse_list(cls, text: str) -> Targets:
        found: dict[str, str] = {}
        for entry in text.split(","):
            service, separator, address = (part.strip() for part in entry.partition("="))
            if not separator:
                raise _invalid(text, f"{entry.strip()!r} is not SERVICE=HOST:PORT")
            if service not in DEFAULT_PORTS:
                raise _invalid(text, f"{service!r} is not a service; they are {', '.join(DEFAULT_PORTS)}")
            if service in found:
                raise _invalid(text, f"{service} is given twice")
            found[service] = _address(address, DEFAULT_PORTS[service], text)
        missing = [service for service in DEFAULT_PORTS if service not in found]
        if missing:
            raise _invalid(text, f"{', '.join(missing)} missing")
        return cls(*(found[service] for service in DEFAULT_PORTS))

    def distinct(self) -> list[str]:
        """The addresses without repetition."""
        return list(dict.fromkeys((self.trace_store, self.exporter, self.trainer, self.evaluator)))


def _address(text: str, default_port: int, whole: str) -> str:
    host, separator, port_text = text, "", ""
    if not text.endswith("]"):
        host, separator, port_text = text.rpartition(":")
        if not separator:
            host, port_text = text, ""
    if not _HOST.fullmatch(host):
        raise _invalid(whole, f"{host!r} is not a host name or address")
    if not separator:
        return f"{host}:{default_port}"
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise _invalid(whole, f"port {port_text!r} is not a number from 1 to 65535")
    return f"{host}:{int(port_text)}"


def _invalid(text: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"server {text!r}: {why}; expected {_FORMS}", reason="SERVER_INVALID", metadata={"server": text}
    )
