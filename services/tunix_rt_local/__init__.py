"""All four services in one process on one data folder: for one person on one computer.

``embedded`` serves a program that holds it; ``serve_forever`` serves everybody who knows the address.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from tunix_rt.errors import FailedPreconditionError, InvalidArgumentError, TunixRtError, class_of
from tunix_rt_kit.errors import DomainError
from tunix_rt_local.data_dir import (
    DataDirLocked,
    DataDirUnusable,
    could_be_made,
    display_names,
    folder_bytes,
    held,
    in_use,
    in_use_error,
    known_names,
    known_tags,
    locked,
    require_free,
    server_of,
    shared,
    unusable,
)

__all__ = [
    "DataDirLocked",
    "DataDirUnusable",
    "EmbeddedServer",
    "collect_garbage",
    "disk_usage",
    "display_names",
    "embedded",
    "folder_bytes",
    "in_use",
    "known_names",
    "known_tags",
    "model_folder",
    "pull_model",
    "require_free",
    "serve_forever",
    "server_of",
    "verify_model",
]

# What a server needs is imported where it is built: a command that asks one service waits for that alone.
if TYPE_CHECKING:
    from tunix_rt_kit.models.pretrained import VerifyReport
    from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration
    from tunix_rt_kit.serving.settings import DataSettings
    from tunix_rt_local.storage import Garbage, Usage

    Settings = TypeVar("Settings", bound=DataSettings)

Jobs = Literal["run", "end", "leave"]
"""What becomes of the jobs of a data folder: they run; those that are to be cancelled end; nothing."""
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A server inside this process: ``address`` is what ``tunix_rt.Client`` takes. It ends within ``grace_s``
    seconds unless a thread is stuck."""

    address: str
    data_dir: Path
    grace_s: float


@contextmanager
def embedded(data_dir: Path, *, jobs: Jobs = "run") -> Iterator[EmbeddedServer]:
    """Serve all four services on ``data_dir`` for as long as the context is open.

    They answer on a Unix socket that only this user can reach, on a thread of their own. Jobs that run when
    the context ends go back to the queue, and start again with the next server on the folder that runs jobs.

    Args:
        data_dir: made if need be, but not for ``leave``.
        jobs: ``run`` takes up all jobs that have not ended. ``end`` and ``leave`` start a service when it is
            first called; ``end`` ends the jobs that are to be cancelled. ``leave`` is for calls that read: it
            touches no job, and any number of such servers may share the folder with each other and with
            another server.

    Raises:
        DataDirLocked: another server uses the folder.
        DataDirUnusable: the folder cannot be made or written.
        TunixRtError: a service cannot start.
    """
    if jobs == "leave" and could_be_made(data_dir):
        # Who only looks at what is not there leaves nothing behind.
        with (
            tempfile.TemporaryDirectory(prefix="tunix-rt-") as nothing,
            embedded(Path(nothing), jobs=jobs) as empty,
        ):
            yield replace(empty, data_dir=data_dir)
        return
    with shared(data_dir) if jobs == "leave" else held(data_dir) as announce, _socket() as address:
        ready: Future[Callable[[], None]] = Future()
        with _translated():
            if jobs == "run":
                serving, grace_s = _all_of(data_dir, address, _OWN_SERVICES)
            else:
                serving, grace_s = _lazy(data_dir, address, jobs)
            thread = threading.Thread(
                target=_run_embedded, args=(serving, ready), name="tunix-rt-embedded", daemon=True
            )
            thread.start()
            end = ready.result()
        begun = datetime.now(UTC)
        try:
            announce(address if jobs == "run" else "")
            yield EmbeddedServer(address, data_dir, grace_s)
        finally:
            end()
            thread.join()
            if jobs != "leave":
                _free_deleted(data_dir, begun)


def serve_forever(
    data_dir: Path,
    listen: str = "127.0.0.1:50050",
    *,
    on_ready: Callable[[str], None] | None = None,
    redact_spans: bool = False,
) -> None:
    """Serve all four services on ``data_dir`` at ``listen`` until SIGTERM or SIGINT.

    Must run in the main thread. ``on_ready`` is called with the bound address. ``redact_spans`` keeps
    personal data and secrets out of live spans, as the trace store's setting does.

    Raises:
        InvalidArgumentError: ``listen`` is not ``host:port``.
        DataDirLocked, DataDirUnusable, TunixRtError: as ``embedded``; also when the port is in use.
    """
    from tunix_rt_kit.serving.server import serve
    from tunix_rt_kit.serving.settings import ServerSettings, check_address

    try:
        check_address(listen)
    except ValueError as error:
        raise InvalidArgumentError(
            f"listen: {listen!r} is not accepted: {error}", reason="LISTEN_INVALID"
        ) from error
    with held(data_dir) as announce, _socket() as inner:

        def ready(address: str) -> None:
            announce(address)
            if on_ready is not None:
                on_ready(address)

        async def run() -> None:
            stop = asyncio.Event()
            # The services reach one another through the socket, whatever the address for everybody is.
            async with serving(stop) as services:
                everybody = ServerSettings(listen=listen)
                longest_s = max(everybody.shutdown_grace_s, grace_s)
                everybody = everybody.model_copy(update={"shutdown_grace_s": longest_s})
                await serve(everybody, services, stop=stop, on_ready=ready)

        begun = datetime.now(UTC)
        with _translated():
            made_by = dict(_SERVICES)
            if redact_spans:
                made_by[_TRACE_STORE] = partial(_trace_store, spans_redact=True)
            serving, grace_s = _all_of(data_dir, inner, made_by)
            asyncio.run(run())
        _free_deleted(data_dir, begun)


class _Service(NamedTuple):
    settings: DataSettings
    build: Callable[[asyncio.Event], BuiltService]


def _trace_store(data_dir: Path, _: str, **given: Any) -> _Service:
    from tunix_rt_trace_store.wiring import TraceStoreSettings, build

    settings = _checked(TraceStoreSettings, data_dir=data_dir, **given)
    return _Service(settings, partial(build, settings))


def _exporter(data_dir: Path, address: str) -> _Service:
    from tunix_rt_exporter.wiring import ExporterSettings, build

    targets = {"trace_store_target": address, "evaluator_target": address}
    settings = _checked(ExporterSettings, data_dir=data_dir, **targets)
    return _Service(settings, partial(build, settings))


def _trainer(data_dir: Path, address: str) -> _Service:
    from tunix_rt_trainer.wiring import TrainerSettings, build

    settings = _checked(TrainerSettings, data_dir=data_dir, exporter_target=address)
    return _Service(settings, partial(build, settings))


def _evaluator(data_dir: Path, address: str) -> _Service:
    from tunix_rt_evaluator.wiring import EvaluatorSettings, build

    targets = {"trainer_target": address, "exporter_target": address}
    settings = _checked(EvaluatorSettings, data_dir=data_dir, **targets)
    return _Service(settings, partial(build, settings))


def _own_evaluator(data_dir: Path, address: str) -> _Service:
    """The evaluator of a server that only this user can reach, who may run what they like here anyway."""
    from tunix_rt_evaluator.wiring import EvaluatorSettings, build

    made = _evaluator(data_dir, address).settings
    assert isinstance(made, EvaluatorSettings)
    if "python_graders" not in made.model_fields_set:
        made = made.model_copy(update={"python_graders": "trusted"})
    return _Service(made, partial(build, made))


_Services = Mapping[str, Callable[[Path, str], _Service]]
_TRACE_STORE: Final = "tunix_rt.v1.TraceStore"
_SERVICES: Final[_Services] = {
    _TRACE_STORE: _trace_store,
    "tunix_rt.v1.Exporter": _exporter,
    "tunix_rt.v1.Trainer": _trainer,
    "tunix_rt.v1.Evaluator": _evaluator,
}
_OWN_SERVICES: Final[_Services] = {**_SERVICES, "tunix_rt.v1.Evaluator": _own_evaluator}


def _checked(kind: type[Settings], **given: Any) -> Settings:
    from pydantic import ValidationError

    from tunix_rt_kit.serving.server import StartError
    from tunix_rt_kit.serving.settings import setting_problems

    try:
        return kind(**given)
    except ValidationError as error:
        problems = "; ".join(setting_problems(kind, error))
        raise StartError(f"a setting of the environment is wrong: {problems}") from error


_Serving = Callable[[asyncio.Event], AbstractAsyncContextManager[Sequence["ServiceRegistration"]]]
_INNER_GRACE_S: Final = 2.0


def _all_of(data_dir: Path, address: str, made_by: _Services) -> tuple[_Serving, float]:
    """What serves all services at ``address``, and within how many seconds it ends: their jobs have what each
    service's own settings say."""
    from tunix_rt_kit.serving.server import opened, running_server
    from tunix_rt_kit.serving.settings import ServerSettings

    all_four = [make(data_dir, address) for make in made_by.values()]

    @asynccontextmanager
    async def serving(stop: asyncio.Event) -> AsyncIterator[Sequence[ServiceRegistration]]:
        inner = ServerSettings(listen=address, shutdown_grace_s=_INNER_GRACE_S)
        built = [service.build(stop) for service in all_four]
        async with opened(*built) as services, running_server(inner, services, stop=stop):
            yield services

    return serving, max(service.settings.shutdown_grace_s for service in all_four)


def _lazy(data_dir: Path, address: str, jobs: Literal["end", "leave"]) -> tuple[_Serving, float]:
    """As ``_all_of``, but each service starts with the first call of it."""
    from tunix_rt_kit.serving.server import LazyServices, running_server
    from tunix_rt_kit.serving.settings import ServerSettings

    inner = ServerSettings(listen=address)
    if jobs == "leave":
        inner = inner.model_copy(update={"shutdown_grace_s": _INNER_GRACE_S})

    @asynccontextmanager
    async def serving(stop: asyncio.Event) -> AsyncIterator[Sequence[ServiceRegistration]]:
        def build(make: Callable[[Path, str], _Service]) -> BuiltService:
            return make(data_dir, address).build(stop)

        lazy = LazyServices({name: partial(build, make) for name, make in _OWN_SERVICES.items()}, jobs)
        try:
            async with running_server(inner, [], stop=stop, lazy=lazy):
                yield []
        finally:
            await asyncio.to_thread(lazy.stop)

    return serving, inner.shutdown_grace_s


def _run_embedded(serving: _Serving, ready: Future[Callable[[], None]]) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        async with serving(stop):
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
    from tunix_rt_kit.models.store import ModelStore

    with _translated():
        return Path(ModelStore(data_dir / "models").ensure(_named(name), progress).path)


def model_folder(name: str, data_dir: Path) -> Path:
    """The folder of a base model that is here; raises TunixRtError that says how to fetch one that is not."""
    from tunix_rt_kit.models.store import ModelStore

    with _translated():
        model = ModelStore(data_dir / "models").resolve(_named(name))
    if not model.pulled:
        raise FailedPreconditionError(
            f"base model {model.id!r} is not in {data_dir / 'models'} yet; fetch it first: tunix-rt models "
            f"pull {model.id}",
            reason="BASE_MODEL_NOT_PULLED",
            metadata={"base_model": model.id},
        )
    return Path(model.path)


def verify_model(folder: Path) -> VerifyReport:
    """Compare Tunix's logits with those of transformers on real prompts, in float32. Raises TunixRtError."""
    # Loads JAX: only this command needs it, not the server.
    from tunix_rt_kit.models.pretrained import verify

    with _translated():
        return verify(folder)


def _named(name: str) -> str:
    """A file may be named from where the user stands."""
    return str(Path(name).absolute()) if name.endswith(".gguf") else name


@contextmanager
def _translated() -> Iterator[None]:
    from tunix_rt_kit.serving.server import StartError

    try:
        yield
    except DomainError as error:
        raise class_of(error.code)(
            error.message, code=error.code, reason=error.reason, metadata=error.metadata
        ) from error
    except StartError as error:
        raise FailedPreconditionError(str(error), reason="SERVER_CANNOT_START") from error


def disk_usage(data_dir: Path) -> list[Usage]:
    """What takes the space of a data folder, largest first; also while a server uses it.

    Raises TunixRtError: there is no data folder, or not all that belongs to it is in it.
    """
    from tunix_rt_local.storage import Storage

    with _translated():
        try:
            with _alone(data_dir):
                return Storage(data_dir, migrate=True).usage()
        except DataDirLocked:
            # The server that uses it has brought the databases up to date.
            return Storage(data_dir, migrate=False).usage()


def collect_garbage(data_dir: Path, *, free: bool, caches: bool = False) -> list[Garbage]:
    """What nothing in a data folder names; with ``free`` it is deleted.

    Args:
        data_dir: the folder, which no server may use.
        free: whether to delete it.
        caches: also what can be made again: exports, derived formats, cached answers, compiled functions.

    Raises:
        DataDirLocked: a server uses the folder.
        TunixRtError: there is no data folder, or not all that belongs to it is in it.
    """
    from tunix_rt_local.storage import Storage, free_garbage

    with _translated(), _alone(data_dir):
        found = Storage(data_dir, migrate=True).garbage(caches=caches)
        try:
            if free:
                free_garbage(found)
        except OSError as error:
            raise unusable(data_dir, error) from error
        return found


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    from tunix_rt_kit.serving.server import StartError, data_dir_lock

    # Before a file of ours is made in a folder that is somebody else's.
    if not any(data_dir.glob("*.db")):
        why = "it has no databases" if data_dir.is_dir() else "it is not there"
        raise FailedPreconditionError(
            f"{data_dir} is no data folder: {why}; choose another one with --data-dir",
            reason="NOT_A_DATA_FOLDER",
            metadata={"path": str(data_dir)},
        )
    with locked(data_dir), ExitStack() as stack:
        try:
            stack.enter_context(data_dir_lock(data_dir, alone=True))
        except StartError as error:
            raise in_use_error(data_dir) from error
        yield


def _free_deleted(data_dir: Path, since: datetime) -> None:
    """Free the artifacts of what was deleted while a server of this process ran, which has ended by now.

    What cannot be freed is left for ``collect_garbage``.
    """
    from tunix_rt_kit.serving.server import StartError, data_dir_lock
    from tunix_rt_local.storage import Storage, deleted_since, free_garbage

    try:
        with data_dir_lock(data_dir, alone=True):
            if deleted_since(data_dir, since):
                # No call may have reached a service whose database is of an earlier version.
                free_garbage(Storage(data_dir, migrate=True).freeable())
    except (DomainError, TunixRtError, StartError, OSError) as error:
        _LOG.warning("files of what was deleted stay for now; tunix-rt gc frees them: %s", error)
