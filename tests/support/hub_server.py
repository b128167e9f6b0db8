"""A model hub on this computer: as much of Hugging Face's HTTP interface as a download asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_of(
    repository: str, folder: Path, revisions: tuple[str, ...] = ("main",)
) -> Iterator[tuple[str, list[str]]]:
    """Serve ``folder`` as ``repository``; yields the address, and the names of files as they are fetched."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            return

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            for revision in (*revisions, COMMIT):
                if path == f"/api/models/{repository}/revision/{revision}":
                    self._send(json.dumps(_facts(repository, folder)).encode(), "application/json", body=body)
                    return
                prefix = f"/{repository}/resolve/{revision}/"
                if path.startswith(prefix) and (folder / path.removeprefix(prefix)).is_file():
                    if body:
                        asked.append(path.removeprefix(prefix))
                    content = (folder / path.removeprefix(prefix)).read_bytes()
                    self._send(content, "application/octet-stream", body=body)
                    return
            self.send_response(404)
            known = path.startswith((f"/api/models/{repository}/", f"/{repository}/"))
            self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, content: bytes, kind: str, *, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _facts(repository: str, folder: Path) -> dict[str, object]:
    files = [
        {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": files, "tags": []}
