"""Sources of base models: repositories of the Hugging Face hub, and GGUF files.

Imports neither the hub's client nor a tensor library until a model is fetched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt_kit.artifacts import digest_file
from tunix_rt_kit.errors import DomainError, FailedPrecondition, NotFound, Unavailable
from tunix_rt_kit.models.hf_folder import check_weights, read_config, read_special_tokens

Report = Callable[[str, int, int], None]
"""Called with (stage, done, total), see ``pull.Progress``."""

HUB: Final = "hf://"
SOURCE_FILE: Final = "source.json"

_REPOSITORY: Final = re.compile(r"hf://([\w.-]+)/([\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_WANTED: Final = re.compile(
    r"[^/]+\.safetensors|[^/]+\.json|[^/]+\.jinja|[^/]+\.txt|tokenizer\.model|LICENSE.*"
)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the hub, at a revision (a branch, a tag or a commit)."""

    repository: str
    revision: str

    @property
    def folder_name(self) -> str:
        """Name of the folder that it becomes."""
        return "--".join(("hf", *self.repository.split("/"), self.revision.replace("/", "-")))

    def fetch(self, staging: Path, report: Report) -> Path:
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

    def fetch(self, staging: Path, report: Report) -> Path:
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
