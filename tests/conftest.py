"""Fixtures for all tests."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support.base_model import Pulled, pulled_smollm2
from support.postgres import Databases, postgres_server
from support.program import QUICK, fork_server, forked_workers, share_fork_server, started_anew
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt import wire
from tunix_rt_kit.jobs.process import WorkerProcess

# JAX reads these when it is imported. Tests, and the processes that they start, compile the same functions
# many times over otherwise.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# What a test compiles runs for milliseconds: most of what tests cost is its compilation. It takes half the
# time without optimizations, a third less with fusions compiled the older way, and a third less again where
# the work is not split for threads. Tests marked ``optimized``, and the processes that they start, compile as
# users do.
_FLAGS: dict[str, tuple[bool | int, bool | int]] = {
    "xla_cpu_use_fusion_emitters": (False, True),
    "xla_cpu_parallel_codegen_split_count": (1, 32),
}
"""Values of XLA's flags that are quick, and those that users have."""
os.environ.setdefault(QUICK, "1")
_QUICK_FLAGS = [f"--{name}={str(quick).lower()}" for name, (quick, _) in _FLAGS.items()]
# A process of pytest-xdist has the environment that the one which started it has set.
_XLA_FLAGS = " ".join(flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag not in _QUICK_FLAGS)
os.environ["XLA_FLAGS"] = " ".join([*_XLA_FLAGS.split(), *_QUICK_FLAGS])

# Most of what is imported stays, and looking for what does not takes a quarter of the time.
gc.disable()
_STARTUP = str(Path(__file__).parent / "support" / "startup")
if _STARTUP not in sys.path:
    sys.path.append(_STARTUP)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_STARTUP, os.environ.get("PYTHONPATH")]))

importlib.import_module("checked_documents").install()

# pytest-xdist sets it, and lines would be broken where they are not without.
os.environ.pop("COLUMNS", None)

# How long an example takes says more of the machine than of the code.
settings.register_profile("tunix-rt", deadline=None)
settings.load_profile("tunix-rt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How far the tests in tests/robustness and simulations go: a few seconds each unless told otherwise."""
    group = parser.getgroup("tunix-rt")
    group.addoption("--kills", type=int, default=3, help="how often a server is killed (default: 3)")
    group.addoption(
        "--writer-traces", type=int, default=100, help="traces of each of 16 writers (default: 100)"
    )
    group.addoption(
        "--draws", type=int, default=1000, help="comparisons simulated for an interval (default: 1,000)"
    )
    group.addoption(
        "--pairs", type=int, default=100, help="pairs of each grader but math and numeric (default: 100)"
    )
    group.addoption(
        "--formulas", type=int, default=100, help="pairs of formulas compared by SymPy (default: 100)"
    )


def pytest_xdist_auto_num_workers() -> int:
    """Five processes for two processors: a third of the time that tests take is waiting."""
    processors = os.cpu_count() or 1
    return processors + max(3, processors // 2)


def pytest_configure_node(node: Any) -> None:
    """All processes of pytest-xdist have their programs forked from one, which takes seconds to start."""
    node.workerinput["fork_server"] = fork_server(os.environ)


def pytest_runtest_setup() -> None:
    """Lets JAX look at each compilation whether it is to be quick: XLA reads its flags once a process, and
    what a test marked ``optimized`` compiles has those that XLA begins with."""
    if "jax" not in sys.modules:
        return
    compiler = importlib.import_module("jax._src.compiler")
    original = compiler.get_compile_options
    if original.__module__ == __name__:
        return

    def get_compile_options(*arguments: Any, **named: Any) -> Any:
        given = named.get("env_options_overrides") or {}
        flags = {name: values[QUICK not in os.environ] for name, values in _FLAGS.items()}
        named["env_options_overrides"] = {**flags, **given}
        return original(*arguments, **named)

    compiler.get_compile_options = get_compile_options


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test marked ``one_database`` on SQLite alone, wherever it has its database from."""
    if metafunc.definition.get_closest_marker("one_database") and "database_url" in metafunc.fixturenames:
        # Before the fixture's own parameters are looked at, which a mark takes the place of.
        metafunc.definition.add_marker(pytest.mark.parametrize("database_url", ["sqlite"], indirect=True))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets each process of pytest-xdist begin with its share of the slow tests.

    A process that began with such a test at the end would work alone.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            modules.setdefault(item.path, []).append(item)
    others = iter([item for item in items if not item.get_closest_marker("slow")])
    first = [list(chain.from_iterable(list(modules.values())[n::processes])) for n in range(processes)]
    left, ordered = len(items), list[pytest.Item]()
    for slow, remaining in zip(first, range(processes, 0, -1), strict=True):
        share = left // remaining
        ordered += [*slow, *islice(others, max(0, share - len(slow)))]
        left -= share
    items[:] = [*ordered, *others]


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through it again and again."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture
def optimized_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that the test starts compile as users do."""
    monkeypatch.delenv(QUICK, raising=False)
    monkeypatch.setenv("XLA_FLAGS", _XLA_FLAGS)


@pytest.fixture(autouse=True)
def _optimized(request: pytest.FixtureRequest) -> None:
    """Lets a test marked ``optimized``, and the processes that it starts, compile as users do."""
    optimized = request.node.get_closest_marker("optimized") is not None
    _compile(optimized=optimized)
    if optimized:
        request.getfixturevalue("optimized_processes")


def _compile(*, optimized: bool) -> None:
    """What this process compiled the other way is forgotten."""
    jax = sys.modules.get("jax")
    if jax and jax.config.read("jax_disable_most_optimizations") == optimized:
        jax.config.update("jax_disable_most_optimizations", not optimized)
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """A command that a test runs in its process sets the level of the log; the next test has its own."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


@pytest.fixture(scope="session", autouse=True)
def _forked_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Workers that tests have services start are forked from a process that has imported what they do."""
    if hasattr(request.config, "workerinput"):
        share_fork_server(request.config.workerinput["fork_server"])
    with forked_workers(os.environ):
        yield


@pytest.fixture
def new_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started as services do it: each is a new Python, and a child of its service."""
    monkeypatch.setattr(WorkerProcess, "_started", started_anew)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls to a server that is not there are sent as often as always, and fail after less than a second."""
    monkeypatch.setitem(wire._RETRY_POLICY, "initialBackoff", "0.02s")
    monkeypatch.setitem(wire._RETRY_POLICY, "maxBackoff", "0.1s")


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """URL of a PostgreSQL server whose user may create databases."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_databases(postgres_server_url: str) -> Databases:
    """Empty databases of that server."""
    return Databases(postgres_server_url)


@pytest.fixture
def postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """URL of an empty PostgreSQL database of the test's own."""
    with postgres_databases.one() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulled]:
    """SmolLM2-135M-Instruct, pulled once for the session."""
    own = tmp_path_factory.getbasetemp()
    # A worker of pytest-xdist has a folder in that of the session.
    with pulled_smollm2(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) as pulled:
        yield pulled


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny random model, of the test's own."""
    return make_tiny_model(tmp_path / "tiny")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that holds the model "tiny", for tests that only read it."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny", config=ONE_LAYER | {"max_position_embeddings": 256})
    return folder
