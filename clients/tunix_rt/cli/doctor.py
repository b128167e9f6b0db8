"""`tunix-rt doctor`: say what is installed, what is missing and how to get it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypedDict

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.table import Table
from rich.text import Text

from tunix_rt.cli import text
from tunix_rt.cli.command import command, single
from tunix_rt.cli.session import Session

app = single()

_PACKAGE = "tunix-rt"
_EXTRAS = ("files", "trace-store", "exporter", "trainer", "evaluator")
_GIBI = 1 << 30
# One pulled model with its checkpoints, and one training job on it.
_FREE_DISK = 2 * _GIBI
_FREE_MEMORY = 4 * _GIBI
_DEVICE_SECONDS = 120.0
_SERVER_SECONDS = 5.0
_DEVICE_PROGRAM = "import json, jax; print(json.dumps([[d.platform, d.device_kind] for d in jax.devices()]))"


class Level(StrEnum):
    """How much a finding matters. NOTE: something optional is not there."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about this computer, with what to do about it when it is not as it should be."""

    area: str
    subject: str
    level: Level
    detail: str
    remedy: str = ""

    @classmethod
    def check(
        cls, area: str, subject: str, right: bool, detail: str, remedy: str, otherwise: Level = Level.WARNING
    ) -> Finding:
        """A finding that is OK, or else of level ``otherwise`` and with its remedy."""
        return cls(area, subject, Level.OK if right else otherwise, detail, "" if right else remedy)

    def as_document(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return asdict(self)


def all_findings(data_dir: Path, server: str | None) -> Iterator[Finding]:
    """Every finding, as it is made."""
    yield from python_findings()
    yield from package_findings()
    yield from device_findings()
    yield from host_findings(data_dir, needed=server is None)
    if server is not None:
        yield from server_findings(server)


def python_findings() -> Iterator[Finding]:
    """The interpreter's version against the one that the package asks for."""
    found = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    system = f"{platform.system()} {platform.machine()}"
    remedy = "use Python 3.11, 3.12 or 3.13"
    yield Finding.check("Python", f"Python {found}", supported, system, remedy, Level.BROKEN)


def package_findings() -> Iterator[Finding]:
    """Each extra: its packages, those that are missing and those of another version than was tested."""
    try:
        installed = metadata.version(_PACKAGE)
        requirements = [Requirement(line) for line in metadata.requires(_PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        yield Finding(
            "Packages", _PACKAGE, Level.WARNING, "not installed as a package, so its extras cannot be told",
            "install it with: pip install 'tunix-rt[local]'",
        )  # fmt: skip
        return
    yield Finding("Packages", f"{_PACKAGE} {installed}", Level.OK, "client and command line")
    for extra in _EXTRAS:
        yield _extra_finding(extra, requirements)
    torch = _version("torch")
    detail = torch or "not installed; only `tunix-rt models verify` needs it"
    yield Finding.check("Packages", "torch", bool(torch), detail, "pip install torch", Level.NOTE)


def _extra_finding(extra: str, requirements: list[Requirement]) -> Finding:
    wanted = _requirements_of(extra, requirements)
    missing, others = [], []
    for requirement in wanted:
        found = _version(requirement.name)
        if found is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(found, prereleases=True):
            others.append(f"{requirement.name} {found} (wanted {requirement.specifier})")
    install = f"pip install 'tunix-rt[{extra}]'"
    if missing:
        detail = f"{len(missing)} of {len(wanted)} packages missing: {', '.join(missing)}"
        return Finding("Packages", f"[{extra}]", Level.NOTE, detail, install)
    if others:
        return Finding("Packages", f"[{extra}]", Level.WARNING, "; ".join(others), install)
    return Finding("Packages", f"[{extra}]", Level.OK, f"all {len(wanted)} packages")


def _requirements_of(extra: str, requirements: list[Requirement]) -> list[Requirement]:
    """The packages that an extra asks for, those of the extras that it names included."""
    wanted: dict[str, Requirement] = {}
    pending, seen = [extra], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for requirement in requirements:
            if requirement.marker is None or not requirement.marker.evaluate({"extra": current}):
                continue
            if requirement.marker.evaluate({"extra": ""}):
                continue
            if canonicalize_name(requirement.name) == _PACKAGE:
                pending.extend(requirement.extras)
            else:
                wanted[canonicalize_name(requirement.name)] = requirement
    return [wanted[name] for name in sorted(wanted)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device_findings() -> Iterator[Finding]:
    """The devices that JAX sees, asked in a child process: a broken driver can hang or kill it."""
    area, install = "Devices", "pip install 'tunix-rt[trainer]'"
    if _version("jax") is None:
        yield Finding(area, "JAX", Level.NOTE, "not installed", install)
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DEVICE_PROGRAM], capture_output=True, text=True, timeout=_DEVICE_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        detail = f"did not list its devices within {text.duration(_DEVICE_SECONDS)}"
        yield Finding(area, "JAX", Level.BROKEN, detail, "run with JAX_PLATFORMS=cpu, or mend the driver")
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding(area, "JAX", Level.BROKEN, last, f"reinstall it with: {install}")
        return
    devices = json.loads(done.stdout.splitlines()[-1])
    for number, (kind, name) in enumerate(devices):
        yield Finding(area, f"{kind} {number}", Level.OK, name)


def host_findings(data_dir: Path, *, needed: bool) -> Iterator[Finding]:
    """Processors, memory, the data folder, its free disk and the models in it.

    ``needed``: an embedded server would use the folder, so one that cannot be written counts as broken.
    """
    area = "This computer"
    usable = f"{len(os.sched_getaffinity(0))} usable" if hasattr(os, "sched_getaffinity") else ""
    yield Finding(area, "processors", Level.OK, usable or str(os.cpu_count()))
    memory = _memory_bytes()
    wanted = f"training wants {text.size(_FREE_MEMORY)}"
    yield Finding.check(area, "memory", memory >= _FREE_MEMORY, text.size(memory), wanted)
    ground = _nearest_existing(data_dir)
    problem = _write_problem(ground)
    told = "tunix-rt du shows what takes its space" if data_dir.exists() else "made when it is first used"
    detail = f"{data_dir} ({told}){problem}"
    level = Level.BROKEN if needed else Level.WARNING
    yield Finding.check(area, "data folder", not problem, detail, "choose another with --data-dir", level)
    free = shutil.disk_usage(ground).free
    wanted = f"a model and its checkpoints want {text.size(_FREE_DISK)}"
    yield Finding.check(area, "free disk", free >= _FREE_DISK, text.size(free), wanted)
    models = sorted(path.parent.name for path in (data_dir / "models").glob("[!.]*/config.json"))
    pull = "fetch one with: tunix-rt models pull smollm2-135m-instruct"
    yield Finding.check(area, "models", bool(models), ", ".join(models) or "none yet", pull, Level.NOTE)


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _write_problem(folder: Path) -> str:
    if not folder.is_dir():
        return ": not a folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f": {error.strerror}"


def _memory_bytes() -> int:
    """Memory that processes can have: the machine's, or the container's limit where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file():
        content = limit.read_text().strip()
        if content.isdigit():
            return min(total, int(content))
    return total


def server_findings(server: str) -> Iterator[Finding]:
    """Whether each of the four services of a server answers."""
    from tunix_rt import Client
    from tunix_rt.errors import TunixRtError

    try:
        client = Client(server, timeout=_SERVER_SECONDS)
    except TunixRtError as error:
        yield Finding("Server", server, Level.BROKEN, str(error))
        return
    with client:
        listings: dict[str, Iterable[object]] = {
            "trace-store": client.trace_store.list_traces(page_size=1),
            "exporter": client.exporter.list_datasets(page_size=1),
            "trainer": client.trainer.list_training_jobs(page_size=1),
            "evaluator": client.evaluator.list_eval_sets(page_size=1),
        }
        # At once: a server that is not there takes a while to be known as such.
        with ThreadPoolExecutor(len(listings)) as pool:
            problems = pool.map(_problem_of, listings.values())
            for service, problem in zip(listings, problems, strict=True):
                level = Level.BROKEN if problem else Level.OK
                yield Finding("Server", service, level, problem or f"answers at {server}")


def _problem_of(listing: Iterable[object]) -> str:
    from tunix_rt.errors import TunixRtError

    try:
        next(iter(listing), None)
    except TunixRtError as error:
        return str(error)
    return ""


_MARKS = {
    Level.OK: ("✓", "green"),
    Level.NOTE: ("·", "dim"),
    Level.WARNING: ("!", "yellow"),
    Level.BROKEN: ("✗", "bold red"),
}


class FindingDocument(TypedDict):
    """One fact about this computer."""

    area: Annotated[str, "What it is about, such as Packages."]
    subject: Annotated[str, "What was looked at."]
    level: Annotated[Level, "How much it matters; note: something optional is not there."]
    detail: Annotated[str, "What was found."]
    remedy: Annotated[str, "What to do about it; empty where nothing is to be done."]


class DoctorDocument(TypedDict):
    """What is installed, and what is missing. Where something is broken, the exit code is 1."""

    healthy: Annotated[bool, "Whether nothing is broken."]
    findings: Annotated[list[FindingDocument], "The facts, one by one."]


@command(
    app,
    "doctor",
    example=("tunix-rt doctor", "tunix-rt doctor --server localhost:50050 --json"),
    prints=DoctorDocument,
)
def doctor(session: Session) -> None:
    """Check packages, devices, data folder, models and server; exit code 1 if something is broken."""
    findings = []
    area = ""
    for finding in all_findings(session.data_dir, session.server):
        findings.append(finding)
        if not session.as_json:
            if finding.area != area:
                area = finding.area
                session.out.print(Text(area, style="bold"))
            session.out.print(_line(finding))
    broken = [finding for finding in findings if finding.level is Level.BROKEN]
    if session.as_json:
        session.print_json(
            {"healthy": not broken, "findings": [finding.as_document() for finding in findings]}
        )
    elif broken:
        session.out.print(
            Text(f"{len(broken)} to mend: {', '.join(finding.subject for finding in broken)}", style="red")
        )
    else:
        session.out.print(Text("nothing is broken", style="green"))
    if broken:
        session.leave_unsound(f"broken: {', '.join(finding.subject for finding in broken)}", "BROKEN")


def _line(finding: Finding) -> Table:
    mark, style = _MARKS[finding.level]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=3, justify="right")
    grid.add_column(min_width=24)
    grid.add_column(overflow="fold")
    detail = Text(finding.detail)
    if finding.remedy:
        detail.append(f"\n{finding.remedy}", style="cyan")
    grid.add_row(Text(mark, style=style), Text(finding.subject), detail)
    return grid
