"""An OpenAI-compatible endpoint on this computer that answers as it is told."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch


@dataclass(frozen=True)
class Reply:
    """What the endpoint answers: HTTP status, body (a str is sent as it is), and how long it waits first.

    With ``drop`` it ends the connection without an answer; ``drip_s`` is the time between two characters.
    """

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    drop: bool = False
    drip_s: float = 0.0


def completion(text: str | None, finish_reason: str = "stop", **more: Any) -> Reply:
    """A chat completion that says ``text``; ``more`` are fields of it, or of its choice or message."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message, **more.pop("choice", {})}
    plain = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Reply(plain | more)


@dataclass
class FakeEndpoint:
    """The endpoint: ``url``, and what it was asked."""

    answer: Callable[[str], Reply]
    models: Reply
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def answering(
    answer: Callable[[str], Reply], models: Sequence[str] | Reply | None = None
) -> Iterator[FakeEndpoint]:
    """An endpoint that answers each prompt as ``answer`` says, as long as the block lasts.

    ``models`` are those that it says it has; left out, it does not say.
    """
    if models is None:
        models = Reply({}, 404)
    elif not isinstance(models, Reply):
        models = Reply({"data": [{"id": name, "object": "model"} for name in models]})
    endpoint = FakeEndpoint(answer, models)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(endpoint.models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with endpoint.lock:
                endpoint.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
                endpoint.at_once += 1
                endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
            reply = endpoint.answer(body["messages"][0]["content"])
            time.sleep(reply.wait_s)
            with endpoint.lock:
                endpoint.at_once -= 1
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            self.close_connection = True
            if reply.drop:
                return
            sent = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
            try:
                self.send_response(reply.status)
                for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                for part in sent if reply.drip_s else [sent]:
                    self.wfile.write(part.encode())
                    time.sleep(reply.drip_s)
            except OSError:
                pass  # the client did not wait

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # Of more connections at once some would be reset.

    server = Server(("127.0.0.1", 0), Handler)
    # Each client would read the certificates of this computer first, and none of them is used.
    no_certificates = patch.dict(os.environ, SSL_CERT_FILE="", SSL_CERT_DIR=str(Path(__file__).parent))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        with no_certificates:
            yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
