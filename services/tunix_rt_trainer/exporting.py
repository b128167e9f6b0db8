"""Checkpoints in other layouts: an adapter for `peft`, a whole model for `transformers`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.artifacts.store import storage_error
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.hf_folder import WEIGHTS_FILE
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer
from tunix_rt_trainer.job_folders import is_weights
from tunix_rt_trainer.model import BaseModelSummary, Checkpoint, CheckpointFile, ExportFormat

_TEMPLATE_FILE: Final = "chat_template.jinja"
_TOKENIZER_CONFIG: Final = "tokenizer_config.json"
_GENERATION_CONFIG: Final = "generation_config.json"
_COPIED: Final = ("config.json", "tokenizer.json", "special_tokens_map.json")


class Exports(Protocol):
    """Where it is kept what was exported."""

    def export(self, job_id: str, step: int, format_: ExportFormat) -> Sequence[CheckpointFile] | None: ...
    def add_export(
        self, job_id: str, step: int, format_: ExportFormat, files: Sequence[CheckpointFile]
    ) -> None: ...


class Models(Protocol):
    """The base models on this host."""

    def resolve(self, base_model: str) -> BaseModelSummary: ...


class CheckpointExporter:
    """Makes the files of a checkpoint in a format, once.

    Args:
        exports: remembers what was made.
        artifacts: where checkpoints are and exports go.
        models: for the base weights.
        work_dir: for folders that are thrown away; as large as a model.
    """

    def __init__(self, exports: Exports, artifacts: ArtifactStore, models: Models, work_dir: Path) -> None:
        self._exports = exports
        self._artifacts = artifacts
        self._models = models
        self._work_dir = work_dir
        # A model's weights go through memory shard by shard: one export at a time.
        self._lock = threading.Lock()

    def export(self, checkpoint: Checkpoint, format_: ExportFormat) -> Sequence[CheckpointFile]:
        """The files, by path.

        Raises:
            FailedPrecondition: EXPORT_FORMAT_UNSUITABLE, a checkpoint of all weights has no adapter;
                BASE_MODEL_CHANGED, the base weights are not those that were trained on.
            NotFound: BASE_MODEL_UNKNOWN, they are not on the host any more.
            DomainError: a file cannot be read or written.
        """
        if format_ == "peft":
            return self._adapter(checkpoint)
        with self._lock:
            known = self._exports.export(checkpoint.job_id, checkpoint.step, format_)
            if known is not None and all(self._artifacts.exists(file.digest) for file in known):
                return known
            files = self._whole_model(checkpoint)
            self._exports.add_export(checkpoint.job_id, checkpoint.step, format_, files)
            return files

    def _adapter(self, checkpoint: Checkpoint) -> Sequence[CheckpointFile]:
        if checkpoint.manifest.spec.lora is None:
            raise FailedPrecondition(
                f"format: trainingJobs/{checkpoint.job_id} tuned all weights, so there is no adapter; "
                "export it as a whole Hugging Face model",
                reason="EXPORT_FORMAT_UNSUITABLE",
                metadata={"format": "peft"},
            )
        return [file for file in checkpoint.files if is_weights(file.path)]

    def _whole_model(self, checkpoint: Checkpoint) -> Sequence[CheckpointFile]:
        base = self._base_folder(checkpoint)
        try:
            self._work_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._work_dir) as work:
                out = Path(work) / "model"
                out.mkdir()
                self._write_weights(checkpoint, base, Path(work) / "checkpoint", out)
                _write_companions(base, out, ChatTemplate(**checkpoint.chat_template.model_dump()))
                return [self._stored(path) for path in sorted(out.iterdir())]
        except OSError as error:
            raise storage_error(error, str(self._work_dir)) from error

    def _write_weights(self, checkpoint: Checkpoint, base: Path, own: Path, out: Path) -> None:
        for file in checkpoint.files:
            self._artifacts.copy_to(file.digest, own / file.path)
        if checkpoint.manifest.spec.lora is None:
            shutil.move(own / WEIGHTS_FILE, out / WEIGHTS_FILE)
        else:
            _merge(base, own, out)

    def _base_folder(self, checkpoint: Checkpoint) -> Path:
        manifest = checkpoint.manifest
        model = self._models.resolve(manifest.spec.base_model)
        if model.weights_digest != manifest.base_weights_digest:
            raise FailedPrecondition(
                f"base_model: {model.id} has weights {model.weights_digest or '(none)'} here, but the "
                f"checkpoint was trained on {manifest.base_weights_digest}; put those back",
                reason="BASE_MODEL_CHANGED",
                metadata={"base_model": model.id, "digest": manifest.base_weights_digest},
            )
        return Path(model.path)

    def _stored(self, path: Path) -> CheckpointFile:
        artifact = self._artifacts.put_file(path)
        return CheckpointFile(
            path=path.name, size_bytes=artifact.size, digest=artifact.digest, uri=artifact.uri
        )


def _merge(base: Path, adapter: Path, out: Path) -> None:
    # In a process of its own: a server holds no arrays, and what it takes is given back.
    command = [sys.executable, "-m", "tunix_rt_kit.models.merge", str(base), str(adapter), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise FailedPrecondition(f"the adapter cannot be merged: {last}", reason="EXPORT_FAILED")


def _write_companions(base: Path, out: Path, template: ChatTemplate) -> None:
    """What a model needs beside its weights, so that it is asked and ended as it was in training."""
    for name in _COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)
    (out / _TEMPLATE_FILE).write_text(template.jinja_source(), encoding="utf-8")
    tokenizer = load_tokenizer(base)
    config = _read(base / _TOKENIZER_CONFIG) | {"eos_token": template.end_of_turn}
    # The template stands in its own file, which programs read first.
    config.pop("chat_template", None)
    if template.start_of_text:
        config["bos_token"] = template.start_of_text
    _write(out / _TOKENIZER_CONFIG, config)
    _write(out / _GENERATION_CONFIG, _read(base / _GENERATION_CONFIG) | _endings(tokenizer, template))


def _endings(tokenizer: ModelTokenizer, template: ChatTemplate) -> dict[str, Any]:
    end = tokenizer.token_id(template.end_of_turn)
    start = tokenizer.token_id(template.start_of_text) if template.start_of_text else tokenizer.bos_id()
    ids = list(dict.fromkeys(number for number in (end, tokenizer.eos_id()) if number is not None))
    found = {"bos_token_id": start, "eos_token_id": ids, "pad_token_id": tokenizer.pad_id()}
    return {name: value for name, value in found.items() if value is not None}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
