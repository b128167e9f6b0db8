"""The base models on this machine, and what a name in a request means."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.canonical import digest_bytes, digest_file, digest_json
from tunix_rt_kit.errors import DomainError, FailedPrecondition, NotFound
from tunix_rt_kit.jobs.files import write_atomically
from tunix_rt_kit.models import CATALOG, CatalogEntry
from tunix_rt_kit.models.config import CONFIG_FILE, ModelConfig
from tunix_rt_kit.models.hf_folder import (
    TOKENIZER_FILE,
    check_weights,
    read_config,
    read_special_tokens,
    read_stop_ids,
    reading,
    weight_files,
)
from tunix_rt_kit.models.pull import Progress, Source, pull, pull_source, source_of, uninstall
from tunix_rt_kit.regular_files import read_json

_LOG = logging.getLogger(__name__)


class BaseModelInfo(BaseModel):
    """A base model, as a request may name it.

    ``id`` is a name in the catalogue, the name of a folder or, for a folder elsewhere, its absolute path.
    While ``pulled`` is false, ``path`` is where the folder will be, and digests, tokens and template are
    None.

    ``weights_digest`` is the digest of the weights file or, for shards, of the canonical JSON of their names
    and digests. ``tokenizer_digest`` covers ``tokenizer.json`` and the special tokens, ``config_digest`` is
    that of ``config.json``. ``context_length`` is in tokens.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    path: Path
    pulled: bool
    family: str
    parameter_count: int
    license: str | None
    context_length: int
    vocab_size: int
    weights_digest: str | None = None
    tokenizer_digest: str | None = None
    config_digest: str | None = None
    chat_template: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None


class ModelStore:
    """Base models under one folder, each a Hugging Face folder by its name.

    Args:
        models_dir: need not exist.
    """

    def __init__(self, models_dir: Path | str) -> None:
        self._dir = Path(models_dir).absolute()

    def names(self) -> Sequence[str]:
        """The ids of catalogued models, then those of the other folders; no file of theirs is read."""
        return [*sorted(CATALOG), *(folder.name for folder in self._folders())]

    def list(self) -> Sequence[BaseModelInfo]:
        """Every catalogued model, pulled or not, then the other folders, each group by name.

        Folders that cannot be used are left out, and named in the log.
        """
        found = []
        for name in self.names():
            try:
                known = CATALOG.get(name)
                found.append(self._catalogued(known) if known else self._describe(name, self._dir / name))
            except FailedPrecondition as error:
                _LOG.warning("folder is not a usable base model: %s", error)
        return found

    def resolve(self, base_model: str) -> BaseModelInfo:
        """The model that ``base_model`` names.

        That is a catalogued id, the name of a folder here, a folder's absolute path, or a source (see
        ``sources.source_of``) that was pulled before. A catalogued model may not be pulled yet.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN, naming the value and what is known.
            FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the field of the folder that is wrong.
        """
        if base_model in CATALOG:
            return self._catalogued(CATALOG[base_model])
        source = source_of(base_model, self.digest)
        if source is not None:
            return self._pulled(base_model, source)
        if Path(base_model).is_absolute():
            folder = Path(os.path.normpath(base_model))
            if _is_folder(folder):
                return self._describe(str(folder), folder)
        elif base_model in {folder.name for folder in self._folders()}:
            return self._describe(base_model, self._dir / base_model)
        known = sorted({*CATALOG, *(folder.name for folder in self._folders())})
        raise NotFound(
            f"base model {base_model!r} is unknown; known: {', '.join(known)}, the absolute path of a "
            "Hugging Face folder or of a .gguf file, or hf://organisation/name",
            reason="BASE_MODEL_UNKNOWN",
            metadata={"base_model": base_model},
        )

    def ensure(self, base_model: str, progress: Progress | None = None) -> BaseModelInfo:
        """As ``resolve``, but an absent catalogued model or source is pulled first; raises as both do."""
        source = source_of(base_model, self.digest)
        if source is not None:
            pull_source(source, self._dir, progress)
        info = self.resolve(base_model)
        if not info.pulled:
            pull(info.id, self._dir, progress)
            info = self.resolve(base_model)
        return info

    def folder(self, base_model: str) -> Path:
        """The folder under this store of what ``base_model`` names, be it there or not, whole or damaged.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN.
            FailedPrecondition: BASE_MODEL_ELSEWHERE, it is a folder outside.
        """
        source = source_of(base_model, self.digest)
        if source is not None:
            return self._dir / source.folder_name
        folder = Path(os.path.normpath(self._dir / base_model))
        if base_model in CATALOG or (folder.parent == self._dir and folder in self._folders()):
            return folder
        if Path(base_model).is_absolute() and _is_folder(folder):
            raise FailedPrecondition(
                f"base model {base_model!r} is a folder outside of {self._dir}, which tunix-rt did not make; "
                "delete it yourself",
                reason="BASE_MODEL_ELSEWHERE",
                metadata={"base_model": base_model},
            )
        raise NotFound(
            f"base model {base_model!r} is unknown; tunix-rt models list shows those on the host",
            reason="BASE_MODEL_UNKNOWN",
            metadata={"base_model": base_model},
        )

    def may_be(self, base_model: str, folder: Path) -> bool:
        """Whether ``base_model`` names the model in ``folder``; also where that cannot be told any more."""
        try:
            return self.folder(base_model) == folder
        except DomainError:
            # A GGUF file that is gone: of its name, whatever its content was.
            return folder.name.startswith(f"gguf--{Path(base_model).stem}--")

    def remove(self, folder: Path, check: Callable[[], None]) -> None:
        """Delete a folder of this store, unless ``check`` raises.

        At no time is a part of it there under its name. ``check`` is asked before, and again once nobody can
        begin to use it any more. Raises what ``pull`` raises for the disk.
        """
        check()
        uninstall(folder.name, self._dir, check)

    def _folders(self) -> Sequence[Path]:
        if not _is_folder(self._dir):
            return []
        return sorted(
            entry
            for entry in self._dir.iterdir()
            if entry.name not in CATALOG
            and not entry.name.startswith(".")
            and os.path.lexists(entry / CONFIG_FILE)
        )

    def _catalogued(self, entry: CatalogEntry) -> BaseModelInfo:
        folder = self._dir / entry.id
        if folder.is_dir():
            return self._describe(entry.id, folder, entry.license)
        return BaseModelInfo(
            id=entry.id,
            path=folder,
            pulled=False,
            family="llama",
            parameter_count=entry.parameter_count,
            license=entry.license,
            context_length=entry.context_length,
            vocab_size=entry.vocab_size,
        )

    def _pulled(self, base_model: str, source: Source) -> BaseModelInfo:
        folder = self._dir / source.folder_name
        if not folder.is_dir():
            raise NotFound(
                f"base model {base_model!r} is not on this host yet; run there: tunix-rt models pull "
                f"{base_model}",
                reason="BASE_MODEL_UNKNOWN",
                metadata={"base_model": base_model},
            )
        return self._describe(base_model, folder)

    def _describe(self, model_id: str, folder: Path, license_name: str | None = None) -> BaseModelInfo:
        config = read_config(folder)
        tokens = read_special_tokens(folder)
        check_weights(folder, config)
        read_stop_ids(folder, config.vocab_size)
        shards = {file.name: self._digest_weights(file, config) for file in weight_files(folder)}
        with reading(folder, CONFIG_FILE):
            # It is small, and not worth remembering.
            config_digest = digest_file(folder / CONFIG_FILE)
        special = {"bos": tokens.bos_token, "eos": tokens.eos_token, "pad": tokens.pad_token}
        return BaseModelInfo(
            id=model_id,
            path=folder,
            pulled=True,
            family=config.family,
            parameter_count=config.parameter_count(),
            license=license_name,
            context_length=config.context_length,
            vocab_size=config.vocab_size,
            weights_digest=next(iter(shards.values())) if len(shards) == 1 else digest_json(shards),
            tokenizer_digest=digest_json({"tokenizer": self._digest(folder, TOKENIZER_FILE), **special}),
            config_digest=config_digest,
            chat_template=tokens.chat_template,
            bos_token=tokens.bos_token,
            eos_token=tokens.eos_token,
            pad_token=tokens.pad_token,
        )

    def _digest(self, folder: Path, name: str) -> str:
        with reading(folder, name):
            return self.digest(folder / name)

    def _digest_weights(self, file: Path, config: ModelConfig) -> str:
        def look() -> None:
            # Importing numpy takes a moment, and listing known models does without it.
            from tunix_rt_kit.models.tensor_files import require_finite_file

            require_finite_file(file, config.tensor_shapes().keys())

        with reading(file.parent, file.name):
            return self.digest(file, look)

    def digest(self, file: Path, look: Callable[[], None] = lambda: None) -> str:
        """Digest of a file, remembered under the models folder while the file's size and times stay the same.

        ``look`` is called before the file is read for the first time; if it raises, nothing is remembered.
        """
        stat = file.stat()
        key = [str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino]
        memo = self._dir / ".digests" / digest_bytes(str(file).encode()).removeprefix("sha256:")
        try:
            known = read_json(memo)
        except OSError:
            known = {}
        if known.get("key") == key:
            return str(known["digest"])
        look()
        digest = digest_file(file)
        try:
            memo.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(memo, json.dumps({"key": key, "digest": digest}).encode())
        except OSError as error:
            _LOG.info("digest of %s is not remembered: %s", file, error)
        return digest


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # The name is too long, or a folder above it may not be looked into.
        return False
