"""All four services in one process on one data folder: for one person on one computer.

``embedded`` serves a program that holds it; ``serve_forever`` serves everybody who knows the address.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock, Timeout
from pydantic import ValidationError

from tunix_rt.errors import FailedPreconditionError, InvalidArgumentError, class_of
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_evaluator.wiring import build as build_evaluator
from tunix_rt_exporter.wiring import ExporterSettings
from tunix_rt_exporter.wiring import build as build_exporter
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_kit.regular_files import read_json
from tunix_rt_kit.serving.server import ServiceRegistration, StartError, opened, running_server, serve
from tunix_rt_kit.serving.settings import ServerSettings, check_address, setting_problems
from tunix_rt_trace_store.wiring import TraceStoreSettings
from tunix_rt_trace_store.wiring import build as build_trace_store
from tunix_rt_trainer.wiring import TrainerSettings
from tunix_rt_trainer.wiring import build as build_trainer

if TYPE_CHECKING:
    from tunix_rt_kit.models.pretrained import VerifyReport

_LOCK = "server.lock"
_HOLDER = "server.json"


class DataDirLocked(FailedPreconditionError):
    """Another server uses the data folder: ``metadata`` holds ``path``; ``pid`` and ``address`` if known."""


class DataDirUnusable(FailedPreconditionError):
    """The data folder cannot be made or written."""


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A server inside this process: ``address`` is what ``tunix_rt.Client`` takes. It ends within ``grace_s``
    seconds unless a thread is stuck."""

    address: str
    data_dir: Path
    grace_s: float


@contextmanager
def embedded(data_dir: Path) -> Iterator[EmbeddedServer]:
    """Serve all four services on ``data_dir`` for as long as the context is open.

    They answer on a Unix socket that only this user can reach, on a thread of their own. Jobs that run when
    the context ends go back to the queue, and start again with the next server on the folder.

    Raises:
        DataDirLocked: another server uses the folder.
        DataDirUnusable: the folder cannot be made or written.
        TunixRtError: a service cannot start.
    """
    with _held(data_dir) as announce, _socket() as address:
        ready: Future[Callable[[], None]] = Future()
        with _translated():
            settings = _settings(data_dir, address)
            thread = threading.Thread(
                target=_run_embedded, args=(settings, ready), name="tunix-rt-embedded", daemon=True
            )
            thread.start()
            end = ready.result()
        try:
            announce(address)
            yield EmbeddedServer(address, data_dir, settings.grace_s)
        finally:
            end()
            thread.join()


def serve_forever(
    data_dir: Path, listen: str = "127.0.0.1:50050", *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve all four services on ``data_dir`` at ``listen`` until SIGTERM or SIGINT.

    Must run in the main thread. ``on_ready`` is called with the bound address.

    Raises:
        InvalidArgumentError: ``listen`` is not ``host:port``.
        DataDirLocked, DataDirUnusable, TunixRtError: as ``embedded``; also when the port is in use.
    """
    try:
        check_address(listen)
    except ValueError as error:
        raise InvalidArgumentError(
            f"listen: {listen!r} is not accepted: {error}", reason="LISTEN_INVALID"
        ) from error
    with _held(data_dir) as announce, _socket() as inner:

        def ready(address: str) -> None:
            announce(address)
            if on_ready is not None:
                on_ready(address)

        async def run() -> None:
            stop = asyncio.Event()
            # The services reach one another through the socket, whatever the address for everybody is.
            async with _serving(settings, stop) as services:
                everybody = ServerSettings(listen=listen)
                grace_s = max(everybody.shutdown_grace_s, settings.grace_s)
                everybody = everybody.model_copy(update={"shutdown_grace_s": grace_s})
                await serve(everybody, services, stop=stop, on_ready=ready)

        with _translated():
            settings = _settings(data_dir, inner)
            asyncio.run(run())


class _Settings(NamedTuple):
    address: str
    trace_store: TraceStoreSettings
    exporter: ExporterSettings
    trainer: TrainerSettings
    evaluator: EvaluatorSettings

    @property
    def grace_s(self) -> float:
        """Within how many seconds all of them end: their jobs have what each service's own settings say."""
        return max(settings.shutdown_grace_s for settings in self[1:])


@asynccontextmanager
async def _serving(settings: _Settings, stop: asyncio.Event) -> AsyncIterator[Sequence[ServiceRegistration]]:
    inner = ServerSettings(listen=settings.address, shutdown_grace_s=2.0)
    built = (
        build_trace_store(settings.trace_store, stop),
        build_exporter(settings.exporter, stop),
        build_trainer(settings.trainer, stop),
        build_evaluator(settings.evaluator, stop),
    )
    async with opened(*built) as services, running_server(inner, services, stop=stop):
        yield services


def _settings(data_dir: Path, address: str) -> _Settings:
    try:
        return _Settings(
            address,
            TraceStoreSettings(data_dir=data_dir),
            ExporterSettings(data_dir=data_dir, trace_store_target=address, evaluator_target=address),
            TrainerSettings(data_dir=data_dir, exporter_target=address),
            EvaluatorSettings(data_dir=data_dir, trainer_target=address, exporter_target=address),
        )
    except ValidationError as error:
        kinds = (TraceStoreSettings, ExporterSettings, TrainerSettings, EvaluatorSettings)
        kind = next(kind for kind in kinds if kind.__name__ == error.title)
        problems = "; ".join(setting_problems(kind, error))
        raise StartError(f"a setting of the environment is wrong: {problems}") from error


def _run_embedded(settings: _Settings, ready: Future[Callable[[], None]]) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        async with _serving(settings, stop):
            loop = asyncio.get_running_loop()
            ready.set_result(lambda: _stop_from_any_thread(loop, stop))
            await stop.wait()

    try:
        asyncio.run(run())
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


def _stop_from_any_thread(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # The loop is closed already when the server ended by an error of its own.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)


@contextmanager
def _socket() -> Iterator[str]:
    # In a folder of its own: only this user can enter it, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="tunix-rt-") as folder:
        yield f"unix:{folder}/server.sock"


def pull_model(name: str, data_dir: Path, progress: Callable[[str, int, int], None] | None = None) -> Path:
    """Fetch a catalogued base model, one of the hub (``hf://organisation/name``) or a GGUF file into
    ``data_dir`` unless it is there; returns its folder.

    ``progress`` gets the stage, and how much of it is done of how much. Raises TunixRtError.
    """
    with _translated():
        return Path(ModelStore(data_dir / "models").ensure(_named(name), progress).path)


def verify_model(name: str, data_dir: Path) -> VerifyReport:
    """Compare Tunix's logits with those of transformers on real prompts, in float32. Raises TunixRtError."""
    # Loads JAX: only this command needs it, not the server.
    from tunix_rt_kit.models.pretrained import verify

    with _translated():
        return verify(ModelStore(data_dir / "models").resolve(_named(name)).path)


def _named(name: str) -> str:
    """A file may be named from where the user stands."""
    return str(Path(name).absolute()) if name.endswith(".gguf") else name


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DomainError as error:
        raise class_of(error.code)(
            error.message, code=error.code, reason=error.reason, metadata=error.metadata
        ) from error
    except StartError as error:
        raise FailedPreconditionError(str(error), reason="SERVER_CANNOT_START") from error


def require_free(data_dir: Path) -> None:
    """Check that no server uses ``data_dir``; a folder that is not there is free.

    Raises:
        DataDirLocked: a server uses it.
        DataDirUnusable: it cannot be written.
    """
    if data_dir.exists():
        with _locked(data_dir):
            pass


@contextmanager
def _held(data_dir: Path) -> Iterator[Callable[[str], None]]:
    """Keep ``data_dir`` for this process, making it if need be.

    Yields a function that takes the address of the server, for the error of the next one that comes.

    Raises:
        DataDirLocked, DataDirUnusable: as ``require_free``.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    holder = data_dir / _HOLDER

    def announce(address: str) -> None:
        try:
            holder.write_text(json.dumps({"pid": os.getpid(), "address": address}))
        except OSError as error:
            raise _unusable(data_dir, error) from error

    with _locked(data_dir):
        try:
            yield announce
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    lock = FileLock(data_dir / _LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise _in_use(data_dir) from error
    except OSError as error:
        raise _unusable(data_dir, error) from error
    try:
        yield
    finally:
        lock.release()


def _in_use(data_dir: Path) -> DataDirLocked:
    try:
        holder = read_json(data_dir / _HOLDER)
        facts = {"pid": str(holder["pid"]), "address": str(holder["address"])}
        who = f"the server at {facts['address']} (process {facts['pid']}); use --server {facts['address']}"
    except (OSError, ValueError, KeyError, TypeError):
        # The other server is just starting or ending.
        facts, who = {}, "another server"
    return DataDirLocked(
        f"data folder {data_dir} is in use by {who}, or stop it, or choose another folder with --data-dir",
        reason="DATA_DIR_LOCKED",
        metadata={"path": str(data_dir), **facts},
    )


def _unusable(data_dir: Path, error: OSError) -> DataDirUnusable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full; make room"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = "it cannot be written; mend its permissions"
    else:
        why = (error.strerror or str(error)).lower()
    return DataDirUnusable(
        f"data folder {data_dir}: {why}, or choose another folder with --data-dir",
        reason="DATA_DIR_UNUSABLE",
        metadata={"path": str(data_dir)},
    )
